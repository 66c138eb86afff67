"""Where a fault without a name lies: the parts whose swap for a reference mends the training."""

from cnnprobe.doctor.harm import ENOUGH
from cnnprobe.doctor.observation import Observation
from cnnprobe.doctor.progress import solved_from
from cnnprobe.doctor.substitute import swaps
from cnnprobe.doctor.trial import Plan, control, run_twin
from cnnprobe.types import Remedy

PARTS = {
    "network": "a small CNN in place of the network",
    "optimisation": "Adam in place of the optimizer",
    "loss": "a cross-entropy in place of the loss",
}


def located(plan: Plan, seen: Observation, *, gain: float = ENOUGH) -> str:
    """What each reference part brings that mends the training by itself, as sentences; empty where none gains that."""
    enough = max(solved_from(seen.facts), control(plan, 0).accuracy + gain)
    swap_of = swaps(plan.bench)
    reached = {part: _reached(plan, swap_of[part]) for part in PARTS}
    return "".join(
        f" With {PARTS[part]} it reaches {accuracy:.0%}: that part holds it back."
        for part, accuracy in reached.items()
        if accuracy >= enough
    )


def _reached(plan: Plan, swap: Remedy) -> float:
    """Accuracy of the same training with one part swapped; 0 where no time is left, or the others do not fit it."""
    if not plan.has_time():
        return 0.0
    plan.tell("running the training with a part swapped for a reference")
    try:
        return run_twin(plan, swap(plan.bench.problem), 0).accuracy
    except Exception:  # an optimizer or a loss may be written for the user's own network, and the clock may cut a run
        return 0.0
