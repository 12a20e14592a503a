"""Counting MACs and parameters."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional as F

from edgekit.macs import count
from tests.networks import IMAGE_NETWORKS, Mobile, images, seeded


class Attention(nn.Module):
    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.mix = nn.MultiheadAttention(width, heads, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        return self.mix(x, x, x, need_weights=False)[0]


class Functional(nn.Module):
    """No layers: a product and a convolution inside of ``forward``."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(6, 3, 3, 3))

    def forward(self, x: Tensor) -> Tensor:
        y = F.conv2d(x, self.weight).flatten(2)
        return y @ y.transpose(1, 2)


@given(
    inputs=st.integers(1, 4),
    per_group=st.integers(1, 3),
    groups=st.integers(1, 3),
    kernel=st.integers(1, 3),
    stride=st.integers(1, 2),
    size=st.integers(3, 7),
)
def test_a_convolution_counts_one_product_per_kernel_element_and_output(
    inputs: int, per_group: int, groups: int, kernel: int, stride: int, size: int
) -> None:
    conv = nn.Conv2d(inputs * groups, per_group * groups, kernel, stride, groups=groups)
    x = torch.zeros(2, inputs * groups, size, size)
    expected = 0
    for _ in range(conv(x[:1]).numel()):  # each output element by itself
        expected += inputs * kernel * kernel
    assert count(conv, x).macs == expected


@given(inputs=st.integers(1, 9), outputs=st.integers(1, 9), length=st.integers(1, 5))
def test_a_linear_layer_counts_its_weights_at_every_position(inputs: int, outputs: int, length: int) -> None:
    layer = nn.Linear(inputs, outputs)
    assert count(layer, torch.zeros(3, length, inputs)).macs == length * inputs * outputs
    assert count(layer, torch.zeros(3, inputs)).macs == inputs * outputs


def test_a_transposed_convolution_counts_from_its_inputs() -> None:
    assert count(nn.ConvTranspose2d(4, 6, 3, 2), torch.zeros(1, 4, 5, 5)).macs == 25 * 4 * 6 * 9


@pytest.mark.parametrize("bidirectional", [False, True])
def test_recurrent_layers_count_both_weights_at_every_step(bidirectional: bool) -> None:
    layer = nn.LSTM(8, 16, batch_first=True, bidirectional=bidirectional)

    class Last(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = layer

        def forward(self, x: Tensor) -> Tensor:
            return self.layer(x)[0]

    assert count(Last(), torch.zeros(2, 5, 8)).macs == 5 * 64 * (8 + 16) * (1 + bidirectional)


def test_attention_counts_projections_and_both_products() -> None:
    length, width = 5, 16
    projections, products = length * width * 4 * width, 2 * length * length * width
    assert count(Attention(width, 4), torch.zeros(2, length, width)).macs == projections + products


def test_what_runs_without_layers_is_counted() -> None:
    result = count(Functional(), torch.zeros(2, 3, 5, 5))
    assert result.macs == 6 * 9 * 27 + 6 * 9 * 6
    assert result.parameters == 6 * 27


@pytest.mark.parametrize("build", IMAGE_NETWORKS)
def test_a_captured_graph_counts_as_its_module(build: type[nn.Module]) -> None:
    model = seeded(build)
    expected = count(model, images(1))
    batch = torch.export.Dim("batch", min=1, max=64)
    for program in (
        torch.export.export(model, (images(3),)),  # for batches of three and no other
        torch.export.export(model, (images(3),), dynamic_shapes=({0: batch},)),
    ):
        result = count(program.module(), images(1))
        assert (result.macs, result.parameters) == (expected.macs, expected.parameters)
        assert len(result.layers) == len(expected.layers)


def test_layers_carry_the_names_of_modules_and_add_up() -> None:
    result = count(seeded(Mobile), images(1))
    assert [layer.name for layer in result.layers] == ["body.0", "body.3", "body.6", "head"]
    assert result.macs == sum(layer.macs for layer in result.layers)
    assert result.of("body.3") == 16 * 9 * 4 * 4
    assert result.of("drop") == 0


def test_counting_changes_nothing() -> None:
    model = seeded(Mobile).train()
    model.get_submodule("body.1").eval()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    modes = [module.training for module in model.modules()]
    with torch.inference_mode():
        inside = count(model, images(2)).macs
    assert inside == count(model, images(1)).macs
    assert modes == [module.training for module in model.modules()]
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())
