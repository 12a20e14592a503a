"""A format and a runtime that stand in the tests alone go the whole way, as those that edgekit brings."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from edgekit.bench.record import read_record
from edgekit.errors import RecipeError
from edgekit.inspecting import inspect
from edgekit.pipeline import compress
from edgekit.pipeline.benchmarking import bench
from edgekit.recipe import load_recipe
from edgekit.report import Report
from tests.formats import own
from tests.pipeline import tiny

pytestmark = pytest.mark.wide

RECIPE = tiny.RECIPE.replace("formats: [onnx]", "formats: [onnx, deflated]").replace(
    "precisions: [int8]", "precisions: [fp32, int8]"
)


@pytest.fixture(autouse=True, scope="module")
def known() -> Iterator[None]:
    with own.known():
        yield


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("recipe") / "own.yaml"
    path.write_text(RECIPE.replace("epochs: 3", "epochs: 0").replace("epochs: 2", "epochs: 0"))
    return path


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("device") / "here.yaml"
    path.write_text("name: here\ntransport: local\nruntimes: [onnxruntime, inflating, inflating_again]\n")
    return path


@pytest.fixture(scope="module")
def run(recipe: Path, here: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("own") / "run"
    compress(tiny.workload(), recipe, devices=[here], out=folder)
    return folder


def test_compress_writes_judges_measures_and_reports_it(run: Path) -> None:
    report = Report.load(run)
    files = {one.precision: one for one in report.artifacts if one.format == "deflated"}
    assert set(files) == {"fp32", "int8"}
    assert files["int8"].int8_coverage == 1.0
    plain = next(one for one in report.artifacts if (one.format, one.precision) == ("onnx", "int8"))
    assert files["int8"].accuracy == plain.accuracy
    measured = {one.runtime for one in report.measurements if one.artifact == files["int8"].file}
    assert measured == {"inflating", "inflating_again"}
    assert files["int8"].runtimes["inflating_again"].accuracy == plain.accuracy
    step = next(one for one in report.ladder if one.rung == files["int8"].file)
    assert step.layers or step.snr_db == 200  # its layers were compared one by one, unless all is equal
    assert "inflating" in (run / "report.html").read_text()


def test_inspect_reads_it(run: Path) -> None:
    path = next((run / "artifacts").glob("*int8*.onnxz"))
    found = inspect(path)
    assert found["format"] == "deflated"
    assert found["executed"]["coverage"]["share"] == 1.0
    assert found["executed"]["operators"]
    assert found["judged"]["layers"] or found["judged"]["snr_db"] == 200


def test_bench_measures_it(run: Path, here: Path, tmp_path: Path) -> None:
    path = next((run / "artifacts").glob("*fp32*.onnxz"))
    record, file = bench([path], here, min_seconds=0.01, min_runs=3, out=tmp_path / "r.json")
    assert [one.runtime for one in record.results] == ["inflating"]
    assert read_record(file).results[0].artifact == path.name


def test_it_is_unknown_elsewhere(recipe: Path) -> None:
    assert load_recipe(recipe).exports.formats == ("onnx", "deflated")
    with pytest.raises(RecipeError, match="must be 'onnx', .* or 'deflated', got 'deflatd'"):
        load_recipe(recipe, ["exports.formats=[deflatd]"])
