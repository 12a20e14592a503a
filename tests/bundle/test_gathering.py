"""What a bundle is made from, taken out of a run."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from edgekit.bundle import answering, choosing, gathering, golden
from edgekit.bundle.contents import Contents, Tensor
from edgekit.errors import InputError, RunFolderError, WorkloadError
from edgekit.files import sha256
from edgekit.zoo import digits
from tests.spelling import int8_onnx

INT8 = "digits_int8.tflite"


@pytest.fixture
def copied(run_folder: Path, tmp_path: Path) -> Path:
    """To be damaged."""
    return Path(shutil.copytree(run_folder, tmp_path / "run"))


def test_golden_outputs_are_the_answers_of_the_run(contents_litert: Contents, run_folder: Path) -> None:
    """The run kept its files' answers to the whole validation set; the golden samples are some of them."""
    kept = contents_litert
    inputs = digits.workload().validation.inputs.numpy()
    end = kept.output
    assert end.scale is not None
    real = (kept.golden.outputs.astype(np.float32) - float(end.zero_point or 0)) * np.float32(end.scale)
    answers = np.load(run_folder / "answers" / f"{kept.model.name}.npy")
    where = [int(np.flatnonzero((inputs == sample).all((1, 2, 3)))[0]) for sample in kept.golden.samples]
    np.testing.assert_allclose(real, answers[where], atol=end.scale * kept.golden.tolerance)
    assert len(set(where)) == gathering.GOLDEN


def test_every_class_is_among_the_golden_samples(contents_litert: Contents) -> None:
    workload = digits.workload()
    inputs, targets = workload.validation.inputs.numpy(), workload.validation.targets
    seen = {
        int(targets[int(np.flatnonzero((inputs == sample).all((1, 2, 3)))[0])])
        for sample in contents_litert.golden.samples
    }
    assert seen == set(range(10))


def test_ends_and_figures(contents_litert: Contents, contents_onnx: Contents, run_folder: Path) -> None:
    manifest = json.loads((run_folder / "manifest.json").read_text())
    by_name = {Path(one["file"]).name: one for one in manifest["artifacts"]}
    for contents in (contents_litert, contents_onnx):
        entry = by_name[contents.model.name]
        assert contents.model.sha256 == entry["sha256"]
        assert contents.accuracy == entry["evaluation"]["accuracy"]
        assert contents.latency
        assert contents.labels == tuple("0123456789")
    lite, onnx = contents_litert, contents_onnx
    assert (lite.input.shape, lite.input.dtype, lite.input.layout) == ((1, 32, 32, 1), "int8", "NHWC")
    assert (onnx.input.shape, onnx.input.dtype, onnx.input.layout) == ((1, 1, 32, 32), "float32", "NCHW")
    assert (lite.output.shape, lite.class_axis) == ((1, 10), 1)
    # Two steps of the grid, or twice what the file's two sets of kernels differ by: two at most.
    assert lite.golden.tolerance in (2.0, 4.0)
    assert lite.activation_bytes is not None
    assert lite.activation_bytes > 32 * 32 * 32
    # What isn't a class's lead can't be asked of another CPU.
    leads = np.sort(lite.golden.outputs.astype(int), 1)
    assert lite.golden.clear == tuple((leads[:, -1] - leads[:, -2] > 2 * lite.golden.tolerance).tolist())


def test_pictures_of_sixteen_grey_levels_have_their_white(contents_litert: Contents) -> None:
    assert (contents_litert.raw.dtype, contents_litert.raw.white) == ("uint8", 16.0)


def test_choice_of_the_file(run_folder: Path) -> None:
    from edgekit.report import Report

    report, manifest = Report.load(run_folder), json.loads((run_folder / "manifest.json").read_text())

    def chosen(**wanted: object) -> str:
        return Path(choosing.choose(run_folder, manifest, report, **wanted)["file"]).name  # type: ignore[arg-type]

    assert chosen() == Path(report.recommended.artifact).name
    assert chosen(formats=("litert",)) == INT8
    assert chosen(formats=("onnx",), precisions=("int8",)) == int8_onnx("digits_int8")
    assert chosen(artifact=f"artifacts/{INT8}") == INT8
    with pytest.raises(InputError, match=r"no such file[\s\S]*digits_int8"):
        chosen(artifact="digits_int4.tflite")
    with pytest.raises(InputError, match=r"can't take this file[\s\S]*int8 litert"):
        chosen(artifact=INT8, formats=("onnx",))
    with pytest.raises(InputError, match=r"edgekit export .* --format litert --precision fp16"):
        chosen(formats=("litert",), precisions=("fp16",))


@pytest.mark.parametrize("name", ["report.json", "report.key", "manifest.json"])
def test_an_unfinished_run_says_how_it_goes_on(copied: Path, name: str) -> None:
    (copied / name).unlink()
    with pytest.raises(RunFolderError, match=r"isn't finished[\s\S]*goes on where it was"):
        gathering.gather(copied, artifact=INT8)


def test_damage_is_found(copied: Path) -> None:
    file = copied / "artifacts" / INT8
    content = bytearray(file.read_bytes())
    content[-100] ^= 1
    file.write_bytes(content)
    with pytest.raises(RunFolderError, match=f"{INT8} was changed"):
        gathering.gather(copied, artifact=INT8)


def test_another_workload_is_refused(copied: Path, tmp_path: Path) -> None:
    other = tmp_path / "other.py"
    other.write_text(
        "from edgekit.zoo import digits\nfrom edgekit import Workload\n\n"
        "def workload():\n    one = digits.workload()\n"
        "    few = one.train.inputs[:99], one.train.targets[:99]\n"
        "    return Workload('digits', one.model, one.task, few,\n"
        "                    one.validation, one.preprocessing)\n"
    )
    with pytest.raises(WorkloadError, match="made from another workload"):
        gathering.gather(copied, other, artifact=INT8)


def test_the_run_is_left_as_it_was(run_folder: Path, contents_litert: Contents) -> None:
    before = {path: sha256(path) for path in run_folder.rglob("*") if path.is_file()}
    gathering.gather(run_folder, artifact=INT8)
    assert {path: sha256(path) for path in run_folder.rglob("*") if path.is_file()} == before


@pytest.mark.parametrize(("step", "least"), [(1.0, 2.0), (0.5, 1.0), (None, 4e-4)])
def test_tolerance(step: float | None, least: float) -> None:
    outputs = np.array([[1.0, -4.0]])
    assert answering.tolerance_of(outputs, outputs, step) == pytest.approx(least)
    assert answering.tolerance_of(outputs, outputs + 3, step) == 6.0


def test_samples_are_spread() -> None:
    labels = torch.tensor([0] * 90 + [1] * 9 + [2])
    found = golden.spread(labels, 6)
    assert sorted(labels[found].tolist()) == [0, 0, 0, 1, 1, 2]
    assert golden.spread(torch.zeros(10, 2), 5) == [0, 2, 4, 6, 8]
    assert golden.spread(torch.zeros(3, dtype=torch.int64), 3) == [0, 1, 2]


@pytest.mark.parametrize(
    ("training", "file", "shape", "raw"),
    [
        ("NHWC", "NCHW", (1, 3, 8, 6), "NHWC"),
        ("any", "any", (1, 12), "any"),
        ("any", "NCHW", (1, 5, 8, 6), "any"),  # nothing moves
        ("any", "NHWC", (1, 8, 6, 5), "NCHW"),  # a converter moved what it takes for channels
        ("any", "NHWC", (1, 8, 6, 1), "any"),  # one channel moves nowhere
    ],
)
def test_order_of_raw_samples(training: str, file: Any, shape: tuple[int, ...], raw: str) -> None:
    preprocessing: Any = SimpleNamespace(layout=training)
    end = Tensor("input", shape, "int8", 0.1, 0, file)
    assert gathering._layout(preprocessing, end, embedded=False) == raw
    assert gathering._layout(preprocessing, end, embedded=True) == "NHWC"
