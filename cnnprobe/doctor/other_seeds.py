"""The same run from other seeds, where a network has learnt what no other rule finds in the images."""

import math

import numpy as np

from cnnprobe.doctor.bench import halfway
from cnnprobe.doctor.harm import errors_of_chance
from cnnprobe.doctor.looks.passes import FEWEST_FOR_PAIRING, PAIRED_Z
from cnnprobe.doctor.observation import Observation, fact, pairing_z
from cnnprobe.doctor.progress import AT_LEAST, beats_chance
from cnnprobe.doctor.trial import Plan, control

NUM_SEEDS = 3


def with_other_seeds(plan: Plan, seen: Observation) -> Observation:
    """The mean over fresh seeds in place of the accuracy of one run, where that run alone speaks for the labels.

    From labels of other images a network learns one class for each kind of image, which for some kinds happens to be
    the right one: its hits on held-out images come in kinds, and one run may have many.
    """
    if not _may_be_luck(seen):
        return seen
    plan.tell("running the network from other seeds: no simple rule finds its labels")
    reached: list[float] = []
    for seed in range(1, 1 + NUM_SEEDS):
        if seed not in plan.controls and not plan.has_time():
            break
        try:
            reached.append(control(plan, seed).accuracy)
        except Exception:  # the user's functions may fail from another seed, and the clock may cut a run
            break
    return seen._replace(facts={**seen.facts, **_over_seeds(reached)}) if reached else seen


def _over_seeds(reached: list[float]) -> dict[str, float]:
    """The mean, and what it surpasses (95 %, Student's t), which takes all seeds to tell."""
    mean = float(np.mean(reached))
    if len(reached) < NUM_SEEDS:
        return {"validation accuracy": mean}
    error = float(np.std(reached, ddof=1)) / math.sqrt(NUM_SEEDS)
    return {"validation accuracy": mean, AT_LEAST: mean - errors_of_chance(NUM_SEEDS) * error}


def _may_be_luck(seen: Observation) -> bool:
    """Whether neither neighbours nor random features find the labels, and the network not clearly."""
    enough = seen.bench.has_valid and fact(seen, "images read") >= FEWEST_FOR_PAIRING
    is_doubtful = beats_chance(seen) and fact(seen, "validation accuracy") < halfway(seen.bench)
    return enough and is_doubtful and pairing_z(seen) < PAIRED_Z
