"""Whether the trained network can tell places apart: its answers to images whose blocks have traded places."""

import numpy as np

from cnnprobe.doctor.bench import Bench, scores_of
from cnnprobe.doctor.run import evaluated
from cnnprobe.types import Params, State

NUM_PROBED = 256  # images
FEWEST_BLOCKS = 4
MOVED = 1e-3  # of the spread of scores over images: what blocks that trade places must move, and rounding does not


def look_at_places(bench: Bench, weights: tuple[Params, State]) -> dict[str, float]:
    """Width of the smallest blocks that may trade places without any change in the scores; 0 where none may.

    Nothing is said of a network whose scores are the same for all images.
    """
    images = bench.train.images[:NUM_PROBED]
    if images.ndim != 4:
        return {}

    def scores(images: np.ndarray) -> np.ndarray:
        """Of each image, in evaluation mode."""
        return scores_of(evaluated(bench.problem, bench, weights, images), bench.num_classes)

    own = scores(images)
    enough = MOVED * float(np.std(own, axis=0).max(initial=0))
    if not enough > 0:
        return {}
    rng = np.random.default_rng(bench.problem.seed)
    blind = (width for width in _widths(images) if np.abs(scores(_dealt(images, width, rng)) - own).max() <= enough)
    return {"blocks that may trade places": float(next(blind, 0))}


def _widths(images: np.ndarray) -> list[int]:
    """Widths of square blocks that divide the images into several."""
    height, width = images.shape[1:3]
    return [
        size
        for size in range(1, min(height, width) + 1)
        if height % size == width % size == 0 and height * width >= FEWEST_BLOCKS * size**2
    ]


def _dealt(images: np.ndarray, size: int, rng: np.random.Generator) -> np.ndarray:
    """The images with their blocks in another order."""
    num, height, width, channels = images.shape
    rows, columns = height // size, width // size
    blocks = images.reshape(num, rows, size, columns, size, channels).swapaxes(2, 3)
    dealt = blocks.reshape(num, rows * columns, size, size, channels)[:, rng.permutation(rows * columns)]
    return dealt.reshape(num, rows, columns, size, size, channels).swapaxes(2, 3).reshape(images.shape)
