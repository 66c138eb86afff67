"""Times a training step with and without probes, beside what one would write by hand.

python -m experiments.benchmark_overhead --networks=plain,residual --rounds=20

Every method is timed in one process, turn by turn with the bare step, since only ratios of neighbours mean anything on
a machine that does other work too. The step of one network is the same for all methods.
"""

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from absl import flags

from experiments import cli
from experiments.devices import choose_devices, first_devices
from experiments.overhead.names import DEFAULT_NETWORKS, METHODS, NETWORKS, TORCH

if TYPE_CHECKING:
    from experiments.overhead.timing import Row, Runner

_BACKEND = flags.DEFINE_string("backend", None, "Where to run: cpu, gpu, tpu; what jax chooses if unset.")
_DEVICES = flags.DEFINE_list("devices", ["1"], "Numbers of devices; each device has a whole batch of its own.")
_NETWORKS = flags.DEFINE_list("networks", list(DEFAULT_NETWORKS), f"Networks to train: {', '.join(NETWORKS)}.")
_PROBES = flags.DEFINE_list("probes", list(METHODS), f"What to time: {', '.join(METHODS)}.")
_ROUNDS = flags.DEFINE_integer("rounds", 20, "Samples of every method.", lower_bound=1)
_OUTPUT = flags.DEFINE_string("figures_dir", "runs/overhead", "Folder of the figures, the tables and the picture.")

NO_TORCH = "torch is not installed (pip install torch)"


def _all_in(values: Iterable[str], known: Iterable[str]) -> bool:
    """Whether every value is known, and there is one."""
    return bool(values) and set(values) <= set(known)


flags.register_validator("networks", lambda names: _all_in(names, NETWORKS), f"must be among {', '.join(NETWORKS)}")
flags.register_validator("probes", lambda names: _all_in(names, METHODS), f"must be among {', '.join(METHODS)}")
flags.register_validator(
    "devices", lambda counts: bool(counts) and all(c.isdigit() and int(c) > 0 for c in counts), "must be whole numbers"
)


class Result(NamedTuple):
    """What a benchmark found."""

    rows: list["Row"]
    left_out: dict[str, str]  # methods that could not run, with the reason
    facts: dict[str, Any]  # about the machine


def run(
    *,
    networks: Sequence[str] = DEFAULT_NETWORKS,
    probes: Sequence[str] = tuple(METHODS),
    devices: Sequence[int] = (1,),
    rounds: int = 20,
) -> Result:
    """Times the chosen methods on each network and number of devices.

    Raises:
      cli.BadInputError: this machine has fewer devices.
    """
    from experiments.overhead.machine import machine_facts
    from experiments.overhead.timing import compare

    with cli.bad_input():
        first_devices(max(devices))
    facts, rows = machine_facts(), []
    left_out = {name: NO_TORCH for name in probes if METHODS[name].baseline == TORCH and not _has_torch()}
    chosen = [name for name in probes if name not in left_out]
    for network in networks:
        for count in devices:
            with cli.waiting(f"{network}, {count} devices"):
                rows += compare(network, count, _runners(chosen, network, count), num_rounds=rounds)
    return Result(rows, left_out, facts)


def _has_torch() -> bool:
    """Whether PyTorch can be imported."""
    from importlib.util import find_spec

    return find_spec("torch") is not None


def _runners(probes: Sequence[str], name: str, count: int) -> dict[str, "Runner"]:
    """Each method compiled, with the baselines that they need."""
    from experiments.overhead.networks import NETWORKS as BUILT
    from experiments.overhead.timing import baseline_of, make_runner

    network = BUILT[name]

    def make(method: str) -> "Runner":
        """One of them; PyTorch's run on one device only."""
        if METHODS[method].baseline != TORCH:
            return make_runner(method, network, count)
        from experiments.overhead.torch_hooks import make_torch_runner

        return make_torch_runner(method, name, network.image_shape, network.batch_size)

    kept = [method for method in probes if count == 1 or METHODS[method].baseline != TORCH]
    runners = {method: make(method) for method in kept}
    # Last, so that what the first compilation of a process has to load is not counted for a baseline.
    return runners | {baseline_of(method): make(METHODS[method].baseline) for method in _first_of_each(kept)}


def _first_of_each(probes: Sequence[str]) -> list[str]:
    """One method of each baseline."""
    return list({METHODS[method].baseline: method for method in probes}.values())


def main(argv: Sequence[str]) -> None:
    """Runs, prints the tables, and stores them with the picture."""
    del argv
    devices = [int(count) for count in _DEVICES.value]
    choose_devices(_BACKEND.value, max(devices))
    cli.announce(_OUTPUT.value)
    from experiments.overhead.tables import print_rows, write_rows

    result = run(networks=_NETWORKS.value, probes=_PROBES.value, devices=devices, rounds=_ROUNDS.value)
    print_rows(result.rows, result.left_out)
    settings = {name: flags.FLAGS[name].value for name in ("networks", "probes", "devices", "rounds")}
    with cli.bad_input():
        print(f"Written: {write_rows(result.rows, result.facts, settings, _OUTPUT.value)}")


if __name__ == "__main__":
    cli.launch(main)
