"""Whether the numbers of an image lie where its axes say: neighbouring pixels are alike where they do."""

from collections.abc import Callable, Mapping

import numpy as np

NUM_PROBED = 256  # images
AS_GIVEN, ANEW = "difference of neighbouring pixels", "difference of neighbouring pixels, laid out anew"
CHANNELS_IN_FRONT = "with their channels in front"
FEW_CHANNELS = (1, 3, 4)  # of images that are stored with that axis first


def _from_planes(images: np.ndarray) -> np.ndarray:
    """Images that were stored channel by channel, from the shape that they were given."""
    num, height, width, channels = images.shape
    return np.moveaxis(images.reshape(num, channels, height, width), 1, -1)


def _from_pixels(images: np.ndarray) -> np.ndarray:
    """Images that were stored pixel by pixel, cut into channels as if one came after the other."""
    return np.moveaxis(images, -1, 1).reshape(images.shape)


def _from_other_sides(images: np.ndarray) -> np.ndarray:
    """Images whose height was taken for their width."""
    num, height, width, channels = images.shape
    return images.reshape(num, width, height, channels)


def _channels_last(images: np.ndarray) -> np.ndarray:
    """Images whose channels come first."""
    return np.moveaxis(images, 1, -1)


LAYOUTS: Mapping[str, Callable[[np.ndarray], np.ndarray]] = {
    "channel by channel": _from_planes,
    "pixel by pixel": _from_pixels,
    "with height and width exchanged": _from_other_sides,
    CHANNELS_IN_FRONT: _channels_last,
}


def has_channels_first(images: np.ndarray) -> bool:
    """Whether images look as if their channels came first."""
    return images.ndim == 4 and images.shape[1] in FEW_CHANNELS and images.shape[-1] > max(FEW_CHANNELS)


def look_at_layout(images: np.ndarray) -> tuple[dict[str, float], dict[str, str]]:
    """How much neighbouring pixels differ, in standard deviations: as the images are, and in the best other layout."""
    images = np.asarray(images[:NUM_PROBED], np.float32)
    if images.ndim != 4 or has_channels_first(images) or not np.std(images) > 0:
        return {}, {}
    differences = {name: _difference(LAYOUTS[name](images)) for name in _layouts(images)}
    if not differences:
        return {}, {}
    best = min(differences, key=lambda name: differences[name])
    return {AS_GIVEN: _difference(images), ANEW: differences[best]}, {"other layout": best}


def _layouts(images: np.ndarray) -> list[str]:
    """The layouts that images of that shape may have been stored in, and that differ from their own."""
    _, height, width, channels = images.shape
    return ["channel by channel", "pixel by pixel"] * (channels > 1) + ["with height and width exchanged"] * (
        height != width
    )


def _difference(images: np.ndarray) -> float:
    """Root mean squared difference of neighbours along the side where they differ more, in standard deviations."""
    sides = [np.sqrt(np.mean(np.square(np.diff(images, axis=axis)))) for axis in (1, 2) if images.shape[axis] > 1]
    return float(max(sides, default=np.nan) / np.std(images))
