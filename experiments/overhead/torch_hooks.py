"""The same networks in PyTorch, and hooks that read every layer: careful ones, and as people write them."""

from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from experiments.overhead.timing import Runner, Taken, now

WIDTH = {"residual": 16, "resnet18": 64, "resnet50": 64}
STAGES = {"residual": (2, 2, 2), "resnet18": (2, 2, 2, 2), "resnet50": (3, 4, 6, 3)}
LAYERS = (nn.Conv2d, nn.Linear, nn.ReLU)


class Block(nn.Module):
    """A residual block."""

    def __init__(self, before: int, width: int, stride: int, is_bottleneck: bool) -> None:
        super().__init__()
        after = 4 * width if is_bottleneck else width
        plan = [(width, 3, stride), (after, 3, 1)]
        if is_bottleneck:
            plan = [(width, 1, 1), (width, 3, stride), (after, 1, 1)]
        parts: list[nn.Module] = []
        channels = before
        for place, (out, size, step) in enumerate(plan):
            parts += unit(channels, out, size, step) + ([nn.ReLU()] if place + 1 < len(plan) else [])
            channels = out
        self.body = nn.Sequential(*parts)
        self.shortcut = nn.Sequential(*(unit(before, after, 1, stride) if (before, stride) != (after, 1) else []))
        self.relu = nn.ReLU()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """The sum with the shortcut, rectified."""
        return self.relu(self.body(x) + self.shortcut(x))


def unit(before: int, after: int, size: int, stride: int) -> list[nn.Module]:
    """A convolution and its normalisation."""
    return [nn.Conv2d(before, after, size, stride, size // 2, bias=False), nn.BatchNorm2d(after)]


def build(name: str, channels: int) -> nn.Module:
    """The network of a name in `names.NETWORKS`."""
    if name == "plain":
        parts: list[nn.Module] = []
        for before, after in ((channels, 32), (32, 32), (32, 64), (64, 64)):
            parts += [nn.Conv2d(before, after, 3, padding=1), nn.ReLU()]
            parts += [nn.MaxPool2d(2)] if before == after else []
        return nn.Sequential(*parts, nn.Flatten(), nn.Linear(64 * 64, 128), nn.ReLU(), nn.Linear(128, 10))
    width, is_bottleneck, has_stem = WIDTH[name], name == "resnet50", name != "residual"
    stem = [*unit(channels, width, *((7, 2) if has_stem else (3, 1))), nn.ReLU()]
    blocks: list[nn.Module] = [*stem, *([nn.MaxPool2d(3, 2, 1)] if has_stem else [])]
    before = width
    for stage, num_blocks in enumerate(STAGES[name]):
        for index in range(num_blocks):
            blocks.append(Block(before, width * 2**stage, 2 if stage and not index else 1, is_bottleneck))
            before = width * 2**stage * (4 if is_bottleneck else 1)
    return nn.Sequential(*blocks, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(before, 10))


def hook_carefully(model: nn.Module, readings: list[Any]) -> None:
    """Sums on the device, forward and backward, that are fetched together after the step."""

    def read(x: torch.Tensor) -> None:
        """Keeps the statistics of one tensor."""
        with torch.no_grad():
            readings.append(torch.stack([x.mean(), x.std(), (x == 0).float().mean()]))

    def forward(_module: nn.Module, _inputs: Any, output: torch.Tensor) -> None:
        """Reads the output now and its gradient when it comes."""
        read(output)
        output.register_hook(lambda gradient: readings.append(gradient.square().mean()[None]))

    for module in model.modules():
        if isinstance(module, nn.ReLU) or (isinstance(module, nn.Linear) and module.out_features == 10):
            module.register_forward_hook(forward)


def hook_usually(model: nn.Module, readings: list[Any]) -> None:
    """A hook on every layer that brings each number to the host at once."""

    def read(x: torch.Tensor) -> None:
        """What one finds in tutorials."""
        x = x.detach()
        readings.append((x.mean().item(), x.std().item(), (x == 0).float().mean().item(), x.abs().max().item()))

    for module in model.modules():
        if isinstance(module, LAYERS):
            module.register_forward_hook(lambda _module, _inputs, output: read(output))
            module.register_full_backward_hook(lambda _module, _inputs, outputs: read(outputs[0]))


HOOKS: dict[str, Callable[[nn.Module, list[Any]], None]] = {
    "torch": lambda _model, _readings: None,
    "torch_careful": hook_carefully,
    "torch_usual": hook_usually,
}


def make_torch_runner(method: str, name: str, image_shape: tuple[int, int, int], batch_size: int) -> Runner:
    """A network of its own that trains with the hooks of one method."""
    torch.manual_seed(0)
    height, width, channels = image_shape
    model, readings = build(name, channels), list[Any]()
    HOOKS[method](model, readings)
    images, labels = torch.randn(batch_size, channels, height, width), torch.randint(0, 10, (batch_size,))
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3, momentum=0.9)

    def run(_is_read: bool) -> Taken:
        """Trains one step and fetches the readings."""
        start = now()
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(model(images), labels)
        loss.backward()
        optimizer.step()
        loss.item()
        if readings and isinstance(readings[0], torch.Tensor):
            torch.cat(readings).tolist()
        readings.clear()
        return now() - start

    return Runner(run)
