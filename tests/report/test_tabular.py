"""A report read by its name, and as rows; the notebook that shows both."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from edgekit import Report
from edgekit.errors import MissingExtraError

NOTEBOOK = Path(__file__).parents[2] / "docs" / "report.ipynb"


def test_a_report_is_read_by_a_text(whole: Path) -> None:
    assert Report.load(str(whole)) == Report.load(whole / "report.json") == Report.load(whole)


def test_rows_have_each_file_and_each_timing(whole: Path) -> None:
    report = Report.load(whole)
    rows = report.to_rows()
    timed = [(one.artifact, one.runtime, one.threads, one.p50_ns) for one in report.measurements]
    got = [(row["file"], row["runtime"], row["threads"], row["p50_ns"]) for row in rows if row["p50_ns"]]
    assert sorted(got) == sorted(timed)
    assert {row["file"] for row in rows} == {one.file for one in report.artifacts}
    assert len({tuple(row) for row in rows}) == 1
    reference = next(row for row in rows if row["file"] == report.reference)
    assert reference["smaller"] == 1.0
    assert {row["file"] for row in rows if row["recommended"]} == {report.recommended.artifact}


def test_a_file_that_was_never_timed_has_a_row(whole: Path) -> None:
    report = Report.load(whole).model_copy(update={"measurements": ()})
    rows = report.to_rows()
    assert [row["p50_ns"] for row in rows] == [None] * len(report.artifacts)


def test_pandas(whole: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(MissingExtraError, match="pip install pandas"):
        Report.load(whole).to_pandas()

    class Pandas:
        DataFrame = list

    monkeypatch.setitem(sys.modules, "pandas", Pandas())
    assert Report.load(whole).to_pandas() == Report.load(whole).to_rows()


@pytest.mark.wide
def test_the_notebook_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {}
    cells = [one for one in json.loads(NOTEBOOK.read_text())["cells"] if one["cell_type"] == "code"]
    for cell in cells:
        assert cell["outputs"] == []
        exec(compile("".join(cell["source"]), str(NOTEBOOK), "exec"), names)
    assert len(names["report"].to_rows()) >= 2
    assert names["ladder"]
