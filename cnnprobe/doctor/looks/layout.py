"""Whether the numbers of an image lie where its axes say: neighbouring pixels are alike where they do."""

from collections.abc import Callable, Mapping

import numpy as np
from jaxtyping import Float

NUM_PROBED = 256  # images
ROUGHER = "difference of neighbouring pixels over that in another layout"
CHANNELS_IN_FRONT = "with their channels in front"
FEW_CHANNELS = (1, 3, 4)  # of images that are stored with that axis first
GREY = 0.3  # of the difference of neighbouring pixels, below which channels repeat each other
TINY = 1e-30


def from_planes(images: np.ndarray) -> np.ndarray:
    """Images that were stored channel by channel, from the shape that they were given."""
    num, height, width, channels = images.shape
    return np.moveaxis(images.reshape(num, channels, height, width), 1, -1)


def from_pixels(images: np.ndarray) -> np.ndarray:
    """Images that were stored pixel by pixel, cut into channels as if one came after the other."""
    return np.moveaxis(images, -1, 1).reshape(images.shape)


def from_channels_first(images: np.ndarray) -> np.ndarray:
    """Images whose channels come first."""
    return np.moveaxis(images, 1, -1)


LAYOUTS: Mapping[str, Callable[[np.ndarray], np.ndarray]] = {
    "channel by channel": from_planes,
    "pixel by pixel": from_pixels,
    CHANNELS_IN_FRONT: from_channels_first,
}


def has_channels_first(images: np.ndarray) -> bool:
    """Whether images look as if their channels came first."""
    return images.ndim == 4 and images.shape[1] in FEW_CHANNELS and images.shape[-1] > max(FEW_CHANNELS)


def look_at_layout(images: np.ndarray) -> tuple[dict[str, float], dict[str, str]]:
    """How many times neighbours differ as much as in the best other layout, along the side where that gains least.

    Nothing is said of images whose channels repeat each other: such copies lie side by side in any strip of numbers.
    """
    images = np.asarray(images[:NUM_PROBED], np.float32)
    if images.ndim != 4 or min(images.shape[1:]) < 2 or has_channels_first(images) or not np.std(images) > 0:
        return {}, {}
    given = _differences(images)
    if not _size(np.diff(images - images.mean(axis=(1, 2), keepdims=True))) > GREY * given[1]:
        return {}, {}
    layouts = ("channel by channel", "pixel by pixel")
    rougher = {name: float(np.min(given / (_differences(LAYOUTS[name](images)) + TINY))) for name in layouts}
    best = max(rougher, key=lambda name: rougher[name])
    return {ROUGHER: rougher[best]}, {"other layout": best}


def _differences(images: np.ndarray) -> Float[np.ndarray, "2"]:
    """Root mean squared difference of neighbours along the height and along the width."""
    return np.array([_size(np.diff(images, axis=axis)) for axis in (1, 2)])


def _size(values: Float[np.ndarray, "..."]) -> float:
    """Root of the mean square."""
    return float(np.sqrt(np.mean(np.square(values))))
