"""Bias correction: the mean of every channel is what it was before the weights were rounded."""

from __future__ import annotations

from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from edgekit.graph import ops
from edgekit.graph.capture import capture
from edgekit.int8.accumulators import LARGEST_BIAS, biased
from edgekit.int8.calibration import CalibrationOptions, calibrate, estimate
from tests.export.runtimes import files_of
from tests.networks import Residual, images, seeded, snr_db


class Layers(nn.Module):
    """Without padding, so that the mean of a channel is the mean of what a kernel sees, nearly."""

    def __init__(self) -> None:
        super().__init__()
        self.grouped = nn.Conv2d(3, 12, 1, groups=3)
        self.deep = nn.Conv2d(12, 12, 1, groups=12)
        self.dense = nn.Conv2d(12, 6, 1)
        self.head = nn.Linear(6, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.grouped(x))
        x = F.relu(self.deep(x))
        return self.head(F.relu(self.dense(x)).mean((2, 3)))


def rounded(weight: Tensor) -> Tensor:
    step = (weight.flatten(1).abs().amax(1) / 127).reshape(-1, *[1] * (weight.dim() - 1))
    return (weight / step).round() * step


def test_every_correction_is_the_shift_of_the_mean_that_rounding_causes() -> None:
    """Layer by layer, in the float model: rounded weights shift the mean, the new bias takes it back."""
    model = seeded(Layers)
    batches = [images(32, seed) for seed in range(2)]
    graph = estimate(capture(model, images(1)), batches, CalibrationOptions(bias_correction=True))
    seen: dict[str, Tensor] = {}
    for name, layer in model.named_children():
        layer.register_forward_pre_hook(lambda _, given, name=name: seen.update({name: given[0]}))
    model(torch.cat(batches))
    for name, layer in model.named_children():
        with torch.no_grad():
            correct, before = layer(seen[name]), layer.bias.clone()
            layer.weight.copy_(rounded(layer.weight))
            shifted = layer(seen[name])
            layer.bias.copy_(graph.get_parameter(f"{name}.bias"))
            again = layer(seen[name])
        others = [dim for dim in range(correct.dim()) if dim != 1]
        shift, left = (((y - correct).mean(others)).abs().max() for y in (shifted, again))
        assert float(left) < 1e-5 + 0.01 * float(shift), name
        assert not torch.equal(before, layer.bias) or float(shift) < 1e-6


def test_it_changes_biases_alone_and_only_when_asked() -> None:
    model = seeded(Residual)
    graph = capture(model, images(1))
    batches = [images(16, seed) for seed in range(2)]
    plain, corrected = (
        calibrate(graph, batches, CalibrationOptions(bias_correction=asked)) for asked in (False, True)
    )
    one, other = dict(plain.named_parameters()), dict(corrected.named_parameters())
    changed = {name for name in one if not torch.equal(one[name], other[name])}
    assert changed == {"first.bias", "second.bias", "head.bias"}
    assert snr_db(plain(images(32, 9)), corrected(images(32, 9))) > 25


class Dead(nn.Module):
    """Channels that batch norm has made constants: γ nearly 0, tiny, and 0."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.norm = nn.Conv2d(3, 8, 3, 2, 1, bias=False), nn.BatchNorm2d(8)
        self.last = nn.Conv2d(8, 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(F.relu6(self.norm(self.first(x))))


def test_channels_that_are_constants_keep_their_value_in_both_files(tmp_path: Path) -> None:
    model, x = seeded(Dead), images(64)
    with torch.no_grad():
        model.norm.weight[:4] = torch.tensor([1e-9, 1e-12, 0.0, 1e-30])
        model.norm.bias[:4] = torch.tensor([1.5, 2.5, 0.7, 0.0])
        model.norm.running_mean[:4] = 0
    graph = calibrate(capture(model, x[:1]), list(x.split(16)))
    for layer in biased(graph):
        scale = layer.input_scale * ops.attribute(graph, layer.weight_scale).double()
        integers = ops.attribute(graph, layer.bias).detach().double() / scale
        assert float(integers.abs().max()) <= LARGEST_BIAS * (1 + 1e-6)  # scales are float32
    hidden = graph.get_parameter("first.bias")[:3]
    assert torch.allclose(hidden, torch.tensor([1.5, 2.5, 0.7]), rtol=1e-5)
    with torch.no_grad():
        assert snr_db(model(x), graph(x)) > 34
        reference = graph(x[:8])
    for name, got in files_of(graph, x[:8], tmp_path).items():
        assert snr_db(reference, got) > 40, name
