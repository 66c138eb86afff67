"""Whether a network catches up by itself with what a remedy gains in runs that are but a part of its training."""

from cnnprobe.doctor.harm import DECISIVE, ENOUGH, makes_finite
from cnnprobe.doctor.observation import Observation
from cnnprobe.doctor.trial import Attempt, Plan, control, lengthened, run_twin
from cnnprobe.types import Trial


def catches_up(plan: Plan, seen: Observation, attempt: Attempt, trial: Trial, *, strength: float) -> bool:
    """Whether more of the user's own steps bring what the remedy brings, so that all it gains is time.

    Evidence that speaks for itself is not doubted, nor is a loss that the remedy makes finite. Where no time is left
    for a longer run the trial stands as it is.
    """
    is_doubted = strength < DECISIVE and not makes_finite(trial.control_curve, trial.remedied_curve)
    longer = lengthened(plan, seen.run, runs=1) if seen.run is not None and is_doubted else None
    if longer is None:
        return False
    plan.tell(f"running the network for {longer.num_steps} steps, in which it may catch up")
    try:
        reached = control(longer, 0).accuracy
        if not reached > trial.remedied.mean() - ENOUGH:
            return False
        return not longer.has_time() or run_twin(longer, attempt.problem, 0).accuracy - reached < ENOUGH
    except Exception:  # a loader may end, and the clock may cut a run
        return False
