"""The package of a model with two inputs and two outputs: all by name, and each is tested."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from edgekit.bundle.contents import Contents
from edgekit.bundle.targets.base import Settings
from edgekit.bundle.targets.python import TARGET
from edgekit.bundle.targets.python.package import named
from edgekit.bundle.targets.python.package.file import File
from edgekit.bundle.writing import write
from tests.bundle import ends, made
from tests.bundle.python.test_python import call, install

pytestmark = pytest.mark.wide


@pytest.fixture(scope="module", params=["litert", "onnx"])
def kept(request: pytest.FixtureRequest) -> Contents:
    contents: Contents = request.getfixturevalue(f"ends_{request.param}")
    return contents


@pytest.fixture(scope="module")
def installed(kept: Contents, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("installed")
    write(kept, TARGET, Settings(), folder / "bundle")
    return install(folder / "bundle", folder / "site")


def test_it_passes_its_self_test_without_torch(installed: Path) -> None:
    done = call(installed, "--self-test", package="both")
    assert (done.returncode, done.stderr.strip().splitlines()[-1]) == (0, "False"), done.stderr
    assert "16 samples passed" in done.stdout
    for name in ("scores", "boxes"):
        assert f"{name}: largest difference 0," in done.stdout


def test_all_validation_samples_are_answered_as_the_run_did(
    installed: Path, kept: Contents, ends_run: Path, tmp_path: Path
) -> None:
    samples = {name: one.numpy() for name, one in ends.workload().validation.inputs.items()}
    np.savez(tmp_path / "samples.npz", **samples)
    files = str(tmp_path / "samples.npz"), "--outputs", str(tmp_path / "out.npz")
    done = call(installed, *files, "--json", package="both")
    assert done.returncode == 0, done.stderr
    told = [json.loads(line) for line in done.stdout.splitlines()]
    answers = np.load(ends_run / "answers" / f"{kept.model.name}.npy")
    assert len(told) == len(answers)
    assert {one["label"] for one in told[0]["scores"]["top"]} == set(ends.COLOURS)
    boxes = np.array([one["boxes"]["values"] for one in told])
    np.testing.assert_allclose(boxes, answers["boxes"], rtol=1e-6, atol=1e-5)
    own = np.load(tmp_path / "out.npz")
    assert (own["scores"].argmax(1) == answers["scores"].argmax(1)).all()


@pytest.mark.parametrize(
    ("samples", "told"),
    [
        ({"image": np.zeros((10, 12, 3), np.uint8)}, "expected "),
        ({"image": np.zeros((10, 12, 3), np.uint8), "words": np.zeros(4, np.int64)}, "expected (5,)"),
        ({"image": np.zeros((2, 10, 12, 3), np.uint8), "words": np.zeros(5, np.int64)}, "as many samples"),
        ({"image": np.zeros((10, 12, 3), np.uint8), "words": np.zeros(5, np.float32)}, "expected int64"),
    ],
)
def test_samples_that_dont_fit_are_told_in_one_line(
    installed: Path, tmp_path: Path, samples: dict[str, np.ndarray], told: str
) -> None:
    np.savez(tmp_path / "wrong.npz", **samples)  # type: ignore[arg-type]
    done = call(installed, str(tmp_path / "wrong.npz"), package="both")
    assert (done.returncode, "Traceback" in done.stderr) == (2, False)
    assert told in done.stderr


@pytest.mark.parametrize("name", ["scores", "boxes"])
def test_every_output_is_compared(kept: Contents, tmp_path: Path, name: str) -> None:
    write(kept, TARGET, Settings(), tmp_path / "bundle")
    outputs = tmp_path / "bundle" / "both" / "data" / "golden" / f"outputs_{name}.bin"
    outputs.write_bytes(outputs.read_bytes()[::-1])
    (tmp_path / "tried").mkdir()
    tried = TARGET.try_out(tmp_path / "bundle", tmp_path / "tried")
    assert tried.passed is False
    assert f"{name}: outputs are off by" in tried.told


def test_samples_are_given_by_name_or_as_a_dict() -> None:
    """The file is stood in for by the golden answers."""
    contents = made.several("image", "tokens")
    golden = {one.end.name: one.answers for one in contents.outputs}

    class Golden:
        def run(self, inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
            for one in contents.inputs:
                np.testing.assert_array_equal(inputs[one.end.name], one.prepared[:1])
            return {name: rows[:1] for name, rows in golden.items()}

    model = named.Model(File(contents.spec(), Golden()))
    first = {one.end.name: one.samples[0] for one in contents.inputs}
    for answers in (model.predict(**first), model.predict(first)):
        assert list(answers) == model.outputs == ["image_out", "tokens_out"]
        assert answers["image_out"].label == contents.outputs[0].labels[int(golden["image_out"][0].argmax())]
        np.testing.assert_array_equal(answers["tokens_out"].indices, golden["tokens_out"][0].argmax(-1))
    assert model.labels["image_out"] == list(contents.outputs[0].labels)
