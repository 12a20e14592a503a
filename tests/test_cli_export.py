"""``edgekit export``: further files from what is finished, recorded and evaluated, without training."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from typer.testing import CliRunner, Result

from edgekit.cli import app as cli
from edgekit.errors import InputError, RecipeError
from edgekit.pipeline import compress
from edgekit.pipeline.export_request import export_request
from edgekit.recipe import load_recipe
from edgekit.report import Report
from tests.pipeline import tiny
from tests.spelling import int8_onnx, spelled

RECIPE = """
name: calibrated
stages: [{kind: qat, calibration_samples: 64, training: {epochs: 0}}]
exports: {formats: [onnx], precisions: [int8]}
benchmark: {threads: [1], min_seconds: 0.02, min_runs: 5}
recommend: {max_accuracy_drop: 100}
"""
FILE = str(Path(tiny.__file__))


def call(*arguments: str) -> Result:
    return CliRunner().invoke(cli.app, ["export", *arguments], prog_name="edgekit")


def entries(*arguments: str) -> dict[str, Any]:
    """File name → entry of a call that must succeed."""
    result = call(*arguments, "--json")
    assert result.exit_code == 0, result.stderr
    return {Path(entry["path"]).name: entry for entry in json.loads(result.stdout)}


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Report]:
    """A run folder that nobody may change, and its report."""
    folder = tmp_path_factory.mktemp("run")
    (folder / "calibrated.yaml").write_text(RECIPE)
    return folder / "run", compress(tiny.workload(), folder / "calibrated.yaml", out=folder / "run")


@pytest.fixture
def run(finished: tuple[Path, Report], tmp_path: Path) -> Path:
    return Path(shutil.copytree(finished[0], tmp_path / "run"))


# --- from a run ------------------------------------------------------------------------------------------


@pytest.mark.wide
def test_a_run_exports_further_files_without_training(run: Path, tmp_path: Path) -> None:
    before = {path: path.read_bytes() for path in run.glob("stages/**/*") if path.is_file()}
    found = entries(
        *(str(run), FILE, "--format", "onnx,litert", "--precision", "fp16,int8,int16x8"),
        *("--embed-preprocessing", "--out", str(tmp_path / "copies")),
    )
    names = ["fp16_pixels.onnx", "fp16_pixels.tflite", f"int8{spelled()}_pixels.onnx", "int8_pixels.tflite"]
    assert list(found) == [f"tiny_{name}" for name in (*names, "int16x8_pixels.tflite")]
    for name, entry in found.items():
        assert Path(entry["path"]).read_bytes() == (run / "artifacts" / name).read_bytes()
        assert Path(entry["path"]).parent == tmp_path / "copies"
        assert entry["evaluation"]["parity"] > 0.9
        assert entry["parent"]["stage"] == ("qat" if "int" in name else "trained model")
    assert {path: path.read_bytes() for path in before} == before
    listed = json.loads((run / "manifest.json").read_text())["artifacts"]
    added = {Path(entry["file"]).name for entry in listed if entry.get("added")}
    assert added == set(found)
    assert {"original_fp32.onnx", int8_onnx("tiny_int8")} <= {Path(entry["file"]).name for entry in listed}
    about = json.loads((run / "artifacts" / "tiny.preprocessing.json").read_text())
    assert sorted(about["files_that_take_raw_pixels"]) == sorted(found)
    assert sorted(about["files"]) == ["original_fp32.onnx", int8_onnx("tiny_int8")]


def test_raw_pixels_go_straight_into_the_file(run: Path) -> None:
    (entry,) = entries(str(run), FILE, "--format", "onnx", "--embed-preprocessing").values()
    session = onnxruntime.InferenceSession(entry["path"], providers=["CPUExecutionProvider"])
    workload = tiny.workload()
    raw = workload.validation.inputs.numpy()
    answers = session.run(None, {"input": raw})[0].argmax(1)
    accuracy = float((answers == workload.validation.targets.numpy()).mean())
    assert accuracy == pytest.approx(entry["evaluation"]["accuracy"])
    held = {item.key: item.value for item in onnx.load(entry["path"]).metadata_props}
    assert json.loads(held["preprocessing"])["input"] == "raw uint8 pixels, NHWC"
    assert held["parent_sha256"] == entry["parent"]["model_sha256"]
    assert json.loads(held["classes"]) == ["north", "east", "south", "west"]


def test_the_same_call_again_writes_nothing_and_compress_keeps_the_files(
    run: Path, finished: tuple[Path, Report]
) -> None:
    arguments = (str(run), FILE, "--format", "onnx", "--precision", "fp16", "--batch", "2")
    (first,) = entries(*arguments).values()
    (again,) = entries(*arguments).values()
    assert first == again
    name = "tiny_fp16_batch2.onnx"
    report = compress(tiny.workload(), finished[0].parent / "calibrated.yaml", out=run)
    assert (run / "artifacts" / name).is_file()
    assert name in (run / "manifest.json").read_text()
    assert [one.file for one in report.artifacts] == [one.file for one in finished[1].artifacts]


def test_the_fitted_temperature_goes_into_the_last_layer(run: Path, finished: tuple[Path, Report]) -> None:
    plain = int8_onnx("artifacts/tiny_int8")
    record = json.loads((run / "diagnosis.json").read_text())["diagnosis"]
    value = float(f"{record['files'][plain]['temperature']['value']:.4g}")
    ((name, entry),) = entries(str(run), FILE, "--format", "onnx", "--temperature", "fitted").items()
    assert name == f"tiny_int8{spelled()}_t{value:g}.onnx"
    assert entry["options"]["temperature"] == value
    assert entry["evaluation"]["parity"] > 0.9
    before, after = (
        np.load(run / "answers" / f"{Path(one).name}.npy") for one in (plain, f"artifacts/{name}")
    )
    # On 7 bits every second weight lies halfway between two steps, and rounds to either.
    np.testing.assert_allclose(after * value, before, rtol=1e-4, atol=1e-3 if spelled() else 1e-6)
    (number,) = entries(str(run), FILE, "--format", "onnx", "--precision", "fp32", "--temperature", "2")
    assert number == "tiny_fp32_t2.onnx"
    (run / "diagnosis.json").unlink()  # it is fitted to the answers, whatever was said about them
    assert list(entries(str(run), FILE, "--format", "onnx", "--temperature", "fitted")) == [name]
    (run / plain.replace("artifacts", "answers")).with_suffix(".onnx.npy").unlink()
    result = call(str(run), FILE, "--temperature", "fitted")
    assert result.exit_code == 2
    assert "the run folder is damaged" in result.stderr


@pytest.mark.parametrize("value", ["0", "-2", "warm", "nan", "inf"])
def test_a_temperature_that_is_none_is_refused(value: str) -> None:
    result = call("nowhere", "--temperature", value)
    assert result.exit_code == 2
    assert f"--temperature {value}: must be a number above 0, or fitted" in result.stderr


def test_a_device_profile_spells_the_files(run: Path, tmp_path: Path) -> None:
    board = tmp_path / "board.yaml"
    board.write_text("name: board\ntransport: local\narch: aarch64\n")
    (name,) = entries(str(run), FILE, "--format", "onnx", "--device", str(board))
    assert name == "tiny_int8_s8.onnx"
    model = onnx.load(run / "artifacts" / name)
    zeros = {onnx.numpy_helper.to_array(t).dtype for t in model.graph.initializer}
    assert np.dtype(np.uint8) not in zeros


def test_a_table_for_people(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edgekit.cli.views.console.PLAIN_WIDTH", 300)  # a long path would be folded
    result = call(str(run), FILE, "--format", "onnx")
    assert result.exit_code == 0
    assert int8_onnx("tiny_int8") in result.stdout
    assert "kept from before" in result.stderr


@pytest.mark.wide
def test_a_recipe_may_ask_for_all_of_it(run: Path, finished: tuple[Path, Report]) -> None:
    settings = ["precisions=[fp16, int8, int16x8]", "formats=[onnx, litert]", "embed_preprocessing=true"]
    settings += ["batch=2", "io=float32"]
    recipe = finished[0].parent / "calibrated.yaml"
    overrides = [f"exports.{setting}" for setting in settings]
    report = compress(tiny.workload(), recipe, out=run, overrides=overrides)
    names = [Path(one.file).name for one in report.artifacts]
    assert names == [
        "original_fp32.onnx",
        "tiny_fp16_batch2_pixels.onnx",
        "tiny_fp16_batch2_pixels.tflite",
        f"tiny_int8{spelled()}_batch2_pixels.onnx",
        "tiny_int8_float32-io_batch2_pixels.tflite",
        "tiny_int16x8_float32-io_batch2_pixels.tflite",
    ]
    assert {one.artifact for one in report.measurements} == {one.file for one in report.artifacts}
    assert min(one.parity for one in report.artifacts) > 0.9
    assert not (run / "artifacts" / int8_onnx("tiny_int8")).exists()  # of other settings


# --- from a model ----------------------------------------------------------------------------------------


def test_a_workload_file_exports_its_trained_model(tmp_path: Path) -> None:
    found = entries(FILE, "--format", "onnx", "--precision", "fp32,int8-dynamic", "--out", str(tmp_path))
    assert list(found) == ["tiny_fp32.onnx", int8_onnx("tiny_int8-dynamic")]
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(found)
    assert found["tiny_fp32.onnx"]["evaluation"]["parity"] == 1.0


def test_an_int8_graph_needs_no_workload(run: Path, tmp_path: Path) -> None:
    graph = run / "stages/1-qat/int8_graph.pt2"
    found = entries(str(graph), "--format", "onnx", "--out", str(tmp_path / "there"))
    assert list(found) == [int8_onnx("int8_graph_int8")]
    assert found[int8_onnx("int8_graph_int8")]["evaluation"] is None
    known = entries(str(graph), FILE, "--format", "onnx", "--out", str(tmp_path / "there"))
    assert known[int8_onnx("tiny_int8")]["evaluation"]["parity"] > 0.9


# --- what is refused -------------------------------------------------------------------------------------


def refused(*arguments: str) -> str:
    result = call(*arguments)
    assert result.exit_code == 2, result.stderr
    assert not result.stdout
    assert "Traceback" not in result.stderr
    return result.stderr


def test_all_wrong_options_are_told_at_once() -> None:
    told = refused("nowhere", "--format", "onx", "--precision", "int8,f16", "--io", "int32", "--batch", "0")
    for part in ("did you mean 'onnx'?", "did you mean 'fp16'?", "--io int32", "--batch 0: must be"):
        assert part in told


@pytest.mark.parametrize(
    ("formats", "precisions", "io", "message"),
    [
        (["onnx"], ["int16x8"], None, "needs --format litert"),
        (["litert"], ["int16x8"], "uint8", "int16x8 takes float32"),
    ],
)
def test_options_that_contradict_each_other(
    formats: list[str], precisions: list[str], io: str | None, message: str
) -> None:
    with pytest.raises(InputError, match=message):
        export_request(formats, precisions, io=io)


def test_sources_that_are_none(tmp_path: Path) -> None:
    assert "a run folder, an int8_graph.pt2 or a workload file" in refused(str(tmp_path / "none"))
    assert "no run.json" in refused(str(tmp_path))
    assert "made from an int8 graph" in refused(FILE, "--precision", "int8")
    assert "--recipe quick" in refused(FILE, "--precision", "int8")


def test_a_graph_has_no_float_model_and_no_preprocessing(run: Path) -> None:
    graph = str(run / "stages/1-qat/int8_graph.pt2")
    assert "made from the float model" in refused(graph, "--precision", "fp16")
    assert "name the workload" in refused(graph, "--embed-preprocessing")


def test_a_run_wants_the_workload_that_it_was_made_from(run: Path, tmp_path: Path) -> None:
    assert "my_workload.py" in refused(str(run))
    other = tmp_path / "other.py"
    other.write_text(
        "from tests.pipeline import tiny\n"
        "def workload():\n"
        "    made = tiny.workload()\n"
        "    made.model.head.bias.data += 1\n"
        "    return made\n"
    )
    assert "made from another workload" in refused(str(run), str(other))


def test_an_unfinished_run_is_left_alone(run: Path) -> None:
    (run / "stages/1-qat/stage.json").unlink()
    assert "isn't finished" in refused(str(run), FILE)


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        (["formats=[onnx]", "precisions=[int16x8]"], "int16x8 needs litert"),
        (["precisions=[int16x8]", "io=uint8"], "int16x8 takes no uint8"),
        (["precisions=[fp8]"], "fp8"),
        (["batch=0"], "exports.batch"),
        (["io=int16"], "exports.io"),
        (["embed_preprocesing=true"], "did you mean 'embed_preprocessing'"),
    ],
)
def test_a_recipes_exports_are_checked(setting: list[str], message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        load_recipe("mobile", [f"exports.{one}" for one in setting])


def test_int16_needs_a_qat_stage_as_int8_does() -> None:
    with pytest.raises(RecipeError, match="int8 and int16x8 need a 'qat' stage"):
        load_recipe("mobile", ["stages=[]", "exports.precisions=[int8, int16x8, fp16]"])
