import chex
import haiku as hk
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cnnprobe.models.haiku import from_haiku

KEY = jax.random.key(0)
IMAGES = jnp.asarray(np.random.default_rng(0).normal(size=(4, 6, 6, 1)), jnp.float32)


def dropping(images, is_training):
    x = images.mean((1, 2))
    return hk.Linear(3)(hk.dropout(hk.next_rng_key(), 0.5, x) if is_training else x)


def modeless(images):
    return hk.Linear(3)(images.mean((1, 2)))


def drawn_mean(x, is_training):
    return hk.BatchNorm(True, True, 0.9)(x, is_training)


def run(model, *, train, key=KEY):
    return model.apply(*model.init(KEY, IMAGES), IMAGES, key=key, train=train)


FORMS = {
    "function": dropping,
    "transformed": hk.transform(dropping),
    "with state": hk.transform_with_state(dropping),
    "no mode": modeless,
    "no key": hk.without_apply_rng(hk.transform(modeless)),
}


@pytest.mark.parametrize("form", FORMS)
def test_every_form_gives_haikus_own_outputs(form):
    params = from_haiku(FORMS[form]).init(KEY, IMAGES)[0]
    expected = hk.transform(modeless).apply(params, None, IMAGES)
    np.testing.assert_allclose(run(from_haiku(FORMS[form]), train=False)[0], expected, rtol=1e-5)


@pytest.mark.parametrize("form", ["function", "transformed", "with state"])
def test_key_reaches_the_network_in_training(form):
    first, second = (run(from_haiku(FORMS[form]), train=True, key=jax.random.key(seed))[0] for seed in (0, 3))
    assert not np.array_equal(first, second)


def test_initialisation_is_haikus_own():
    expected = hk.transform(dropping).init(KEY, IMAGES, is_training=True)
    chex.assert_trees_all_close(from_haiku(dropping).init(KEY, IMAGES)[0], expected, rtol=1e-6)


def test_state_is_carried_in_training_alone():
    model = from_haiku(drawn_mean)
    before = model.init(KEY, IMAGES)[1]
    chex.assert_trees_all_equal(run(model, train=False)[1], before)
    assert int(run(model, train=True)[1]["batch_norm/~/mean_ema"]["counter"]) == 1


def test_same_function_gives_the_same_model():
    assert from_haiku(dropping) is from_haiku(dropping)


@pytest.mark.parametrize("network", [None, 3, "net", (dropping, dropping), hk.Linear])
def test_what_is_no_network_is_refused(network):
    with pytest.raises(ValueError, match=r"network must be a function.*got"):
        from_haiku(network)


def test_further_arguments_are_refused():
    with pytest.raises(ValueError, match=r"besides the images and the mode, got one that needs \['temperature'\]"):
        from_haiku(lambda images, temperature: images)
