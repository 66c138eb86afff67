"""`diagnose`: observe, suspect, try, rank, conclude."""

import time
from collections.abc import Sequence

import jax

from cnnprobe.checks import check_at_least, check_callable
from cnnprobe.doctor.bench import make_bench
from cnnprobe.doctor.conclude import conclude, unreadable
from cnnprobe.doctor.observe import observe
from cnnprobe.doctor.orientation import for_the_users_own, largest_wins, reading_of
from cnnprobe.doctor.other_seeds import with_other_seeds
from cnnprobe.doctor.rank import suspect, weigh
from cnnprobe.doctor.trial import Tell, make_plan, say_nothing
from cnnprobe.training.parallel import local_mesh
from cnnprobe.training.validate import check_problem
from cnnprobe.types import Diagnosis, Problem

RUN_SHARE = 1 / 15  # of the budget that one run may take, so that a dozen trials fit
SHORTEST = 1.0  # seconds: below this not even the data can be looked at


def diagnose(
    problem: Problem,
    *,
    budget_seconds: float = 60.0,
    devices: Sequence[jax.Device] | None = None,
    tell: Tell = say_nothing,
) -> Diagnosis:
    """Finds why a CNN does not learn, and proves it by running the remedy.

    The data are looked at as they stand, the loss is read from constructed outputs, and the user's own configuration
    is run for a few hundred steps with readings of every step. Each cause that the readings speak for is tried: the
    problem and its remedied twin train from the same keys, and what the remedy gains decides. Nothing of the problem
    is changed.

    A sick problem gives findings, never an exception, and a problem that cannot run at all gives one that says where
    it stops.

    Args:
      problem: the training problem exactly as it is run.
      budget_seconds: wall time that may be spent, compilation included; what it left untried is listed in the
        diagnosis.
      devices: of this process; they share each batch of every training run, where its rows come out even. None: the
        first one.
      tell: is called with what is being done and what was just found, in a few words each.

    Raises:
      ValueError: a field of `problem` is malformed, the budget is below one second, or the devices are not different
        ones of this process; the message names the field, the rule and the value.
    """
    check_problem(problem)
    check_at_least("budget_seconds", budget_seconds, SHORTEST)
    check_callable("tell", tell)
    mesh = local_mesh(devices)
    started = time.monotonic()
    deadline, run_seconds = started + budget_seconds, RUN_SHARE * budget_seconds
    tell("reading the data")
    try:
        bench = make_bench(problem, seconds=run_seconds)._replace(mesh=mesh)
    except Exception as error:  # the user's loader or preprocessing may raise anything
        return unreadable(error, started)
    reading = reading_of(bench)
    bench = largest_wins(bench, reading)
    tell("running the network as it is")
    seen = observe(bench, seconds=run_seconds, deadline=deadline)
    plan = make_plan(seen, run_seconds=run_seconds, deadline=deadline, tell=tell)
    seen = with_other_seeds(plan, seen)
    suspects = suspect(seen)
    tell(f"suspected: {'; '.join(item.cause.title for item in suspects) or 'nothing'}")
    weighed = weigh(plan, seen, suspects)
    diagnosis = conclude(weighed.plan, weighed.seen, weighed.findings, weighed.untried, started)
    return for_the_users_own(diagnosis, reading)
