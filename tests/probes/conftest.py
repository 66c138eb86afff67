import jax
import pytest


@pytest.fixture(params=["eager", "jitted"])
def variant(request):
    """Wraps a function of arrays: as it is, or compiled."""
    return jax.jit if request.param == "jitted" else lambda fn: fn
