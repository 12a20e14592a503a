"""Python bundles of ExecuTorch's files: the one runtime of theirs that takes torch's tensors."""

from __future__ import annotations

import hashlib
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from edgekit.bundle.answering import Answerer, tolerance_of
from edgekit.bundle.contents import Contents, Golden, ModelFile, Raw
from edgekit.bundle.contents import Tensor as End
from edgekit.bundle.golden import clear
from edgekit.bundle.targets import NAMES, load
from edgekit.bundle.targets.base import Settings
from edgekit.bundle.targets.python import TARGET
from edgekit.bundle.targets.python.package.runtime_executorch import Runtime
from edgekit.bundle.writing import write
from edgekit.formats.exporting import export
from edgekit.graph.capture import capture
from edgekit.tensors import NamedTensors
from tests.bundle import made
from tests.networks import Residual, images, quantized


@pytest.fixture(scope="module", autouse=True)
def needed() -> None:
    pytest.importorskip("executorch", reason="needs the extra: pip install 'edgekit-toolkit[executorch]'")


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory, needed: None) -> Path:
    """``Residual`` in int8."""
    path = tmp_path_factory.mktemp("program") / "residual_int8.pte"
    export(quantized(Residual)[1], images(1), path, format="executorch", precision="int8", metadata={})
    return path


@pytest.fixture(scope="module")
def kept(program: Path) -> Contents:
    """What a bundle of it is made from, as ``gathering`` takes it out of a run."""
    file = Answerer(program, "executorch")
    samples = images(6, seed=3).numpy()
    outputs = file.outputs(file.arranged(samples))
    tolerance = tolerance_of(outputs, file.elsewhere(samples), file.steps["output"])
    content = program.read_bytes()
    whole = made.changed(
        made.contents("vector"),
        raw=Raw((3, 8, 8), "float32", "NCHW", 1.0),
        input=End("input", (1, 3, 8, 8), "float32", layout="NCHW"),
        preprocessing={"layout": "NCHW", "size": None, "scale": 1.0, "mean": [0.0], "std": [1.0]}
        | {"dtype": "float32"},
        output=End("output", (1, 5), "float32"),
        task={"kind": "classification", "metric": "accuracy", "num_classes": 5},
        classes=tuple("abcde"),
        class_axis=1,
        golden=Golden(samples, samples, outputs, tolerance, clear(outputs, 1, tolerance)),
    )
    digest = hashlib.sha256(content).hexdigest()
    return replace(whole, model=ModelFile(program.name, "executorch", "int8", content, digest))


def test_its_golden_test_passes_and_a_wrong_answer_fails_it(kept: Contents, tmp_path: Path) -> None:
    (tmp_path / "right").mkdir()
    (tmp_path / "wrong").mkdir()
    write(kept, TARGET, Settings(), tmp_path / "bundle")
    tried = TARGET.try_out(tmp_path / "bundle", tmp_path / "right")
    assert tried.passed is True, tried.told
    assert tried.figures is not None
    assert tried.figures["output_difference"] == 0
    (outputs,) = tmp_path.glob("bundle/*/data/golden/outputs.bin")
    outputs.write_bytes(outputs.read_bytes()[::-1])
    assert TARGET.try_out(tmp_path / "bundle", tmp_path / "wrong").passed is False


def test_what_it_needs_is_said(kept: Contents) -> None:
    files = TARGET.files(kept, Settings())
    assert b'dependencies = ["numpy", "executorch", "torch"]' in files["pyproject.toml"]
    assert b"NumPy and executorch, which needs PyTorch." in files["README.md"]


def test_the_tolerance_is_that_of_roundings(kept: Contents, program: Path) -> None:
    """A step more at a few inputs moves the answer by steps of the output's grid, but not by many."""
    step = Answerer(program, "executorch").steps["output"]
    assert step is not None
    assert 2 * step <= kept.golden.tolerance <= 20 * step


class Both(nn.Module):
    def forward(self, left: Tensor, right: Tensor) -> dict[str, Tensor]:
        return {"sum": left + right, "difference": left - right}


def test_inputs_and_outputs_go_by_name(tmp_path: Path) -> None:
    example = NamedTensors({"left": torch.ones(1, 3), "right": torch.zeros(1, 3)})
    path = tmp_path / "both.pte"
    graph = capture(Both().eval(), example)
    export(graph, example, path, format="executorch", precision="fp32", metadata={})
    left, right = np.float32([[1, 2, 3], [4, 5, 6]]), np.float32([[1, 0, 0], [0, 1, 0]])
    left.flags.writeable = False  # as a memory-mapped sample is
    found = Runtime(str(path), 1).run({"right": right, "left": left})
    np.testing.assert_array_equal(found["sum"], left + right)
    np.testing.assert_array_equal(found["difference"], left - right)


def test_without_its_package_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "executorch.runtime", None)
    with pytest.raises(ModuleNotFoundError, match="pip install executorch torch"):
        Runtime("nowhere.pte", 1)


def test_python_alone_takes_them() -> None:
    assert [name for name in NAMES if "executorch" in load(name).formats] == ["python"]
