"""Everything that an experienced engineer goes through when a CNN's accuracy disappoints.

The answer's baseline network on clothes in the place of the asker's images, with the trap of its snippets: the model
ends in a softmax, which is right with a loss on probabilities and wrong with one on logits.
"""

import jax
import optax

from cnnprobe.cases.parts import chosen_fault, cross_entropy, fitted, log_likelihood_loss, scale_pixels
from cnnprobe.data.bundled import ImageSet, fashion_mnist
from cnnprobe.models.chain import chain, conv, dense, function
from cnnprobe.models.plain import flatten, max_pool
from cnnprobe.types import Model, Problem

LOSSES = {"softmax_twice": cross_entropy}
IMAGE_SIZE = 28


def network(*, width: int = 32, num_classes: int = 10) -> Model:
    """Two 3x3 convolutions, each with ReLU and a 2x2 pool, a dense layer and a softmax; 50,186 parameters.

    Args:
      width: channels of the first convolution; the second has twice as many.
      num_classes: probabilities of each image.
    """
    relu, pool = function(jax.nn.relu), function(max_pool)
    steps = [conv("conv1", width), relu, pool, conv("conv2", 2 * width), relu, pool, function(flatten)]
    return chain([*steps, dense("head", num_classes), function(jax.nn.softmax)])


def checklist(
    *,
    fault: str | None = None,
    width: int = 32,
    num_images: int = 1000,
    data: ImageSet | None = None,
    seed: int = 0,
) -> Problem:
    """Ten kinds of clothes, and the baseline network that ends in a softmax.

    Args:
      fault: "softmax_twice" trains on a loss that takes logits; None: on one that takes probabilities.
      width: channels of the first convolution.
      num_images: for training, at most 3000 of the clothes.
      data: images to use in their place; they are made gray and brought to 28x28.
      seed: of the training.

    Raises:
      ValueError: an argument is out of its range, or there is no such fault.
    """
    num_valid = min(max(num_images // 3, 1), 1000)
    if data is None:
        data = fashion_mnist(num_train=num_images, num_valid=num_valid, raw=True)
    else:
        data = fitted(data, size=IMAGE_SIZE, channels=1, num_train=num_images, num_valid=num_valid)
    return Problem(
        model=network(width=width, num_classes=len(data.class_names)),
        loss=chosen_fault(fault, LOSSES, log_likelihood_loss),
        optimizer=optax.adam(1e-3),
        train=data.train,
        valid=data.valid,
        num_classes=len(data.class_names),
        batch_size=64,
        num_epochs=10,
        preprocess=scale_pixels,
        seed=seed,
    )
