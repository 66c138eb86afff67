"""Temporary integration version by the lead; the probes engineer replaces it."""
import jax.numpy as jnp

def class_counts(ids, num_classes):
    return jnp.sum(jnp.asarray(ids)[:, None] == jnp.arange(num_classes), axis=0)

def balanced_accuracy(predictions, labels, num_classes):
    labels = jnp.asarray(labels); predictions = jnp.asarray(predictions)
    counts = class_counts(labels, num_classes)
    hits = jnp.zeros(num_classes).at[labels].add((predictions == labels) * 1.0)
    recall = jnp.where(counts > 0, hits / jnp.maximum(counts, 1), 0.0)
    return jnp.sum(recall) / jnp.maximum(jnp.sum(counts > 0), 1)

def input_sensitivity(logits):
    zc = jnp.asarray(logits) - jnp.mean(logits, axis=1, keepdims=True)
    return jnp.mean(jnp.var(zc, axis=0)) / jnp.maximum(jnp.mean(zc**2), 1e-30)
