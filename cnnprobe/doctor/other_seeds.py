"""The same run from other seeds, where a network has learnt what no other rule finds in the images."""

import numpy as np

from cnnprobe.doctor.bench import halfway
from cnnprobe.doctor.harm import errors_of_chance
from cnnprobe.doctor.looks.passes import FEWEST_FOR_PAIRING, PAIRED_Z
from cnnprobe.doctor.observation import Observation, fact
from cnnprobe.doctor.progress import AT_LEAST, beats_chance
from cnnprobe.doctor.trial import Plan, control

NUM_SEEDS = 4


def with_other_seeds(plan: Plan, seen: Observation) -> Observation:
    """The mean over seeds in place of the accuracy of one run, where that run alone speaks for the labels.

    From labels of other images a network learns one class for each kind of image, which for some kinds happens to be
    the right one: its hits on held-out images come in kinds, and one run may have many.
    """
    if not _may_be_luck(seen):
        return seen
    plan.tell("running the network from other seeds: no simple rule finds its labels")
    reached: list[float] = []
    for seed in range(NUM_SEEDS):
        if seed not in plan.controls and not plan.has_time():
            break
        try:
            reached.append(control(plan, seed).accuracy)
        except Exception:  # the user's functions may fail from another seed, and the clock may cut a run
            break
    return seen._replace(facts={**seen.facts, **_over_seeds(reached)}) if len(reached) > 1 else seen


def _over_seeds(reached: list[float]) -> dict[str, float]:
    """The mean, and what it surpasses (95 %, Student's t)."""
    mean, error = np.mean(reached), np.std(reached, ddof=1) / np.sqrt(len(reached))
    at_least = mean - errors_of_chance(len(reached)) * error
    return {"validation accuracy": float(mean), AT_LEAST: float(at_least)}


def _may_be_luck(seen: Observation) -> bool:
    """Whether no simple rule finds the labels, and the network not clearly."""
    return is_hidden(seen) and beats_chance(seen) and fact(seen, "validation accuracy") < halfway(seen.bench)


def is_hidden(seen: Observation) -> bool:
    """Whether neither neighbours nor random features find the labels in images that are enough to tell."""
    enough = seen.bench.has_valid and fact(seen, "images read") >= FEWEST_FOR_PAIRING
    return enough and fact(seen, "pixel neighbours z") < PAIRED_Z and fact(seen, "random features z") < PAIRED_Z
