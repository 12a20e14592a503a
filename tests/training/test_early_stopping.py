from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from edgekit.config.settings import EarlyStoppingConfig
from edgekit.errors import StageError
from edgekit.stages.base import TrainingConfig
from edgekit.training import evaluate, loop
from edgekit.training.early_stopping import Stopper, split
from tests.training.nets import (
    KillAfter,
    Killed,
    Normed,
    config,
    fit,
    identical,
    seeded,
    without_times,
    workload,
)


class TestSplit:
    @given(st.integers(3, 300), st.floats(0.01, 0.5), st.integers(0, 2**32 - 1))
    def test_every_row_once(self, count: int, share: float, seed: int) -> None:
        if round(share * count) < 1 or count - round(share * count) < 2:
            with pytest.raises(StageError, match="too few"):
                split(count, share, seed)
            return
        train, held = split(count, share, seed)
        assert sorted([*train.tolist(), *held.tolist()]) == list(range(count))
        assert len(held) == round(share * count)

    def test_the_seed_alone_decides(self) -> None:
        first, same, other = (split(100, 0.2, seed)[1] for seed in (1, 1, 2))
        assert torch.equal(first, same)
        assert not torch.equal(first, other)


@given(st.lists(st.sampled_from([0.1, 0.2, 0.25, 0.3]), min_size=1, max_size=15), st.integers(1, 4))
def test_stops_where_a_plain_search_would(scores: list[float], patience: int) -> None:
    stopper, model = Stopper(EarlyStoppingConfig(patience=patience, min_delta=0.06)), torch.nn.Linear(1, 1)
    best = 0
    for epoch, score in enumerate(scores):
        if score > scores[best] + 0.06:
            best = epoch
        stopper.see(epoch + 1, score, model)
        assert (stopper.epoch, stopper.score) == (best + 1, scores[best])
        assert stopper.is_over == (epoch - best >= patience)
        if stopper.is_over:
            break


def stopping(**changes: Any) -> TrainingConfig:
    return config(**{"epochs": 30, "lr": 0.1, "schedule": "constant", **changes})


FEW: dict[str, Any] = {"patience": 3, "held_out": 0.25}


def test_the_best_epoch_on_held_out_training_data_is_kept(tmp_path: Path) -> None:
    model, given_work = seeded(Normed), workload()
    history = fit(model, tmp_path, stopping(early_stopping=FEW), workload=given_work)
    scores = [entry["held_out"] for entry in history.epochs]
    best = scores.index(max(scores))
    assert len(scores) == best + 1 + 3 < 30
    assert history.facts["kept_epoch"] == best + 1
    assert history.facts["stopped_early"]
    assert f"epoch {best + 1} kept" in history.note
    _, held = split(96, 0.25, 0)
    assert evaluate(model, given_work, split="train", rows=held).score == max(scores)


def test_neither_held_out_nor_validation_samples_are_trained_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows: list[int] = []
    step = loop._Training._step

    def noting(self: Any, batch: Any) -> Any:
        rows.extend(batch.rows.tolist())
        return step(self, batch)

    monkeypatch.setattr(loop._Training, "_step", noting)
    work = workload()
    object.__setattr__(work.validation, "targets", torch.full((64,), 2))  # validation is of no consequence
    fit(seeded(), tmp_path, stopping(early_stopping=FEW, lr="auto"), workload=work)
    train, _ = split(96, 0.25, 0)
    assert set(rows) <= set(train.tolist())
    assert len(set(rows)) == 72


def test_the_validation_data_has_no_say(tmp_path: Path) -> None:
    models = []
    for number, work in enumerate((workload(), workload(validation=workload().train))):
        models.append(seeded(Normed))
        fit(models[-1], tmp_path / str(number), stopping(early_stopping=FEW), workload=work)
    assert identical(*models)


@pytest.mark.parametrize("number", [1, 4])
def test_killed_and_continued(number: int, tmp_path: Path) -> None:
    settings = stopping(early_stopping=FEW, ema_decay=0.9)
    undisturbed, continued = seeded(Normed), seeded(Normed)
    expected = fit(undisturbed, tmp_path / "a", settings)
    with pytest.raises(Killed):
        fit(seeded(Normed), tmp_path / "b", settings, progress=KillAfter(number))
    got = fit(continued, tmp_path / "b", settings)
    assert without_times(got) == without_times(expected)
    assert got.note == expected.note
    assert identical(continued, undisturbed)


def test_too_little_data_is_told(tmp_path: Path) -> None:
    inputs, targets = torch.randn(4, 6), torch.tensor([0, 1, 2, 0])
    with pytest.raises(StageError, match="too few training samples"):
        fit(
            seeded(),
            tmp_path,
            stopping(early_stopping={"held_out": 0.05}),
            workload=workload(train=(inputs, targets)),
        )
