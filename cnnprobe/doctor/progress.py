"""How far a run got: further than a guess, and as far as its data allow without training."""

import math
from collections.abc import Mapping

from cnnprobe.checks import NO_TIME
from cnnprobe.doctor.bench import above_chance
from cnnprobe.doctor.observation import Observation, fact
from cnnprobe.doctor.run import FEWEST_STEPS

LEARNT = 0.97  # of the loss of a blind guess: what has not fallen below it has learnt nothing
BASELINE = "random features accuracy"
AT_LEAST = "validation accuracy at least"  # that the mean over seeds does not fall below by chance; one run has none
SOLVED = 0.9  # of the baseline, from which nothing else is held to be wrong
BEHIND = 0.7  # of the baseline, above chance; of the healthy runs of the calibration that learnt, each reached .74


def has_learnt(seen: Observation) -> bool:
    """Whether the run got better than any blind guess; where no accuracy is known, whether its loss fell."""
    if math.isnan(fact(seen, "validation accuracy")):
        return fact(seen, "end loss ratio") < LEARNT
    return beats_chance(seen) and not may_be_luck(seen)


def beats_chance(seen: Observation) -> bool:
    """Whether the network is better than any blind guess on images that it is scored on, in the mean of its seeds."""
    return fact(seen, "validation accuracy") > above_chance(seen.bench)


def may_be_luck(seen: Observation) -> bool:
    """Whether so high a mean over seeds may be chance; never where one seed alone was run."""
    return fact(seen, AT_LEAST) <= 1 / seen.bench.num_classes


def is_behind(seen: Observation) -> bool:
    """Whether the network is far from what features need no training for."""
    chance = 1 / seen.bench.num_classes
    return fact(seen, "validation accuracy") - chance < BEHIND * (fact(seen, BASELINE) - chance)


def solved_from(facts: Mapping[str, float]) -> float:
    """Balanced accuracy from which nothing else is held to be wrong."""
    return SOLVED * facts.get(BASELINE, 1.0)


def is_solved(seen: Observation) -> bool:
    """Whether the network is that good."""
    return fact(seen, "validation accuracy") >= solved_from(seen.facts)


def is_cut_short(seen: Observation) -> bool:
    """Whether the clock ended the run before it could tell anything."""
    if seen.run is None:
        return NO_TIME in seen.failures.values()
    return not seen.run.is_complete and len(seen.run.curve.loss) < FEWEST_STEPS
