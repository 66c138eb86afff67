"""Steps whose layers are read now and then, so that nobody feels it."""

import functools
from collections.abc import Mapping
from typing import NamedTuple

import jax

from cnnprobe.training.step import Probe, TrainStep, make_train_step
from cnnprobe.types import Problem

TAP_EVERY = 16  # steps; what makes a step 1.15 times as long makes a training 1.01 times as long


class Steps(NamedTuple):
    """The steps of one training."""

    tapped: TrainStep  # where the layers are read
    between: TrainStep  # where they are not; the same function where one program serves both


def make_steps(
    problem: Problem,
    *,
    num_classes: int,
    probes: Mapping[str, Probe],
    tap_every: int | None,
    mesh: jax.sharding.Mesh | None = None,
) -> Steps:
    """Steps that read the layers whenever the number of the step is a multiple of `tap_every`; None: never.

    On a CPU one program holds a branch behind each layer, which costs nothing where it is not taken and spares a second
    compilation. An accelerator would wait for the host at every branch, so there are two programs.
    """
    build = functools.partial(
        make_train_step,
        problem.model,
        problem.loss,
        problem.optimizer,
        num_classes=num_classes,
        predict=problem.predict,
        probes=probes,
        mesh=mesh,
    )
    if tap_every is None or jax.default_backend() == "cpu":
        step = build(tap_every=tap_every)
        return Steps(step, step)
    return Steps(build(tap_every=1), build())
