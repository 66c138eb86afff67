"""Flags that say which problem to train: shared by the scripts, and free of heavy imports so that --help is instant."""

from collections.abc import Sequence
from typing import Any

from absl import flags

MODELS = ("small_cnn", "baseline_cnn", "residual_cnn")
OPTIMIZERS = ("sgd", "momentum", "adam", "adamw")

_DATASET = flags.DEFINE_string(
    "dataset",
    "fashion_mnist",
    "Built-in images: fashion_mnist, textures or blood_cells, which are rendered; or a data set that"
    " tensorflow-datasets has prepared.",
)
_IMAGES = flags.DEFINE_string("images", None, "A folder of your own images: ROOT/class/*.png.")
_NPZ = flags.DEFINE_string("npz", None, "Your own npz file: `images` and `labels`, or `x_train` and `y_train`.")
_PROBLEM = flags.DEFINE_string(
    "problem",
    None,
    "Your own module:function, a function that returns a Problem. That code is run, with all that it may do: name none"
    " that you do not trust.",
)
_MODEL = flags.DEFINE_enum("model", "small_cnn", MODELS, "The network.")
_OPTIMIZER = flags.DEFINE_enum("optimizer", "adam", OPTIMIZERS, "The optimizer.")
_LEARNING_RATE = flags.DEFINE_float("learning_rate", 1e-3, "Step size.", lower_bound=0.0)
_BATCH_SIZE = flags.DEFINE_integer("batch_size", 64, "Images in a batch.", lower_bound=1)
_NUM_EPOCHS = flags.DEFINE_integer("num_epochs", 5, "Passes over the training images.", lower_bound=1)
_NUM_IMAGES = flags.DEFINE_integer(
    "num_images", None, "Training images of a built-in or prepared set; all if unset.", lower_bound=1
)
_IMAGE_SIZE = flags.DEFINE_integer(
    "image_size", 64, "Side of the images of a folder or a prepared set, in pixels.", lower_bound=8
)
_FAULT = flags.DEFINE_string("fault", None, "A fault to plant in the problem; an unknown name lists them all.")
SEED = flags.DEFINE_integer("seed", 0, "Seed of the initial weights and the order of the images.")

_HOLDERS = (
    _DATASET,
    _IMAGES,
    _NPZ,
    _PROBLEM,
    _MODEL,
    _OPTIMIZER,
    _LEARNING_RATE,
    _BATCH_SIZE,
    _NUM_EPOCHS,
    _NUM_IMAGES,
    _IMAGE_SIZE,
    _FAULT,
    SEED,
)
flags.mark_flags_as_mutual_exclusive(["images", "npz", "problem"])


def chosen() -> dict[str, Any]:
    """The parsed values by name, as `problems.build_problem` takes them."""
    return {holder.name: holder.value for holder in _HOLDERS}


def given(names: Sequence[str]) -> dict[str, Any]:
    """The parsed values of those of the named flags that were given."""
    return {name: flags.FLAGS[name].value for name in names if flags.FLAGS[name].present}
