"""Pools, strides and windows that lose the image plane."""

import math

from cnnprobe.doctor.causes.record import Advice, Cause, Way, first_of, graded, no_remedy, readings
from cnnprobe.doctor.harm import DECISIVE
from cnnprobe.doctor.looks.maps import FACTORS
from cnnprobe.doctor.observation import Observation, fact
from cnnprobe.doctor.progress import BASELINE, is_behind, is_cut_short, is_solved
from cnnprobe.doctor.remedies_data import enlarge_images
from cnnprobe.doctor.remedies_network import mark_places, see_both_sides
from cnnprobe.types import Evidence, Remedy

LARGEST_SIDE = 512  # pixels of an enlarged image
FEWEST_SIDE = 3  # places across the last map, as many as its convolutions are wide
POOLED, ONE_SIDED = "pools over features and one side", "convolutions along one side"
IN_BATCH = "convolutions with the height in the batch"
MOVABLE = "blocks that may trade places"
MOST = 0.5  # share of the convolutions on single places that is decisive


def _misplaced(seen: Observation) -> Evidence | None:
    """A pool over features and one side of the maps: what the filters found is averaged into one number a row."""
    if not fact(seen, POOLED) > 0:
        return None
    sentence = (
        f"A pool goes over {seen.names.get('misplaced pool', '')}: over the features of its places and one side of the"
        " plane. A dense layer reads what is left, one number for each row or column."
    )
    return Evidence(sentence, readings(seen, POOLED, "validation accuracy", BASELINE), 1.0)


def _collapsed(seen: Observation) -> Evidence | None:
    """Maps without a place, or convolutions that see one place and padding; pooling before the head is neither."""
    names = ("smallest map places", "convolutions on a single place", "spatial convolutions", "enlargement that runs")
    if fact(seen, "smallest map places") == 0:
        sentence = (
            f"Images of {_size(seen)} pixels are too small for the pools and strides: they leave a map without places."
        )
        return Evidence(sentence, readings(seen, *names), 1.0)
    single, spatial = fact(seen, "convolutions on a single place"), fact(seen, "spatial convolutions")
    if not single > 0:
        return None
    first = seen.names.get("first convolution on a single place", "")
    sentence = (
        f"From {first} on, {single:.0f} of {spatial:.0f} convolutions are given a map of a single place: pools and"
        f" strides before it have used up images of {_size(seen)} pixels."
    )
    behind, share = ("validation accuracy", BASELINE) if is_behind(seen) else (), single / max(spatial, single)
    return Evidence(sentence, readings(seen, *names, *behind), 0.3 + 0.7 * graded(share, 0.0, MOST))


def _blind_to_a_side(seen: Observation) -> Evidence | None:
    """Convolutions all of which combine the places along the same side alone.

    Windows of 1 by k may be meant so; windows of a single size, which take the height for examples, hardly are.
    """
    if not fact(seen, ONE_SIDED) > 0:
        return None
    side, other = seen.names.get("seen side", ""), seen.names.get("unseen side", "")
    sentence = (
        f"The windows of all {fact(seen, ONE_SIDED):.0f} convolutions run along the {side} alone"
        f" ({seen.names.get('one-sided kernel', '')}): none of them combines places along the {other}."
    )
    behind = ("validation accuracy", BASELINE) if is_behind(seen) else ()
    strength = DECISIVE if fact(seen, IN_BATCH) > 0 else 0.7
    return Evidence(sentence, readings(seen, ONE_SIDED, IN_BATCH, "spatial convolutions", *behind), strength)


def _blind_to_places(seen: Observation) -> Evidence | None:
    """Answers that stay as they are when blocks of the image trade places."""
    width = fact(seen, MOVABLE)
    if not width > 0:
        return None
    sentence = (
        f"The scores stay as they are when blocks of {width:.0f}x{width:.0f} pixels trade places: the network sees what"
        " is in an image, and nothing of where it is."
    )
    return Evidence(sentence, readings(seen, MOVABLE, "validation accuracy", BASELINE), 0.6)


def _size(seen: Observation) -> str:
    """Height and width of the images."""
    return "x".join(map(str, seen.bench.train.images.shape[1:3]))


def _larger(seen: Observation) -> tuple[Remedy, ...]:
    """Larger images, from the first enlargement that runs."""
    side, first = max(seen.bench.train.images.shape[1:3]), fact(seen, "enlargement that runs")
    least = 1.0 if math.isnan(first) else first
    factors = [factor for factor in FACTORS if factor >= least and factor * side <= LARGEST_SIDE]
    return tuple(enlarge_images(factor) for factor in factors)


def _advise_fewer(seen: Observation) -> Advice:
    """Fewer pools, or larger images."""
    halvings = int(math.log2(max(min(seen.bench.train.images.shape[1:3]) / FEWEST_SIDE, 1)))
    text = (
        f"Images of {_size(seen)} pixels bear {halvings} halvings before convolutions of {FEWEST_SIDE}x{FEWEST_SIDE}"
        " run out of places: take pools and strides out, make them smaller, or feed larger images."
    )
    return Advice(text, "print(cnnprobe.model_graph(apply_fn, params, images))  # the maps, layer by layer")


OTHER_AXES = Advice(
    "Pool over height and width, the axes 1 and 2 here: 2 and 3 are those of maps with channels in front, as in"
    " PyTorch.",
    "x = x.mean(axis=(1, 2))  # [batch, height, width, channels] to [batch, channels]",
)
BOTH_SIDES = Advice(
    "Give each kernel a size for both sides: Flax takes `kernel_size=3` or `(3,)` for a window along the width, and"
    " counts the height among the batch axes.",
    "nn.Conv(32, kernel_size=(3, 3))",
)
MARKED_PLACES = Advice(
    "Add an embedding of its place to each token, one entry for each of them, or flatten the last map where you average"
    " it.",
    'x = x + self.param("places", nn.initializers.normal(0.02), (1, *x.shape[1:]))  # x: [batch, tokens, features]',
)


def _stays_behind(seen: Observation) -> bool:
    """Whether the network got nowhere near what features need no training for, in a run that was long enough.

    Of a pool over the wrong axes, whose maps have no use, it is enough that the network falls short of that.
    """
    is_short = is_behind(seen) or (_misplaced(seen) is not None and not is_solved(seen))
    return is_short and not is_cut_short(seen)


CAUSES = (
    Cause(
        "spatial-collapse",
        "the layers lose the image plane",
        "architecture",
        *first_of(
            Way(_misplaced, no_remedy, lambda _: OTHER_AXES),  # its maps would have to be built anew
            Way(_blind_to_a_side, lambda _: (see_both_sides,), lambda _: BOTH_SIDES),
            Way(_collapsed, _larger, _advise_fewer),
            Way(_blind_to_places, lambda _: (mark_places,), lambda _: MARKED_PLACES),
        ),
        "A convolution combines neighbouring places. Where one place is left, all but its central weights see padding"
        " alone, and what the pools before it averaged away cannot be told apart any more. Windows along one side never"
        " meet what the images hold along the other.",
        (
            "Richter, Byttner, Krumnack et al., (Input) size matters for CNN classifiers, ICANN 2021",
            "Vaswani, Shazeer, Parmar et al., Attention is all you need, NeurIPS 2017, section 3.5",
        ),
        shows_harm=_stays_behind,  # larger images take many times as long to train on, so that the clock may end first
        look_alikes=(
            "Global average pooling in front of the head leaves one place too and is sound, as no convolution follows."
            " A model that is written for one size of images and refuses all others has another fault. Where what is in"
            " an image tells its class, as in textures, a network need not see where it is."
        ),
    ),
)
