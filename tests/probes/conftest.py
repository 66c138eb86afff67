import jax
import pytest
from hypothesis import settings

settings.register_profile("probes", deadline=None, max_examples=30)  # the first call compiles
settings.load_profile("probes")


@pytest.fixture(params=["eager", "jitted"])
def variant(request):
    """Wraps a function of arrays: as it is, or compiled."""
    return jax.jit if request.param == "jitted" else lambda fn: fn
