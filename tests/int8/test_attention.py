"""Attention whatever its length and its mask: what no grid holds stays float, in both files."""

from __future__ import annotations

from pathlib import Path

import onnx
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from edgekit.formats import FORMATS
from edgekit.graph import ops
from edgekit.graph.capture import capture
from edgekit.int8.calibration import calibrate
from edgekit.int8.unify import grid_of
from tests.export.runtimes import files_of
from tests.networks import seeded, snr_db

WIDTH = 16


class Attention(nn.Module):
    """Two heads over (N, tokens, 8); the second attends to few places, the first to all of them."""

    mask: Tensor

    def __init__(self, tokens: int, mask: str = "none", sharpness: float = 1.0, small: float = 1.0) -> None:
        super().__init__()
        self.tokens, self.kind, self.small = tokens, mask, small
        self.into, self.qkv, self.out = nn.Linear(8, WIDTH), nn.Linear(WIDTH, 3 * WIDTH), nn.Linear(WIDTH, 4)
        with torch.no_grad():
            self.qkv.weight[WIDTH // 2 : WIDTH] *= sharpness
        self.register_buffer("mask", torch.ones(tokens, tokens, dtype=torch.bool).triu(1))

    def forward(self, x: Tensor) -> Tensor:
        qkv = self.qkv(self.into(x)).reshape(-1, self.tokens, 3, 2, WIDTH // 2)
        query, key, value = qkv.permute(2, 0, 3, 1, 4).unbind(0)
        if self.kind in ("none", "causal"):
            y = F.scaled_dot_product_attention(query, key, value, is_causal=self.kind == "causal")
        else:
            scores = query @ key.transpose(-1, -2) * (WIDTH // 2) ** -0.5 / self.small
            y = self.masked(scores, x).softmax(-1) @ value
        return self.out(y.transpose(1, 2).flatten(2))

    def masked(self, scores: Tensor, x: Tensor) -> Tensor:
        if self.kind == "fill":
            return scores.masked_fill(self.mask, -torch.inf)
        if self.kind == "where":
            return torch.where(self.mask, -1e4, scores)
        if self.kind == "soft":  # no mask: a number among the scores
            return torch.where(~self.mask, scores, torch.tensor(0.25))
        if self.kind == "padding":
            padding = (x[..., 0] > 2.5) & (torch.arange(self.tokens) > 0)
            return scores.masked_fill(padding[:, None, None], torch.finfo(torch.float32).min)
        added = self.mask * {"added": -1e9, "lowest": torch.finfo(torch.float32).min}[self.kind]
        return scores + added


def samples(tokens: int, count: int = 48) -> Tensor:
    """Few values lie between 2.4 and 2.6, so that rounding decides of no one's padding."""
    x = torch.randn(count, tokens, 8, generator=torch.Generator().manual_seed(3))
    x[..., 0] = torch.where(x[..., 0] > 0.5, 3.0, x[..., 0])
    return x


def check(model: nn.Module, x: Tensor, folder: Path, graph_db: float = 30) -> None:
    graph = calibrate(capture(model, x[:1]), list(x.split(16)))
    with torch.no_grad():
        wanted = model(x)
        assert snr_db(wanted, graph(x)) > graph_db
        reference = graph(x[:4])
    for name, got in files_of(graph, x[:4], folder).items():
        assert snr_db(reference, got) > 35, name


@pytest.mark.parametrize("tokens", [pytest.param(16, marks=pytest.mark.slow), 196])
def test_attention_of_any_length_keeps_its_answers(tokens: int, tmp_path: Path) -> None:
    model = seeded(lambda: Attention(tokens, sharpness=8.0 if tokens > 48 else 1.0))
    check(model, samples(tokens, 32 if tokens > 100 else 48), tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("mask", ["none", "causal", "padding"])
@pytest.mark.parametrize("tokens", [576, 1600])
def test_long_attention_keeps_its_answers(tokens: int, mask: str, tmp_path: Path) -> None:
    check(seeded(lambda: Attention(tokens, mask)), samples(tokens, 16), tmp_path)


MASKS = ["causal", "fill", "where", "soft", "padding", "added", "lowest"]


class Masks(nn.Module):
    """One block of each kind, side by side."""

    def __init__(self) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(Attention(12, mask) for mask in MASKS)

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([block(x) for block in self.blocks], -1)


@pytest.mark.wide
def test_masked_positions_have_no_weight_in_any_file(tmp_path: Path) -> None:
    model, x = seeded(Masks), samples(12)
    graph = calibrate(capture(model, x[:1]), list(x.split(16)))
    with torch.no_grad():
        float_answers, answers = model(x).split(4, -1), graph(x).split(4, -1)
    files = files_of(graph, x[:4], tmp_path)
    for index, mask in enumerate(MASKS):
        assert snr_db(float_answers[index], answers[index]) > 30, mask
        for name, got in files.items():
            assert snr_db(answers[index][:4], got.split(4, -1)[index]) > 30, (name, mask)


class Queries(nn.Module):
    """Attention of learned queries to the input, and attention that is written in einsum."""

    def __init__(self) -> None:
        super().__init__()
        self.queries = nn.Parameter(torch.randn(1, 4, WIDTH))
        self.into, self.asked = nn.Linear(8, WIDTH), nn.MultiheadAttention(WIDTH, 2, batch_first=True)
        self.qkv, self.heads = nn.Linear(WIDTH, 3 * WIDTH), nn.Parameter(torch.randn(2, 8, WIDTH) / 4)
        self.out = nn.Linear(WIDTH, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.into(x)
        x = self.asked(self.queries.expand(len(x), -1, -1), x, x, need_weights=False)[0]
        query, key, value = (part.reshape(-1, 4, 2, 8) for part in self.qkv(x).chunk(3, -1))
        weights = torch.einsum("blhd,bmhd->bhlm", query, key).mul(8**-0.5).softmax(-1)
        y = torch.einsum("bhlm,bmhd->blhd", weights, value)
        return self.out(torch.einsum("blhd,hde->ble", y, self.heads).mean(1))


@pytest.mark.slow
def test_all_projections_and_products_are_on_integers_in_both_files(tmp_path: Path) -> None:
    model, x = seeded(Queries), samples(10)
    graph = calibrate(capture(model, x[:1]), list(x.split(16)))
    with torch.no_grad():
        assert snr_db(model(x), graph(x)) > 25
        reference = graph(x[:4])
    for name, got in files_of(graph, x[:4], tmp_path).items():
        assert snr_db(reference, got) > 30, name
    for path in tmp_path.iterdir():
        assert FORMATS["onnx" if path.suffix == ".onnx" else "litert"].coverage(path).share == 1.0, path.name
    kinds = {node.op_type for node in onnx.load(next(tmp_path.glob("*.onnx"))).graph.node}
    assert "Einsum" not in kinds


@pytest.mark.slow
def test_scores_that_a_grid_is_too_coarse_for_stay_float(tmp_path: Path) -> None:
    check(seeded(lambda: Attention(12, "fill", small=0.02)), samples(12), tmp_path, graph_db=25)


def test_short_rows_stand_on_the_grid_of_the_kernels() -> None:
    x = samples(16)
    graph = calibrate(capture(seeded(lambda: Attention(16)), x[:1]), [x])
    (softmax,) = (node for node in graph.graph.nodes if node.target is ops.aten.softmax.int)
    (quantize,) = softmax.users
    assert grid_of(quantize) == (1 / 256, -128)


class SoftArgmax(nn.Module):
    """Where the largest value is: a mean of places, weighted by a softmax over all of them."""

    places: Tensor

    def __init__(self, ramp: bool) -> None:
        super().__init__()
        self.first, self.second = nn.Conv1d(1, 4, 5, padding=2), nn.Conv1d(4, 1, 5, padding=2)
        self.register_buffer("places", torch.arange(8192.0) if ramp else torch.ones(8192))

    def forward(self, x: Tensor) -> Tensor:
        heat = self.second(F.relu(self.first(x))).flatten(1)
        return (F.softmax(4 * heat, -1) * self.places).sum(-1, keepdim=True)


@pytest.mark.wide
def test_a_soft_argmax_over_8192_places_sums_to_one(tmp_path: Path) -> None:
    x = torch.randn(16, 1, 8192, generator=torch.Generator().manual_seed(4))
    model = seeded(lambda: SoftArgmax(ramp=False))
    graph = calibrate(capture(model, x[:1]), [x])
    for name, got in files_of(graph, x[:2], tmp_path).items():
        assert bool(((got - 1).abs() < 0.02).all()), name
    check(seeded(lambda: SoftArgmax(ramp=True)), x, tmp_path)


class SoftmaxBetween(nn.Module):
    """A long softmax whose reader and whose source compute on integers."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(8, 256), nn.Linear(256, 6)

    def forward(self, x: Tensor) -> Tensor:
        return self.second(F.softmax(self.first(x), -1))


@pytest.mark.slow
def test_a_long_softmax_between_layers_has_a_grid_of_its_own(tmp_path: Path) -> None:
    model = seeded(SoftmaxBetween)
    with torch.no_grad():
        model.second.weight.mul_(30)
    check(model, samples(12), tmp_path)
