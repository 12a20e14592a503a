"""All of the generated Kotlin compiled against stubs of Android, and run on the JVM.

What Android itself does (assets, the interpreter, the camera) is played; the arithmetic, the coroutines and
the golden test are the generated ones.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from edgekit.bundle.contents import Contents, Tensor
from edgekit.bundle.names import identifier, kotlin_string
from edgekit.bundle.targets.android import TARGET
from edgekit.bundle.targets.base import Settings
from edgekit.bundle.targets.python.package.detecting import _best
from edgekit.bundle.targets.python.package.fitting import fitted
from tests.bundle.android.kotlin import Program, build, libraries
from tests.bundle.made import KINDS, NASTY, changed, contents, detector, preprocessed, several

pytestmark = pytest.mark.skipif(
    libraries() is None, reason="no Kotlin compiler: npm install --global kotlin-compiler@2.2.21, and Java"
)

LITERALS = (*NASTY, *map(chr, range(0x250)), "\ud800x\udfff", "😀", "\u2028\ufeff")


def int32(made: Contents) -> Contents:
    """The same for a file whose converter made its ids 32 bits wide."""
    golden = made.golden
    return changed(
        made,
        input=Tensor("ids", made.input.shape, "int32"),
        golden=replace(golden, inputs=golden.inputs.astype(np.int32)),
    )


def named(input: str, output: str) -> Contents:
    """Inputs and outputs that are called as something else."""
    given = several("image", "vector", name="named")
    inputs = [replace(given.inputs[0], end=replace(given.inputs[0].end, name=input)), given.inputs[1]]
    outputs = [replace(given.outputs[0], end=replace(given.outputs[0].end, name=output)), given.outputs[1]]
    return replace(given, inputs=tuple(inputs), outputs=tuple(outputs))


def thumbnail() -> Contents:
    """Colours of their own mean and size: bigger bytes in, smaller int8 into the file."""
    given = contents("image", name="thumbnail")
    raw = replace(given.raw, shape=(13, 10, 3))
    how = {**given.preprocessing, "size": [8, 6]}
    samples = np.random.default_rng(3).integers(0, 256, (3, *raw.shape), dtype=np.uint8)
    inputs = preprocessed(samples, raw, given.input, how)
    golden = replace(given.golden, samples=samples, inputs=inputs)
    return changed(given, raw=raw, preprocessing=how, golden=golden)


MODULES: dict[str, Contents] = {
    **{kind: contents(kind) for kind in KINDS},
    "int32": int32(contents("tokens", name="int32")),
    "thumbnail": thumbnail(),
    "several": several(*KINDS, name="several"),
    "named": named("in", "Prediction"),
    "letterbox": detector(),
    "stretch": detector("stretch"),
    # Names that a language would rather keep for itself.
    **{name: contents("vector", name=name) for name in ("native", "string", "kotlin", "2fast")},
}


@dataclass(frozen=True)
class Modules:
    """Each module's folder, and all of them compiled into one program."""

    folder: Path
    program: Program

    def golden(self, name: str, module: Path | None = None) -> str:
        """What became of a module's golden test."""
        return self.program.ask(module or self.folder / name, identifier(MODULES[name].name))


@pytest.fixture(scope="module")
def modules(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Modules]:
    folder = tmp_path_factory.mktemp("kotlin")
    for name, made in MODULES.items():
        for path, content in TARGET.files(made, Settings()).items():
            (folder / name / path).parent.mkdir(parents=True, exist_ok=True)
            (folder / name / path).write_bytes(content)
    literals = ", ".join(map(kotlin_string, LITERALS))
    (folder / "Literals.kt").write_text(f"val LITERALS = listOf({literals})\n", encoding="ascii")
    build(sorted(folder.rglob("*.kt")), folder / "classes")
    with Program(folder / "classes") as program:
        yield Modules(folder, program)


@pytest.mark.parametrize("name", MODULES)
def test_golden_tests_pass(modules: Modules, name: str) -> None:
    assert modules.golden(name) == "3 passed"


@pytest.mark.parametrize(
    ("name", "file", "expected"),
    [
        ("image", "model.tflite", "theFileIsTheOneThatWasMeasured"),
        ("image", "inputs.bin", "preprocessingGivesTheSameInputs"),
        ("vector", "inputs.bin", "preprocessingGivesTheSameInputs"),
        ("tokens", "inputs.bin", "preprocessingGivesTheSameInputs"),
        ("several", "inputs_image_in.bin", "preprocessingGivesTheSameInputs"),
        ("several", "inputs_tokens_in.bin", "preprocessingGivesTheSameInputs"),
    ],
)
def test_golden_tests_notice(modules: Modules, tmp_path: Path, name: str, file: str, expected: str) -> None:
    """A changed byte in the middle, more than any tolerance."""
    shutil.copytree(modules.folder / name, tmp_path / name)
    path = next((tmp_path / name).rglob(file))
    content = bytearray(path.read_bytes())
    content[len(content) // 2 - 1] ^= 0x50
    path.write_bytes(content)
    assert modules.golden(name, tmp_path / name).startswith(expected)


@pytest.mark.parametrize("name", ["image", "segmentation", "tokens"])
def test_golden_tests_notice_other_answers(modules: Modules, tmp_path: Path, name: str) -> None:
    """What the interpreter answers is compared with, not only played back: here it plays another file."""
    made = MODULES[name]
    other = made.golden.outputs.copy()
    other[1] = other[1][..., ::-1]
    spoiled = changed(made, golden=replace(made.golden, outputs=other))
    shutil.copytree(modules.folder / name, tmp_path / name)
    played = tmp_path / "played"
    played.mkdir()
    for path, content in TARGET.files(made, Settings()).items():
        if path.endswith(".bin"):
            (played / Path(path).name).write_bytes(content)
    for path, content in TARGET.files(spoiled, Settings()).items():
        (tmp_path / name / path).write_bytes(content)
    found = modules.program.ask(tmp_path / name, identifier(made.name), played)
    assert found.startswith("answersAreTheSame: java.lang.AssertionError: sample 1"), found


@pytest.mark.parametrize("output", ["image_out", "vector_out", "segmentation_out"])
def test_golden_tests_of_several_outputs_notice_each(modules: Modules, tmp_path: Path, output: str) -> None:
    """The interpreter plays the right answers back, and the golden file has others."""
    module = shutil.copytree(modules.folder / "several", tmp_path / "several")
    played = shutil.copytree(module / "src/androidTest/assets/several", tmp_path / "played")
    path = module / f"src/androidTest/assets/several/outputs_{output}.bin"
    path.write_bytes(path.read_bytes()[::-1])
    found = modules.program.ask(module, "several", played)
    assert found.startswith(f"answersAreTheSame: java.lang.AssertionError: {output} of sample 0"), found


@pytest.mark.parametrize("rotation", [0, 90, 180, 270])
@pytest.mark.parametrize("name", ["image", "resized"])
@pytest.mark.parametrize(("width", "height"), [(40, 30), (13, 50), (6, 8)])
def test_pictures(
    modules: Modules, tmp_path: Path, name: str, rotation: int, width: int, height: int
) -> None:
    """Turned upright, cut around the middle, scaled bilinearly; rows are longer than they need to be."""
    random = np.random.default_rng(width + rotation)
    rows = random.integers(0, 256, (height, width + 3, 4), dtype=np.uint8)
    (tmp_path / "rgba").write_bytes(rows.tobytes())
    raw = MODULES[name].raw
    package, stride = identifier(MODULES[name].name), (width + 3) * 4
    found = modules.program.ask(
        "picture", package, tmp_path / "rgba", width, height, stride, rotation, raw.size
    )
    upright = np.rot90(rows[:, :width, :3], -rotation // 90).astype(np.float32)
    expected = _middle(upright, raw.shape)
    off = np.abs(np.frombuffer(bytes.fromhex(found), np.uint8).reshape(raw.shape).astype(int) - expected)
    assert off.max() <= 1
    assert (off == 0).mean() > 0.95  # but for halves that fall to either side


def test_literals_are_read_back(modules: Modules) -> None:
    found = modules.program.ask("literals")
    assert found.split(",") == [text.encode("utf-16-be", "surrogatepass").hex() for text in LITERALS]


def _middle(upright: npt.NDArray[np.float32], shape: tuple[int, ...]) -> npt.NDArray[Any]:
    height, width, channels = shape
    if channels == 1:
        upright = (upright @ np.array([0.299, 0.587, 0.114], np.float32))[:, :, None]
    there = upright.shape[:2]
    step = min(there[0] / height, there[1] / width)
    made = upright
    for axis, wanted in enumerate((height, width)):
        at = (there[axis] - step * wanted) / 2 + step * (np.arange(wanted) + 0.5) - 0.5
        at = at.clip(0, there[axis] - 1)
        low = at.astype(int)
        share = (at - low).reshape([-1 if one == axis else 1 for one in range(3)])
        made = (
            made.take(low, axis) * (1 - share) + made.take((low + 1).clip(max=there[axis] - 1), axis) * share
        )
    return np.rint(made).astype(int)


@pytest.mark.parametrize("name", ["letterbox", "stretch"])
def test_a_detector_has_the_boxes_of_python(modules: Modules, tmp_path: Path, name: str) -> None:
    """Suppressed class by class, of equal scores the earlier place first."""
    made = MODULES[name]
    assert made.detection is not None
    boxes, scores = (one.answers for one in made.outputs)
    for sample in range(len(boxes)):
        boxes[sample].tofile(tmp_path / "boxes")
        scores[sample].tofile(tmp_path / "scores")
        told = modules.program.ask(
            "boxes", identifier(made.name), tmp_path / "boxes", tmp_path / "scores", 0.3
        )
        rows = [one.rsplit(",", 5) for one in told.split(";")]
        wanted = _best(boxes[sample], scores[sample], dict(made.detection), 0.3)
        assert 5 < len(wanted) == len(rows)
        assert [row[0] for row in rows] == [made.detection["classes"][int(one[4])] for one in wanted]
        found = np.array([row[1:] for row in rows], float)
        assert np.allclose(found, wanted[:, [5, 0, 1, 2, 3]], atol=1e-5)


@pytest.mark.parametrize("name", ["letterbox", "stretch"])
def test_a_detectors_picture_is_fitted_as_pythons(modules: Modules, tmp_path: Path, name: str) -> None:
    """Made larger, where bilinear means the same to all; and boxes go back into its pixels."""
    made = MODULES[name]
    assert made.detection is not None
    raw = made.inputs[0].raw
    height, width, channels = raw.shape
    size = (height // 2, width // 2 - 1)
    pixels = np.random.default_rng(0).integers(0, 256, (*size, 4), dtype=np.uint8)
    (tmp_path / "pixels").write_bytes(pixels.tobytes())
    words = (identifier(made.name), tmp_path / "pixels", size[1], size[0], 4 * size[1], 0, raw.size)
    found = np.frombuffer(bytes.fromhex(modules.program.ask("picture", *words)), np.uint8).reshape(raw.shape)
    spec = {"shape": list(raw.shape), "layout": "NHWC", "dtype": "uint8", "white": 255}
    sample, scale, offset = fitted(pixels[..., :channels], spec, dict(made.detection))
    assert np.abs(found.astype(int) - sample.astype(int)).max() <= 1
    row = [float(one) for one in modules.program.ask("back", *words).rsplit(",", 5)[2:]]
    assert row == pytest.approx(np.concatenate([-offset / scale, (10 - offset) / scale]).tolist(), abs=1e-3)
