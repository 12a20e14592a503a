"""Each measure against plain loops over a coupled group, and against torch-pruning where that is right."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
import torch_pruning as tp
from torch import Tensor, nn
from torch.nn import functional as F

from edgekit.pruning.coupling import groups
from edgekit.pruning.coupling.groups import Found, Group
from edgekit.pruning.importance.criteria import CRITERIA
from edgekit.pruning.importance.scores import importances
from edgekit.pruning.importance.slices import slices
from edgekit.tasks import Classification
from edgekit.workload import Workload
from tests.networks import seeded
from tests.pruning import architectures
from tests.pruning.architectures import VisionTransformer, Windows
from tests.pruning.networks import CUTTABLE, inputs

Array = np.ndarray[tuple[int, ...], np.dtype[np.float64]]


class Coupled(nn.Module):
    """One group of 4 channels, made by two layers and normalised by one; three layers read it."""

    def __init__(self) -> None:
        super().__init__()
        self.one = nn.Conv2d(3, 4, 3, padding=1)
        self.two = nn.Conv2d(3, 4, 1, bias=False)
        self.norm = nn.BatchNorm2d(4)
        self.deep = nn.Conv2d(4, 4, 3, padding=1, groups=4, bias=False)
        self.read = nn.Conv2d(4, 5, 1)
        self.head = nn.Linear(5, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.norm(self.one(x) + self.two(x)))
        return self.head(F.relu(self.read(self.deep(x))).mean((2, 3)))


LAYERS = {"one": "out", "two": "out", "norm": "out", "deep": "out", "read": "in"}
X, Y = torch.randn(24, 3, 5, 5, generator=torch.Generator().manual_seed(5)), torch.arange(24) % 3
WORK = Workload("coupled", seeded(Coupled), Classification(num_classes=3), (X, Y), (X, Y))


def group_of(found: Found) -> Group:
    """The one that is called after whichever of its layers comes first in the graph."""
    return next(group for group in found.groups if any(member.layer == "one" for member in group.members))


def weights_of(model: nn.Module, channel: int, *, bias: bool) -> list[tuple[str, Array]]:
    """What leaves with a channel, layer by layer."""
    found = []
    for name, side in LAYERS.items():
        layer = model.get_submodule(name)
        weight = layer.get_parameter("weight")
        rows = [(weight[:, channel] if side == "in" else weight[channel]).reshape(-1)]
        if bias and side == "out" and getattr(layer, "bias", None) is not None:
            rows.append(layer.get_parameter("bias")[channel].reshape(-1))
        found.append((name, torch.cat(rows).detach().double().numpy()))
    return found


def gradients(model: nn.Module, rows: Tensor) -> nn.Module:
    """A copy whose weights are the gradients of the mean loss."""
    model.zero_grad()
    F.cross_entropy(model(X[rows]), Y[rows]).backward()
    answer = seeded(Coupled)
    with torch.no_grad():
        for mine, theirs in zip(answer.parameters(), model.parameters(), strict=True):
            mine.copy_(torch.zeros_like(mine) if theirs.grad is None else theirs.grad)
    return answer


def by_hand(model: nn.Module, kind: str) -> Array:
    scores = np.zeros(4)
    for k in range(4):
        for name, weight in weights_of(model, k, bias=kind in ("taylor", "hessian")):
            if kind in ("magnitude", "lamp"):
                scores[k] += (weight**2).sum()
            elif kind == "bn_scale":
                scores[k] += abs(weight[0]) if name == "norm" else 0
            elif kind == "fpgm" and name != "norm":
                others = [dict(weights_of(model, j, bias=False))[name] for j in range(4)]
                scores[k] += sum(np.sqrt(((weight - other) ** 2).sum()) for other in others)
            elif kind == "taylor":
                slope = dict(weights_of(gradients(model, torch.arange(24)), k, bias=True))[name]
                scores[k] += abs(weight * slope).sum()
            elif kind == "hessian":
                for n in range(24):
                    slope = dict(weights_of(gradients(model, torch.tensor([n])), k, bias=True))[name]
                    scores[k] += (weight**2 * slope**2).sum() / 24
    if kind == "lamp":
        return np.array([score / scores[scores >= score].sum() for score in scores])
    return scores / scores.mean()


@pytest.mark.parametrize("kind", ["magnitude", "taylor", "hessian", "bn_scale", "fpgm", "lamp"])
def test_a_measure_is_what_its_paper_says(kind: str) -> None:
    found = groups.find(WORK.model, X[:2])
    worth = importances(found, kind, backward=CRITERIA[kind].backward(WORK, seed=0))
    name = group_of(found).name
    assert name not in worth.by_magnitude
    np.testing.assert_allclose(worth.scores[name].numpy(), by_hand(WORK.model.eval(), kind), rtol=1e-5)


@pytest.mark.parametrize("build", CUTTABLE)
@pytest.mark.parametrize(
    ("kind", "scorer"),
    [
        ("magnitude", tp.importance.GroupMagnitudeImportance),
        ("lamp", tp.importance.LAMPImportance),
        ("bn_scale", tp.importance.BNScaleImportance),
    ],
)
def test_torch_pruning_agrees_where_it_counts_all_weights(
    build: type[nn.Module], kind: str, scorer: Callable[[], Callable[[object], Tensor | None]]
) -> None:
    """It leaves out depthwise weights, and repeats grouped ones."""
    found = groups.find(seeded(build), inputs(build))
    mine = importances(found, kind)
    modules = dict(found.traced.named_modules())
    for group in found.groups:
        plain = all(getattr(modules[m.layer], "groups", 1) == 1 for m in group.members)
        known = all(not isinstance(modules[m.layer], nn.Embedding | nn.PReLU) for m in group.members)
        theirs = scorer()(group.dependencies)
        if plain and known and theirs is not None:
            torch.testing.assert_close(mine.scores[group.name], theirs.double(), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("build", [*CUTTABLE, VisionTransformer, Windows])
def test_every_side_of_every_group_has_its_weights(build: type[nn.Module]) -> None:
    example = inputs(build) if build in CUTTABLE else architectures.inputs(build)
    found = groups.find(seeded(build), example)
    for group in found.groups:
        cut = slices(group)
        assert {(each.side.layer, each.side.dim) for each in cut} >= {(m.layer, m.dim) for m in group.members}
        for each in cut:
            assert each.of(found.traced).shape[0] == group.channels
            assert each.gradients(found.traced).shape == each.of(found.traced).shape


def test_without_batch_norm_magnitude_stands_in_and_it_is_said() -> None:
    class Plain(nn.Sequential):
        def __init__(self) -> None:
            super().__init__(nn.Conv2d(3, 4, 1), nn.ReLU(), nn.Conv2d(4, 2, 1))

    found = groups.find(seeded(Plain), X[:2])
    by_scale = importances(found, "bn_scale")
    assert by_scale.by_magnitude == ("0",)
    assert torch.equal(by_scale.scores["0"], importances(found, "magnitude").scores["0"])


def test_gradients_are_a_condition() -> None:
    with pytest.raises(ValueError, match="taylor needs gradients"):
        importances(groups.find(WORK.model, X[:2]), "taylor")


def test_random_is_fixed_by_its_seed() -> None:
    found = groups.find(WORK.model, X[:2])
    name = group_of(found).name
    one, same, other = (importances(found, "random", seed=seed).scores[name] for seed in (1, 1, 2))
    assert torch.equal(one, same)
    assert not torch.equal(one, other)


class Recurrent(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Linear(3, 6)
        self.memory = nn.GRU(6, 5, batch_first=True, bidirectional=True)
        self.head = nn.Linear(10, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.memory(F.relu(self.features(x)))[0][:, -1])


def test_weights_of_recurrent_layers_count() -> None:
    model = seeded(Recurrent)
    found = groups.find(model, torch.randn(2, 7, 3, generator=torch.Generator().manual_seed(0)))
    scores = importances(found, "magnitude").scores
    memory = model.get_submodule("memory")
    read = [memory.get_parameter(f"weight_ih_l0{suffix}") for suffix in ("", "_reverse")]
    made = model.get_parameter("features.weight")
    values = torch.stack(
        [sum(w.square().sum() for w in (made[k], *(r[:, k] for r in read))) for k in range(6)]
    )
    expected = (values / values.mean()).detach().double()
    torch.testing.assert_close(scores["features"], expected, rtol=1e-5, atol=1e-7)
    assert scores["memory"].tolist() == pytest.approx(hidden_by_hand(model, found))


def hidden_by_hand(model: nn.Module, found: Found) -> list[float]:
    """A unit of each direction leaves together: three gates that make it, and what reads it."""
    memory, head = model.get_submodule("memory"), model.get_parameter("head.weight")
    group = next(group for group in found.groups if group.name == "memory")
    totals = []
    for unit in range(group.channels):
        lost = sorted(group.cuts([unit])["memory", "out"])
        total = 0.0
        for index in lost:
            suffix, k = ("", index) if index < 5 else ("_reverse", index - 5)
            read = memory.get_parameter(f"weight_ih_l0{suffix}").detach().double()
            back = memory.get_parameter(f"weight_hh_l0{suffix}").detach().double()
            gates = [k, 5 + k, 10 + k]
            total += float(
                read[gates].square().sum() + back[gates].square().sum() + back[:, k].square().sum()
            )
            total += float(head[:, index].detach().double().square().sum())
        totals.append(total)
    return [total / (sum(totals) / len(totals)) for total in totals]
