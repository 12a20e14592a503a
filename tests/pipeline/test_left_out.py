"""Files that nobody asked for, and that can't be made or run: what the run says of the rest."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from edgekit.errors import ExportError
from edgekit.pipeline import artifacts, evaluation
from edgekit.pipeline.artifacts import Manifest, Planned
from edgekit.pipeline.chain import Rung
from tests.pipeline import tiny

FAILS = "artifacts/tiny-openvino.onnx"


@pytest.fixture
def told() -> list[tuple[str, str, str]]:
    return []


@pytest.fixture
def job(tmp_path: Path, told: list[tuple[str, str, str]]) -> Any:
    run = SimpleNamespace(path=tmp_path, artifacts=tmp_path / "artifacts", work=tmp_path)
    run.artifacts.mkdir()
    return SimpleNamespace(
        run=run,
        workload=tiny.workload(),
        recipe=SimpleNamespace(name="tiny"),
        fingerprint="0",
        tell=lambda kind, part, message="", **rest: told.append((kind, part, message)),
    )


def fail_beside(*given: Any) -> dict[str, Any]:
    one = next(one for one in given if isinstance(one, Planned))
    if one.beside:
        raise ExportError("can't be written", where=one.file)
    return {"file": one.file, "sha256": "", "evaluation": None, "accuracy": 1.0, "agreement": 1.0}


def test_the_end_of_a_part_is_about_files_that_are_there(
    job: Any, told: list[tuple[str, str, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    rung = Rung.__new__(Rung)
    planned = [
        Planned(file, "onnx", "int8", rung, beside=file == FAILS) for file in ("artifacts/tiny.onnx", FAILS)
    ]
    for module in (artifacts, evaluation):
        monkeypatch.setattr(module, "_key", lambda *given: "key")
    monkeypatch.setattr(artifacts, "_export", fail_beside)
    monkeypatch.setattr(artifacts, "_write_preprocessing", lambda *given: None)
    manifest = artifacts.write_missing(job, Manifest(job, planned), [rung])
    assert told[-1] == ("stage-end", "export", "tiny.onnx")
    assert any("tiny-openvino.onnx is left out" in message for _, _, message in told)

    def written(workload: Any, path: Path, **rest: Any) -> Path:
        path.touch()
        return path

    manifest.planned = planned
    manifest.entries[FAILS] = fail_beside(planned[0]) | {"file": FAILS}
    monkeypatch.setattr(evaluation, "write_inputs", written)
    monkeypatch.setattr(evaluation, "_evaluate", fail_beside)
    evaluation.evaluate_all(job, [rung], manifest)
    assert told[-1][:2] == ("stage-end", "evaluate")
    assert told[-1][2].startswith("1 files on all")
