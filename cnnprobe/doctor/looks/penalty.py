"""A penalty that the model returns beside its scores: how hard it pulls on the parameters, whatever the images say."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from cnnprobe.compiling import quick_jit
from cnnprobe.doctor.bench import Bench
from cnnprobe.doctor.looks.forward import Probed
from cnnprobe.trees import tree_sum_of_squares
from cnnprobe.types import AnyArray, Images, Labels, Params, State

TOWARD = 0.5  # cosine of a pull with the way to zero: 1 of squares, about .8 of absolute values
TINY = 1e-30


def look_at_penalty(bench: Bench, weights: tuple[Params, State], outputs: Probed) -> dict[str, float]:
    """Size of a penalty's gradient beside that of the whole loss before any update, in [0, 1].

    A penalty is a single number among the outputs, such as the sum of a model's regularisers, that pulls the parameters
    toward zero. Where the model returns none, nothing is measured.
    """
    if not any(np.ndim(leaf) == 0 for leaf in jax.tree.leaves(outputs.raw)):
        return {}
    apply, loss = bench.problem.model.apply, bench.problem.loss

    @quick_jit
    def sizes(params: Params, state: State, images: Images, labels: Labels) -> Float[Array, " 4"]:
        """Sums of squares: of the pull, of the rest, of the parameters it acts on; and the product with these."""

        def gradient(held: Callable[[AnyArray], bool]) -> Params:
            """The gradient that does not pass through the outputs that are held."""

            def value(params: Params) -> Float[Array, ""]:
                """The user's loss."""
                returned, _ = apply(params, state, images, key=jax.random.key(0), train=True)
                kept = jax.tree.map(lambda x: jax.lax.stop_gradient(x) if held(x) else x, returned)
                return loss(kept, labels)

            return jax.grad(value)(params)

        pull, rest = gradient(lambda x: jnp.ndim(x) > 0), gradient(lambda x: jnp.ndim(x) == 0)
        product = sum(map(jnp.vdot, jax.tree.leaves(pull), jax.tree.leaves(params)))
        touched = jax.tree.map(lambda p, g: jnp.where(g == 0, 0, p), params, pull)
        return jnp.stack([*map(tree_sum_of_squares, (pull, rest, touched)), product])

    size = bench.problem.batch_size
    batch = jnp.asarray(bench.train.images[:size]), jnp.asarray(bench.train.labels[:size])
    pull, rest, square, product = np.asarray(sizes(*weights, *batch), np.float64)
    if not product / np.sqrt(max(pull * square, TINY)) > TOWARD:
        return {}
    return {"penalty share of a gradient": float(np.sqrt(pull) / (np.sqrt(pull) + np.sqrt(rest)))}
