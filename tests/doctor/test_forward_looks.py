import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cnnprobe.doctor.looks.forward import look_across_examples, look_at_first_layer, look_at_symmetry
from cnnprobe.types import Model

KEY = jax.random.key(0)


def looked(bench, look, outputs_of):
    """What `look` reads where the model returns `outputs_of(outputs of the bench's own model, images)`."""
    init, apply = bench.problem.model

    def changed(params, state, images, *, key, train):
        outputs, state = apply(params, state, images, key=key, train=train)
        return outputs_of(outputs, images), state

    changed_bench = bench._replace(problem=bench.problem._replace(model=Model(init, changed)))
    return look(changed_bench, init(KEY, bench.train.images))


def test_nothing_crosses_where_each_image_stands_alone(tiny_bench):
    assert looked(tiny_bench, look_across_examples, lambda outputs, _: outputs)["cross example share"] == 0


def test_what_crosses_is_found_beside_a_penalty(tiny_bench):
    read = looked(tiny_bench, look_across_examples, lambda outputs, _: (jnp.float32(3.0), outputs - outputs.mean(0)))
    assert read["cross example share"] > 0.05


def test_first_layer_is_fed_what_the_model_makes_of_its_images(tiny_bench):
    init, apply = tiny_bench.problem.model

    def scaled(params, state, images, *, key, train):
        return apply(params, state, images / 50 + 3, key=key, train=train)

    bench = tiny_bench._replace(problem=tiny_bench.problem._replace(model=Model(init, scaled)))
    images = np.asarray(tiny_bench.train.images, np.float64) / 50 + 3
    read = look_at_first_layer(bench, init(KEY, tiny_bench.train.images))
    assert read["first layer input mean"] == pytest.approx(images.mean(), rel=1e-4)
    assert read["first layer input standard deviation"] == pytest.approx(images.std(), rel=1e-3)


@pytest.mark.parametrize(
    ("start", "noise", "read"),
    [
        (0.0, 0.1, {}),  # a residual branch that starts as nothing: its units part, however slowly
        (0.0, 0.0, {"initial unit likeness": 1.0, "last unit likeness": 1.0}),
        (0.5, 0.1, {"initial unit likeness": 1.0, "last unit likeness": pytest.approx(0.99, abs=0.01)}),
    ],
)
def test_copies_are_units_that_do_not_part_or_hardly_do(start, noise, read):
    drawn = np.random.default_rng(0).normal(1, noise, (3, 3, 4, 8))
    facts, name = look_at_symmetry({"conv": np.full((3, 3, 4, 8), start)}, {"conv": drawn})
    assert (facts, name) == (read, "conv" if read else "")
