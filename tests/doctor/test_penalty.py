import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cnnprobe.doctor.looks.forward import first_loss, run_forward
from cnnprobe.doctor.looks.penalty import look_at_penalty
from cnnprobe.doctor.remedies import weaken_penalty
from cnnprobe.types import Model
from experiments.problems import cross_entropy
from tests.doctor.test_network_causes import BY_ID, evidence

KEY = jax.random.key(0)


def squares(params, outputs):
    return sum(jnp.sum(jnp.square(leaf)) for leaf in jax.tree.leaves(params))


def with_penalty(bench, penalty, weight):
    """The bench of a model that returns a penalty beside its outputs."""
    init, apply = bench.problem.model

    def penalised(params, state, images, *, key, train):
        outputs, state = apply(params, state, images, key=key, train=train)
        return (outputs, weight * penalty(params, outputs)), state

    def loss(outputs, labels):
        return cross_entropy(outputs[0], labels) + outputs[1]

    return bench._replace(problem=bench.problem._replace(model=Model(init, penalised), loss=loss))


def read(bench):
    weights = bench.problem.model.init(KEY, bench.train.images)
    return look_at_penalty(bench, weights, run_forward(bench, weights))


def test_share_is_that_of_the_norms_of_both_gradients(tiny_bench):
    params, state = tiny_bench.problem.model.init(KEY, tiny_bench.train.images)

    def data_loss(params):
        outputs, _ = tiny_bench.problem.model.apply(params, state, tiny_bench.train.images, key=KEY, train=True)
        return cross_entropy(outputs, tiny_bench.train.labels)

    flat = [np.concatenate([np.ravel(x) for x in jax.tree.leaves(t)]) for t in (jax.grad(data_loss)(params), params)]
    data, pull = (np.linalg.norm(each.astype(np.float64)) for each in flat)
    share = read(with_penalty(tiny_bench, squares, 0.05))["penalty share of a gradient"]
    assert share == pytest.approx(0.1 * pull / (0.1 * pull + data), rel=1e-3)


@pytest.mark.parametrize("penalty", [lambda p, _: -squares(p, _), lambda _, outputs: jnp.mean(outputs)])
def test_what_does_not_pull_to_zero_is_no_penalty(penalty, tiny_bench):
    assert read(with_penalty(tiny_bench, penalty, 1.0)) == {}


def test_the_first_loss_is_read_without_the_penalty(tiny_bench):
    bench = with_penalty(tiny_bench, squares, 10.0)
    outputs = run_forward(bench, bench.problem.model.init(KEY, bench.train.images))
    whole, alone = (first_loss(bench, outputs, is_penalised=is_penalised) for is_penalised in (False, True))
    scores, labels = outputs.raw[0][: len(outputs.scores)], tiny_bench.train.labels
    rows = min(bench.problem.batch_size, len(scores))
    assert alone == pytest.approx(float(cross_entropy(scores[:rows], labels[:rows])), rel=1e-5)
    assert whole == pytest.approx(float(alone + outputs.raw[1]), rel=1e-5)


def test_nothing_is_measured_where_the_model_returns_scores_alone(tiny_bench):
    assert read(tiny_bench) == {}


def test_remedy_divides_the_penalty_and_nothing_else(tiny_bench):
    heavy, light = (with_penalty(tiny_bench, squares, weight).problem for weight in (1.0, 0.01))
    batch = tiny_bench.train.images, tiny_bench.train.labels
    params, state = heavy.model.init(KEY, batch[0])
    returned = heavy.model.apply(params, state, batch[0], key=KEY, train=True)[0]
    expected = light.model.apply(params, state, batch[0], key=KEY, train=True)[0]
    np.testing.assert_allclose(
        weaken_penalty(100)(heavy).loss(returned, batch[1]), light.loss(expected, batch[1]), 1e-6
    )


def test_penalty_that_outweighs_the_data_is_evidence_and_a_usual_one_is_not(healthy):
    found = evidence("weight-decay-too-strong", healthy, penalty_share_of_a_gradient=0.95)
    assert found.strength == 1.0
    assert "95%" in found.sentence
    assert evidence("weight-decay-too-strong", healthy, penalty_share_of_a_gradient=0.05) is None


def test_advice_speaks_of_what_pulls_harder(healthy):
    seen = healthy._replace(facts={**healthy.facts, "penalty share of a gradient": 0.95})
    assert "penalty" in BY_ID["weight-decay-too-strong"].advice(seen).text


def test_a_penalty_on_few_of_the_parameters_pulls_to_zero_too(tiny_bench):
    def of_the_first(params, outputs):
        return jnp.sum(jnp.square(jax.tree.leaves(params)[1]))

    assert read(with_penalty(tiny_bench, of_the_first, 1e3))["penalty share of a gradient"] > 0.9
