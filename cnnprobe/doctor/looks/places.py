"""Whether the trained network can tell places apart: its answers to images whose blocks have traded places."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from cnnprobe.doctor.bench import Bench, scores_of
from cnnprobe.doctor.run import evaluated
from cnnprobe.types import Params, State

NUM_PROBED = 256  # images
FEWEST_BLOCKS = 4
MOVED = 1e-3  # of the spread of scores over images: what blocks that trade places must move, and rounding does not


class _Told(NamedTuple):
    """A network that tells images apart."""

    weights: tuple[Params, State]
    scores: Float[np.ndarray, "batch classes"]
    spread: float  # of its scores over the images


def look_at_places(bench: Bench, *weights: tuple[Params, State]) -> dict[str, float]:
    """Width of the smallest blocks that may trade places without any change in the scores; 0 where none may.

    That must hold for all the `weights` of the network, those before training and after it: outputs that have
    saturated do not change either. Nothing is said where scores are the same for all images.
    """
    images = bench.train.images[:NUM_PROBED]
    if images.ndim != 4:
        return {}
    scored = ((each, _scores(bench, each, images)) for each in weights)
    told = [_Told(each, scores, float(np.std(scores, axis=0).max(initial=0))) for each, scores in scored]
    told = [each for each in told if each.spread > 0]
    if not told:
        return {}

    def are_blind(width: int) -> bool:
        """Whether blocks of that width may trade places, whatever the weights."""
        others = _dealt(images, width, np.random.default_rng(bench.problem.seed))
        return all(_is_blind(bench, each, others) for each in told)

    widths = _widths(images)
    # Where small blocks may trade places, larger ones that are made of them may: the largest alone tell most networks.
    coarse = [width for width in widths if not any(other > width and other % width == 0 for other in widths)]
    blind = filter(are_blind, widths if any(map(are_blind, coarse)) else ())
    return {"blocks that may trade places": float(next(blind, 0))}


def _scores(bench: Bench, weights: tuple[Params, State], images: np.ndarray) -> Float[np.ndarray, "batch classes"]:
    """Of each image, in evaluation mode."""
    return scores_of(evaluated(bench.problem, bench, weights, images), bench.num_classes)


def _is_blind(bench: Bench, told: _Told, dealt: np.ndarray) -> bool:
    """Whether a network's scores for images with other places are those of the images, but for rounding."""
    return bool(np.abs(_scores(bench, told.weights, dealt) - told.scores).max() <= MOVED * told.spread)


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
