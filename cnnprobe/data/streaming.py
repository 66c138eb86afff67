"""Batches from the disk: read by several threads ahead of the training, in memory that does not grow with the set."""

from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any

import numpy as np

from cnnprobe.checks import check_integer
from cnnprobe.data.sampling import Subset, num_examples
from cnnprobe.types import Dataset, Images, Labels, Source

MAX_SEED = 2**32 - 1
NUM_AHEAD = 2  # batches that are read before they are asked for


def grain_batches(
    source: Any, *, batch_size: int, shuffle: bool = True, seed: int = 0, num_threads: int = 8
) -> Callable[[int], Iterator[tuple[Images, Labels]]]:
    """A loader for `problem.batches` that reads with grain: `batches(epoch)` yields pairs of images and labels.

    An epoch is a pure function of its number: the same one shows the same batches, and `fit` resumes exactly. What is
    random in a `grain.MapDataset` (`random_map` after `seed`) is drawn anew in each. A last batch of fewer examples is
    left out. Two batches are read ahead, and nothing else is kept.

    Args:
      source: a data source with examples of "image" and "label", as `tfds.data_source` gives and `Problem` takes; a
        `Dataset`; or a `grain.MapDataset` of such examples, with one's own steps in it.
      batch_size: examples in each batch.
      shuffle: whether every epoch has an order of its own.
      seed: of the orders.
      num_threads: that read; 0 where the examples are in memory.

    Raises:
      ValueError: an argument is out of range, or there are fewer examples than a batch holds.
      ImportError: grain is missing.
    """
    try:
        import grain
    except ImportError as error:
        raise ImportError('Reading ahead needs grain: pip install "cnnprobe[grain]"') from error
    check_integer("seed", seed, 0)
    check_integer("num_threads", num_threads, 0)
    if seed > MAX_SEED:
        raise ValueError(f"seed must be at most {MAX_SEED}, got {seed}.")
    examples = source if isinstance(source, grain.MapDataset) else grain.MapDataset.source(_indexable(source))
    check_integer("batch_size", batch_size, 1)
    if len(examples) < batch_size:
        raise ValueError(f"batch_size must be at most {len(examples)}, the number of examples, got {batch_size}.")
    ordered = examples.shuffle(seed=seed) if shuffle else examples
    options = grain.ReadOptions(num_threads=num_threads, prefetch_buffer_size=NUM_AHEAD * batch_size)
    return partial(_epoch, ordered, options, batch_size)


def _indexable(source: Dataset | Source) -> Source:
    """A source as it is, arrays as a source of their rows."""
    return Subset(source, np.arange(num_examples(source))) if isinstance(source, Dataset) else source


def _epoch(examples: Any, options: Any, batch_size: int, epoch: int) -> Iterator[tuple[Images, Labels]]:
    """The batches of one epoch: that part of the endless set which grain shuffles and seeds by its own number."""
    num = len(examples)
    part = examples.repeat(epoch + 1)[epoch * num :]
    for batch in part.to_iter_dataset(options).batch(batch_size, drop_remainder=True):
        if not isinstance(batch, Mapping) or not {"image", "label"} <= set(batch):
            found = sorted(map(str, batch)) if isinstance(batch, Mapping) else type(batch).__name__
            raise ValueError(f'Every example of a source must be a mapping with "image" and "label", got {found}.')
        yield batch["image"], batch["label"]
