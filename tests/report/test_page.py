"""report.html: what is in it, of whole runs and of what is left of others."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
import vl_convert

from edgekit.diagnosis.flips import Flip
from edgekit.diagnosis.record import Marked, Seen
from edgekit.errors import RunFolderError
from edgekit.report import Report
from edgekit.report.page import build, load, write
from edgekit.report.page.facts import way_table
from edgekit.report.summary import Counted
from edgekit.units import human_bytes, human_share

SECTIONS = ["summary", "way", "hurts", "confidence", "robustness", "layers", "files"]


class Page(HTMLParser):
    """The page's own structure: ids of sections, texts, addresses, whether all that was opened is closed."""

    VOID = ("meta", "img", "br")

    def __init__(self, html: str) -> None:
        super().__init__()
        self.sections: list[str] = []
        self.titles: list[str] = []
        self.charts: dict[str, str] = {}  # id → what a screen reader is told
        self.images: list[dict[str, str | None]] = []
        self.tables = 0
        self.addresses: list[str] = []
        self.words: list[str] = []
        self._open: list[str] = []
        self.scripts: list[str] = []
        self.feed(html)
        self.close()
        assert self._open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = dict(attrs)
        self.addresses += [str(values[key]) for key in ("src", "href", "action", "data") if key in values]
        if tag == "section":
            self.sections.append(str(values["id"]))
        if "data-chart" in values:
            self.charts[str(values["id"])] = str(values["aria-label"])
        if tag == "img":
            self.images.append(values)
        self.tables += tag == "table"
        if tag == "script":
            self.scripts.append("")
        if tag not in self.VOID and not self.get_starttag_text().endswith("/>"):  # type: ignore[union-attr]
            self._open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self._open and self._open[-1] == "script":
            self.scripts[-1] += data
        elif not self._open or self._open[-1] != "style":
            self.words.append(data)

    @property
    def text(self) -> str:
        return re.sub(r"\s+", " ", " ".join(self.words))

    @property
    def specs(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.scripts[0])
        return found


def test_every_section_of_a_whole_run_is_there(whole: Path) -> None:
    page, report = Page(build([load(whole)])), Report.load(whole)
    assert page.sections == SECTIONS
    assert human_share(report.baseline.accuracy) in page.text
    assert Path(report.recommended.artifact).name in page.text
    assert report.recommended.reason in page.text
    for warning in report.warnings:
        assert warning.message in page.text
    for stage in report.stages:
        assert stage.kind in page.text
    kinds = [key.split("-")[2] for key in page.charts]
    wanted = ["way", "curve", "curve", "channels", "classes", "confusion", "reliability", "corruptions"]
    assert kinds == [*wanted, "heat", "attacks", "layers", "pareto"]
    assert list(page.specs) == list(page.charts)
    assert all(page.charts.values())


def test_compress_writes_it_at_its_end_and_it_needs_nothing_else(whole: Path) -> None:
    html = (whole / "report.html").read_text(encoding="utf-8")
    page = Page(html)
    assert page.sections == SECTIONS
    assert all(address.startswith(("#", "data:image/png;base64,")) for address in page.addresses)
    assert "default-src 'none'" in html
    assert "window.vegaEmbed=" in page.scripts[1]
    assert "</script" not in page.scripts[1]
    assert len(html) < 5_000_000


def test_every_picture_is_one_that_the_library_draws(whole: Path) -> None:
    for key, spec in Page(build([load(whole)], scripts=False)).specs.items():
        svg = vl_convert.vegalite_to_svg({**spec, "width": 400})
        assert svg.count("<path") + svg.count("<rect") > 3, key
        values = [value for row in spec["data"]["values"] for value in row.values()]
        assert None not in values, key


def test_the_verdict_says_how_much_and_how_sure(whole: Path) -> None:
    run = load(whole)
    assert run.report is not None
    (verdict,) = re.findall(r'<p class="verdict">(.*?)</p>', build([run], scripts=False))
    measured = {one.artifact: one for one in run.report.measurements}[run.report.recommended.artifact]
    assert measured.faster is not None
    factor = measured.faster if measured.faster >= 1 else 1 / measured.faster
    assert f"{factor:.2f}×" in verdict
    assert "points" in verdict
    assert "not distinguishable from zero" in verdict or "beyond chance" in verdict


def test_the_way_tells_the_size_of_what_each_stage_exported(whole: Path) -> None:
    run = load(whole)
    assert run.report is not None
    table = way_table(run)
    assert table is not None
    column = table.titles.index("smallest file")
    told = {row[0]: row[column] for row in table.rows}
    original, int8 = run.report.artifacts
    assert told == {
        "trained model": human_bytes(original.size_bytes),
        "distill": "",
        "prune": "",
        "qat": human_bytes(int8.size_bytes),
    }


def test_what_the_names_hold_is_text_and_nothing_else(copy_of: Callable[..., Path]) -> None:
    folder = copy_of("</script><b>run")
    evil = '<img src="http://example.com/x.png">'
    record = json.loads((folder / "diagnosis.json").read_text())
    record["diagnosis"]["class_names"] = [evil, "</script>", "\u2028", '"']
    (folder / "diagnosis.json").write_text(json.dumps(record))
    html = build([load(folder)])
    page = Page(html)
    assert page.sections == SECTIONS
    assert all(address.startswith(("#", "data:")) for address in page.addresses)
    assert page.titles == []
    assert evil in page.text
    spec = next(spec for key, spec in page.specs.items() if key.endswith("classes"))
    assert evil in {row["class"] for row in spec["data"]["values"]}


def test_waves_and_texts_are_shown_as_such(whole: Path) -> None:
    import dataclasses

    run = load(whole)
    assert run.diagnosis is not None
    flips = tuple(Flip(row, 0, 0, 1, "broken", 0.5, 0.5) for row in (3, 5))
    judged = dataclasses.replace(run.diagnosis.files[run.diagnosis.probed], flips=flips)
    seen = (Seen(3, wave=((-0.5, 0.5), (-1.0, 0.25))), Seen(5, text="12 7 <b>"))
    files = {**run.diagnosis.files, run.diagnosis.probed: judged}
    diagnosis = dataclasses.replace(run.diagnosis, files=files, seen=seen)
    html = build([dataclasses.replace(run, diagnosis=diagnosis)], scripts=False)
    (points,) = re.findall(r'<polygon points="(.*?)"', html)
    heights = [float(point.split(",")[1]) for point in points.split()]
    assert len(heights) == 4  # the tops there, the bottoms back
    assert min(heights) < 20 < max(heights)
    assert "<code>12 7 &lt;b&gt;</code>" in html


def test_instructions_stand_apart_from_times(whole: Path) -> None:
    import dataclasses

    run = load(whole)
    assert run.report is not None
    rest: dict[str, Any] = {"device": "board", "runtime": "litert", "threads": 1, "samples": 3, "spread": 0.0}
    one = Counted(
        artifact="a/one.tflite", instructions=5_000_000, fewer=1.0, snr_db=200.0, accuracy=0.5, **rest
    )
    two = Counted(artifact="a/two.tflite", instructions=1_000_000, fewer=5.0, snr_db=31.25, **rest)
    report = run.report.model_copy(update={"counts": (one, two)})
    page = Page(build([dataclasses.replace(run, report=report)], scripts=False))
    assert "Instructions of one inference on emulated devices, which are no time" in page.text
    assert "one.tflite board litert 5.00 M 1.00× 50.00 % equal" in page.text
    assert "two.tflite board litert 1.00 M 5.00× 31.2 dB" in page.text
    pareto = next(spec for key, spec in page.specs.items() if "pareto" in key)
    assert "one.tflite" not in {row["file"] for row in pareto["data"]["values"]}


# --- what is left of other runs -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("without", "sections", "told"),
    [
        (
            ("report.json",),
            ["summary", "way", "hurts", "confidence", "robustness", "layers"],
            "isn't finished",
        ),
        (("diagnosis.json",), ["summary", "way", "files"], "what compression broke wasn't looked at yet"),
        (
            ("report.json", "diagnosis.json", "stages/3-qat/*"),
            ["summary", "way"],
            "stage 3-qat isn't finished",
        ),
        (("report.json", "diagnosis.json", "stages", "baseline.json"), ["summary"], "wasn't evaluated yet"),
    ],
)
def test_a_half_finished_run_shows_what_is_there(
    copy_of: Callable[..., Path], without: tuple[str, ...], sections: list[str], told: str
) -> None:
    page = Page(build([load(copy_of(without=without))], scripts=False))
    assert page.sections == [*sections, "missing"]
    assert told in page.text


@pytest.mark.parametrize(
    "name", ["report.json", "diagnosis.json", "baseline.json", "stages/2-prune/summary.json"]
)
@pytest.mark.parametrize(
    "content", ["", "{", "[]", '{"diagnosis": {"files": 7}}', '{"details": {"cut": [{}]}}']
)
def test_a_damaged_record_is_missing_and_named(copy_of: Callable[..., Path], name: str, content: str) -> None:
    folder = copy_of(without=("report.json",) if name == "baseline.json" else ())
    (folder / name).write_text(content)
    page = Page(build([load(folder)], scripts=False))
    assert "missing" in page.sections
    assert name.rsplit("/")[-1] in page.text


def test_a_damaged_curve_is_missing_and_named(copy_of: Callable[..., Path]) -> None:
    folder = copy_of()
    (folder / "stages/2-prune/training.csv").write_text("epoch,accuracy\n1,many\n")
    page = Page(build([load(folder)], scripts=False))
    assert "2-prune/training.csv" in page.text
    assert sum("curve" in key for key in page.charts) == 1


def test_what_is_no_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RunFolderError, match=r"no run\.json"):
        load(tmp_path)
    (tmp_path / "run.json").write_text("{}")
    with pytest.raises(RunFolderError, match=r"a run\.json that can't be read"):
        load(tmp_path)


# --- several runs ----------------------------------------------------------------------------------------


def test_several_runs_stand_side_by_side(copy_of: Callable[..., Path], tmp_path: Path) -> None:
    runs = [copy_of("first"), copy_of("second"), copy_of("third", without=("report.json",))]
    write([load(run) for run in runs], tmp_path / "page.html")
    page = Page((tmp_path / "page.html").read_text(encoding="utf-8"))
    assert page.sections[0] == "runs"
    assert page.sections[1:] == [
        *(f"run{index}-{name}" for index in (1, 2) for name in SECTIONS),
        *(f"run3-{name}" for name in (*SECTIONS[:-1], "missing")),
    ]
    (pareto,) = (spec for key, spec in page.specs.items() if key.endswith("pareto"))
    assert {row["run"] for row in pareto["data"]["values"]} == {"first", "second"}


@pytest.mark.parametrize("at", [0, 1])
def test_one_picture_with_masks_makes_the_legend_that_of_masks(whole: Path, at: int) -> None:
    pair = [
        Marked(0, "data:,", "data:,", (0, 0), (0, 0)),
        Marked(1, "data:,", "data:,", (0, 0), (0, 0), (0.0, 0.5)),
    ]
    run = load(whole)
    assert run.diagnosis is not None
    mixed = replace(run, diagnosis=replace(run.diagnosis, marked=(pair[at], pair[1 - at])))
    assert "Red: pixels with a wrong one." in build([mixed])
