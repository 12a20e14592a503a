"""Batch, learning rate and epochs follow the size of the data; large data gets what is written."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from edgekit.recipe import list_recipes, load_recipe
from edgekit.stages.base import TrainingConfig
from edgekit.training.held_out import held_out
from edgekit.training.sizing import SMALLEST, STEPS, USUAL, sized, sized_text
from tests.training.nets import NO_TEACHER, fit, seeded

CIFAR = 50_000


@pytest.mark.parametrize("name", [info.name for info in list_recipes()])
def test_large_data_gets_what_the_recipe_says(name: str) -> None:
    for stage in load_recipe(name).stages:
        written: TrainingConfig = stage.training  # type: ignore[attr-defined]
        rows = held_out(CIFAR, written, 0, floor=True).trained_of(CIFAR)
        used = sized(written, len(rows))
        assert used.batch_size == 128
        changed = {"batch_size", "min_steps"}
        assert used.model_dump(exclude=changed) == written.model_dump(exclude=changed)
        assert sized_text(written, used, len(rows)) == ""


@given(st.integers(2, 200_000), st.integers(1, 16))
def test_an_epoch_has_steps_enough_where_the_smallest_batch_allows_it(samples: int, processes: int) -> None:
    used = sized(TrainingConfig(), samples, processes)
    batch = used.batch_size
    assert isinstance(batch, int)
    assert max(SMALLEST, 2 * processes) <= batch <= USUAL
    assert batch == max(SMALLEST, 2 * processes) or samples // batch >= STEPS
    assert batch == USUAL or samples < STEPS * 2 * batch  # no smaller than need be
    assert used.lr == pytest.approx(0.02 * (batch / USUAL) ** 0.5)


@given(st.integers(2, 200_000), st.integers(1, 50), st.integers(0, 5000))
def test_epochs_are_raised_to_the_least_steps_and_no_further(samples: int, epochs: int, least: int) -> None:
    used = sized(TrainingConfig(epochs=epochs, min_steps=least), samples)
    assert isinstance(used.batch_size, int)
    steps = max(samples // min(used.batch_size, samples), 1)
    assert epochs <= used.epochs <= 4 * epochs
    assert used.epochs * steps >= least or used.epochs == 4 * epochs
    assert used.epochs == epochs or (used.epochs - 1) * steps < least


def test_what_is_given_stays() -> None:
    given_one = TrainingConfig(epochs=3, batch_size=64, lr=0.3)
    assert sized(given_one, 100) == given_one
    assert sized(TrainingConfig(lr="auto"), 100).lr == "auto"
    assert sized(TrainingConfig(epochs=0, min_steps=100), 100).epochs == 0


@pytest.mark.parametrize(("changes", "steps"), [({}, 12), ({"batch_size": 96}, 1), ({"min_steps": 20}, 24)])
def test_a_small_set_is_trained_in_small_batches(changes: dict[str, Any], steps: int, tmp_path: Path) -> None:
    settings = TrainingConfig(**{"epochs": 1, "distillation": NO_TEACHER, **changes})
    seen = []

    def noting(model: nn.Module) -> Tensor:
        seen.append(model)
        return torch.zeros(())

    history = fit(seeded(), tmp_path, settings, penalty=noting)
    assert len(seen) == steps
    assert ("batches of 8" in history.note) == ("batch_size" not in changes)
    assert ("2 epochs in place of 1" in history.note) == ("min_steps" in changes)
