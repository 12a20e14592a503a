from __future__ import annotations

import copy
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from edgekit.training.distillation.taps import Taps
from edgekit.training.teachers import fused as module
from edgekit.training.teachers.fused import fused

FUSED = torch.ops.mkldnn._convolution_pointwise


class Residual(nn.Module):
    """Two convolutions, an addition (of the inputs, or of a third convolution that comes later), ReLU."""

    def __init__(self, channels: int = 8, *, projected: bool = False) -> None:
        super().__init__()
        self.first = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.one = nn.BatchNorm2d(channels)
        self.second = nn.Conv2d(channels, channels, 3, padding=1)
        self.two = nn.BatchNorm2d(channels)
        self.short = nn.Conv2d(channels, channels, 1) if projected else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        y = self.two(self.second(torch.relu(self.one(self.first(x)))))
        return torch.relu(y + self.short(x))


def after(activation: Callable[[], nn.Module], **conv: int) -> nn.Module:
    return nn.Sequential(nn.Conv2d(8, 8, 3, **conv), nn.BatchNorm2d(8), activation(), nn.Conv2d(8, 4, 1))


def trained(model: nn.Module) -> nn.Module:
    """With statistics and scales that aren't those of a fresh batch norm."""
    generator = torch.Generator().manual_seed(0)
    for tensor in [*model.parameters(), *model.buffers()]:
        if tensor.is_floating_point():
            tensor.data = torch.rand(tensor.shape, generator=generator) * 0.5 + 0.05
    return model.eval()


def images(n: int = 4) -> Tensor:
    return torch.randn(n, 8, 9, 9, generator=torch.Generator().manual_seed(1))


def kinds(graph: nn.Module) -> list[object]:
    assert isinstance(graph, torch.fx.GraphModule)
    return [node.target for node in graph.graph.nodes if node.op == "call_function"]


@pytest.mark.parametrize(
    ("build", "expected"),
    [
        (lambda: Residual(), [FUSED.default, FUSED.binary]),
        (lambda: Residual(projected=True), [FUSED.default, FUSED.binary]),
        (lambda: after(nn.ReLU, stride=2), [FUSED.default]),
        (lambda: after(nn.ReLU6, padding=1, groups=4), [FUSED.default]),
        (lambda: after(lambda: nn.Hardtanh(-0.5, 0.75)), [FUSED.default]),
        (lambda: after(nn.Hardswish, dilation=2), [FUSED.default]),
    ],
    ids=["residual", "projected", "relu", "relu6", "hardtanh", "hardswish"],
)
def test_the_same_answers_from_fewer_ops(build: Callable[[], nn.Module], expected: list[object]) -> None:
    model = trained(build())
    before = copy.deepcopy(model.state_dict())
    graph = fused(model, images())
    assert graph is not None
    found = kinds(graph)
    assert [kind for kind in found if kind in (FUSED.default, FUSED.binary)] == expected
    assert torch.ops.aten.batch_norm.default not in found
    for n in (1, 4, 7):
        with torch.inference_mode():
            want = model(images(n))
            assert torch.allclose(graph(images(n)), want, rtol=1e-5, atol=1e-5 * float(want.abs().max()))
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())


def test_layers_that_are_looked_into_are_told() -> None:
    model = trained(nn.Sequential(Residual(), after(nn.ReLU6, padding=1)))
    names = ["1.2", "0.two", "0"]
    graph = fused(model, images(), names)
    assert graph is not None
    assert FUSED.binary not in kinds(graph)  # the sum's first operand is told, so it has to be there
    assert kinds(graph).count(FUSED.default) == 2
    taps = Taps(model, names)
    with torch.inference_mode(), taps.recording():
        answer, *told = graph(images(5)).values()
        want = model(images(5))
        for one, other in zip((answer, *told), (want, *taps.take()), strict=True):
            assert torch.allclose(one, other, rtol=1e-5, atol=1e-5 * float(other.abs().max()))


def test_a_layer_that_is_overwritten_by_the_next_is_told_as_it_was_left() -> None:
    model = trained(after(lambda: nn.ReLU(inplace=True)))
    example = images() - 3  # some are below zero before the ReLU, which writes over what a hook keeps
    graph = fused(model, example, ["1"])
    assert graph is not None
    taps = Taps(model, ["1"])
    with torch.inference_mode(), taps.recording():
        _, told = graph(example).values()
        model(example)
        assert torch.allclose(told, *taps.take(), rtol=1e-5, atol=1e-5)
    assert float(told.min()) == 0


class Broadcast(nn.Module):
    """What is added has another shape: that is no residual addition."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(8, 8, 1)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.conv(x) + x.mean((2, 3), keepdim=True))


class Twice(nn.Module):
    """The convolution's own result is needed as well."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(8, 8, 1)

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv(x)
        return torch.relu(y) * torch.sigmoid(y)


class Fickle(nn.Module):
    """Can't be captured: which way it goes depends on the data."""

    def forward(self, x: Tensor) -> Tensor:
        return x if float(x.sum()) > 0 else -x


@pytest.mark.parametrize(
    "build", [Broadcast, Twice, Fickle, lambda: nn.Conv2d(8, 4, 1)], ids=["shape", "twice", "fickle", "bare"]
)
def test_nothing_to_fuse(build: Callable[[], nn.Module]) -> None:
    assert fused(trained(build()), images()) is None


def test_a_wrong_graph_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    replace = module._replace

    def wrong(*arguments: object) -> None:
        graph, conv, last, other, _ = arguments
        replace(graph, conv, last, other, None)  # type: ignore[arg-type]  # forgets the activation

    monkeypatch.setattr(module, "_replace", wrong)
    assert fused(trained(Residual()), images() - 3) is None
