"""The Python package: installed by pip into an empty folder, it answers as its file does."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from edgekit.bundle.contents import Contents
from edgekit.bundle.gathering import gather
from edgekit.bundle.targets.base import Settings
from edgekit.bundle.targets.python import TARGET
from edgekit.bundle.targets.python.package import postprocessing, preprocessing
from edgekit.bundle.writing import write
from edgekit.opening import load_workload
from edgekit.workload.preprocessing import Preprocessing
from edgekit.zoo import digits
from tests.bundle import made


def install(bundle: Path, into: Path) -> Path:
    """pip, without its dependencies, which are here: NumPy and the runtime."""
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    command += ["--no-deps", "--no-build-isolation", "--target", str(into), str(bundle)]
    subprocess.run(command, check=True, capture_output=True, text=True)
    return into


def call(folder: Path, *arguments: str, package: str = "digits") -> subprocess.CompletedProcess[str]:
    """``python -m digits …`` where nothing but the installed package is in sight."""
    command = [sys.executable, "-c", RUN, package, *arguments]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)


# As ``python -m``, and afterwards on standard error whether torch was imported.
RUN = """
import runpy, sys
package, sys.argv[1:] = sys.argv[1], sys.argv[2:]
sys.path.insert(0, ".")
try:
    runpy.run_module(package, run_name="__main__", alter_sys=True)
finally:
    print("torch" in sys.modules or "edgekit" in sys.modules, file=sys.stderr)
"""


@pytest.fixture(scope="module", params=["litert", "onnx"])
def kept(request: pytest.FixtureRequest) -> Contents:
    contents: Contents = request.getfixturevalue(f"contents_{request.param}")
    return contents


@pytest.fixture(scope="module")
def installed(kept: Contents, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("installed")
    write(kept, TARGET, Settings(), folder / "bundle")
    return install(folder / "bundle", folder / "site")


def test_installed_package_passes_its_self_test_without_torch(installed: Path) -> None:
    done = call(installed, "--self-test")
    assert (done.returncode, done.stderr.strip().splitlines()[-1]) == (0, "False"), done.stderr
    assert "16 samples passed (largest difference 0," in done.stdout


def test_all_validation_samples_are_answered_as_the_run_did(
    installed: Path, kept: Contents, run_folder: Path, tmp_path: Path
) -> None:
    validation = digits.workload().validation
    np.save(tmp_path / "samples.npy", validation.inputs.numpy())
    done = call(installed, str(tmp_path / "samples.npy"), "--outputs", str(tmp_path / "out.npy"))
    assert done.returncode == 0, done.stderr
    answered = np.load(tmp_path / "out.npy").argmax(1)
    of_the_run = np.load(run_folder / "answers" / f"{kept.model.name}.npy")
    # NumPy's resizing and torch's may differ in the last bit, by CPU, and pixels halfway between two steps of
    # the input's grid then fall the other way: that decides samples whose two best scores are next to equal.
    other = np.flatnonzero(answered != of_the_run.argmax(1))
    best = np.sort(of_the_run[other], axis=1)
    assert (best[:, -1] - best[:, -2] <= 2 * np.diff(np.unique(of_the_run)).min() + 1e-6).all()
    assert len(other) <= 0.005 * len(answered)
    assert float((answered == validation.targets.numpy()).mean()) == pytest.approx(kept.accuracy, abs=0.005)


@pytest.mark.data
@pytest.mark.parametrize("format", ["litert", "onnx"])
def test_a_thousand_images_get_the_classes_that_the_run_gave_them(
    format: Literal["litert", "onnx"], resnet20: str, resnet20_run: Path, tmp_path: Path
) -> None:
    """ResNet-20 on CIFAR-10, int8: the installed package against the answers that the run kept."""
    contents = gather(resnet20_run, resnet20, formats=(format,), precisions=("int8",))
    write(contents, TARGET, Settings(), tmp_path / "bundle")
    site = install(tmp_path / "bundle", tmp_path / "site")
    assert call(site, "--self-test", package="cifar10_resnet20").returncode == 0
    validation = load_workload(resnet20).validation
    np.save(tmp_path / "samples.npy", validation.inputs[:1000].numpy())
    files = str(tmp_path / "samples.npy"), "--outputs", str(tmp_path / "out.npy")
    done = call(site, *files, package="cifar10_resnet20")
    assert done.returncode == 0, done.stderr
    of_the_run = np.load(resnet20_run / "answers" / f"{contents.model.name}.npy")[:1000].argmax(1)
    answered = np.load(tmp_path / "out.npy").argmax(1)
    labels = validation.targets[:1000].numpy()
    assert (answered == labels).mean() == (of_the_run == labels).mean()
    assert (answered == of_the_run).all()


def test_a_picture_is_cut_scaled_and_named(installed: Path, tmp_path: Path) -> None:
    sample = digits.workload().validation
    pixels = (sample.inputs[0, :, :, 0].numpy() * (255 / 16)).round().astype(np.uint8)
    large = Image.fromarray(pixels).resize((240, 240), Image.Resampling.NEAREST)
    wide = Image.new("RGB", (400, 240))
    wide.paste(large, (80, 0))
    wide.save(tmp_path / "digit.png")
    done = call(installed, str(tmp_path / "digit.png"), "--json", "--top", "2")
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert told["top"][0]["label"] == str(int(sample.targets[0]))
    assert len(told["top"]) == 2


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ((), "no files"),
        (("nowhere.png",), "nowhere.png"),
        (("wrong.npy",), "expected (8, 8, 1)"),
        (("floats.npy",), "expected uint8"),
        (("broken.npy",), "error:"),
    ],
)
def test_what_cant_be_read_is_told_in_one_line(
    installed: Path, arguments: tuple[str, ...], told: str
) -> None:
    np.save(installed / "wrong.npy", np.zeros((2, 9, 8, 1), np.uint8))
    np.save(installed / "floats.npy", np.zeros((2, 8, 8, 1), np.float32))
    (installed / "broken.npy").write_bytes(b"no array")
    done = call(installed, *arguments)
    assert done.returncode == 2
    assert told in done.stderr
    assert "Traceback" not in done.stderr


def test_a_changed_model_isnt_loaded(kept: Contents, tmp_path: Path) -> None:
    write(kept, TARGET, Settings(), tmp_path / "bundle")
    file = tmp_path / "bundle" / "digits" / "data" / kept.model.name
    file.write_bytes(file.read_bytes()[:-1] + b"x")
    done = call(tmp_path / "bundle", "--self-test")
    assert done.returncode == 2
    assert "was changed: sha256" in done.stderr


def test_wrong_answers_fail_the_self_test(kept: Contents, tmp_path: Path) -> None:
    write(kept, TARGET, Settings(), tmp_path / "bundle")
    outputs = tmp_path / "bundle" / "digits" / "data" / "golden" / "outputs.bin"
    outputs.write_bytes(outputs.read_bytes()[::-1])
    done = call(tmp_path / "bundle", "--self-test")
    assert done.returncode == 1
    assert "FAILED: outputs are off by" in done.stdout
    assert TARGET.try_out(tmp_path / "bundle", tmp_path).passed is False


# --- what is computed, beside edgekit's own --------------------------------------------------------------


@given(st.data())
def test_preprocessing_is_that_of_training(data: st.DataObject) -> None:
    layout = data.draw(st.sampled_from(["NCHW", "NHWC", "any"]))
    image = layout != "any"
    height, width, channels = (data.draw(st.integers(1, 9)) for _ in range(3))
    numbers = st.floats(-2, 2, width=32)
    count = data.draw(st.sampled_from([1, channels])) if image else 1
    how = Preprocessing(
        layout,
        data.draw(st.none() | st.tuples(st.integers(1, 12), st.integers(1, 12))) if image else None,
        data.draw(st.sampled_from([1 / 255, 1.0, 0.0625])),
        tuple(data.draw(numbers) for _ in range(count)),
        tuple(data.draw(st.floats(0.125, 2, width=32)) for _ in range(count)),
    )
    shape = {"NCHW": (channels, height, width), "NHWC": (height, width, channels), "any": (height, width)}
    raw = np.random.default_rng(0).integers(0, 256, (2, *shape[layout])).astype(np.uint8)
    wanted = how(torch.from_numpy(raw)).numpy()
    spec: dict[str, Any] = {
        "raw": {"shape": list(raw.shape[1:]), "dtype": "uint8"},
        "input": {
            "dtype": "float32",
            "scale": None,
            "layout": "NCHW" if image else "any",
            "shape": [1, *wanted.shape[1:]],
        },
        "preprocessing": how.to_dict(),
    }
    got = preprocessing.prepare(raw, spec)
    if how.size is None:
        assert (got == wanted).all()
    else:
        np.testing.assert_allclose(got, wanted, atol=1e-5 * max(1.0, float(np.abs(wanted).max())))


@pytest.mark.parametrize("kind", made.KINDS)
@pytest.mark.parametrize("format", ["litert", "onnx"])
def test_preprocessing_of_every_kind_matches_the_reference(kind: made.Kind, format: Any) -> None:
    contents = made.contents(kind, format=format)
    got = preprocessing.prepare(contents.golden.samples, contents.spec())
    assert (got.dtype, got.shape) == (contents.golden.inputs.dtype, contents.golden.inputs.shape)
    off = np.abs(got.astype(np.float64) - contents.golden.inputs.astype(np.float64)).max()
    assert off <= (1 if got.dtype.kind in "iu" else 1e-5)


@pytest.mark.parametrize("kind", made.KINDS)
def test_answers_of_every_kind(kind: made.Kind) -> None:
    contents = made.contents(kind)
    answers = postprocessing.predictions(contents.golden.outputs, contents.spec())
    assert len(answers) == len(contents.golden.outputs)
    first = answers[0]
    json.dumps(first.to_json())
    if contents.class_axis is None:
        with pytest.raises(ValueError, match="no classes"):
            first.top(1)
        return
    np.testing.assert_allclose(first.probabilities.sum(-1), 1, rtol=1e-5)
    best = contents.golden.outputs[0].argmax(contents.class_axis - 1)
    assert (first.indices == best).all()
    if first.scores.ndim == 1:
        assert (first.label, first.top(1)[0][0]) == (contents.labels[int(best)],) * 2
    else:
        with pytest.raises(ValueError, match="indices"):
            _ = first.label


# --- names -----------------------------------------------------------------------------------------------


@given(
    st.lists(st.text(), min_size=8, max_size=8),
    st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._-]{0,12}", fullmatch=True),
)
def test_names_stay_data(labels: list[str], name: str) -> None:
    """Class names appear in model.json alone; the code is the same whatever they are."""
    plain = TARGET.files(made.contents(), Settings())
    files = TARGET.files(made.contents(name=name, classes=tuple(labels)), Settings())
    package = next(path.split("/")[0] for path in files if path.endswith("/model.py"))
    assert package.isidentifier()
    for path, content in files.items():
        if path.endswith(".py"):
            ast.parse(content)
            twin = path.replace(f"{package}/", "made_image_2_0/", 1)
            assert content == plain[twin]
    spec = json.loads(files[f"{package}/data/model.json"])
    assert spec["postprocessing"]["labels"] == json.loads(json.dumps(labels))
    project = tomllib.loads(files["pyproject.toml"].decode())
    assert project["project"]["name"] == name


def test_the_same_contents_make_the_same_bytes() -> None:
    assert TARGET.files(made.contents(), Settings()) == TARGET.files(made.contents(), Settings())
