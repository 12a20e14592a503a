"""A bundle of a real int8 file: the reference network, 16x16 pixels to 4 classes whose names are code."""

import hashlib

import numpy as np
import pytest

from edgekit.bundle.answering import Answerer
from edgekit.bundle.contents import Golden, ModelFile, Raw, Tensor
from edgekit.bundle.targets import load
from edgekit.bundle.targets.arduino import making
from edgekit.bundle.targets.base import Settings
from edgekit.formats.litert import reading
from tests.bundle import made
from tests.bundle.arduino.compiling import CHECK, NAME, write


@pytest.fixture(scope="session")
def contents():
    """With four classes whose names are code."""
    content, described = CHECK.read_bytes(), reading.read(CHECK)
    (given,), (made_,) = described["inputs"], described["outputs"]
    input = Tensor("input", (1, 16, 16, 3), "int8", given["scale"], given["zero_point"], "NHWC")
    output = Tensor("output", (1, 4), "int8", made_["scale"], made_["zero_point"])
    raw = Raw((16, 16, 3), "uint8", "NHWC")
    base = made.contents()
    samples = np.random.default_rng(1).integers(0, 256, (6, 16, 16, 3)).astype(np.uint8)
    inputs = made.preprocessed(samples, raw, input, dict(base.preprocessing))
    outputs = Answerer(CHECK, "litert").outputs(inputs)
    return made.changed(
        base,
        name=NAME,
        model=ModelFile('a"b\n*/.tflite', "litert", "int8", content, hashlib.sha256(content).hexdigest()),
        raw=raw,
        input=input,
        output=output,
        task={"kind": "classification", "metric": "top-1", "num_classes": 4},
        classes=made.NASTY[:4],
        golden=Golden(samples, inputs, outputs, 2.0, (True,) * 6),
    )


@pytest.fixture(scope="session")
def files(contents):
    return load("arduino").files(contents, Settings())


@pytest.fixture(scope="session")
def looked(contents):
    """What the model says, asked once: TFLM is started for each try."""
    return making._look(contents)


@pytest.fixture
def known(monkeypatch, looked):
    monkeypatch.setattr(making, "_look", lambda contents: looked)
    return looked


@pytest.fixture(scope="session")
def folder(files, tmp_path_factory):
    return write(tmp_path_factory.mktemp("arduino") / "a bundle", files)
