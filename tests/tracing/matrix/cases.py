"""One network with one feature, and the five checks that each must pass."""

import functools
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from cnnprobe.tracing.readings import Readings, unit_stats
from cnnprobe.tracing.taps import value_and_grad

IMAGES = np.random.default_rng(0).standard_normal((4, 6, 6, 4), np.float32)
TOKENS = IMAGES.reshape(4, 36, 4)[:, :5]

FEATURES = {
    "batch_norm": "batch norm",
    "dropout": "dropout",
    "residual": "residual block",
    "shared": "shared module",
    "grouped": "grouped convolution",
    "depthwise": "depthwise convolution",
    "transposed": "transposed convolution",
    "dilated": "dilated convolution",
    "standardised": "standardised or normalised kernel",
    "spectral": "spectral normalisation",
    "masked": "masked kernel",
    "attention": "attention",
    "scan": "`scan` over layers",
    "remat": "`remat`",
    "jit": "nested `jit`",
    "cond": "`cond`",
    "seeds": "`vmap` over seeds",
    "bfloat16": "bfloat16",
    "mixed": "mixed precision",
    "accumulation": "`optax.MultiSteps`",
    "second_order": "gradient of a gradient",
    "relu": "ReLU in six spellings",
    "smooth": "leaky ReLU, GELU, SiLU, ELU, sigmoid, tanh",
    "softmax": "softmax",
    "opaque": "`while`, `custom_vjp`, fixed convolution",
}


class Probe(NamedTuple):
    """Adds offsets to the outputs of layers, so that gradients by them can be taken, and keeps the sums."""

    offsets: Mapping[str, Any]
    outputs: dict[str, Any]


def mark(probe: Probe | None, name: str, x: Any) -> Any:
    """The output of the layer `name`, its units along the last axis."""
    if probe is None:
        return x
    probe.outputs[name] = x + probe.offsets.get(name, jnp.zeros_like(x))
    return probe.outputs[name]


class Case(NamedTuple):
    """A network with one feature, as a user of the library writes it."""

    loss: Callable[[Any], Any]  # of the parameters
    twin: Callable[[Any, Probe | None], Any]  # the same by hand, without loops and the like; marks each layer's output
    params: Any
    rows: Mapping[str, str]  # expected names, in order, with the activation that follows
    skipped: tuple[str, ...] = ()  # how the opaque parts are listed
    run: Callable[[Callable], Callable] = lambda transform: transform  # what is done with `value_and_grad`
    select: Callable[[Any], Any] = lambda params: params  # the parameters that `run` reports on
    rtol: float = 1e-4


def filled(shapes: Any) -> Any:
    """Arrays of the given shapes, without the time that a library's initialisers take to compile."""
    rng = np.random.default_rng(1)

    def fill(leaf: Any) -> Any:
        """One leaf: random, or a fresh random key, or a count of zero."""
        if jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key):
            return jax.random.key(0)
        if not jnp.issubdtype(leaf.dtype, jnp.floating):
            return np.zeros(leaf.shape, leaf.dtype)
        scale = np.sqrt(np.prod(leaf.shape[-4:-1], initial=1))
        return jnp.asarray(rng.standard_normal(leaf.shape) / scale, leaf.dtype)

    return jax.tree.map(fill, shapes)


def score(out: Any) -> Any:
    """A loss that depends on every output differently."""
    weights = np.linspace(-1, 1, out.size, dtype=np.float32).reshape(out.shape)
    return jnp.mean(jnp.square(out.astype(jnp.float32) - weights))


def over_seeds(case: Case) -> Case:
    """The case with two sets of parameters, of which the second counts."""

    def second(tree: Any) -> Any:
        return jax.tree.map(lambda leaf: leaf[1], tree)

    params = jax.tree.map(lambda leaf: jnp.stack([-leaf, leaf]), case.params)
    return case._replace(params=params, run=lambda fn: lambda params: second(jax.vmap(fn)(params)), select=second)


def penalised(apply: Callable, params: Any, inputs: Any, rows: Mapping[str, str]) -> Case:
    """The network `apply(params, inputs, probe)` with the square of its gradient by the inputs in the loss."""

    def loss(params: Any, probe: Probe | None = None) -> Any:
        def inner(x: Any) -> tuple[Any, dict]:
            seen = Probe(probe.offsets, {}) if probe else None
            return score(apply(params, x, seen)), seen.outputs if seen else {}

        (value, outputs), slope = jax.value_and_grad(inner, has_aux=True)(jnp.asarray(inputs))
        if probe:
            probe.outputs.update(outputs)
        return value + jnp.square(slope).sum()

    return Case(loss, loss, params, rows)


class Results(NamedTuple):
    """What is compared."""

    tapped: tuple[Any, Any, Readings]
    bare: tuple[Any, Any]
    twin_loss: Any
    outputs: Mapping[str, np.ndarray]  # of each layer
    gradients: Mapping[str, np.ndarray]  # of the loss by them


@functools.cache
def in_haste() -> dict[str, Any]:
    """Options with which XLA, which takes most of a case's time, compiles fast; not every version knows the second."""
    options = {"xla_backend_optimization_level": 0, "xla_cpu_use_fusion_emitters": False}
    try:
        jax.jit(jnp.sin, compiler_options=options)(0.0)
    except jax.errors.JaxRuntimeError:
        del options["xla_cpu_use_fusion_emitters"]
    return options


def results(case: Case) -> Results:
    """Runs a case three ways, compiled together and in haste."""

    def perturbed(params: Any, offsets: Mapping[str, Any]) -> tuple[Any, Any]:
        """The twin, with offsets behind its layers."""
        probe = Probe(offsets, {})
        return case.twin(params, probe), probe.outputs

    @functools.partial(jax.jit, compiler_options=in_haste())
    def run(params: Any) -> tuple:
        """With taps, without, and the twin."""
        selected = case.select(params)
        zeros = jax.tree.map(jnp.zeros_like, perturbed(selected, {})[1])
        twin = jax.value_and_grad(perturbed, 1, has_aux=True)(selected, zeros)
        return *(case.run(vg(case.loss))(params) for vg in (value_and_grad, jax.value_and_grad)), twin

    tapped, bare, ((loss, outputs), gradients) = run(case.params)
    return Results(tapped, bare[:2], loss, _float64(outputs), _float64(gradients))


def _float64(tree: Mapping[str, Any]) -> dict[str, np.ndarray]:
    return {name: np.asarray(leaf, np.float64) for name, leaf in tree.items()}


# --- checks: each takes a case and its results, and raises AssertionError --------------------------------------------


def unchanged(case: Case, got: Results) -> None:
    """Loss and gradients are those of the function without taps."""
    assert jax.tree.structure(got.tapped[:2]) == jax.tree.structure(got.bare)
    for x, y in zip(jax.tree.leaves(got.tapped[:2]), jax.tree.leaves(got.bare), strict=True):
        assert (x.dtype, x.shape) == (y.dtype, y.shape)
        scale = np.abs(np.asarray(y, np.float64)).max(initial=1e-3)
        np.testing.assert_allclose(np.asarray(x, np.float64), np.asarray(y, np.float64), atol=case.rtol * scale)
    np.testing.assert_allclose(got.tapped[0], got.twin_loss, rtol=case.rtol)


def statistics(case: Case, got: Results) -> None:
    """Mean, mean square, maximum and mean sign of each unit are those of the captured output, in float64."""
    for name, units in unit_stats(got.tapped[2]).items():
        x = got.outputs[name].reshape(-1, units.mean.size)
        expected = np.stack([x.mean(0), np.square(x).mean(0), x.max(0), np.sign(x).mean(0)])
        reading = np.stack([units.mean, units.mean**2 + units.std**2, units.max, units.mean_sign])
        np.testing.assert_allclose(reading, expected, rtol=case.rtol, atol=case.rtol, err_msg=name)
        assert units.num_activations == len(x)


def gradients(case: Case, got: Results) -> None:
    """Activation gradients are those by explicit offsets of zero."""
    for name, units in unit_stats(got.tapped[2]).items():
        expected = np.sqrt(np.square(got.gradients[name]).reshape(-1, units.mean.size).mean(0))
        scale = expected.max()
        np.testing.assert_allclose(units.gradient_rms, expected, atol=case.rtol * scale, rtol=0, err_msg=name)


def rows(case: Case, got: Results) -> None:
    """The layers and the activations that they go through."""
    layers = got.tapped[2].layout.layers
    activations = [layer.activation for layer in layers for _ in range(int(np.prod(layer.turns)))]
    assert list(zip(unit_stats(got.tapped[2]), activations, strict=True)) == list(case.rows.items())


def skipped(case: Case, got: Results) -> None:
    """What is opaque is listed, and nothing else."""
    assert got.tapped[2].skipped == case.skipped


CHECKS = {"unchanged": unchanged, "statistics": statistics, "gradients": gradients, "rows": rows, "skipped": skipped}
