"""Several threads at once: probes and taps give what they give alone."""

from concurrent.futures import ThreadPoolExecutor

import jax
import jax.numpy as jnp
import numpy as np

import cnnprobe as cp


def readings(seed):
    """A few probes, and taps on a network of another width for each seed."""
    rng = np.random.default_rng(seed)
    x, weights = rng.normal(size=(16, 6)), {"w": rng.normal(size=(6, 3 + seed % 4)).astype(np.float32)}

    def loss(params, x):
        return jnp.mean(jax.nn.relu(x @ params["w"]) ** 2)

    value, grads, layers = jax.jit(cp.value_and_grad(loss))(weights, x.astype(np.float32))
    stats = cp.layer_stats(layers)["w"]
    return float(value), float(cp.gradient_stats(grads["w"]).norm), stats.std, stats.gradient_rms


def test_threads_may_call_probes_and_taps_at_once():
    alone = [readings(seed) for seed in range(3)]
    with ThreadPoolExecutor(6) as pool:
        together = list(pool.map(readings, list(range(3)) * 2))
    np.testing.assert_allclose(together, alone * 2, rtol=1e-5)
