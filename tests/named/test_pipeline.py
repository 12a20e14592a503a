"""Several tensors in and out, and states, through the whole of `edgekit compress`."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from edgekit.diagnosis.record import Diagnosis
from edgekit.inspecting import inspect
from edgekit.inspecting.model import inspect_model
from edgekit.pipeline import compress
from edgekit.pipeline.benchmarking import bench
from edgekit.report import Report
from tests.named import nets
from tests.named.test_streaming import workload as streaming
from tests.spelling import int8_onnx

pytestmark = pytest.mark.wide

RECIPE = """
description: several tensors
stages:
  - {kind: prune, speedup: 1.3, training: {epochs: 1}}
  - {kind: qat, training: {epochs: 1}}
exports: {formats: [onnx, litert], precisions: [int8]}
benchmark: {threads: [1], min_seconds: 0.02, min_runs: 3}
diagnose: {samples: 8}
recommend: {max_accuracy_drop: 100}
"""


def diagnosis(folder: Path) -> Diagnosis:
    return Diagnosis.from_json(json.loads((folder / "diagnosis.json").read_text())["diagnosis"])


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("named")
    (folder / "recipe.yaml").write_text(RECIPE)
    compress(nets.workload(), folder / "recipe.yaml", out=folder / "run")
    return folder / "run"


class TestSeveral:
    def test_each_output_has_its_score_in_each_file(self, run: Path) -> None:
        report = Report.load(run)
        assert report.task["kind"] == "outputs"
        for file in report.artifacts:
            assert file.scores.keys() == {"scores", "boxes", "map"}
            assert file.accuracy == min(file.scores.values())

    def test_the_ladder_tells_each_output(self, run: Path) -> None:
        report = Report.load(run)
        for step in report.ladder:
            assert step.outputs.keys() == {"scores", "boxes", "map"}
            assert step.snr_db == min(one["snr_db"] for one in step.outputs.values())
        files = [step for step in report.ladder if step.rung.endswith((int8_onnx("int8"), "int8.tflite"))]
        assert len(files) == 2
        for step in files:  # weights of 7 bits, where that is what the CPU takes, cost 6 dB
            assert step.worst_channel_db
            assert step.worst_channel_db > (24 if "7bit" in step.rung else 30)

    def test_the_cut_left_the_outputs_whole(self, run: Path) -> None:
        report = Report.load(run)
        before, after = report.baseline.macs, report.stages[0].macs
        assert before / after >= 1.3

    def test_files_are_inspected_by_these_names(self, run: Path) -> None:
        for name in (int8_onnx("garden_int8"), "garden_int8.tflite"):
            found = inspect(run / "artifacts" / name)
            assert [one["name"] for one in found["inputs"]] == ["image", "numbers"]
            assert [one["name"] for one in found["outputs"]] == ["scores", "boxes", "map"]

    def test_what_the_inputs_are_stands_beside_the_files(self, run: Path) -> None:
        kept = json.loads((run / "artifacts/garden.preprocessing.json").read_text())
        assert kept["inputs"]["onnx"]["image"]["shape"] == ["batch", 3, 16, 16]
        assert kept["preprocessing"]["inputs"]["image"]["layout"] == "NHWC"
        card = json.loads((run / "manifest.json").read_text())["card"]
        assert card["model"]["input"]["inputs"]["numbers"] == {"shape": [8], "dtype": "float32"}

    def test_the_page_shows_them_one_by_one(self, run: Path) -> None:
        text = (run / "report.html").read_text()
        assert "Outputs one by one" in text
        assert "blur of image" in text
        assert "Each output under each corruption" in text
        assert "8/255 of numbers: boxes" in text

    def test_each_input_is_corrupted_by_itself_and_each_output_judged(self, run: Path) -> None:
        found = diagnosis(run)
        assert {one.input for one in found.corrupted} == {"image"}
        assert len({(one.corruption, one.severity) for one in found.corrupted}) == len(found.corrupted) == 35
        assert "corruptions of numbers: none are known for inputs of this kind" in found.missing
        assert [one.input for one in found.attacked] == ["image"] * 4 + ["numbers"] * 4
        for one in (*found.corrupted, *found.attacked):
            assert one.outputs.keys() == {"scores", "boxes", "map"}
            assert one.before == min(before for before, _ in one.outputs.values())
            assert one.after == min(after for _, after in one.outputs.values())
        # The original answers as its labels say, which are its own, until something is done to its inputs.
        assert found.clean_outputs["scores"][0] == 1.0
        hardest = {one.input: one for one in found.attacked}
        assert all(one.outputs["boxes"][0] < found.clean_outputs["boxes"][0] for one in hardest.values())

    def test_a_file_is_measured_and_judged_again(self, run: Path, tmp_path: Path) -> None:
        record, _ = bench(
            [str(run / "artifacts" / int8_onnx("garden_int8"))],
            workload=nets.workload(),
            samples=8,
            min_seconds=0.02,
            min_runs=3,
            out=tmp_path / "record.json",
        )
        assert record.results[0].accuracy is not None
        assert record.results[0].accuracy.accuracy is not None


def test_what_is_known_before_training_has_every_end() -> None:
    found = inspect_model(nets.workload(count=8))
    assert found["inputs"].keys() == {"image", "numbers"}
    assert found["outputs"].keys() == {"scores", "boxes", "map"}
    kept = {row["name"] for row in found["layers"] if not row["prunable"]["cut"]}
    assert kept == {"boxes", "scores", "map"}


def test_a_model_that_streams_goes_the_whole_way(tmp_path: Path) -> None:
    recipe = RECIPE.replace("  - {kind: prune, speedup: 1.3, training: {epochs: 1}}\n", "")
    (tmp_path / "recipe.yaml").write_text(recipe.replace("epochs: 1", "epochs: 0"))
    report = compress(streaming(), tmp_path / "recipe.yaml", out=tmp_path / "run")
    files = {Path(one.file).name: one for one in report.artifacts}
    assert files[int8_onnx("spotter_int8")].accuracy > 0.9
    assert files["spotter_int8.tflite"].accuracy > 0.9
    found = diagnosis(tmp_path / "run")  # over whole sequences, their states fed back
    assert {one.input for one in (*found.corrupted, *found.attacked)} == {"frame"}
    assert "time shift" in {one.corruption for one in found.corrupted}
    assert "corruptions: left as they are: h_in (a state)" in found.missing
    assert found.attacked[-1].before < found.clean_before
    metadata = inspect(tmp_path / "run/artifacts" / int8_onnx("spotter_int8"))
    assert [one["name"] for one in metadata["inputs"]] == ["frame", "h_in"]
    assert [one["name"] for one in metadata["outputs"]] == ["scores", "h_out"]
    assert json.loads(metadata["metadata"]["preprocessing"])["states"] == {"h_out": "h_in"}
