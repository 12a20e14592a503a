"""Rewrites of the captured graph against the modules that they came from."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, fx, nn

from edgekit.graph import ops
from edgekit.graph.capture import capture
from edgekit.int8.calibration import calibrate
from edgekit.int8.lower import lower
from tests.models import CASES, inputs, trained
from tests.networks import seeded, snr_db


class Function(nn.Module):
    """A function of one tensor as a module, with a parameter so that it can be captured like any other."""

    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x)


def targets(graph: fx.GraphModule) -> set[Any]:
    return {node.target for node in graph.graph.nodes}


def assert_same(graph: fx.GraphModule, model: nn.Module, x: Tensor) -> None:
    for rows in (x, x[:1], torch.cat([x, x])):  # the batch stays free
        torch.testing.assert_close(graph(rows), model(rows), rtol=1e-4, atol=1e-5)


@given(
    st.integers(1, 5),
    st.integers(1, 4),
    st.integers(0, 3),
    st.integers(0, 3),
    st.sampled_from([1, 2]),
    st.booleans(),
)
def test_a_transposed_convolution_is_a_convolution_and_a_shuffle(
    kernel: int, stride: int, padding: int, extra: int, groups: int, two_dimensional: bool
) -> None:
    extra = min(extra, stride - 1)
    size = 5
    if (size - 1) * stride - 2 * padding + kernel + extra < 1 or padding >= kernel:
        return
    build = nn.ConvTranspose2d if two_dimensional else nn.ConvTranspose1d
    torch.manual_seed(0)
    model = build(4, 6, kernel, stride, padding, extra, groups=groups).eval()
    x = torch.randn(3, 4, *(size, 4)[: 2 if two_dimensional else 1])
    if two_dimensional and 3 * stride - 2 * padding + kernel + extra < 1:
        return
    graph = lower(capture(model, x))
    assert not targets(graph) & ops.TRANSPOSED
    assert_same(graph, model, x)


def test_phases_equal_ten_lines_of_plain_loops() -> None:
    torch.manual_seed(0)
    model = nn.ConvTranspose1d(2, 3, 4, stride=3, padding=2, output_padding=1)
    x = torch.randn(1, 2, 5)
    length = (5 - 1) * 3 - 2 * 2 + 4 + 1
    wanted = model.bias.detach()[None, :, None].repeat(1, 1, length)
    for position in range(5):
        for tap in range(4):
            at = position * 3 + tap - 2
            if 0 <= at < length:
                for channel in range(2):
                    wanted[0, :, at] += x[0, channel, position] * model.weight.detach()[channel, :, tap]
    torch.testing.assert_close(lower(capture(model, x))(x), wanted, rtol=1e-5, atol=1e-6)


class LateNorm(nn.Module):
    """Batch norm on a sum: no layer can take it in."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.norm = nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4)

    def forward(self, x: Tensor) -> Tensor:
        y = self.first(x)
        return F.relu(self.norm(y + y.flip(2)))


class NormAfterConcatenation(nn.Module):
    """DenseNet's order: concatenate, normalise, clamp."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.norm, self.last = (
            nn.Conv2d(3, 4, 3, padding=1),
            nn.BatchNorm2d(7),
            nn.Conv2d(7, 2, 1),
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.last(F.relu(self.norm(torch.cat([x, self.first(x)], 1))))


@pytest.mark.parametrize("build", [LateNorm, NormAfterConcatenation])
def test_a_batch_norm_that_nothing_takes_in_becomes_depthwise(build: type[nn.Module]) -> None:
    model, x = seeded(build), torch.randn(3, 3, 6, 6)
    graph = lower(capture(model, x))
    assert not targets(graph) & ops.BATCH_NORM
    assert_same(graph, model, x)


class DenseBlock(nn.Module):
    """Each norm reads all parts before it; ``loud`` of them are a hundred times as loud as the others."""

    def __init__(self, loud: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 4, 3, padding=1)
        self.norms = nn.ModuleList(nn.BatchNorm2d(4 * (i + 1)) for i in range(6))
        self.convs = nn.ModuleList(nn.Conv2d(4 * (i + 1), 4, 3, padding=1) for i in range(6))
        for conv in list(self.convs)[:loud]:
            conv.weight.data.mul_(100)

    def forward(self, x: Tensor) -> Tensor:
        parts = [self.first(x)]
        for norm, conv in zip(self.norms, self.convs, strict=True):
            parts.append(conv(F.relu(norm(torch.cat(parts, 1)))))
        return parts[-1]


def fed(model: nn.Module, x: Tensor) -> nn.Module:
    """With the statistics of ``x`` in its norms."""
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = None
    model.train()
    with torch.no_grad():
        model(x)
    return model.eval()


@pytest.mark.parametrize(("loud", "norms"), [(0, 6), (1, 1 + 2 + 4 * 3)])
def test_parts_that_are_as_loud_share_the_norm_of_a_concatenation(loud: int, norms: int) -> None:
    """Six norms, and not the 21 of each part by itself; a loud part stays apart from its neighbours."""
    x = torch.randn(64, 3, 6, 6)
    model = fed(seeded(lambda: DenseBlock(loud)), x)
    graph = capture(model, x[:2])
    lowered = lower(copy.deepcopy(graph))
    depthwise = [n for n in lowered.graph.nodes if n.target in ops.CONVOLUTIONS and n.args[6:] > (1,)]
    assert len(depthwise) == norms
    assert_same(lowered, model, x[:2])
    with torch.no_grad():
        assert snr_db(model(x), calibrate(graph, [x])(x)) > 25


def attention(x: Tensor, **settings: Any) -> Tensor:
    query, key, value = x[:, :4], x[:, 4:8], x[:, 8:]
    return F.scaled_dot_product_attention(query, key, value, **settings)


@pytest.mark.parametrize(
    "function",
    [
        F.silu,
        F.hardswish,
        F.hardsigmoid,
        attention,
        lambda x: attention(x, is_causal=True),
        lambda x: attention(x, scale=0.3),
        lambda x: attention(x, attn_mask=(x[:, :4, :4] > 0).detach() | torch.eye(4, dtype=torch.bool)),
        lambda x: attention(x, attn_mask=x[:, :4, :4]),
        lambda x: 2 * x - 1,
        lambda x: (1 - x) / 3,
    ],
    ids=[
        "silu",
        "hard-swish",
        "hard-sigmoid",
        "attention",
        "causal",
        "scale",
        "mask",
        "bias",
        "numbers",
        "subtracted from a number",
    ],
)
def test_spelled_as_other_ops_the_function_stays(function: Callable[[Tensor], Tensor]) -> None:
    model, x = Function(function), torch.randn(3, 12, 8)
    graph = lower(capture(model, x))
    known = {ops.aten.silu.default, ops.aten.scaled_dot_product_attention.default, ops.aten.div.Tensor}
    known |= {ops.aten.hardswish.default, ops.aten.hardsigmoid.default}
    assert not targets(graph) & known
    assert_same(graph, model, x)


@pytest.mark.parametrize(
    "function",
    [
        lambda x: torch.cat(torch.split(x, 5, 1)[::-1], 1),
        lambda x: torch.cat(x.chunk(5, 1)[1:], 1),
        lambda x: torch.stack(x.unbind(2)[2:4], 1),
        lambda x: F.adaptive_avg_pool2d(x[:, None], (6, 4)),
        lambda x: F.adaptive_max_pool2d(x[:, None], 2),
        lambda x: F.avg_pool2d(x[:, None], 3, 1, 1),
        lambda x: F.avg_pool2d(x[:, None], 3, 1, 1, count_include_pad=False),
        lambda x: sum([x, x.flip(1)]),
    ],
    ids=[
        "split",
        "chunk",
        "unbind",
        "adaptive average",
        "adaptive max",
        "padded",
        "padding not counted",
        "sum",
    ],
)
def test_normalising_keeps_the_function(function: Callable[[Tensor], Tensor]) -> None:
    model, x = Function(function), torch.randn(3, 12, 8)
    assert_same(capture(model, x), model, x)


@pytest.mark.parametrize("name", ["repvgg", "mobileone"])
def test_branches_become_one_convolution_a_block(name: str) -> None:
    case, model = CASES[name], trained(name)
    x = inputs(case, 3)
    graph = capture(model, x)
    assert ops.aten.add.Tensor not in targets(graph)
    assert not targets(graph) & ops.BATCH_NORM
    torch.testing.assert_close(graph(x), model(x), rtol=1e-3, atol=1e-4)


class Asymmetric(nn.Module):
    """3x3, 3x1 and 1x3 branches (ACNet), and one with another stride that must stay."""

    def __init__(self) -> None:
        super().__init__()
        self.square = nn.Conv2d(4, 4, 3, padding=1, groups=2)
        self.tall, self.wide = (
            nn.Conv2d(4, 4, (3, 1), padding=(1, 0), groups=2),
            nn.Conv2d(4, 4, (1, 3), padding=(0, 1), groups=2),
        )
        self.other = nn.Conv2d(4, 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.square(x) + self.tall(x) + self.wide(x) + self.other(x)


def test_only_branches_of_one_kind_are_fused() -> None:
    model, x = seeded(Asymmetric), torch.randn(3, 4, 6, 6)
    graph = capture(model, x)
    assert sum(node.target is ops.aten.conv2d.default for node in graph.graph.nodes) == 2
    assert_same(graph, model, x)


class Scaled(nn.Module):
    """Layer scale, and an offset for each channel, behind a linear layer and a convolution."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.linear = nn.Conv2d(3, 4, 1), nn.Linear(4, 4)
        self.gamma, self.beta = nn.Parameter(torch.randn(4)), nn.Parameter(torch.randn(1, 4, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        y = 0.5 * self.conv(x) + self.beta
        return self.gamma * self.linear(y.permute(0, 2, 3, 1))


def test_factors_and_offsets_go_into_the_layer() -> None:
    model, x = seeded(Scaled), torch.randn(3, 3, 5, 5)
    graph = capture(model, x)
    assert not targets(graph) & (ops.SUMS | ops.PRODUCTS)
    assert_same(graph, model, x)
