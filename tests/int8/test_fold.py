from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from edgekit.errors import CaptureError
from edgekit.graph import ops
from edgekit.graph.capture import capture
from tests.networks import IMAGE_NETWORKS, images, seeded


def pair(layer: nn.Module, norm: nn.Module) -> nn.Module:
    return seeded(lambda: nn.Sequential(layer, norm))  # type: ignore[arg-type]


LAYERS = {
    "convolution": (nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), (3, 8, 8)),
    "grouped": (nn.Conv2d(4, 8, 3, groups=2, bias=False), nn.BatchNorm2d(8), (4, 8, 8)),
    "depthwise": (nn.Conv2d(4, 4, 3, groups=4, bias=False), nn.BatchNorm2d(4), (4, 8, 8)),
    "transposed": (nn.ConvTranspose2d(4, 6, 3, stride=2), nn.BatchNorm2d(6), (4, 5, 5)),
    "transposed, grouped": (nn.ConvTranspose2d(4, 6, 3, groups=2, bias=False), nn.BatchNorm2d(6), (4, 5, 5)),
    "1-D": (nn.Conv1d(3, 8, 3), nn.BatchNorm1d(8), (3, 9)),
    "linear": (nn.Linear(6, 4, bias=False), nn.BatchNorm1d(4), (6,)),
    "without weights": (nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8, affine=False), (3, 8, 8)),
}


@pytest.mark.parametrize("name", LAYERS)
def test_folding_changes_nothing_and_leaves_no_batch_norm(name: str) -> None:
    layer, norm, shape = LAYERS[name]
    model = pair(layer, norm)
    x = torch.randn(4, *shape)
    graph = capture(model, x)
    assert not [node for node in graph.graph.nodes if node.target in ops.BATCH_NORM]
    torch.testing.assert_close(graph(x), model(x), rtol=1e-4, atol=1e-5)


class NormOverAnotherDimension(nn.Module):
    """Linear over the last of three dimensions; batch norm works on the middle one: no exact fold."""

    def __init__(self) -> None:
        super().__init__()
        self.linear, self.norm = nn.Linear(6, 6), nn.BatchNorm1d(6)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(self.linear(x))


class NormOfJoinedRows(nn.Module):
    """Linear over the last of three dimensions, and the norm over the same one: LeViT's order."""

    def __init__(self) -> None:
        super().__init__()
        self.linear, self.norm = nn.Linear(6, 5), nn.BatchNorm1d(5)

    def forward(self, x: Tensor) -> Tensor:
        y = self.linear(x)
        return self.norm(y.flatten(0, 1)).reshape_as(y)


def test_a_norm_of_joined_rows_is_folded() -> None:
    model, x = seeded(NormOfJoinedRows), torch.randn(4, 7, 6)
    graph = capture(model, x)
    assert [n.target for n in graph.graph.nodes if n.op == "call_function"] == [ops.aten.linear.default]
    torch.testing.assert_close(graph(x), model(x), rtol=1e-4, atol=1e-5)


class UsedTwice(nn.Module):
    """The convolution's own output is needed beside the normalised one."""

    def __init__(self) -> None:
        super().__init__()
        self.layer, self.norm = nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3)

    def forward(self, x: Tensor) -> Tensor:
        y = self.layer(x)
        return self.norm(y) + y


@pytest.mark.parametrize(
    ("build", "shape"),
    [(NormOverAnotherDimension, (6, 6)), (UsedTwice, (3, 4, 4))],
    ids=["dimension", "twice"],
)
def test_what_cannot_be_folded_exactly_is_left_alone(build: type[nn.Module], shape: tuple[int, ...]) -> None:
    model = seeded(build)
    x = torch.randn(4, *shape)
    graph = capture(model, x)
    assert [node for node in graph.graph.nodes if node.target in ops.BATCH_NORM]
    torch.testing.assert_close(graph(x), model(x), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("build", IMAGE_NETWORKS)
def test_capture_keeps_the_function_for_every_batch_size(build: type[nn.Module]) -> None:
    model = seeded(build)
    graph = capture(model, images(1))
    for batch in (1, 2, 5):
        torch.testing.assert_close(graph(images(batch)), model(images(batch)), rtol=1e-4, atol=1e-5)


def test_capture_leaves_the_model_as_it_was() -> None:
    model = seeded(IMAGE_NETWORKS[0]).train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    capture(model, images(1))
    assert model.training
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())


def test_a_model_that_cannot_be_captured_says_why() -> None:
    class Branches(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x if float(x.sum()) > 0 else -x

    with pytest.raises(CaptureError, match=r"Branches.*can't capture"):
        capture(Branches(), images(1))
