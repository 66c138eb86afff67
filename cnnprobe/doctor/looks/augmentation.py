"""What the user's augmentation leaves of the images."""

from collections.abc import Mapping

import jax
import jax.numpy as jnp
import numpy as np

from cnnprobe.data.sampling import in_time
from cnnprobe.doctor.bench import Bench, most_images
from cnnprobe.doctor.compiled import compiled_first_inputs
from cnnprobe.doctor.looks.passes import consistencies
from cnnprobe.probes.inputs import Consistency
from cnnprobe.training.pipeline import prepare
from cnnprobe.types import Batch, Params, State

PROBES = ("pixel neighbours", "random features")  # in the order of `consistencies`
CHUNK = 256  # images that are fed at once
DIFFERENT = 1e-3  # of the standard deviation, from which two draws differ by more than rounding
MIN_SIGNAL_Z = 5.0  # standard deviations over the permutation null that clean images must reach to lose anything


def look_at_augmentation(bench: Bench, paired: Mapping[str, float]) -> dict[str, float]:
    """What the user's `augment` leaves of the images; `paired` are their readings, as `look_at_pairing` takes them."""
    if bench.problem.augment is None or bench.problem.batches is not None:
        return {}
    return _compared(bench, _augmented(bench), paired)


def look_inside(bench: Bench, weights: tuple[Params, State], paired: Mapping[str, float]) -> dict[str, float]:
    """The same of what the model itself does at random to its images in front of its first layer, in training mode.

    Nothing where it does nothing, as two keys tell, where its images are too large, or where `augment` was looked at.
    """
    if bench.problem.augment is not None:
        return {}
    feed, images = compiled_first_inputs(bench.problem.model), bench.train.images
    size = min(CHUNK, len(images))
    one, other = (feed(*weights, images[:size], jax.random.key(seed)) for seed in range(2))
    is_small = one.ndim == 4 and len(one) == size and most_images(np.asarray(one[0])) >= len(images)
    if not is_small or not jnp.std(one - other) > DIFFERENT * jnp.std(one):
        return {}
    parts = []
    for index, first in enumerate(in_time(_starts(len(images), size), bench.read_seconds)):
        seen = np.asarray(feed(*weights, images[first : first + size], jax.random.key(index)), np.float32)
        parts.append(seen[index * size - first :])
    return _compared(bench, np.concatenate(parts), paired) | {"augments inside": 1.0}


def _compared(bench: Bench, augmented: np.ndarray, paired: Mapping[str, float]) -> dict[str, float]:
    """Shift and scale of augmented images, and the share of their labels' signal that augmentation leaves."""
    clean, ids = np.asarray(bench.train.images[: len(augmented)], np.float32), bench.train.ids
    scale = max(float(clean.std()), 1e-30)
    facts = {
        "augmented std ratio": float(np.nanstd(augmented)) / scale,
        "augmented mean shift": abs(float(np.nanmean(augmented)) - float(clean.mean())) / scale,
    }
    clearest = max(paired.get(f"{name} z", 0.0) for name in PROBES)
    probes = [name for name in PROBES if paired.get(f"{name} z", 0.0) > max(MIN_SIGNAL_Z, clearest / 2)]
    if ids is None or augmented.ndim != 4 or not probes:
        return facts
    after = dict(zip(PROBES, consistencies(augmented, ids[: len(augmented)], seed=bench.problem.seed), strict=True))
    return facts | max(
        (_signal_left(paired[f"{name} accuracy"], after[name]) for name in probes),
        key=lambda left: left["augmented signal share"],
    )


def _augmented(bench: Bench) -> np.ndarray:
    """The training sample, or as much of it as time allows, augmented in batches of the user's size."""
    plain = bench.problem._replace(preprocess=None)
    size, key = min(bench.problem.batch_size, len(bench.train.images)), jax.random.key(bench.problem.seed)
    images, labels = bench.train.images, bench.train.labels
    parts = []
    for index, start in enumerate(in_time(_starts(len(images), size), bench.read_seconds)):
        batch = Batch(images[start : start + size].copy(), labels[start : start + size])  # it may be written to
        seen = np.asarray(prepare(plain, batch, jax.random.fold_in(key, index), train=True).images, np.float32)
        parts.append(seen[index * size - start :])
    return np.concatenate(parts)


def _starts(num: int, size: int) -> list[int]:
    """Where batches of one size begin that hold all of `num` images; the last one begins early."""
    return [min(start, num - size) for start in range(0, num, size)]


def _signal_left(clean: float, seen: Consistency) -> dict[str, float]:
    """Accuracy above chance on augmented images as a share of that on clean ones; chance is that of permuted labels."""
    return {
        "augmented signal share": (seen.accuracy - seen.null_mean) / max(clean - seen.null_mean, 1e-30),
        "accuracy of features on clean images": clean,
        "accuracy of features on augmented images": seen.accuracy,
        "z of the signal lost": (clean - seen.accuracy) / max(seen.null_std, 1e-30),
    }
