"""Times several trials of one problem: one after the other, side by side in threads, and together in one program.

python -m experiments.benchmark_trials --trials=2,4,8 --trial_rounds=5

A trial is a run from a seed of its own. All three ways make the same steps; each sample is taken right after one of the
first way, in one process, since only ratios of neighbours mean anything on a machine that does other work too.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from absl import flags

from experiments import cli
from experiments.devices import choose_devices

if TYPE_CHECKING:
    from cnnprobe.types import Problem

_PLATFORM = flags.DEFINE_string("platform", None, "Where to run: cpu, gpu, tpu; what jax chooses if unset.")
_TRIALS = flags.DEFINE_list("trials", ["2", "4", "8"], "Numbers of trials.")
_STEPS = flags.DEFINE_integer("trial_steps", 40, "Steps of each trial.", lower_bound=1)
_ROUNDS = flags.DEFINE_integer("trial_rounds", 5, "Samples of every way.", lower_bound=1)
_OUTPUT = flags.DEFINE_string("trials_dir", "runs/trials", "Folder of the figures and the table.")

NETWORKS = {"small_cnn": "two convolutions and two dense layers", "residual_cnn": "three residual blocks"}
IN_TURN, IN_THREADS, TOGETHER = "one after the other", "side by side in threads", "together in one program"
HEADER = ("network", "trials", "way", "seconds", "beside one after the other", "quartiles", "compile seconds")

flags.register_validator(
    "trials", lambda nums: bool(nums) and all(n.isdigit() and int(n) > 0 for n in nums), "must be whole numbers"
)


class Way(NamedTuple):
    """One way to run all trials, compiled."""

    run: Callable[[], Any]  # the last states
    compile_seconds: float


class Row(NamedTuple):
    """One way beside the first one."""

    network: str
    trials: int
    way: str
    seconds: float  # of all trials, median
    ratio: float  # to the seconds of one after the other in the same round, median
    ratio_low: float  # first quartile
    ratio_high: float  # third quartile
    compile_seconds: float


def make_ways(problem: "Problem", num_trials: int, num_steps: int) -> dict[str, Way]:
    """The three ways to train `problem` from several seeds on its first batches."""
    import time
    from concurrent.futures import ThreadPoolExecutor

    import jax
    import jax.numpy as jnp

    from cnnprobe.training.step import init_state, make_train_step
    from cnnprobe.types import Dataset

    assert isinstance(problem.train, Dataset)
    assert problem.num_classes is not None
    step = make_train_step(problem.model, problem.loss, problem.optimizer, num_classes=problem.num_classes)
    size, num = problem.batch_size, len(problem.train.images)
    places = [(size * index) % (num - size + 1) for index in range(num_steps)]
    batches = [tuple(jnp.asarray(part[place : place + size]) for part in problem.train) for place in places]
    keys = jax.random.split(jax.random.key(problem.seed), num_trials)
    states = [init_state(problem, key, batches[0][0]) for key in keys]

    def compiled(advance: Callable, state: Any) -> tuple[Callable, float]:
        """The step as a program, and the seconds that took."""
        start = time.perf_counter()
        program = jax.jit(advance).lower(state, *batches[0]).compile()
        return program, time.perf_counter() - start

    def trained(program: Callable, state: Any) -> Any:
        """The state after all steps."""
        for images, labels in batches:
            state = program(state, images, labels)
        return jax.block_until_ready(state)

    stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *states)
    one, one_seconds = compiled(lambda *args: step(*args)[0], states[0])
    every, every_seconds = compiled(jax.vmap(lambda *args: step(*args)[0], in_axes=(0, None, None)), stacked)

    def in_threads() -> list[Any]:
        """A thread for each trial."""
        with ThreadPoolExecutor(num_trials) as pool:
            return list(pool.map(lambda state: trained(one, state), states))

    return {
        IN_TURN: Way(lambda: [trained(one, state) for state in states], one_seconds),
        IN_THREADS: Way(in_threads, one_seconds),
        TOGETHER: Way(lambda: trained(every, stacked), every_seconds),
    }


def compare(network: str, num_trials: int, ways: Mapping[str, Way], *, num_rounds: int) -> list[Row]:
    """Times every way right after the first one, in each round."""
    import time

    import numpy as np

    def seconds(way: Way) -> float:
        """Of one sample."""
        start = time.perf_counter()
        way.run()
        return time.perf_counter() - start

    for way in ways.values():
        way.run()
    pairs = {
        name: np.array([(seconds(way), seconds(ways[IN_TURN])) for _ in range(num_rounds)])
        for name, way in ways.items()
    }
    rows = []
    for name, taken in pairs.items():
        low, middle, high = np.percentile(taken[:, 0] / taken[:, 1], [25, 50, 75]).tolist()
        median = float(np.median(taken[:, 0]))
        rows.append(Row(network, num_trials, name, median, middle, low, high, ways[name].compile_seconds))
    return rows


def run(*, trials: Sequence[int] = (2, 4, 8), num_steps: int = 40, num_rounds: int = 5) -> list[Row]:
    """Times all ways on each network and number of trials."""
    from experiments.problems import build_problem

    rows = []
    for network in NETWORKS:
        problem, _ = build_problem(model=network, num_images=1000)
        problem = problem._replace(train=_prepared(problem))
        for num_trials in trials:
            with cli.waiting(f"{network}, {num_trials} trials"):
                rows += compare(network, num_trials, make_ways(problem, num_trials, num_steps), num_rounds=num_rounds)
    return rows


def _prepared(problem: "Problem") -> Any:
    """The training images as the model sees them, so that nothing but the steps is timed."""
    import numpy as np

    from cnnprobe.types import Dataset

    assert isinstance(problem.train, Dataset)
    assert problem.preprocess is not None
    return Dataset(np.asarray(problem.preprocess(problem.train.images)), problem.train.labels)


def cells(row: Row) -> tuple[str, ...]:
    """One row of the table."""
    spread = f"{row.ratio_low:.2f} to {row.ratio_high:.2f}"
    name = f"{row.network}: {NETWORKS[row.network]}"
    return (
        name,
        str(row.trials),
        row.way,
        f"{row.seconds:.2f}",
        f"{row.ratio:.2f}",
        spread,
        f"{row.compile_seconds:.1f}",
    )


def main(argv: Sequence[str]) -> None:
    """Runs, prints the table, and stores it."""
    del argv
    choose_devices(_PLATFORM.value, 1)
    from experiments.figures import make_figures, print_figures, write_figures
    from experiments.overhead.machine import machine_facts

    cli.announce(_OUTPUT.value)
    facts = machine_facts()
    rows = run(trials=[int(num) for num in _TRIALS.value], num_steps=_STEPS.value, num_rounds=_ROUNDS.value)
    figures = make_figures(HEADER, cells, rows, facts)
    print_figures(figures)
    with cli.bad_input():
        print(f"Written: {write_figures(figures, _OUTPUT.value, 'trials')}")


if __name__ == "__main__":
    cli.launch(main)
