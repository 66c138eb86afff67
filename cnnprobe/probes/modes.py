"""Temporary integration version by the lead; the probes engineer replaces it."""
import jax
import jax.numpy as jnp

def mode_gap(a, b):
    return jnp.linalg.norm(a - b) / jnp.maximum(jnp.linalg.norm(b), 1e-30)

def mask_variance_ratio(outputs):
    return jnp.mean(jnp.var(outputs, axis=0)) / jnp.maximum(jnp.mean(jnp.var(jnp.mean(outputs, axis=0), axis=0)), 1e-30)

def cross_example_jacobian(fn, images):
    out, pull = jax.vjp(fn, images)
    seed = jnp.zeros_like(out).at[0].set(1.0)
    g = pull(seed)[0]
    n = jnp.sum(g.reshape(len(g), -1) ** 2, axis=1)
    return jnp.sqrt(jnp.sum(n[1:])) / jnp.maximum(jnp.sqrt(jnp.sum(n[1:])) + jnp.sqrt(n[0]), 1e-30)
