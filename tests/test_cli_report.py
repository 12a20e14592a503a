"""``edgekit report``, and what ``edgekit compress`` says of the page."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from edgekit.cli.app import app
from edgekit.pipeline import compress
from tests.pipeline import tiny


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    recipe = tmp_path_factory.mktemp("recipe") / "plain.yaml"
    recipe.write_text(
        "name: plain\nstages: []\nexports: {formats: [onnx], precisions: [fp32]}\n"
        "benchmark: {threads: [1], min_seconds: 0.02, min_runs: 5}\ndiagnose: {samples: 8}\n"
    )
    folder = tmp_path_factory.mktemp("runs") / "run"
    compress(tiny.workload(), recipe, out=folder)
    return folder


def call(*arguments: str | Path) -> Result:
    return CliRunner().invoke(app, ["report", *map(str, arguments)])


def test_the_page_is_written_again_where_it_was(finished: Path) -> None:
    page = finished / "report.html"
    first = page.read_bytes()
    page.unlink()
    result = call(finished)
    assert (result.exit_code, result.stdout.strip(), result.stderr) == (0, str(page), "")
    assert page.read_bytes() == first


def test_several_runs_go_where_they_are_told(finished: Path, tmp_path: Path) -> None:
    shutil.copytree(finished, tmp_path / "other")
    (tmp_path / "other" / "report.json").unlink()
    page = tmp_path / "new" / "both.html"
    result = call(finished, tmp_path / "other", "--out", page, "--json")
    assert result.exit_code == 0
    found = json.loads(result.stdout)
    assert found["page"] == str(page)
    assert list(found["missing"]) == ["other"]
    assert "isn't finished" in found["missing"]["other"][0]
    assert "side by side" in page.read_text()


def test_what_is_missing_is_told(finished: Path, tmp_path: Path) -> None:
    shutil.copytree(finished, tmp_path / "half")
    (tmp_path / "half" / "diagnosis.json").unlink()
    result = call(tmp_path / "half")
    assert result.exit_code == 0
    assert "half: diagnosis.json: what compression broke wasn't looked at yet" in result.stderr


@pytest.mark.parametrize(
    ("arguments", "told"),
    [(["nowhere"], "this is no run folder"), (["RUN", "--out", "."], "the page needs a file")],
)
def test_what_cannot_be_is_refused(
    finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], told: str
) -> None:
    monkeypatch.chdir(tmp_path)
    result = call(*(str(finished) if one == "RUN" else one for one in arguments))
    assert result.exit_code == 2
    assert told in result.stderr
    assert list(tmp_path.iterdir()) == []


def test_the_table_in_markdown(finished: Path, tmp_path: Path) -> None:
    result = call(finished, "--markdown")
    assert (result.exit_code, result.stderr) == (0, "")
    table = [line for line in result.stdout.splitlines() if line.startswith("|")]
    report = json.loads((finished / "report.json").read_text())
    assert [line.count("|") for line in table] == [10] * (3 + len(report["artifacts"]))
    assert report["recommended"]["reason"] in result.stdout
    for runs, told in (((finished, finished), "2 runs"), ((tmp_path,), "no report of a finished run")):
        refused = call(*runs, "--markdown")
        assert refused.exit_code == 2
        assert told in refused.stderr
