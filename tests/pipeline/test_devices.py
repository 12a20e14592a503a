"""Runs whose device is somewhere else: asked, measured, unplugged, and asked again."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from edgekit.bench.record import read_record
from edgekit.devices.device import Device
from edgekit.devices.fake import FakeTransport
from edgekit.devices.shell import ShellTransport
from edgekit.devices.transport import Transport
from edgekit.errors import MeasurementError, UnreachableError
from edgekit.pipeline import compress
from edgekit.pipeline.benchmarking import bench
from edgekit.progress import Event
from edgekit.report import Report
from tests.devices.conftest import ShellChannel
from tests.pipeline import tiny
from tests.pipeline.conftest import Run
from tests.spelling import int8_onnx

pytestmark = pytest.mark.usefixtures("without_preflight")

INT8 = int8_onnx("artifacts/tiny_int8")
ORIGINAL = "artifacts/original_fp32.onnx"


class Plug:
    """A board whose cable can be pulled."""

    def __init__(self, base: Path) -> None:
        self.base, self.pulled = base, False

    def open(self, device: Device) -> Transport:
        plug = self

        class Channel(ShellChannel):
            def argv(self, line: str) -> list[str]:
                return ["sh", "-c", "exit 255"] if plug.pulled else super().argv(line)

        return ShellTransport(Channel(), device, str(self.base)).connect()


@pytest.fixture
def plug(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Plug:
    made = Plug(tmp_path / "board")
    monkeypatch.setattr("edgekit.devices.shell.BACK_OFF_SECONDS", (0.01,))
    monkeypatch.setattr("edgekit.devices.ssh.open_ssh", made.open)
    return made


def profile(tmp_path: Path, **values: Any) -> Path:
    path = tmp_path / f"{values['name']}.yaml"
    path.write_text(yaml.safe_dump({"runtimes": ["onnxruntime"], "threads": 1, **values}))
    return path


@pytest.fixture
def board(tmp_path: Path) -> Path:
    return profile(tmp_path, name="board", transport="ssh", address="x", python=sys.executable)


def run(
    folder: Path, recipe: Path, device: Path, progress: Callable[[Event], None] = lambda event: None
) -> Report:
    return compress(tiny.workload(), recipe, devices=[device], out=folder, progress=progress)


def test_a_board_is_asked_and_measured(tmp_path: Path, recipe: Path, board: Path, plug: Plug) -> None:
    events: list[Event] = []
    report = run(tmp_path / "run", recipe, board, events.append)
    record = read_record(tmp_path / "run/measurements/board.json")
    assert [one.artifact for one in record.results] == [ORIGINAL, INT8]
    for one, row in zip(record.results, report.measurements, strict=True):
        assert one.accuracy is not None
        assert (one.accuracy.samples, one.accuracy.snr_db) == (64, 200.0)
        assert row.device == "board"
        assert row.accuracy == one.accuracy.accuracy
    assert any("bit-equal to this machine" in event.message for event in events)
    assert [(one.rung, one.snr_db) for one in report.ladder[-2:]] == [
        (f"{ORIGINAL} on board", 200.0),
        (f"{INT8} on board", 200.0),
    ]
    assert [path.name for path in plug.base.iterdir()] == ["edgekit.lock"]
    again: list[Event] = []
    run(tmp_path / "run", recipe, board, again.append)
    assert "benchmark" in {event.stage for event in again if event.kind == "stage-skipped"}


def test_a_board_that_isnt_there_is_told_before_any_training(
    tmp_path: Path, recipe: Path, board: Path, plug: Plug
) -> None:
    plug.pulled = True
    events: list[Event] = []
    with pytest.raises(UnreachableError):
        run(tmp_path / "run", recipe, board, events.append)
    assert not [event for event in events if event.kind == "stage-start"]


def test_another_board_than_the_profile_says_is_told_before_any_training(
    tmp_path: Path, recipe: Path, plug: Plug
) -> None:
    wrong = profile(
        tmp_path, name="board", transport="ssh", address="x", python=sys.executable, arch="riscv64"
    )
    with pytest.raises(MeasurementError, match="isn't what its profile says"):
        run(tmp_path / "run", recipe, wrong)


@pytest.mark.wide
def test_a_board_that_is_unplugged_costs_only_its_measurements(
    tmp_path: Path, recipe: Path, board: Path, plug: Plug
) -> None:
    def pull(event: Event) -> None:
        if event.stage == "benchmark" and event.kind == "stage-start":
            plug.pulled = True

    report = run(tmp_path / "run", recipe, board, pull)
    assert {one.file for one in report.artifacts} == {ORIGINAL, INT8}
    assert {one.artifact for one in report.failures} <= {ORIGINAL, INT8}
    assert report.failures
    failed = [one for one in report.warnings if one.kind == "failed"]
    assert len(failed) == 1  # both files, for one reason
    assert "2 files could not be measured" in failed[0].message
    plug.pulled = False
    events: list[Event] = []
    mended = run(tmp_path / "run", recipe, board, events.append)
    assert {event.stage for event in events if event.kind == "stage-skipped"} >= {
        "prune",
        "qat",
        "export",
        "evaluate",
    }
    assert not mended.failures
    assert {one.artifact for one in mended.measurements} == {ORIGINAL, INT8}


@pytest.mark.wide
def test_an_emulated_board_is_counted_and_never_ranked(
    tmp_path: Path, recipe: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    counts = {"original_fp32.onnx": 5_000_000, "tiny_int8.onnx": 1_000_000}
    about = {"machine": "x86_64", "isa": ["avx512_vnni"]}
    monkeypatch.setattr(
        "edgekit.devices.emulated.open_emulated",
        lambda device: FakeTransport(device=device, latency_ns=counts, about=about),
    )
    device = profile(tmp_path, name="emulated", transport="emulated", cpu="cortex-a76")
    # What a fake device executes can't be counted: that is told, and nothing else fails.
    report = compress(
        tiny.workload(), recipe, devices=[device], out=tmp_path / "run", overrides=["benchmark.samples=0"]
    )
    assert report.measurements == ()
    assert {one.artifact.split("/")[1]: one.instructions for one in report.counts} == counts
    assert [one.fewer for one in report.counts] == [1.0, 5.0]
    assert "µs" not in report.recommended.reason
    assert report.recommended.device == ""


def test_bench_takes_a_finished_run(
    undisturbed: tuple[Run, Report], board: Path, plug: Plug, tmp_path: Path
) -> None:
    finished, _ = undisturbed
    record, path = bench(
        [finished.folder],
        board,
        workload=tiny.workload(),
        samples=16,
        min_seconds=0.0,
        min_runs=20,
        out=tmp_path / "r.json",
    )
    assert read_record(path) == record
    assert [one.artifact for one in record.results] == [ORIGINAL, INT8]
    assert all(one.accuracy is not None and one.accuracy.samples == 16 for one in record.results)


def test_bench_takes_files_alone_on_random_inputs(undisturbed: tuple[Run, Report], tmp_path: Path) -> None:
    finished, _ = undisturbed
    files = [finished.folder / ORIGINAL, finished.folder / INT8]
    record, path = bench(
        files, "local", min_seconds=0.0, min_runs=20, threads=[1, "all"], out=tmp_path / "r.json"
    )
    assert path == tmp_path / "r.json"
    assert record.settings["input"] == "random"
    assert len({(one.artifact, one.threads) for one in record.results}) == len(record.results) >= 2
    assert all(one.accuracy is None for one in record.results)
