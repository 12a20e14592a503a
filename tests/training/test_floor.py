"""A training never ends below its start; over-fitting is told."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from edgekit.training import evaluate, loop
from edgekit.training.held_out import HeldOut, held_out
from edgekit.training.overfitting import gap_text, is_new
from tests.training.nets import (
    KillAfter,
    Killed,
    Normed,
    Plain,
    config,
    fit,
    identical,
    points,
    seeded,
    without_times,
    workload,
)

MANY = workload(train=points(200, 0))
HARMFUL: dict[str, Any] = {"lr": 3.0, "warmup_epochs": 0, "schedule": "constant", "epochs": 2}


def good(build: type[nn.Module] = Normed) -> nn.Module:
    """A model that has learned already."""
    model = seeded(build)
    optimizer = torch.optim.AdamW(model.parameters(), 0.02)
    x, y = MANY.train.inputs, MANY.train.targets
    model.train()
    for _ in range(150):
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(x), y).backward()
        optimizer.step()
    return model.eval()


@pytest.fixture(scope="module")
def trained() -> dict[str, Any]:
    return good().state_dict()


def as_trained(state: dict[str, Any]) -> nn.Module:
    model = seeded(Normed)
    model.load_state_dict(state)
    return model


def test_a_harmful_training_ends_as_it_began(tmp_path: Path, trained: dict[str, Any]) -> None:
    model, spoiled = as_trained(trained), as_trained(trained)
    history = fit(model, tmp_path / "a", config(**HARMFUL), workload=MANY, floor=True)
    assert identical(model, as_trained(trained))
    found = history.facts["floor"]
    assert found["before"] > found["after"]
    assert (found["kept"], found["samples"], found["held_out"]) == ("start", 20, True)
    assert "training made it worse" in history.note
    assert "on held-out training data): left as it was after the cut" in history.note
    fit(spoiled, tmp_path / "b", config(**HARMFUL, floor=False), workload=MANY, floor=True)
    assert not identical(spoiled, as_trained(trained))


def test_a_helpful_training_is_kept(tmp_path: Path) -> None:
    model = seeded(Normed)
    history = fit(model, tmp_path, config(epochs=6), workload=MANY, floor=True)
    rows = held_out(200, config(), 0, floor=True).judged
    assert history.facts["floor"]["kept"] == "end"
    assert history.facts["floor"]["after"] == evaluate(model, MANY, split="train", rows=rows).score
    assert "worse" not in history.note


@pytest.mark.parametrize("lr", [0.05, 3.0])
@pytest.mark.parametrize("more", [{}, {"early_stopping": {"patience": 5, "held_out": 0.1}, "ema_decay": 0.9}])
def test_killed_and_continued(
    lr: float, more: dict[str, Any], tmp_path: Path, trained: dict[str, Any]
) -> None:
    settings = config(**{**HARMFUL, "lr": lr, "epochs": 3, **more})
    undisturbed, continued = as_trained(trained), as_trained(trained)
    expected = fit(undisturbed, tmp_path / "a", settings, workload=MANY, floor=True)
    with pytest.raises(Killed):
        fit(
            as_trained(trained),
            *(tmp_path / "b", settings),
            workload=MANY,
            floor=True,
            progress=KillAfter(2),
        )
    got = fit(continued, tmp_path / "b", settings, workload=MANY, floor=True)
    assert without_times(got) == without_times(expected)
    assert (got.note, got.facts) == (expected.note, expected.facts)
    assert identical(continued, undisturbed)


def test_what_judges_is_not_trained_on_and_validation_has_no_say(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows: set[int] = set()
    step = loop._Training._step

    def noting(self: Any, batch: Any) -> Any:
        rows.update(batch.rows.tolist())
        return step(self, batch)

    monkeypatch.setattr(loop._Training, "_step", noting)
    models = []
    for number, validation in enumerate((points(64, 1), points(64, 2))):
        models.append(seeded(Normed))
        made = workload(train=points(200, 0), validation=validation)
        fit(models[-1], tmp_path / str(number), config(), workload=made, floor=True)
    assert identical(*models)
    trained, judged, apart = held_out(200, config(), 0, floor=True)
    assert apart
    assert trained is not None
    assert judged is not None
    assert rows <= set(trained.tolist())
    assert not rows & set(judged.tolist())
    assert sorted([*trained.tolist(), *judged.tolist()]) == [*range(200)]


def test_who_judges_follows_the_settings() -> None:
    assert held_out(5000, config(), 0, floor=False) == HeldOut(None, None)
    assert held_out(5000, config(floor=False), 0, floor=True) == HeldOut(None, None)
    few = held_out(99, config(), 0, floor=True)
    assert few.trained is None
    assert not few.apart
    assert few.judged is not None
    assert len(few.judged) == 99
    large = held_out(50_000, config(), 0, floor=True).judged
    assert large is not None
    assert len(large) == 512
    stopping = held_out(200, config(early_stopping={"held_out": 0.3}), 0, floor=True).judged
    tenth = held_out(200, config(), 0, floor=True).judged
    assert stopping is not None
    assert tenth is not None
    assert set(tenth.tolist()) < set(stopping.tolist())  # a later stage isn't judged by what one trained on


def test_over_fitting_is_told_with_its_figures(tmp_path: Path) -> None:
    x, y = torch.randn(200, 6), torch.randint(0, 3, (200,))  # nothing to learn but by heart
    made = workload(train=(x, y), validation=(torch.randn(200, 6), torch.randint(0, 3, (200,))))

    class Wide(Plain):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.head = nn.Linear(6, 400), nn.Linear(400, 3)

    events = []
    settings = config(epochs=60, lr=0.02, optimizer="adamw", floor=False)
    history = fit(seeded(Wide), tmp_path, settings, workload=made, floor=True, progress=events.append)
    found = history.facts["gap"]
    assert found["training"] > found["validation"] + 0.2
    assert gap_text(found) in history.note
    assert "over-fitted" in history.note
    assert f"{100 * found['validation']:.2f} % on validation" in history.note
    assert any(event.kind == "warning" and "over-fitted" in event.message for event in events)


def test_a_gap_that_the_original_has_too_is_no_news() -> None:
    own = {"training": 0.99, "validation": 0.90}
    assert not is_new({"training": 0.985, "validation": 0.90, "original": own})
    assert is_new({"training": 0.99, "validation": 0.87, "original": own})
    assert "(the original: 99.00 % and 90.00 %)" in gap_text({**own, "original": own})


def test_scores_near_each_other_are_not_spoken_of(tmp_path: Path) -> None:
    history = fit(good(), tmp_path, config(epochs=1, lr=1e-5), workload=MANY, floor=True)
    assert "gap" not in history.facts


def test_without_labels_the_answers_of_the_original_judge(tmp_path: Path) -> None:
    made = workload(train=(points(200, 0)[0], None), validation=(points(64, 1)[0], None))
    settings = config(distillation={"loss": "standardized"})
    model = seeded(Normed)
    found = fit(model, tmp_path, settings, workload=made, teacher=made.model, floor=True).facts["floor"]
    assert found["samples"] == 20
    rows = held_out(200, settings, 0, floor=True).judged
    score = evaluate(model, made, split="train", rows=rows).score
    assert score == max(found["before"], found["after"])
