"""Steps timed against a baseline, turn by turn in one process, so that a busy machine slows both alike."""

import math
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jaxtyping import Float

from experiments.overhead.names import METHODS
from experiments.overhead.networks import Network
from experiments.overhead.steps import Method, Step, make_method

SAMPLE_SECONDS = 0.1  # of one sample at least: several steps where a step is short
NUM_COMPILATIONS = 2


Taken = Float[np.ndarray, " clocks"]  # seconds: by the clock on the wall, and of all cores together


class Runner(NamedTuple):
    """One way to train, compiled and ready."""

    run: Callable[[bool], Taken]  # makes one step, which is read or not
    compile_seconds: float = math.nan  # of all cores together, tracing included
    num_bytes: float = math.nan  # of arguments, results and temporary memory of the compiled step


class Row(NamedTuple):
    """One method on one network."""

    network: str
    devices: int
    method: str
    seconds: float  # a step, median
    ratio: float  # to the baseline, median of the rounds, by the clock on the wall
    ratio_low: float  # first quartile
    ratio_high: float  # third quartile
    cpu_ratio: float  # of the seconds of all cores together: what a busy machine disturbs least
    cpu_low: float
    cpu_high: float
    baseline_seconds: float
    compile_seconds: float
    compile_ratio: float
    num_bytes: float
    memory_ratio: float


def now() -> Taken:
    """Both clocks."""
    return np.array([time.perf_counter(), time.process_time()])


def make_runner(name: str, network: Network, num_devices: int) -> Runner:
    """Compiles one method for batches spread over the first devices."""
    method = make_method(name, network, every=METHODS[name].every, num_devices=num_devices)
    mesh = Mesh(np.array(jax.devices()[:num_devices]), "batch")
    whole, rows = NamedSharding(mesh, PartitionSpec()), NamedSharding(mesh, PartitionSpec("batch"))
    num_images = network.batch_size * num_devices
    keys = jax.random.split(jax.random.key(1))
    images = jax.device_put(jax.random.normal(keys[0], (num_images, *network.image_shape)), rows)
    labels = jax.device_put(jax.random.randint(keys[1], (num_images,), 0, 10), rows)
    state = jax.device_put(method.state, whole)
    batch = (images, labels)
    compiled, seconds = _compile(method.step, whole, state, *batch)
    between = compiled if method.between is None else _compile(method.between, whole, state, *batch)[0]
    return Runner(_turn(method, (compiled, between), state, batch), seconds, _memory(compiled))


def _compile(step: Step, whole: NamedSharding, *arguments: Any) -> tuple[Any, float]:
    """The compiled step and the seconds of all cores that it took, tracing included; the shorter of two times."""
    seconds = []
    for _ in range(NUM_COMPILATIONS):
        start = time.process_time()
        # A function of its own, since jax remembers what it has traced.
        fresh = jax.jit(lambda *parts: step(*parts), donate_argnums=0, out_shardings=whole)
        compiled = fresh.lower(*arguments).compile()
        seconds.append(time.process_time() - start)
    return compiled, min(seconds)


def _turn(method: Method, programs: tuple, state: Any, batch: tuple[Any, Any]) -> Callable[[bool], Taken]:
    """The function that makes one step."""
    holder = {"state": state}

    def run(is_read: bool) -> Taken:
        """Trains one step and fetches its readings."""
        number = jax.device_put(jnp.int32(0 if is_read else 1), holder["state"].step.sharding)
        state = jax.block_until_ready(holder["state"]._replace(step=number))
        start = now()
        if method.before is not None:
            method.before(state, batch[0])
        holder["state"], readings = programs[0 if is_read else 1](state, *batch)
        jax.device_get(readings)
        jax.effects_barrier()
        jax.block_until_ready(holder["state"])
        return now() - start

    return run


def _memory(compiled: Any) -> float:
    """Bytes that a step needs at once; what is donated is counted once."""
    sizes = compiled.memory_analysis()
    held = sizes.argument_size_in_bytes + sizes.output_size_in_bytes - sizes.alias_size_in_bytes
    return float(held + sizes.temp_size_in_bytes)


def compare(network: str, devices: int, runners: Mapping[str, Runner], *, num_rounds: int, seed: int = 0) -> list[Row]:
    """Times every method beside its baseline, in an order drawn anew each round."""
    rng = np.random.default_rng(seed)
    names = [name for name in runners if name in METHODS]
    turns = {name: _turns(runner) for name, runner in runners.items()}
    samples: dict[str, list[tuple[Taken, Taken]]] = {name: [] for name in names}
    for _ in range(num_rounds):
        for name in rng.permutation(names).tolist():
            samples[name].append(_pair(runners, turns, name, is_swapped=bool(rng.integers(2))))
    return [_row(network, devices, name, runners, samples[name]) for name in names]


def _turns(runner: Runner) -> int:
    """Steps of one sample, after one of each kind to warm up."""
    runner.run(True), runner.run(False)
    return max(1, round(SAMPLE_SECONDS / max(runner.run(False)[0], 1e-6)))


def _pair(
    runners: Mapping[str, Runner], turns: Mapping[str, int], name: str, *, is_swapped: bool
) -> tuple[Taken, Taken]:
    """Seconds of a step of a method and of its baseline, measured in one go."""
    order = [name, baseline_of(name)]
    taken = [_sample(runners[each], turns[each], _every(each)) for each in (order[::-1] if is_swapped else order)]
    return (taken[1], taken[0]) if is_swapped else (taken[0], taken[1])


def baseline_of(name: str) -> str:
    """The key of the runner that a method is divided by."""
    return f"{METHODS[name].baseline} baseline"


def _every(name: str) -> int:
    return METHODS[name].every if name in METHODS else 1


def _sample(runner: Runner, num_turns: int, every: int) -> Taken:
    """Seconds of a step: of those that are read and those between, as often as they come."""
    read = np.mean([runner.run(True) for _ in range(num_turns)], axis=0)
    if every == 1:
        return read
    between = np.mean([runner.run(False) for _ in range(num_turns)], axis=0)
    return (read + (every - 1) * between) / every


def _row(
    network: str, devices: int, name: str, runners: Mapping[str, Runner], samples: Sequence[tuple[Taken, Taken]]
) -> Row:
    """The figures of one method."""
    runner, baseline = runners[name], runners[baseline_of(name)]
    seconds = np.array(samples)  # [rounds, method and baseline, clocks]
    (low, cpu_low), (middle, cpu_middle), (high, cpu_high) = np.percentile(
        seconds[:, 0] / seconds[:, 1], [25, 50, 75], axis=0
    ).tolist()
    return Row(
        network=network,
        devices=devices,
        method=name,
        seconds=float(np.median(seconds[:, 0, 0])),
        ratio=middle,
        ratio_low=low,
        ratio_high=high,
        cpu_ratio=cpu_middle,
        cpu_low=cpu_low,
        cpu_high=cpu_high,
        baseline_seconds=float(np.median(seconds[:, 1, 0])),
        compile_seconds=runner.compile_seconds,
        compile_ratio=runner.compile_seconds / baseline.compile_seconds,
        num_bytes=runner.num_bytes,
        memory_ratio=runner.num_bytes / baseline.num_bytes,
    )
