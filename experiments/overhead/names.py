"""What the benchmark of overhead can measure, by the names of its flags; free of heavy imports."""

from typing import NamedTuple

NETWORKS = {
    "plain": "four convolutions and two dense layers, 32x32x3, batch 128",
    "residual": "six residual blocks with batch normalisation, 50x50x1, batch 64",
    "resnet18": "ResNet-18, 64x64x3, batch 32",
    "resnet50": "ResNet-50, 64x64x3, batch 32",
}
DEFAULT_NETWORKS = ("plain", "residual", "resnet18")


class Title(NamedTuple):
    """One way to train, in words."""

    text: str
    baseline: str = "bare"  # the method that its time is divided by: the same step without readings
    every: int = 1  # steps between two that are read


SLICE = 16  # examples of each batch that are read where not all are
TORCH = "torch"  # the bare step of PyTorch's methods
CADENCE = 16  # steps between two that `cp.fit` taps, as long as nobody chooses another number
METHODS = {
    "bare": Title("the bare step, measured again"),
    "pools": Title("nothing read, max pools differentiated as cnnprobe does"),
    "parameters": Title("parameters: gradients, updates, zeros, every step"),
    "forward": Title("taps forward, every step", "pools"),
    "backward": Title("taps forward and backward, every step", "pools"),
    "everything": Title("taps both ways, parameters and predictions, every step", "pools"),
    "slice": Title(f"the same with the taps on {SLICE} examples of each batch", "pools"),
    "cadence": Title(f"the same with the taps on all examples, every {CADENCE}th step", "pools", CADENCE),
    "fit": Title("the step of `cp.fit` as it comes", "pools", CADENCE),
    "capture": Title("Flax `capture_intermediates`, reduced on the device, every step"),
    "callback": Title("`jax.debug.callback` with the same statistics, every step"),
    "eager": Title("eager capture before each step"),
    TORCH: Title("PyTorch: the bare step, measured again", TORCH),
    "torch_careful": Title("PyTorch hooks, careful, every step", TORCH),
    "torch_usual": Title("PyTorch hooks as people write them, every step", TORCH),
}
