"""The whole pipeline, disturbed in every way that a run may be disturbed: the result is always the same."""

from __future__ import annotations

import json
import os
import resource
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import onnx
import pytest
import torch

import edgekit
from edgekit.bench.record import read_record as bench_record
from edgekit.errors import (
    DataError,
    DeviceError,
    DiskFullError,
    Interrupted,
    RecipeError,
    RunFolderError,
    StageError,
)
from edgekit.files import sha256
from edgekit.pipeline import chain, compress
from edgekit.progress import Event
from edgekit.recipe import load_recipe
from edgekit.report import Report
from edgekit.runs.folder import RunFolder, read_record
from tests.pipeline import tiny
from tests.pipeline.conftest import Run
from tests.spelling import int8_onnx, spelled

INT8 = int8_onnx("artifacts/tiny_int8")
ORIGINAL = "artifacts/original_fp32.onnx"
ALL_PARTS = [
    "preflight",
    "baseline",
    "distill",
    "prune",
    "qat",
    "export",
    "evaluate",
    "benchmark",
    "diagnose",
]


def result(report: Report) -> dict[str, Any]:
    """What must not depend on what happened on the way: all but times."""
    values = report.to_json()
    stages = [{key: value for key, value in row.items() if key != "seconds"} for row in values["stages"]]
    timed = ("float_time_share", "float_kernels")  # from a profile
    artifacts = [
        {key: value for key, value in row.items() if key not in timed} for row in values["artifacts"]
    ]
    return {
        "baseline": values["baseline"],
        "stages": stages,
        "artifacts": artifacts,
        "ladder": values["ladder"],
    }


def no_half_files(folder: Path) -> bool:
    return not [path for path in folder.rglob("*") if path.suffix == ".tmp" or path.name == "work"]


# --- an undisturbed run ----------------------------------------------------------------------------------


def test_the_report_is_in_the_folder_and_tells_what_was_made(undisturbed: tuple[Run, Report]) -> None:
    run, report = undisturbed
    assert Report.load(run.folder) == report
    assert [stage.kind for stage in report.stages] == ["distill", "prune", "qat"]
    assert [stage.changed for stage in report.stages] == [False, True, True]
    assert report.stages[1].macs * 1.3 <= report.baseline.macs
    assert [one.file for one in report.artifacts] == [ORIGINAL, INT8]
    assert report.reference == ORIGINAL
    original, int8 = report.artifacts
    assert (original.int8_coverage, int8.int8_coverage) == (0.0, 1.0)
    assert original.accuracy == report.baseline.accuracy
    assert original.parity == 1.0
    # Weights of 7 bits, for a CPU that saturates, may decide a sample otherwise than the graph's.
    assert int8.parity >= (0.9 if spelled() else 1.0)
    assert {one.artifact for one in report.measurements} == {ORIGINAL, INT8}
    assert report.recommended.artifact in (ORIGINAL, INT8)
    assert report.recommended.reason
    assert no_half_files(run.folder)


def test_every_file_is_what_the_manifest_and_the_report_say(undisturbed: tuple[Run, Report]) -> None:
    run, report = undisturbed
    manifest = read_record(run.folder / "manifest.json")
    assert manifest is not None
    for one, entry in zip(report.artifacts, manifest["artifacts"], strict=True):
        path = run.folder / one.file
        assert one.sha256 == entry["sha256"] == sha256(path)
        assert one.size_bytes == path.stat().st_size
        assert entry["parent"]["stage"] == (one.parent or "trained model")
        assert entry["evaluation"]["accuracy"] == one.accuracy


def test_preprocessing_and_classes_are_inside_and_beside_the_files(undisturbed: tuple[Run, Report]) -> None:
    run, _ = undisturbed
    inside = {prop.key: prop.value for prop in onnx.load(run.folder / INT8).metadata_props}
    beside = json.loads((run.folder / "artifacts" / "tiny.preprocessing.json").read_text())
    expected = tiny.workload().preprocessing.to_dict()
    assert json.loads(inside["preprocessing"]) == beside["preprocessing"] == expected
    assert json.loads(inside["classes"]) == beside["classes"] == ["north", "east", "south", "west"]
    assert beside["inputs"]["onnx"]["shape"] == ["batch", 1, 8, 8]
    assert beside["files"] == ["original_fp32.onnx", Path(INT8).name]


def test_every_single_timing_is_kept(undisturbed: tuple[Run, Report]) -> None:
    run, report = undisturbed
    record = bench_record(run.folder / "measurements" / "local.json")
    assert record is not None
    for row, kept in zip(report.measurements, record.results, strict=True):
        assert row.samples == len(kept.samples) >= 5
        assert min(kept.samples) <= row.p50_ns <= row.p90_ns
        assert kept.sha256 == sha256(run.folder / row.artifact)
    assert "cpu" in record.about


def test_the_recipe_is_kept_as_it_was_used(undisturbed: tuple[Run, Report]) -> None:
    run, _ = undisturbed
    assert load_recipe(run.folder / "recipe.yaml") == load_recipe(run.recipe)


def test_without_an_output_folder_every_run_gets_its_own(
    finished: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)

    def stop(event: Event) -> None:
        raise KeyboardInterrupt

    for seed in (0, 0, 1):
        with pytest.raises(Interrupted):
            compress(finished.workload, finished.recipe, overrides=[f"seed={seed}"], progress=stop)
    folders = sorted(path.name for path in (tmp_path / "runs").iterdir())
    assert len(folders) == 2
    assert all(name.startswith("tiny-tiny-") for name in folders)


# --- going on --------------------------------------------------------------------------------------------


def test_a_finished_run_is_only_read_again(finished: Run, undisturbed: tuple[Run, Report]) -> None:
    again = finished().to_json()
    assert finished.parts("stage-skipped") == ALL_PARTS
    assert finished.parts("stage-start") == finished.told("warning") == []
    assert {**again, "folder": ""} == {**undisturbed[1].to_json(), "folder": ""}


@pytest.mark.wide
def test_interrupted_again_and_again_it_ends_with_the_same(
    fresh: Run, undisturbed: tuple[Run, Report]
) -> None:
    moments = [
        ("step", "preflight"),
        ("epoch", "prune"),
        ("epoch", "qat"),
        ("stage-end", "export"),
        ("note", "evaluate"),
        ("stage-start", "benchmark"),
        ("step", "diagnose"),
    ]
    for moment in moments:

        def interrupt(event: Event, moment: tuple[str, str] = moment) -> None:
            if (event.kind, event.stage) == moment:
                raise KeyboardInterrupt

        with pytest.raises(Interrupted) as caught:
            fresh(on=interrupt)
        assert caught.value.exit_code == 130
        assert "same command" in caught.value.next
        assert str(fresh.folder) in caught.value.where
        assert not (fresh.folder / "report.json").exists()
        assert no_half_files(fresh.folder)
    assert result(fresh()) == result(undisturbed[1])
    assert fresh.parts("stage-skipped") == ALL_PARTS[:-1]
    assert fresh.told("warning") == []


KILL = """
import os, signal, sys
from edgekit.pipeline import compress
kind, stage, times = sys.argv[4:]
left = [int(times)]
def progress(event):
    if (event.kind, event.stage) == (kind, stage):
        left[0] -= 1
        if left[0] == 0:
            os.kill(os.getpid(), signal.SIGKILL)
compress(sys.argv[1], sys.argv[2], out=sys.argv[3], progress=progress)
"""


def kill_at(run: Run, kind: str, stage: str, times: int = 1) -> None:
    arguments = [str(Path(tiny.__file__)), str(run.recipe), str(run.folder), kind, stage, str(times)]
    process = subprocess.run([sys.executable, "-c", KILL, *arguments], capture_output=True, check=False)
    assert process.returncode == -signal.SIGKILL, process.stderr.decode()[-2000:]
    run.workload = edgekit.load_workload(tiny.__file__)  # the same as the killed process had


@pytest.mark.wide
def test_killed_in_a_training_it_goes_on_after_the_last_epoch(
    fresh: Run, undisturbed: tuple[Run, Report]
) -> None:
    kill_at(fresh, "epoch", "prune", 3)  # the third epoch is trained, but not kept yet
    assert result(fresh()) == result(undisturbed[1])
    assert "prune: continuing after epoch 2 of 3" in fresh.told("note")
    assert fresh.parts("stage-skipped") == ["preflight", "baseline", "distill"]
    assert no_half_files(fresh.folder)


@pytest.mark.slow
def test_killed_everywhere_it_ends_with_the_same(fresh: Run, undisturbed: tuple[Run, Report]) -> None:
    for kind, stage, times in [
        ("stage-start", "prune", 1),
        ("epoch", "prune", 2),
        ("stage-end", "prune", 1),
        ("epoch", "qat", 1),
        ("step", "export", 2),
        ("step", "evaluate", 1),
        ("step", "benchmark", 3),
        ("stage-end", "benchmark", 1),
    ]:
        kill_at(fresh, kind, stage, times)
    assert result(fresh()) == result(undisturbed[1])
    assert fresh.parts("stage-skipped") == ALL_PARTS


@pytest.mark.wide
@pytest.mark.parametrize(
    ("damaged", "remade"),
    [
        (["stages/2-prune/weights.safetensors"], ["prune"]),
        (["stages/2-prune/plan.json", "baseline.json", "measurements/local.json"], ["prune"]),
        (["stages/3-qat/int8_graph.pt2", INT8], ["qat"]),
        (["stages/3-qat/stage.json", "stages/2-prune/metrics.json", "manifest.json"], ["qat"]),
    ],
)
def test_a_damaged_file_is_noticed_and_made_anew(
    finished: Run, undisturbed: tuple[Run, Report], damaged: list[str], remade: list[str]
) -> None:
    for name in damaged:
        path = finished.folder / name
        whole = bytearray(path.read_bytes())
        whole[len(whole) // 2] ^= 1
        path.write_bytes(whole if "int8" in name else whole[: len(whole) // 2])
    assert result(finished()) == result(undisturbed[1])
    stages = [part for part in finished.parts("stage-start") if part in ("distill", "prune", "qat")]
    assert stages == remade
    warnings = "\n".join(finished.told("warning"))
    for name in damaged:
        assert Path(name).name in warnings


def test_a_missing_file_is_made_anew(finished: Run, undisturbed: tuple[Run, Report]) -> None:
    (finished.folder / ORIGINAL).unlink()
    shutil.rmtree(finished.folder / "stages" / "1-distill")
    assert result(finished()) == result(undisturbed[1])
    assert "stage-start" not in [event.kind for event in finished.events if event.stage == "prune"]


def test_a_damaged_leftover_of_a_killed_stage_starts_it_over(
    finished: Run, undisturbed: tuple[Run, Report]
) -> None:
    folder = finished.folder / "stages" / "3-qat"
    for path in folder.iterdir():
        if path.name != "begun.json":
            path.unlink()
    (folder / "calibrated.pt2").write_bytes(b"not a graph")
    assert result(finished()) == result(undisturbed[1])
    assert any("starts over" in warning for warning in finished.told("warning"))


def test_other_code_makes_the_stages_anew(finished: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chain, "code_version", lambda *_: "after a fix")

    def stop(event: Event) -> None:
        if event.kind == "stage-end" and event.stage == "distill":
            raise KeyboardInterrupt

    with pytest.raises(Interrupted):
        finished(on=stop)
    assert finished.parts("stage-start") == ["preflight", "baseline", "distill"]
    assert any("not those of last time" in note for note in finished.told("note"))


@pytest.mark.wide
def test_other_measuring_costs_no_training(finished: Run) -> None:
    report = finished("benchmark.min_runs=7", "exports.precisions=[fp32]", "recommend.objective=size")
    assert finished.parts("stage-start") == ["preflight", "export", "evaluate", "benchmark", "diagnose"]
    assert [one.file for one in report.artifacts] == [ORIGINAL, "artifacts/tiny_fp32.onnx"]
    assert not (finished.folder / INT8).exists()
    assert report.recommended.reason.startswith("The smallest of the 2 files")


# --- what must not be -------------------------------------------------------------------------------------


def content(folder: Path) -> dict[str, str]:
    files = (path for path in folder.rglob("*") if path.is_file() and path.name != ".lock")
    return {str(path.relative_to(folder)): sha256(path) for path in files}


def test_the_folder_of_another_run_is_refused_and_untouched(finished: Run) -> None:
    before = content(finished.folder)
    with pytest.raises(RunFolderError, match=r"stages\[1\].speedup 1.3 there, 2.0 now"):
        finished("stages.prune.speedup=2.0")
    assert content(finished.folder) == before


def test_a_folder_in_use_is_refused(finished: Run) -> None:
    identity = read_record(finished.folder / "run.json")
    assert identity is not None
    with RunFolder.open(finished.folder, identity["run"]), pytest.raises(RunFolderError, match="in use"):
        finished()


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
@pytest.mark.parametrize("key", ["training", "recovery", "sparse.training"])
def test_a_gpu_that_is_not_there_is_told_before_anything_is_written(key: str, fresh: Run) -> None:
    with pytest.raises(StageError, match="no GPU to train on"):
        fresh(f"stages.prune.{key}.device=cuda", f"stages.prune.{key}.epochs=1")
    assert not fresh.folder.exists()


def test_a_gpu_that_no_stage_uses_is_told_once(finished: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "Some GPU")
    finished()
    assert len([note for note in finished.told("note") if "Some GPU" in note]) == 1


def test_bad_input_is_refused_before_anything_is_written(fresh: Run) -> None:
    with pytest.raises(RecipeError, match="speedpu"):
        fresh("stages.prune.speedpu=3")
    with pytest.raises(RecipeError, match="mobile"):
        compress(fresh.workload, "mobil", out=fresh.folder)
    with pytest.raises(DeviceError, match="local"):
        compress(fresh.workload, fresh.recipe, devices=["locl"], out=fresh.folder)
    fresh.workload.validation.targets[0] = 4
    with pytest.raises(DataError, match="labels out of range"):
        fresh()
    assert not fresh.folder.exists()


def test_a_full_disk_is_told_and_costs_nothing_that_was_finished(
    finished: Run, undisturbed: tuple[Run, Report]
) -> None:
    """With a limit on the size of files in the place of the full disk: the calls fail in the same way."""
    shutil.rmtree(finished.folder / "stages" / "2-prune")
    kept = [finished.folder / name for name in ("stages/1-distill", "stages/3-qat", "artifacts")]
    before = [content(folder) for folder in kept]
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, hard))
    try:
        with pytest.raises(DiskFullError) as caught:
            finished()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert caught.value.exit_code == 2
    assert "again" in caught.value.next
    assert no_half_files(finished.folder)
    assert [content(folder) for folder in kept] == before
    assert result(finished()) == result(undisturbed[1])
    assert "qat" in finished.parts("stage-skipped")  # what it was made from came out as before


@pytest.mark.wide
def test_a_full_disk_in_the_qat_stage(fresh: Run, undisturbed: tuple[Run, Report]) -> None:
    shutil.copytree(undisturbed[0].folder, fresh.folder)
    shutil.rmtree(fresh.folder / "stages" / "3-qat")
    script = (
        "import resource, sys; from edgekit import compress; from edgekit.errors import DiskFullError\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))\n"
        "try: compress(*sys.argv[1:3], out=sys.argv[3])\n"
        "except DiskFullError as error: sys.exit(error.exit_code)"
    )
    arguments = [tiny.__file__, str(fresh.recipe), str(fresh.folder)]
    done = subprocess.run([sys.executable, "-c", script, *arguments], capture_output=True, check=False)
    assert done.returncode == 2, done.stderr.decode()[-2000:]


@pytest.mark.wide
def test_a_full_file_system(tmp_path: Path, fresh: Run, undisturbed: tuple[Run, Report]) -> None:
    place = tmp_path / "small"
    place.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(place)]
    if os.geteuid() or not shutil.which("mount") or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("only root may mount a small file system")
    try:
        fresh.folder = place / "run"
        with pytest.raises(DiskFullError, match="No space left"):
            fresh()
        assert no_half_files(fresh.folder)
        kept = fresh.parts("stage-end")
        assert "baseline" in kept
        subprocess.run(["mount", "-o", "remount,size=10m", str(place)], check=True)
        assert result(fresh()) == result(undisturbed[1])
        assert [part for part in fresh.parts("stage-skipped") if part in kept] == kept
    finally:
        subprocess.run(["umount", str(place)], check=True)
