"""Compilation of what runs a few times only."""

import functools

import jax

# Where the compiler stops early: a fifth to a half of its time, for a program that then runs up to twice as long.
QUICK = {"xla_backend_optimization_level": 0}

quick_jit = functools.partial(jax.jit, compiler_options=QUICK)
"""`jax.jit` for a program that runs for milliseconds, or once: compiling it would cost more than it ever does."""
