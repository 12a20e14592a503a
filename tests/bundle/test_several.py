"""Models with several inputs and outputs: what a bundle is made from, and who takes it."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from edgekit.bundle import common
from edgekit.bundle.contents import Contents
from edgekit.bundle.targets import NAMES, load
from edgekit.bundle.targets.base import Settings
from edgekit.bundle.writing import write
from edgekit.errors import InputError
from tests.bundle import ends, made


@pytest.fixture(params=["litert", "onnx"])
def kept(request: pytest.FixtureRequest) -> Contents:
    contents: Contents = request.getfixturevalue(f"ends_{request.param}")
    return contents


def test_every_end_has_its_name_and_meaning(kept: Contents) -> None:
    assert {one.end.name for one in kept.inputs} == {"image", "words"}
    outputs = {one.end.name: one for one in kept.outputs}
    assert {name: one.task["kind"] for name, one in outputs.items()} == {
        "scores": "classification",
        "boxes": "regression",
    }
    assert (outputs["scores"].labels, outputs["scores"].class_axis) == (ends.COLOURS, 1)
    assert (outputs["boxes"].labels, outputs["boxes"].class_axis) == ((), None)
    assert not any(outputs["boxes"].clear)


def test_integers_go_through_unchanged(kept: Contents) -> None:
    """LiteRT's file takes 32 bits."""
    (words,) = (one for one in kept.inputs if one.end.name == "words")
    assert (words.raw.dtype, words.raw.layout) == ("int64", "any")
    assert words.end.dtype == {"litert": "int32", "onnx": "int64"}[kept.model.format]
    np.testing.assert_array_equal(words.prepared, words.samples)
    assert len(np.unique(words.samples)) > 5


def test_golden_outputs_are_the_answers_of_the_run(kept: Contents, ends_run: Path) -> None:
    """The run kept its files' answers to all validation samples, a field for each output."""
    answers = np.load(ends_run / "answers" / f"{kept.model.name}.npy")
    validation = ends.workload().validation.inputs["image"].numpy()
    (image,) = (one for one in kept.inputs if one.end.name == "image")
    where = [int(np.flatnonzero((validation == one).all((1, 2, 3)))[0]) for one in image.samples]
    for one in kept.outputs:
        real = one.answers.astype(np.float32)
        step = 1.0
        if one.end.scale is not None:
            step = one.end.scale
            real = (real - float(one.end.zero_point or 0)) * np.float32(step)
        np.testing.assert_allclose(real, answers[one.end.name][where], atol=step * one.tolerance)


def test_the_spec_lists_them_and_names_their_golden_files(kept: Contents) -> None:
    spec = json.loads(common.spec_file(kept)["model.json"])
    files = common.golden_files(kept)
    assert spec["schema"] == 2
    count = spec["golden"]["samples"]
    for one in spec["inputs"]:
        size = int(np.prod(one["raw"]["shape"])) * np.dtype(one["raw"]["dtype"]).itemsize
        assert len(files[f"golden/samples_{one['id']}.bin"]) == count * size
    for one in spec["outputs"]:
        size = int(np.prod(one["output"]["shape"])) * np.dtype(one["output"]["dtype"]).itemsize
        assert len(files[f"golden/outputs_{one['id']}.bin"]) == count * size
        assert len(one["golden"]["clear"]) == count
    assert len(files) == 2 * len(spec["inputs"]) + len(spec["outputs"])


@pytest.mark.parametrize("name", NAMES)
def test_every_target_takes_them(name: str, ends_litert: Contents, tmp_path: Path) -> None:
    target = load(name)
    write(ends_litert, target, Settings(), tmp_path / "bundle")
    (tmp_path / "scratch").mkdir()
    if name != "cpp":  # built in its own tests
        tried = target.try_out(tmp_path / "bundle", tmp_path / "scratch")
        assert tried.passed is not False, tried.told


def test_a_target_for_one_end_alone_says_so(tmp_path: Path) -> None:
    """What ``several`` says by default."""
    target = replace(load("python"), name="mine", several=False)
    contents = made.several("image", "tokens")
    with pytest.raises(InputError, match=r"--target mine[\s\S]*image_in, tokens_in[\s\S]*python, cpp"):
        write(contents, target, Settings(), tmp_path / "bundle")
    assert not (tmp_path / "bundle").exists()
