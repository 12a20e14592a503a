"""Last layers whose channels have ranges unlike each other: each keeps its digits, in both files."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from edgekit.graph.capture import capture
from edgekit.int8.calibration import CalibrationOptions, calibrate
from edgekit.int8.heads import even_heads
from edgekit.int8.lower import lower
from tests.export.runtimes import files_of
from tests.networks import images, seeded, snr_db


class Pose(nn.Module):
    """Two positions in pixels, an angle, and a share, out of one linear layer."""

    def __init__(self, sizes: tuple[float, ...] = (640.0, 480.0, 3.0, 0.02)) -> None:
        super().__init__()
        self.stem, self.head = nn.Conv2d(3, 16, 3, 4, 1), nn.Linear(64, len(sizes))
        with torch.no_grad():
            for parameter in self.head.parameters():
                parameter.mul_(torch.tensor(sizes).reshape(-1, *[1] * (parameter.dim() - 1)))

    def features(self, x: Tensor) -> Tensor:
        return F.relu(self.stem(x))

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.features(x).flatten(1))


class Raw(Pose):
    """A convolution gives boxes in pixels and scores together: (N, 4 places, 5)."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Conv2d(16, 5, 1)
        with torch.no_grad():
            self.head.weight[:4] *= 300

    def forward(self, x: Tensor) -> Tensor:
        boxes, scores = self.head(self.features(x)).flatten(2).split((4, 1), 1)
        return torch.cat([boxes, scores.sigmoid()], 1).transpose(1, 2)


@pytest.mark.parametrize("network", [Pose, Raw])
def test_every_channel_of_a_last_layer_is_held(network: type[nn.Module], tmp_path: Path) -> None:
    model, x = seeded(network), images(64)
    graph = calibrate(capture(model, x[:1]), list(x.split(16)))
    with torch.no_grad():
        wanted, given, reference = model(x), graph(x), graph(x[:4])
    last = wanted.dim() - 1
    for channel in range(wanted.shape[last]):
        assert snr_db(wanted.select(last, channel), given.select(last, channel)) > 30, channel
    for name, got in files_of(graph, x[:4], tmp_path).items():
        for channel in range(wanted.shape[last]):
            one, other = (part.select(last, channel) for part in (reference, got))
            assert snr_db(one, other) > 30, (name, channel)


def test_the_function_stays_bit_for_bit() -> None:
    model, x = seeded(Pose), images(32)
    graph = lower(capture(model, x[:1]))
    with torch.no_grad():
        before = graph(x)
        assert even_heads(graph, [x]) == ["linear"]
        assert torch.equal(graph(x), before)
        sizes = model(x).abs().amax(0)
        assert float(sizes.max() / sizes.min()) > 1000
    even = graph.head.weight.detach().abs().amax(1)
    assert float(even.max() / even.min()) < 4


def test_heads_of_like_channels_are_left_alone() -> None:
    x = images(32)
    graph = lower(capture(seeded(lambda: Pose((1.0, 2.0, 3.0, 4.0))), x[:1]))
    assert even_heads(graph, [x]) == []


class Pooled(Pose):
    """Features that are averaged behind the layer: a tail in float would be the whole picture."""

    def forward(self, x: Tensor) -> Tensor:
        return self.stem(x).mean((2, 3))


class Twice(Pose):
    """The layer is called twice: one factor can't suit both."""

    def forward(self, x: Tensor) -> Tensor:
        features = self.features(x).flatten(1)
        return torch.cat([self.head(features), self.head(features * 100)], 1)


@pytest.mark.parametrize("network", [Pooled, Twice])
def test_layers_that_more_than_the_output_depends_on_are_left_alone(network: type[nn.Module]) -> None:
    x = images(32)
    model = seeded(network)
    with torch.no_grad():
        model.stem.weight[0] *= 1000
    assert even_heads(lower(capture(model, x[:1])), [x]) == []


def test_it_can_be_switched_off() -> None:
    model, x = seeded(Pose), images(64)
    graph = calibrate(capture(model, x[:1]), [x], CalibrationOptions(even_heads=False))
    with torch.no_grad():
        assert snr_db(model(x)[:, 3], graph(x)[:, 3]) < 10


class Tied(nn.Module):
    """The last layer's weights are the embedding's: they mustn't change there."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.head = nn.Embedding(4, 8), nn.Linear(8, 4, bias=False)
        self.head.weight = self.embed.weight
        with torch.no_grad():
            self.embed.weight[1:] *= 0.01

    def forward(self, tokens: Tensor) -> Tensor:
        return self.head(self.embed(tokens).mean(1))


def test_weights_that_stand_in_two_places_keep_the_function() -> None:
    tokens = torch.arange(64).reshape(16, 4) % 4
    graph = lower(capture(seeded(Tied), tokens[:1]))
    with torch.no_grad():
        before = graph(tokens)
        even_heads(graph, [tokens])
        assert torch.equal(graph(tokens), before)
