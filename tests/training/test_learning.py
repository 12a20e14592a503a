"""What is frozen stays, what only train mode answers is left out, and both are told."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from edgekit.errors import StageError
from edgekit.graph.capture import capture
from edgekit.int8.lower import lower
from edgekit.training.learning import frozen_in_graph, learning, resting_norms, thawed
from edgekit.training.train_mode import TrainMode
from tests.training.nets import KillAfter, Killed, Normed, config, fit, identical, points, seeded


class Auxiliary(Normed):
    """A second head that answers in train mode alone."""

    def __init__(self) -> None:
        super().__init__()
        self.second = nn.Linear(12, 3)

    def forward(self, x: Tensor) -> Tensor:
        inner = self.drop(torch.relu(self.norm(self.first(x))))
        main = self.head(inner)
        return (main, self.second(inner)) if self.training else main  # type: ignore[return-value]


class Nested(nn.Module):
    """The second output comes from inside."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = Auxiliary()

    def forward(self, x: Tensor) -> Tensor:
        return self.inner(x)


class PartlyRecorded(Normed):
    """The first layer is computed without gradients."""

    def forward(self, x: Tensor) -> Tensor:
        with torch.no_grad():
            inner = self.first(x)
        return self.head(torch.relu(self.norm(inner)))


class NotRecorded(Normed):
    def forward(self, x: Tensor) -> Tensor:
        with torch.no_grad():
            return super().forward(x)


def moved(before: nn.Module, after: nn.Module) -> set[str]:
    one, other = before.state_dict(), after.state_dict()
    return {name for name in one if not torch.equal(one[name], other[name])}


def test_frozen_layers_and_their_statistics_stay(tmp_path: Path) -> None:
    model = seeded(Normed)
    model.first.requires_grad_(False)  # type: ignore[union-attr]
    model.norm.requires_grad_(False)  # type: ignore[union-attr]
    before = copy.deepcopy(model)
    fit(model, tmp_path)
    assert moved(before, model) == {"head.weight", "head.bias"}
    assert resting_norms(model) == ["norm"]


def test_a_norm_without_parameters_goes_with_its_parent() -> None:
    block = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4, affine=False))
    model = nn.Sequential(block, nn.Linear(4, 2))
    assert resting_norms(model) == []
    block.requires_grad_(False)
    assert resting_norms(model) == ["0.1"]


def test_a_model_frozen_as_a_whole_is_trained_and_stays_marked(tmp_path: Path) -> None:
    free, frozen = seeded(Normed), seeded(Normed).requires_grad_(False)
    fit(free, tmp_path / "free")
    history = fit(frozen, tmp_path / "frozen")
    assert identical(free, frozen)
    assert len(history.epochs) == 4
    assert "frozen as a whole: all of it was trained" in history.note
    assert not any(p.requires_grad for p in frozen.parameters())


def test_thawed_gives_back_whatever_happens() -> None:
    model = seeded().requires_grad_(False)
    with thawed(model):
        assert all(p.requires_grad for p in model.parameters())
    with pytest.raises(Killed), thawed(model):
        raise Killed
    assert not any(p.requires_grad for p in model.parameters())


def test_parameters_of_a_graph_are_found_by_their_names() -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 1, bias=False), nn.BatchNorm2d(4), nn.Conv2d(4, 2, 1))
    graph = nn.Sequential(nn.Conv2d(3, 4, 1), nn.Identity(), nn.Conv2d(4, 2, 1))  # as folding leaves it
    assert frozen_in_graph(model, graph) == set()
    model[0].requires_grad_(False)
    assert frozen_in_graph(model, graph) == {"0.weight", "0.bias"}
    model.requires_grad_(False)
    assert frozen_in_graph(model, graph) == set()
    assert len(learning(model)) == 5


@pytest.mark.parametrize("build", [Auxiliary, Nested])
def test_of_several_outputs_the_first_is_trained(build: type[nn.Module], tmp_path: Path) -> None:
    """As the same network without its second head, dropout and statistics included."""
    model, plain = seeded(build), seeded(Normed)
    inner = model if build is Auxiliary else model.inner
    inner.load_state_dict(plain.state_dict(), strict=False)  # type: ignore[union-attr]
    fit(plain, tmp_path / "plain")
    history = fit(model, tmp_path / "more")
    expected = plain.state_dict()
    found = inner.state_dict()  # type: ignore[union-attr]
    assert all(torch.equal(found[name], value) for name, value in expected.items())
    assert "in train mode the model answers 2 tensors (output_0, output_1)" in history.note
    assert "no gradient reaches 2 parameters" in history.note
    assert not any(module.training for module in model.modules())


def test_a_second_head_that_no_longer_fits_is_left_out(tmp_path: Path) -> None:
    model = seeded(Auxiliary)
    model.second = nn.Linear(5, 3)
    assert "RuntimeError" in fit(model, tmp_path).note


def test_a_model_that_has_but_several_outputs_is_refused() -> None:
    class Pair(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.norm = nn.BatchNorm1d(6)

        def forward(self, x: Tensor) -> Tensor:
            return (x, x) if self.norm.training else x  # type: ignore[return-value]

    with pytest.raises(StageError, match="more than one tensor"):
        TrainMode.of(Pair(), points(2, 0)[0])


def test_what_gets_no_gradient_stays_and_is_told(tmp_path: Path) -> None:
    model = seeded(PartlyRecorded)
    before = copy.deepcopy(model)
    history = fit(model, tmp_path)
    assert history.facts["untouched"] == ["first.weight", "first.bias"]
    assert "no gradient reaches 2 parameters (first.weight, first.bias)" in history.note
    assert {"first.weight", "first.bias"}.isdisjoint(moved(before, model))
    assert {"head.weight", "norm.weight"} <= moved(before, model)


def test_a_model_without_any_gradient_is_refused(tmp_path: Path) -> None:
    with pytest.raises(StageError, match="nothing in the model learns"):
        fit(seeded(NotRecorded), tmp_path)


def test_what_is_told_survives_a_kill(tmp_path: Path) -> None:
    settings = config(epochs=3)
    expected = fit(seeded(Auxiliary).requires_grad_(False), tmp_path / "a", settings)
    with pytest.raises(Killed):
        fit(seeded(Auxiliary).requires_grad_(False), tmp_path / "b", settings, progress=KillAfter(2))
    got = fit(seeded(Auxiliary).requires_grad_(False), tmp_path / "b", settings)
    assert got.note == expected.note


def test_what_capturing_made_of_an_op_stays() -> None:
    """Bicubic resizing becomes two layers whose matrices are facts, not weights."""

    class Resized(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Conv2d(3, 4, 1)

        def forward(self, x: Tensor) -> Tensor:
            return F.interpolate(self.layer(x), size=(12, 10), mode="bicubic")

    graph = lower(capture(Resized(), torch.randn(2, 3, 8, 8)))
    matrices = {name for name, _ in graph.named_parameters() if not name.startswith("layer.")}
    assert len(matrices) == 2
    assert frozen_in_graph(Resized(), graph) == matrices
