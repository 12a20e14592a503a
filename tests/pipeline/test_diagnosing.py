"""What a run writes into diagnosis.json: the same as computed anew from the files' own answers."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.metrics import recall_score
from torch import nn

from edgekit import Classification, Workload
from edgekit.diagnosis.corruptions import kind_of
from edgekit.diagnosis.record import Diagnosis
from edgekit.pipeline import compress, diagnosing, probing
from edgekit.report import Report
from tests.pipeline import tiny
from tests.pipeline.conftest import Run
from tests.spelling import int8_onnx

pytestmark = pytest.mark.usefixtures("without_preflight")

ORIGINAL, INT8 = "artifacts/original_fp32.onnx", int8_onnx("artifacts/tiny_int8")


def record(folder: Path) -> Diagnosis:
    return Diagnosis.from_json(json.loads((folder / "diagnosis.json").read_text())["diagnosis"])


def answers(folder: Path, file: str) -> torch.Tensor:
    return torch.from_numpy(np.load(folder / "answers" / f"{Path(file).name}.npy"))


@pytest.mark.wide
def test_an_original_that_is_recommended_is_not_compared_with_itself(fresh: Run) -> None:
    too_hard = ["stages.prune.speedup=3", "stages.prune.training.epochs=0", "stages.qat.training.epochs=0"]
    report = fresh("recommend.max_accuracy_drop=0", *too_hard)
    assert report.recommended.artifact == ORIGINAL
    assert record(fresh.folder).probed == INT8


def test_it_is_what_the_files_themselves_answered(undisturbed: tuple[Run, Report]) -> None:
    run, report = undisturbed
    found = record(run.folder)
    assert found.reference == ORIGINAL
    assert found.probed in {INT8, report.recommended.artifact} - {ORIGINAL}
    assert found.class_names == ("north", "east", "south", "west")
    targets = run.workload.validation.targets
    before, after = answers(run.folder, ORIGINAL), answers(run.folder, INT8)
    judged = found.files[INT8]
    assert judged.churn is not None
    changed = float((before.argmax(1) != after.argmax(1)).double().mean())
    assert judged.churn.changed.value == pytest.approx(changed, abs=1e-6)
    recalls = recall_score(targets, after.argmax(1), average=None)
    assert [row.after.value for row in judged.classes] == pytest.approx(recalls.tolist(), abs=1e-6)
    assert judged.calibration_after is not None
    sure, right = after.double().softmax(1).max(1).values, after.argmax(1) == targets
    bins = (sure * 15).ceil().clamp(1, 15)
    ece = sum(
        abs(float((right[bins == one].double() - sure[bins == one]).sum())) for one in range(1, 16)
    ) / len(targets)
    assert judged.calibration_after.ece == pytest.approx(ece, abs=1e-6)
    by_file = {one.file: one for one in report.artifacts}
    hits = sum(int(row.samples * (row.after.value or 0) + 0.5) for row in judged.classes)
    assert by_file[INT8].accuracy == pytest.approx(hits / len(targets))


def test_both_files_are_asked_about_the_same_corrupted_samples(tmp_path: Path, recipe: Path) -> None:
    workload = tiny.workload()
    overrides = ["diagnose.samples=1000", "recommend.objective=size"]
    report = compress(workload, recipe, out=tmp_path / "run", overrides=overrides)
    found = record(tmp_path / "run")
    by_file = {one.file: one.accuracy for one in report.artifacts}
    assert found.probed == INT8
    # All samples, as there are no more: untouched, the scores are those of the whole evaluation.
    assert found.probe_samples == len(workload.validation)
    assert found.clean_before == pytest.approx(by_file[ORIGINAL])
    assert found.clean_after == pytest.approx(by_file[INT8])
    kind = kind_of(workload.validation.inputs.numpy(), "NHWC")
    assert kind is not None
    assert [(one.corruption, one.severity) for one in found.corrupted] == [
        (name, severity) for name in kind.corruptions for severity in range(1, 6)
    ]
    hardest = [one.before for one in found.corrupted if one.severity == 5]
    assert found.clean_before is not None
    assert min(hardest) < found.clean_before  # something was corrupted
    # One step against its own gradient hurts the original more than any noise of that size would.
    assert found.attacked[-1].before < found.clean_before
    assert [flip.row for flip in found.files[INT8].flips] == [one.row for one in found.seen]
    assert all(one.image.startswith("data:image/png;base64,") for one in found.seen)
    assert found.missing == ()


def test_a_diagnosis_is_only_read_again(finished: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    before = (finished.folder / "diagnosis.json").read_bytes()
    monkeypatch.setattr(diagnosing, "judge", None)  # would fail if it were called
    finished()
    assert (finished.folder / "diagnosis.json").read_bytes() == before
    assert "diagnose" in finished.parts("stage-skipped")


@pytest.mark.wide
@pytest.mark.parametrize(
    ("overrides", "kept"),
    [
        (["diagnose.samples=0"], ()),
        (["diagnose.corruptions=false"], ("attacked",)),
        (["diagnose.adversarial=false"], ("corrupted",)),
    ],
)
def test_probes_can_be_left_out(finished: Run, overrides: list[str], kept: tuple[str, ...]) -> None:
    finished(*overrides)
    found = record(finished.folder)
    assert [name for name in ("corrupted", "attacked") if getattr(found, name)] == list(kept)
    assert found.files  # the answers are compared in any case
    told = any(row.snr_db is not None for row in found.layers)
    assert told == (overrides != ["diagnose.samples=0"])  # the layers' noise costs as much as a probe


@pytest.mark.wide
def test_probes_in_small_parts_find_what_they_find_in_one(
    finished: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = []
    for size in (32 << 20, 10 * 8 * 8 * 4):  # all at once, and ten pictures at a time
        monkeypatch.setattr(probing, "_PART_BYTES", size)
        (finished.folder / "diagnosis.json").unlink(missing_ok=True)
        finished("diagnose.samples=41")
        found.append(record(finished.folder))
    one, other = found
    assert (other.clean_before, other.clean_after) == (one.clean_before, one.clean_after)
    for a, b in zip((*one.corrupted, *one.attacked), (*other.corrupted, *other.attacked), strict=True):
        # Sums in another order: a sample may fall on the other side.
        assert abs(a.before - b.before) + abs(a.after - b.after) <= 1 / 41 + 1e-9


def test_files_that_take_pixels_are_given_pixels(finished: Run) -> None:
    finished("exports.embed_preprocessing=true", "recommend.objective=size", "diagnose.samples=64")
    found = record(finished.folder)
    assert "pixels" in found.probed
    by_file: dict[str, Any] = {one.file: one.accuracy for one in Report.load(finished.folder).artifacts}
    assert found.clean_after == pytest.approx(by_file[found.probed])
    assert found.corrupted
    assert found.attacked == ()
    assert found.missing == ("adversarial probe: files that preprocess by themselves take whole bytes",)


def test_a_probe_that_fails_is_missing_and_says_why(finished: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    from edgekit.errors import MeasurementError

    def broken(*_: Any, **__: Any) -> Any:
        raise MeasurementError("the worker crashed", where="net.onnx")

    monkeypatch.setattr(probing, "answering", broken)
    finished("diagnose.samples=8")
    found = record(finished.folder)
    assert found.corrupted == ()
    assert found.files
    (why,) = found.missing
    assert "the worker crashed" in why


class Detached(tiny.TinyNet):
    """Its first steps are computed without gradients, as frozen ones often are."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        with torch.no_grad():
            x = x - x.mean((2, 3), keepdim=True)
        return super().forward(x)


@pytest.mark.wide
def test_without_a_gradient_at_the_inputs_one_probe_is_missing(fresh: Run) -> None:
    model = Detached().eval()
    fresh.workload = replace(fresh.workload, model=model)
    fresh("stages.prune.training.epochs=0", "stages.qat.training.epochs=0", "exports.precisions=[int8]")
    found = record(fresh.folder)
    assert found.corrupted
    assert found.attacked == ()
    (why,) = found.missing
    assert why.startswith("adversarial probe: no gradient arrives at the model's inputs (torch.no_grad")


def test_pictures_as_plain_numbers_get_their_report(tmp_path: Path) -> None:
    """(N, 3, H, W) without preprocessing: nothing says that these are pictures."""
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(3, 8, 3, 2), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 60)
    ).eval()
    with torch.no_grad():
        model[4].weight.mul_(8)
    x = torch.rand(192, 3, 10, 8, generator=torch.Generator().manual_seed(1))
    workload = Workload("plain", model, Classification(60), (x[:64], None), (x[64:], None))
    recipe = tmp_path / "calibrated.yaml"
    recipe.write_text(
        "stages: [{kind: qat, calibration_samples: 64, training: {epochs: 0}}]\n"
        "exports: {formats: [onnx], precisions: [int8]}\n"
        "benchmark: {threads: [1], min_seconds: 0.02, min_runs: 3}\n"
        "recommend: {objective: size, max_accuracy_drop: 100}\ndiagnose: {samples: 0}\n"
    )
    report = compress(workload, recipe, out=tmp_path / "run")
    assert "int8" in report.recommended.artifact
    found = record(tmp_path / "run").files[report.recommended.artifact]
    assert found.churn is not None
    assert found.churn.changed.value > 0  # there are pictures to be shown
    page = (tmp_path / "run" / "report.html").read_text()
    assert "data:image/png;base64," in page
