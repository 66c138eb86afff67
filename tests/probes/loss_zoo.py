"""The losses of the fingerprint table, sound and faulty, for any number of classes: `(logits, integer ids) -> loss`."""

import jax
import jax.numpy as jnp

log_softmax, one_hot, softmax = jax.nn.log_softmax, jax.nn.one_hot, jax.nn.softmax
TINY = 1e-7


def picked(values, ids):
    return values[jnp.arange(len(values)), ids]


def cross_entropy(logits, ids):
    return -jnp.mean(picked(log_softmax(logits), ids))


def smoothed(logits, ids, share=0.1):
    targets = one_hot(ids, logits.shape[1]) * (1 - share) + share / logits.shape[1]
    return -jnp.mean(jnp.sum(targets * log_softmax(logits), axis=1))


def focal(logits, ids):
    log_prob = picked(log_softmax(logits), ids)
    return -jnp.mean((1 - jnp.exp(log_prob)) ** 2 * log_prob)


def polynomial(logits, ids):
    log_prob = picked(log_softmax(logits), ids)
    return jnp.mean(-log_prob + 1 - jnp.exp(log_prob))


def one_vs_rest(logits, ids):
    targets = one_hot(ids, logits.shape[1])
    return jnp.mean(jax.nn.softplus(logits) - targets * logits)


def summed(logits, ids):
    return len(ids) * cross_entropy(logits, ids)


def class_mean(logits, ids):
    return -jnp.mean(one_hot(ids, logits.shape[1]) * log_softmax(logits))


def softmax_twice(logits, ids):
    return cross_entropy(softmax(logits), ids)


def log_softmax_twice(logits, ids):
    return cross_entropy(log_softmax(logits), ids)


def softmax_over_batch(logits, ids):
    return -jnp.mean(picked(log_softmax(logits, axis=0), ids))


def log_of_clipped_logits(logits, ids):
    return -jnp.mean(jnp.log(jnp.clip(picked(logits, ids), TINY, 1)))


def log_of_logits(logits, ids):
    return -jnp.mean(jnp.log(picked(logits, ids)))


def raw_nll(logits, ids):
    return -jnp.mean(picked(logits, ids))


def negative_probability(logits, ids):
    return -jnp.mean(picked(softmax(logits), ids))


def squared_error_of_probabilities(logits, ids):
    return jnp.mean((softmax(logits) - one_hot(ids, logits.shape[1])) ** 2)


def squared_error_of_logits(logits, ids):
    return jnp.mean((logits - one_hot(ids, logits.shape[1])) ** 2)


def binary_of_softmax(logits, ids):
    prob, targets = jnp.clip(softmax(logits), TINY, 1 - TINY), one_hot(ids, logits.shape[1])
    return -jnp.mean(targets * jnp.log(prob) + (1 - targets) * jnp.log(1 - prob))


def relu_first(logits, ids):
    return cross_entropy(jax.nn.relu(logits), ids)


def sigmoid_first(logits, ids):
    return cross_entropy(jax.nn.sigmoid(logits), ids)


def tanh_first(logits, ids):
    return cross_entropy(jnp.tanh(logits), ids)


def labels_off_by_one(logits, ids):
    return cross_entropy(logits, jnp.clip(ids + 1, 0, logits.shape[1] - 1))


def labels_out_of_range(logits, ids):
    targets = one_hot(ids + logits.shape[1] // 2, logits.shape[1])
    return -jnp.mean(jnp.sum(targets * log_softmax(logits), axis=1))


def broadcast(logits, ids):
    return jnp.mean(-jnp.take(log_softmax(logits), ids, axis=1))


def labels_reversed(logits, ids):
    return cross_entropy(logits, ids[::-1])


def zero_one(logits, ids):
    return jnp.mean(jnp.argmax(logits, axis=1) != ids)


def negated(logits, ids):
    return -cross_entropy(logits, ids)


def temperature(logits, ids):
    return cross_entropy(logits / 100, ids)


def hinge(logits, ids):
    margins = jnp.maximum(0, 1 + logits - picked(logits, ids)[:, None])
    return jnp.mean(jnp.sum(margins, axis=1) - 1)


TABLE = {  # 10 classes: name, floor, uniform, wrong, gradient at zero
    cross_entropy: ("cross-entropy", 0, 2.303, 100, 0.949),
    smoothed: ("smoothed cross-entropy", 9, 2.303, 99, 0.854),
    focal: ("focal", 0, 1.865, 100, 1.16),
    one_vs_rest: ("one-vs-rest", 0, 0.693, 10, 0.158),
    summed: ("summed", 0, 147.4, 6400, 60.7),
    class_mean: ("class-mean", 0, 0.2303, 10, 0.0949),
    softmax_twice: ("softmax-twice", 1.461, 2.303, 2.461, 0.0949),
    log_softmax_twice: ("cross-entropy", 0, 2.303, 100, 0.949),
    softmax_over_batch: ("wrong-axis", None, 4.159, None, None),
    log_of_clipped_logits: ("log-of-logits", 0, 16.12, 16.12, 0),
    raw_nll: ("raw-nll", -50, 0, 50, 1),
    negative_probability: ("negative-probability", -1, -0.1, 0, 0.0949),
    squared_error_of_probabilities: ("squared-error", 0, 0.09, 0.2, 0.019),
    squared_error_of_logits: ("squared-error", 2490.1, 0.1, 2510.1, 0.2),
    binary_of_softmax: ("one-vs-rest", 0, 0.325, 3.22, 0.105),
    relu_first: ("relu-first", 0, 2.303, 50, 0),
    sigmoid_first: ("sigmoid-first", 1.461, 2.303, 2.461, 0.237),
    tanh_first: ("tanh-first", 0.797, 2.303, 2.797, 0.949),
    labels_off_by_one: ("shifted-labels", None, 2.303, None, 0.949),
    labels_out_of_range: ("labels-out-of-range", None, None, None, None),
    broadcast: ("broadcast", None, 2.303, None, None),
    labels_reversed: ("shifted-labels", None, 2.303, None, 0.949),
    zero_one: ("no-gradient", 0, None, 1, 0),
    negated: ("negated", 0, -2.303, -100, 0.949),
    temperature: ("temperature", 1.461, 2.303, 2.461, 0.00949),
    hinge: ("hinge", 0, 9, 109, 9.49),
}
