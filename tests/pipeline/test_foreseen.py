"""What a training will take of the memory, estimated before it starts."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from edgekit.config.settings import TrainingConfig
from edgekit.errors import EdgekitError
from edgekit.pipeline import compress, foreseen
from edgekit.progress import Event
from tests.pipeline import tiny

RECIPE = tiny.RECIPE.replace("batch_size: 32", "batch_size: 64")


class Stop(EdgekitError):
    pass


def warnings_of(folder: Path) -> list[Event]:
    """Those before the preflight's first step, where the run is ended."""
    recipe, told = folder / "tiny.yaml", []
    recipe.write_text(RECIPE)

    def progress(event: Event) -> None:
        if event.kind == "warning":
            told.append(event)
        if event.kind == "step" and event.stage == "preflight":
            raise Stop("enough")

    with pytest.raises(Stop):
        compress(tiny.workload(), recipe, out=folder / "run", progress=progress)
    return told


def test_nothing_is_told_where_it_fits(tmp_path: Path) -> None:
    assert warnings_of(tmp_path) == []


def test_each_stage_that_does_not_fit_is_named_with_batches_that_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, example = tiny.workload().model, tiny.workload().example(2)
    half = foreseen.training_bytes(model, example, TrainingConfig(batch_size=32))
    monkeypatch.setattr(foreseen, "free_memory", lambda: half)
    told = warnings_of(tmp_path)
    assert [event.stage for event in told] == ["prune", "qat"]  # distill has batches of 8
    assert "stages.prune.training.batch_size=32" in told[0].message


def test_the_estimate_is_what_a_training_step_keeps() -> None:
    """Measured with the allocator of the tensors themselves: all that autograd saved, and the weights."""
    model = nn.Sequential(*[layer for _ in range(8) for layer in (nn.Conv2d(8, 8, 3, padding=1), nn.Tanh())])
    batch = torch.zeros(16, 8, 32, 32)
    kept: dict[int, int] = {}

    def keep(one: torch.Tensor) -> torch.Tensor:
        kept[one.untyped_storage().data_ptr()] = one.untyped_storage().nbytes()
        return one

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda one: one):
        answer = model(batch).sum()
    estimate = foreseen.training_bytes(model, batch[:2], TrainingConfig(batch_size=16))
    assert answer.requires_grad
    assert sum(kept.values()) < estimate < 4 * sum(kept.values())


def test_this_machine_says_how_much_is_free() -> None:
    free = foreseen.free_memory()
    assert free is None or free > 0
