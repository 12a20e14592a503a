"""A cut is healed where that brings it nearer to the whole model on training data that was held out."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from edgekit.pruning.build import for_goal, prepare
from edgekit.pruning.goals.search import Goal, Limits
from edgekit.stages.base import TrainingConfig
from edgekit.stages.healing import Healing, estimate_norms, heal, healed_text
from edgekit.stages.prune import prune
from edgekit.stages.prune_config import PruneConfig
from tests.networks import seeded
from tests.stages.workloads import context, workload

NOT_TRAINED = TrainingConfig(epochs=0)


class Normed(nn.Sequential):
    def __init__(self) -> None:
        super().__init__(
            *(nn.Conv2d(3, 16, 3, padding=1, bias=False), nn.BatchNorm2d(16), nn.ReLU()),
            *(nn.Conv2d(16, 16, 3, padding=1, bias=False), nn.BatchNorm2d(16), nn.ReLU()),
            *(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 5)),
        )


def fed(model: nn.Module, inputs: Tensor) -> nn.Module:
    estimate_norms(model, inputs)
    return model.eval()


def test_statistics_are_those_of_all_inputs() -> None:
    model, inputs = seeded(Normed), torch.randn(64, 3, 8, 8) * 3 + 1
    momenta = [module.momentum for module in model.modules() if isinstance(module, nn.BatchNorm2d)]
    assert estimate_norms(model, inputs) == 2
    first = model[0](inputs)  # type: ignore[index]
    mean, variance = first.mean((0, 2, 3)), first.var((0, 2, 3))
    assert torch.allclose(model[1].running_mean, mean, atol=1e-4)  # type: ignore[index]
    # The mean of the batches' variances lacks that of their means.
    assert torch.allclose(model[1].running_var, variance, rtol=0.02)  # type: ignore[index]
    assert not any(module.training for module in model.modules())
    assert [m.momentum for m in model.modules() if isinstance(m, nn.BatchNorm2d)] == momenta


def test_frozen_statistics_stay() -> None:
    model = seeded(Normed)
    model[1].requires_grad_(False)  # type: ignore[index]
    before = model[1].running_mean.clone()  # type: ignore[index]
    assert estimate_norms(model, torch.randn(32, 3, 8, 8)) == 1
    assert torch.equal(model[1].running_mean, before)  # type: ignore[index]


def test_the_nearest_is_kept_and_told() -> None:
    inputs = torch.randn(192, 3, 8, 8)
    whole = fed(seeded(Normed), inputs)
    built = for_goal(prepare(whole, inputs[:2], seed=0), inputs[:2], Goal(speedup=1.5), Limits(4, 0.75))
    small = copy.deepcopy(whole)
    built.plan.apply(small)
    how = Healing(False, lambda n: inputs[:128][:n], lambda n: inputs[128:][:n], built.after.macs)
    healed, details = heal(small, whole, built.plan, how)
    found = details["after_cut"]
    lowest = min(found["distance"].values())
    with torch.no_grad():
        lacks, right = healed(inputs[128:]) - whole(inputs[128:]), whole(inputs[128:])
    assert float(lacks.square().mean() / right.var(correction=0)) == pytest.approx(lowest, rel=1e-3)
    assert lowest < found["distance"]["cut"]
    assert found["kept"]
    assert healed_text(details)
    assert ("reconstruction" in details) == ("refitted" in found["kept"])


@pytest.mark.wide
def test_a_cut_that_is_to_stay_as_it_is_is_not_healed(tmp_path: Path) -> None:
    work = workload(fed(seeded(Normed), torch.randn(64, 3, 8, 8)))
    settings = {"speedup": 1.5, "channel_multiple": 4, "training": NOT_TRAINED}
    plain = prune(work.model, PruneConfig(**settings, reconstruct=False), context(work, tmp_path / "no")[0])  # type: ignore[arg-type]
    healed = prune(work.model, PruneConfig(**settings), context(work, tmp_path / "yes")[0])  # type: ignore[arg-type]
    assert "after_cut" not in plain.details
    assert healed.details["after_cut"]["samples"] > 0
    assert healed_text(healed.details) in healed.note


@pytest.mark.wide
def test_frozen_layers_keep_their_weights_through_cut_and_training(tmp_path: Path) -> None:
    model = fed(seeded(Normed), torch.randn(64, 3, 8, 8))
    model[0].requires_grad_(False)  # type: ignore[index]
    model[1].requires_grad_(False)  # type: ignore[index]
    work = workload(model)
    training = TrainingConfig(epochs=2, batch_size=16, lr=0.05)
    config = PruneConfig(speedup=1.5, channel_multiple=4, reconstruct=True, training=training)
    result = prune(model, config, context(work, tmp_path)[0])
    kept = {cut["layer"]: cut["kept"] for cut in _cuts(tmp_path) if cut["dim"] == "out"}
    rows = kept.get("0", list(range(16)))
    assert torch.equal(result.model[0].weight, model[0].weight[rows])  # type: ignore[index]
    assert torch.equal(result.model[1].running_mean, model[1].running_mean[rows])  # type: ignore[index]
    assert not torch.equal(result.model[-1].weight, model[-1].weight)  # type: ignore[index]


def _cuts(folder: Path) -> list[dict[str, object]]:
    import json

    found = json.loads((folder / "plan.json").read_text())
    return found["layers"]  # type: ignore[no-any-return]
