"""The library of a model with several inputs and outputs: in plain C, in TFLM, and its sketches."""

import hashlib
from dataclasses import replace

import numpy as np
import pytest

from edgekit.bundle.answering import Answerer
from edgekit.bundle.contents import Input, ModelFile, Output, Raw, Tensor
from edgekit.bundle.targets import load
from edgekit.bundle.targets.base import Settings
from edgekit.formats.litert import reading, tflm
from tests.bundle import made
from tests.bundle.arduino import stub_resolver
from tests.bundle.arduino.compiling import STUBS, run, write

pytest.importorskip("litert_torch", reason="needs the extra litert")

from tests.bundle.c99.named import written_to

pytestmark = pytest.mark.skipif(not tflm.available(), reason="tflite-micro is not installed")

PLAIN = {"layout": "any", "size": None, "scale": 0.5, "mean": [0.1], "std": [1.5], "dtype": "float32"}
REGRESSION = {"kind": "regression", "metric": "R²"}
SCORES = {"kind": "classification", "metric": "top-1", "num_classes": 4}


@pytest.fixture(scope="module")
def contents(tmp_path_factory):
    """Floats in, classes with names that are code among what comes out."""
    file = written_to(tmp_path_factory.mktemp("file") / "net.tflite")
    described, base = reading.read(file), made.contents()
    inputs = []
    for seed, one in enumerate(described["inputs"]):
        end = Tensor(one["name"], tuple(one["shape"]), one["dtype"], one["scale"], one["zero_point"])
        raw = Raw(end.shape[1:], "float32", "any")
        samples = np.random.default_rng(seed).normal(size=(6, *raw.shape)).astype(np.float32)
        inputs.append(Input(raw, end, PLAIN, samples, made.preprocessed(samples, raw, end, PLAIN)))
    rows = np.empty(6, [(one.end.name, one.prepared.dtype, one.end.shape[1:]) for one in inputs])
    for one in inputs:
        rows[one.end.name] = one.prepared
    answers, outputs = Answerer(file, "litert").outputs(rows), []
    for one in described["outputs"]:
        end = Tensor(one["name"], tuple(one["shape"]), one["dtype"], one["scale"], one["zero_point"])
        classes = one["name"] == "scores"
        about = (SCORES, made.NASTY[:4], 1) if classes else (REGRESSION, None, None)
        outputs.append(Output(end, *about, answers[one["name"]], 3.0, (False,) * 6))
    content = file.read_bytes()
    return replace(
        base,
        name="both ends".replace(" ", "-"),
        model=ModelFile("net.tflite", "litert", "int8", content, hashlib.sha256(content).hexdigest()),
        inputs=tuple(inputs),
        outputs=tuple(outputs),
        task={"kind": "outputs", "metric": "lowest score"},
    )


@pytest.fixture(scope="module")
def files(contents):
    return load("arduino").files(contents, Settings())


@pytest.fixture(scope="module")
def folder(files, tmp_path_factory):
    return write(tmp_path_factory.mktemp("arduino") / "a bundle", files)


def test_the_golden_test_passes_in_c_and_in_tflm(folder, tmp_path):
    tried = load("arduino").try_out(folder, tmp_path)
    assert tried.passed, tried.told
    assert "plain C: 6 golden samples, map: largest difference" in tried.told
    assert "TFLM: 6 golden samples, map: largest difference" in tried.told
    assert tried.told.count("square: largest difference") == 2


@pytest.mark.parametrize("name", ["map", "gate"])
def test_a_changed_answer_of_any_output_fails(files, tmp_path, name):
    path = f"extras/golden/outputs_{name}.bin"
    outputs = np.frombuffer(files[path], np.int8).copy()
    outputs[0] = outputs[0] + 40 if outputs[0] < 80 else -20
    folder = write(tmp_path / "bundle", {**files, path: outputs.tobytes()})
    (tmp_path / "scratch").mkdir()
    tried = load("arduino").try_out(folder, tmp_path / "scratch")
    assert tried.passed is False


def test_every_c_file_is_strict_c99(folder):
    strict = "-std=c99 -O2 -Wall -Wextra -pedantic -Werror"
    said = run(["make", f"CFLAGS={strict}", "-B", "check", "predict"], folder / "extras/host")
    assert "OK: 4 of 4" in said


@pytest.mark.parametrize("sketch", ["SelfTest", "SelfTestC99"])
def test_the_sketches_are_cpp(folder, tmp_path, sketch):
    (header := tmp_path / "tensorflow/lite/micro/micro_mutable_op_resolver.h").parent.mkdir(parents=True)
    header.write_bytes(stub_resolver.header())
    run(
        [
            *("g++", "-std=c++17", "-Wall", "-Wextra", "-Werror", "-fsyntax-only", "-include", "Arduino.h"),
            *(f"-I{path}" for path in (folder / "src", tmp_path, STUBS)),
            *("-x", "c++", folder / f"examples/{sketch}/{sketch}.ino"),
        ],
        tmp_path,
    )


def test_words_go_to_tflm_as_integers(ends_litert, tmp_path):
    """Ids have no plain C: TFLM takes them."""
    bundle = write(tmp_path / "bundle", load("arduino").files(ends_litert, Settings()))
    (tmp_path / "scratch").mkdir()
    tried = load("arduino").try_out(bundle, tmp_path / "scratch")
    assert tried.passed, tried.told
    assert "plain C has preprocessing only" in tried.told
    assert "TFLM: 16 golden samples, scores: largest difference" in tried.told
