"""What is generated, without compiling it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Literal

import numpy as np
import pytest

from edgekit.bundle.targets import load
from edgekit.bundle.targets.base import Settings
from edgekit.bundle.targets.cpp import TARGET
from edgekit.bundle.targets.cpp.numbers import float_literal, library_name
from edgekit.errors import ExportError
from tests.bundle import made


def text(files: dict[str, bytes], name: str) -> str:
    return files[name].decode()


def test_it_is_a_target() -> None:
    assert load("cpp") is TARGET
    assert TARGET.formats == ("litert", "onnx")


@pytest.mark.parametrize("format", ["litert", "onnx"])
@pytest.mark.parametrize("kind", made.KINDS)
def test_every_kind_has_all_files_and_the_same_ones_twice(
    kind: Any, format: Literal["litert", "onnx"]
) -> None:
    contents = made.contents(kind, format=format)
    files = TARGET.files(contents, Settings())
    assert files == TARGET.files(contents, Settings())
    name = library_name(contents.name)
    wanted = {"CMakeLists.txt", "README.md", "model.json", f"include/{name}/{name}.h", "golden/samples.bin"}
    assert wanted <= files.keys()
    assert files[contents.model.name] == contents.model.content
    assert not [path for path, content in files.items() if b"{%" in content or b"}}_" in content]


def test_the_readme_has_commands_that_name_what_is_there() -> None:
    files = TARGET.files(made.contents("image"), Settings())
    readme = text(files, "README.md")
    assert len(readme.splitlines()) < 80, "one page"
    for said in (
        "-DLITERT_ROOT=",
        "cmake --build build",
        "ctest",
        "aarch64-linux-gnu.cmake",
        "made_image.tflite",
    ):
        assert said in readme
    assert "-DONNXRUNTIME_ROOT=" in text(TARGET.files(made.contents(format="onnx"), Settings()), "README.md")


@pytest.mark.parametrize(
    "name", ["digits", "time", "linux", "all", "7-segment", "class", "face model", "model", ""]
)
def test_a_library_is_called_as_nothing_of_c_or_cmake_is(name: str) -> None:
    words = library_name(name).split("_")
    assert "model" in (words[0], words[-1])
    assert words.count("model") == 1
    assert all(word.isalnum() for word in words)


@pytest.mark.parametrize("value", [0.1, 1 / 255, 1.0, 16.0, 1e-30, 3e38, -0.0, 123456789.0])
def test_float_literals_are_exact(value: float) -> None:
    literal = float_literal(value)
    assert literal.endswith("f")
    assert np.float32(literal[:-1]) == np.float32(value)


def test_a_file_name_that_is_code_becomes_a_plain_one() -> None:
    contents = made.contents("image")
    nasty = replace(contents, model=replace(contents.model, name='x"; $(rm)\n*/ ü.tflite'))
    files = TARGET.files(nasty, Settings())
    (name,) = [path for path, content in files.items() if content == contents.model.content]
    assert name == "x_rm_.tflite"
    assert name in text(files, "CMakeLists.txt")
    assert all(
        "rm)" not in text(files, path) for path in files if path.endswith((".txt", ".cmake", ".cpp", ".h"))
    )


def test_a_type_that_cpp_has_not_is_refused() -> None:
    contents = made.contents("vector")
    half = made.changed(contents, output=replace(contents.output, dtype="float16"))
    with pytest.raises(ExportError, match="output"):
        TARGET.files(half, Settings())
