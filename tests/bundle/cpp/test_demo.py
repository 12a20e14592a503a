"""The demo's bundles, built with real runtimes: they answer as their files do, and say what is wrong."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import numpy as np
import pytest

from edgekit.bundle.answering import Answerer
from edgekit.bundle.targets.cpp.building import Failed, run
from edgekit.zoo import digits
from tests.bundle.cpp.conftest import Built


def test_the_golden_test_passes(demo: Built) -> None:
    assert demo.tried.passed, demo.tried.told
    assert demo.tried.figures is not None
    assert float(demo.tried.figures["output_difference"]) <= demo.contents.golden.tolerance


def test_the_golden_test_runs_in_ctest(demo: Built) -> None:
    assert "100% tests passed" in run(["ctest", "--test-dir", str(demo.scratch / "build")])


def test_it_answers_to_all_validation_samples_as_the_file_does(demo: Built) -> None:
    workload = digits.workload()
    samples = workload.validation.inputs
    answerer = Answerer(demo.model, demo.contents.model.format)
    wanted = answerer.outputs(answerer.arranged(workload.preprocessing(samples).numpy()))
    outputs = demo.outputs(samples.numpy())
    # The images are resized, and torch rounds there in another order: an input may be a step off.
    same = np.mean(outputs.argmax(1) == wanted.argmax(1))
    assert same >= 0.998
    labels = workload.validation.targets.numpy()
    assert abs(np.mean(outputs.argmax(1) == labels) - np.mean(wanted.argmax(1) == labels)) < 0.002


def test_predict_prints_labels_and_probabilities(demo: Built) -> None:
    golden = demo.folder / "golden" / "samples.bin"
    lines = run([demo.program("predict"), str(demo.model), str(golden), "--top", "10", "--threads", "2"])
    answers = [line.split("\t") for line in lines.splitlines() if "\t" in line]
    assert len(answers) == len(demo.contents.golden.samples)
    best = demo.contents.golden.outputs.argmax(1)
    for answer, label in zip(answers, best, strict=True):
        assert answer[0].split()[0] == str(label)
        shares = [float(one.split()[1]) for one in answer]
        assert shares == sorted(shares, reverse=True)
        assert sum(shares) == pytest.approx(1, abs=1e-3)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (None, "can't open the model file"),
        (b"", "0 bytes instead of"),
        (b"TFL3 and nothing else", "21 bytes instead of"),
        ("half", "bytes instead of"),
        ("flipped", "sha256 differs"),
    ],
)
def test_a_wrong_model_file_is_told(
    built_litert: Built, content: bytes | str | None, said: str, tmp_path: Path
) -> None:
    path = tmp_path / "model.tflite"
    whole = built_litert.contents.model.content
    if content == "half":
        content = whole[: len(whole) // 2]
    elif content == "flipped":
        content = whole[:-1] + bytes([whole[-1] ^ 1])
    if content is not None:
        assert isinstance(content, bytes)
        path.write_bytes(content)
    golden = built_litert.folder / "golden" / "samples.bin"
    with pytest.raises(Failed, match=re.escape(said)):
        run([built_litert.program("predict"), str(path), str(golden)])


def test_half_a_sample_is_told(built_litert: Built, tmp_path: Path) -> None:
    (tmp_path / "samples.bin").write_bytes(bytes(built_litert.contents.raw.size + 1))
    with pytest.raises(Failed, match="whole samples"):
        run([built_litert.program("predict"), str(built_litert.model), str(tmp_path / "samples.bin")])


def test_without_a_runtime_cmake_says_what_to_fetch(built_litert: Built, tmp_path: Path) -> None:
    said = configure(built_litert, tmp_path / "build", f"-DLITERT_ROOT={tmp_path}")
    assert "LiteRT 2 was not found" in said
    assert "pip download --no-deps ai-edge-litert" in said


def test_the_other_runtime_is_refused_by_name(built_litert: Built, tmp_path: Path) -> None:
    name = built_litert.name.upper()
    said = configure(built_litert, tmp_path / "build", f"-D{name}_RUNTIME=onnxruntime")
    assert "digits_int8.tflite is a file for litert" in said
    said = configure(built_litert, tmp_path / "build", f"-D{name}_RUNTIME=tensorflow")
    assert "has to be litert, tflite or onnxruntime" in said


def configure(built: Built, target: Path, *options: str) -> str:
    """What CMake says to a configuration that it refuses, in one line."""
    done = subprocess.run(
        ["cmake", "-S", str(built.folder), "-B", str(target), *options], capture_output=True, check=False
    )
    assert done.returncode
    return " ".join(done.stderr.decode().split())
