"""What a training can be told works in every stage, and what happened reaches the stage's result."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from edgekit.stages import STAGES
from edgekit.stages.base import StageResult, TrainingConfig
from tests.networks import Residual, seeded
from tests.stages.workloads import context, workload

OPTIONS: dict[str, Any] = {
    "lr": "auto",
    "schedule": "one_cycle",
    "ema_decay": 0.9,
    "early_stopping": {"patience": 2, "held_out": 0.2},
    "class_weights": "balanced",
}
SETTINGS: dict[str, dict[str, Any]] = {
    "distill": {"student": "width", "width": 0.5, "channel_multiple": 4},
    "prune": {"speedup": 1.3, "channel_multiple": 4},
    "qat": {"calibration_samples": 64},
}


def run(kind: str, folder: Path, **training: Any) -> StageResult:
    work = workload(seeded(Residual))
    settings = TrainingConfig(**{"epochs": 3, "batch_size": 16, **training})
    config = STAGES[kind].config(**SETTINGS[kind], training=settings)
    return STAGES[kind].run(work.model, config, context(work, folder)[0])


@pytest.mark.parametrize("kind", SETTINGS)
def test_every_option_in_every_stage(kind: str, tmp_path: Path) -> None:
    result = run(kind, tmp_path, **OPTIONS)
    told = result.details["training"]
    assert told["lr_found"]["lr"] > 0
    assert 1 <= told["kept_epoch"] <= 3
    assert all(0 <= entry["held_out"] <= 1 for entry in result.details["history"])
    assert "by a range test" in result.note
    assert f"epoch {told['kept_epoch']} kept" in result.note
    assert (tmp_path / "training.csv").exists()


def test_a_roll_back_stands_in_the_report(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from edgekit.training.divergence import Diverged, Watch

    steps = 0
    look = Watch.loss

    def once(self: Watch, value: float) -> None:
        nonlocal steps
        steps += 1
        if steps == 6:
            raise Diverged("the loss is nan")
        look(self, value)

    monkeypatch.setattr(Watch, "loss", once)
    result = run("prune", tmp_path)
    assert "diverged in epoch 1 (the loss is nan): back to the beginning" in result.note
    assert result.details["training"]["roll_backs"][0]["epoch"] == 1


class SecondHead(Residual):
    """Answers twice while it trains; a cut, made in eval mode, knows nothing of the second head."""

    def __init__(self) -> None:
        super().__init__()
        self.auxiliary = nn.Linear(8, 5)

    def forward(self, x: Tensor) -> Tensor:
        main = super().forward(x)
        if not self.training:
            return main
        return main, self.auxiliary(self.norm1(self.first(x)).mean((2, 3)))  # type: ignore[return-value]


@pytest.mark.parametrize("kind", SETTINGS)
def test_a_second_output_in_train_mode_stops_no_stage(kind: str, tmp_path: Path) -> None:
    work = workload(seeded(SecondHead))
    config = STAGES[kind].config(**SETTINGS[kind], training=TrainingConfig(epochs=1, batch_size=16))
    result = STAGES[kind].run(work.model, config, context(work, tmp_path)[0])
    assert len(result.details["history"]) == 1
    assert ("in train mode the model answers" in result.note) == (kind != "qat")  # a graph has one mode


@pytest.mark.wide
@pytest.mark.parametrize("kind", SETTINGS)
def test_a_model_frozen_as_a_whole_is_trained_in_every_stage(kind: str, tmp_path: Path) -> None:
    results = []
    for frozen in (False, True):
        work = workload(seeded(Residual).requires_grad_(not frozen))
        training = TrainingConfig(epochs=1, batch_size=16)
        config = STAGES[kind].config(**SETTINGS[kind], training=training)
        results.append(STAGES[kind].run(work.model, config, context(work, tmp_path / str(frozen))[0]))
    free, frozen_one = (one.model.state_dict() for one in results)
    assert all(torch.equal(free[name], frozen_one[name]) for name in free if isinstance(free[name], Tensor))
    assert ["frozen as a whole" in one.note for one in results] == [False, True]
