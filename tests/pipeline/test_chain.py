from __future__ import annotations

import dataclasses
from types import MappingProxyType
from typing import Any

import numpy as np
import pytest

from edgekit.errors import DiskFullError, StageError
from edgekit.pipeline import chain
from edgekit.pipeline.artifacts import plan
from edgekit.pipeline.evaluation import write_inputs
from edgekit.progress import Event
from edgekit.recipe import load_recipe
from edgekit.stages import STAGES
from edgekit.stages.base import Form, Stage
from tests.pipeline import tiny
from tests.pipeline.conftest import Run


def with_prune(monkeypatch: pytest.MonkeyPatch, **changes: Any) -> None:
    row: Stage = dataclasses.replace(STAGES["prune"], **changes)
    monkeypatch.setattr(chain, "STAGES", MappingProxyType({**STAGES, "prune": row}))


def test_a_stage_that_breaks_its_contract_is_named_with_those_before(
    finished: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    with_prune(monkeypatch, ensures=Form.INT8)
    with pytest.raises(StageError, match="prune stage gives int8 models") as caught:
        finished()
    assert "after: distill" in caught.value.got
    with_prune(monkeypatch, requires=Form.INT8)
    with pytest.raises(StageError, match="prune stage takes int8 models"):
        finished()


def test_an_unexpected_failure_tells_stage_reason_and_what_is_kept(
    fresh: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise ZeroDivisionError("in the stage")

    with_prune(monkeypatch, run=fail)
    with pytest.raises(StageError, match="the prune stage failed") as caught:
        fresh()
    assert "ZeroDivisionError: in the stage" in caught.value.got
    assert "finished before: distill" in caught.value.next
    assert isinstance(caught.value.__cause__, ZeroDivisionError)


@pytest.mark.wide
def test_a_full_disk_inside_a_library_is_told_as_that(fresh: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("PytorchStreamWriter failed writing file: No space left on device")

    with_prune(monkeypatch, run=fail)
    with pytest.raises(DiskFullError):
        fresh()


@pytest.mark.wide
def test_the_same_random_numbers_for_a_stage_whatever_came_before(
    fresh: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    import random

    import torch

    drawn = []

    def draw(*_: object) -> None:
        drawn.append((random.random(), float(np.random.rand()), float(torch.rand(()))))
        raise StageError("enough")

    with_prune(monkeypatch, run=draw)
    for seed in (1, 2):
        random.seed(seed)
        before = random.getstate()
        with pytest.raises(StageError, match="enough"):
            fresh()
        assert random.getstate() == before
    assert drawn[0] == drawn[1]


def test_validation_inputs_are_written_as_the_model_takes_them(fresh: Run) -> None:
    fresh.folder.mkdir()
    path = write_inputs(fresh.workload, fresh.folder / "inputs.npy")
    written = np.load(path, mmap_mode="r", allow_pickle=False)
    expected = fresh.workload.preprocessing(fresh.workload.validation.inputs).numpy()
    np.testing.assert_array_equal(written, expected)
    assert len(np.load(write_inputs(fresh.workload, path, limit=1))) == 1


def test_which_files_are_planned(fresh: Run) -> None:
    """The float ONNX of an unchanged model is the original's; an int8 file comes from the last stage."""

    @dataclasses.dataclass
    class Rung:
        kind: str
        digest: str
        form: Form
        model: Any = None

    trained, pruned, int8 = (
        Rung("", "a", Form.FLOAT),
        Rung("prune", "b", Form.FLOAT),
        Rung("qat", "c", Form.INT8),
    )
    recipe = load_recipe(fresh.recipe, ["exports={}"])
    job: Any = dataclasses.make_dataclass("Job", ["recipe", "workload", "devices"])(
        recipe, tiny.workload(), ()
    )

    def files(*rungs: Any) -> list[str]:
        return [f"{one.file.removeprefix('artifacts/')} < {one.rung.kind}" for one in plan(job, rungs)]

    original = "original_fp32.onnx < "
    quantized = ["tiny_int8.onnx < qat", "tiny_int8.tflite < qat"]
    both = ["tiny_fp32.onnx < prune", "tiny_fp32.tflite < prune"]
    assert files(trained, pruned, int8) == [original, *both, *quantized]
    assert files(trained, int8) == [original, "tiny_fp32.tflite < ", *quantized]


def test_progress_tells_start_and_end_of_every_part(undisturbed: tuple[Run, Any]) -> None:
    def parts(kind: str) -> list[str]:
        return undisturbed[0].parts(kind)

    assert parts("stage-start") == parts("stage-end")
    stages = ["distill", "prune", "qat"]
    assert parts("stage-start") == [
        "preflight",
        "baseline",
        *stages,
        "export",
        "evaluate",
        "benchmark",
        "diagnose",
    ]
    prune: list[Event] = [event for event in undisturbed[0].events if event.stage == "prune"]
    assert [event.epoch for event in prune if event.kind == "epoch"] == [1, 2, 3]
