"""``inspect`` of a file that lies in its run's folder says what the run found out about it."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from typer.testing import CliRunner

from edgekit.cli import app as cli
from edgekit.inspecting import inspect
from edgekit.inspecting.judged import judged
from edgekit.report import Report
from tests.pipeline.conftest import Run


def int8_file(run: Run, report: Report) -> tuple[Path, str]:
    one = next(one for one in report.artifacts if one.precision == "int8")
    return run.folder / one.file, one.sha256


def test_a_file_in_its_run_has_the_ladder_s_step(undisturbed: tuple[Run, Report]) -> None:
    run, report = undisturbed
    path, _ = int8_file(run, report)
    found = inspect(path)["judged"]
    step = next(step for step in report.ladder if step.rung == f"artifacts/{path.name}")
    assert found is not None
    assert {key: found[key] for key in ("snr_db", "worst_channel_db", "layers", "layers_peak")} == {
        "snr_db": step.snr_db,
        "worst_channel_db": step.worst_channel_db,
        "layers": step.layers,
        "layers_peak": step.layers_peak,
    }
    told = CliRunner().invoke(cli.app, ["inspect", str(path)], prog_name="edgekit").output
    assert f"against {step.against}" in told


def test_elsewhere_or_changed_it_is_another_file(undisturbed: tuple[Run, Report], tmp_path: Path) -> None:
    run, report = undisturbed
    path, digest = int8_file(run, report)
    assert judged(path, "0" * 64) is None
    assert judged(Path(shutil.copy(path, tmp_path)), digest) is None


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"ladder": 1}', b"\xff\xfe"])
def test_a_damaged_report_says_nothing(
    undisturbed: tuple[Run, Report], tmp_path: Path, content: bytes
) -> None:
    run, report = undisturbed
    path, digest = int8_file(run, report)
    (tmp_path / "artifacts").mkdir()
    copy = Path(shutil.copy(path, tmp_path / "artifacts"))
    (tmp_path / "report.json").write_bytes(content)
    assert judged(copy, digest) is None


def test_layers_and_channels_are_printed_where_there_are_any() -> None:
    from edgekit.cli.views.artifact import _judged

    lost = {"count": 1, "channels": 5, "worst": [{"channel": 3, "snr_db": 4.2}]}
    step = {
        "against": "qat",
        "snr_db": 24.4,
        "worst_channel_db": 4.2,
        "worst_sample_db": None,
        "steady_db": 31.0,
        "layers": 12,
        "layers_peak": 1.0,
        "amplified": True,
        "lost_channels": lost,
    }
    assert _judged(step) == [
        (
            "against qat",
            "24 dB (worst channel 4; the graph itself, with one rounding in 1,000 moved by a step, 31)",
        ),
        (
            "layers",
            "12 compared one by one on the file's own integers: at most 1.0 steps of their grids off, which "
            "the network makes grow",
        ),
        ("lost channels", "1 of 5: 3 (4 dB)"),
    ]
    assert _judged(None) == []
