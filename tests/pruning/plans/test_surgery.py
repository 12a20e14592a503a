"""Layers that divide or mix their channels: cut, and silenced, by hand."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from edgekit.pruning.plans import surgery
from edgekit.pruning.plans.attention import SplitAttention, split
from tests.networks import seeded


@pytest.mark.parametrize("transposed", [False, True])
def test_a_grouped_convolution_loses_as_many_from_each_group(transposed: bool) -> None:
    torch.manual_seed(0)
    layer = (nn.ConvTranspose2d if transposed else nn.Conv2d)(12, 6, 3, groups=3)
    x = torch.randn(2, 12, 5, 5)
    ins, outs = [0, 3, 5, 6, 8, 11], [1, 2, 5]
    small, silent = copy.deepcopy(layer), copy.deepcopy(layer)
    surgery.keep(small, "in", ins)
    surgery.silence(silent, "in", [index for index in range(12) if index not in ins])
    expected = silent(x)
    assert torch.allclose(small(x[:, ins]), expected, atol=1e-5)
    surgery.keep(small, "out", outs)
    assert torch.allclose(small(x[:, ins]), expected[:, outs], atol=1e-5)
    assert (small.in_channels, small.out_channels, small.groups) == (6, 3, 3)


def test_unequal_numbers_are_refused() -> None:
    layer = nn.Conv2d(12, 6, 1, groups=3)
    assert surgery.uneven(layer, "in", (0, 4, 8)) == ""
    assert "unequal numbers of channels in 3 groups" in surgery.uneven(layer, "in", (0, 1, 8))
    assert "in 2 groups" in surgery.uneven(nn.GroupNorm(2, 8), "out", (0, 1, 2, 4))
    assert "blocks of 2" in surgery.uneven(nn.Conv2d(4, 8, 1, groups=4), "out", (0, 1, 2))
    assert "directions" in surgery.uneven(nn.GRU(3, 4, bidirectional=True), "out", (0, 1, 4))
    assert "can't change" in surgery.uneven(nn.GRU(3, 4, 2), "out", (0, 1))
    assert surgery.uneven(nn.GRU(3, 4, 2), "in", (0, 1)) == ""


@pytest.mark.parametrize("affine", [True, False])
def test_norms_average_over_what_is_kept(affine: bool) -> None:
    x, kept = torch.randn(2, 8, 5), [0, 3, 4, 7]
    group = seeded(nn.GroupNorm, 2, 8, 1e-5, affine)
    layer = seeded(nn.LayerNorm, 8, 1e-5, affine)
    for norm, inputs, axis in ((group, x, 1), (layer, x.transpose(1, 2), -1)):
        for name, parameter in norm.named_parameters():
            nn.init.normal_(parameter)
            assert name in ("weight", "bias")
        small, silent = copy.deepcopy(norm), copy.deepcopy(norm)
        surgery.keep(small, "out", kept)
        surgery.silence(silent, "out", [1, 2, 5, 6])
        index = torch.tensor(kept)
        assert torch.allclose(
            small(inputs.index_select(axis, index)), silent(inputs).index_select(axis, index), atol=1e-5
        )
        whole = copy.deepcopy(norm)
        surgery.silence(whole, "out", [])
        assert torch.allclose(whole(inputs), norm(inputs), atol=1e-5)


@pytest.mark.parametrize("kind", [nn.LSTM, nn.GRU, nn.RNN])
@pytest.mark.parametrize("both_ways", [False, True])
@pytest.mark.parametrize("bias", [False, True])
def test_hidden_units_leave_recurrent_layers(kind: type[nn.RNNBase], both_ways: bool, bias: bool) -> None:
    torch.manual_seed(0)
    layer = kind(6, 4, bias=bias, batch_first=True, bidirectional=both_ways)  # type: ignore[call-arg]  # by kind
    x, kept = torch.randn(2, 5, 6), [0, 2, *([5, 6] if both_ways else [])]
    removed = sorted(set(range(8 if both_ways else 4)) - set(kept))
    small, silent = copy.deepcopy(layer), copy.deepcopy(layer)
    surgery.keep(small, "out", kept)
    surgery.silence(silent, "out", removed)
    assert torch.allclose(small(x)[0], silent(x)[0][:, :, kept], atol=1e-6)
    assert (small.hidden_size, surgery.channels(small, "out")) == (2, len(kept))
    surgery.keep(small, "in", [1, 4])
    surgery.silence(silent, "in", [0, 2, 3, 5])
    assert torch.allclose(small(x[:, :, [1, 4]])[0], silent(x)[0][:, :, kept], atol=1e-6)


@pytest.mark.parametrize("kind", [nn.LSTMCell, nn.GRUCell, nn.RNNCell])
@pytest.mark.parametrize("bias", [False, True])
def test_hidden_units_leave_cells(kind: type[nn.RNNCellBase], bias: bool) -> None:
    torch.manual_seed(0)
    cell = kind(6, 4, bias=bias)  # type: ignore[call-arg]  # by kind
    x, state, kept = torch.randn(2, 6), torch.randn(2, 4), [0, 2]
    small, silent = copy.deepcopy(cell), copy.deepcopy(cell)
    surgery.keep(small, "out", kept)
    surgery.silence(silent, "out", [1, 3])
    surgery.keep(small, "in", [1, 4])
    surgery.silence(silent, "in", [0, 2, 3, 5])
    two = isinstance(cell, nn.LSTMCell)
    given = (state, state.cos()) if two else state
    less = tuple(one[:, kept] for one in given) if two else state[:, kept]
    got, expected = small(x[:, [1, 4]], less), silent(x, given)
    for one, whole in zip(got if two else [got], expected if two else [expected], strict=True):
        assert torch.allclose(one, whole[:, kept], atol=1e-6)
    assert (small.hidden_size, surgery.channels(small, "out"), surgery.channels(small, "in")) == (2, 2, 2)


@pytest.mark.parametrize("batch_first", [False, True])
@pytest.mark.parametrize("mask", ["", "bool", "float", "padding", "both", "heads"])
def test_split_attention_is_torchs_own(batch_first: bool, mask: str) -> None:
    torch.manual_seed(0)
    whole = nn.MultiheadAttention(12, 3, batch_first=batch_first)
    q, k, v = (torch.randn(*((2, n) if batch_first else (n, 2)), 12) for n in (4, 5, 5))
    upper, last = torch.ones(4, 5, dtype=torch.bool).triu(2), torch.zeros(2, 5, dtype=torch.bool)
    last[1, 3:] = True
    attn_mask = {
        "bool": upper,
        "both": torch.zeros(4, 5).masked_fill(upper, -torch.inf),
        "float": torch.randn(4, 5),
        "heads": torch.randn(6, 4, 5),
    }.get(mask)
    padding = {"padding": last, "both": torch.zeros(2, 5).masked_fill(last, -torch.inf)}.get(mask)
    expected, _ = whole(q, k, v, padding, False, attn_mask)
    got, weights = split(whole)(q, k, v, padding, False, attn_mask)
    assert weights is None
    assert torch.allclose(got, expected, atol=1e-5)


def test_what_cannot_be_split_says_so() -> None:
    for wrong in (
        nn.Linear(3, 3),
        nn.MultiheadAttention(4, 2, kdim=3),
        nn.MultiheadAttention(4, 2, add_bias_kv=True),
    ):
        with pytest.raises(TypeError, match="attention|Attention"):
            split(wrong)


def test_a_split_attention_trains_as_before() -> None:
    whole = nn.MultiheadAttention(8, 2, bias=False).requires_grad_(False).train()
    apart = split(whole)
    assert isinstance(apart, SplitAttention)
    assert apart.training
    assert not any(parameter.requires_grad for parameter in apart.parameters())
    assert F.linear(torch.ones(8), apart.query.weight).equal(torch.ones(8) @ whole.in_proj_weight[:8].T)
