"""C++17 with CMake, on LiteRT's C API or ONNX Runtime's.

::

    numbers.py     what the compiler sees: types, sizes, literals
    words.py       what README and comments say
    building.py    where a runtime is, and the golden test of a bundle on this machine
    templates/     one file each; but for numbers and names they are the same in every bundle

With several inputs or outputs each has a namespace of its own (``scores_output``), with the very code that a
single one has in the library's; the rest takes and gives them by name (``*_named`` among the templates).
"""

from __future__ import annotations

import itertools
import math
from pathlib import Path
from typing import Any

from edgekit.bundle import c_detection, c_keypoints, c_sounds
from edgekit.bundle.common import golden_files, spec_file
from edgekit.bundle.contents import Contents
from edgekit.bundle.targets.base import Files, Settings, Target
from edgekit.bundle.targets.cpp.building import try_out
from edgekit.bundle.targets.cpp.numbers import (
    float_literal,
    input_numbers,
    library_name,
    output_numbers,
    places,
    with_plain_file_name,
)
from edgekit.bundle.targets.cpp.words import input_words, output_words, words
from edgekit.bundle.templates import render
from edgekit.bundle.words import sound_values, state_words

__all__ = ["TARGET", "files"]

_TEMPLATES = Path(__file__).parent / "templates"
_FOLDERS = {
    "src": "data.cpp embedded.cpp engine.h engine_litert.cpp engine_onnxruntime.cpp engine_tflite.cpp "
    "litert_c_api.h model.cpp sha256.cpp sha256.h spec.h",
    "tests": "counting.cpp counting.h golden.h",
    "cmake": "embed.cmake runtime.cmake",
}
# Those that several inputs or outputs change throughout have a template of their own.
_ENDS = {
    "": "README.md",
    "tests/": "selftest.cpp",
    "tools/": "predict.cpp",
}


def files(contents: Contents, settings: Settings) -> Files:
    """All files of the bundle. Raises ExportError: a type that C++ doesn't have."""
    contents = with_plain_file_name(contents)
    values = _values(contents)
    name = values["ns"]
    made = {
        "CMakeLists.txt": "CMakeLists.txt",
        f"include/{name}/{name}.h": _of("header.h", contents),
        "cmake/aarch64-linux-gnu.cmake": "aarch64.cmake",
    } | {f"{folder}/{file}": file for folder, listed in _FOLDERS.items() for file in listed.split()}
    made |= {
        f"{folder}{file}": _of(file, contents) for folder, listed in _ENDS.items() for file in listed.split()
    }
    return (
        {path: render(_TEMPLATES, f"{template}.j2", **values) for path, template in made.items()}
        | _surroundings(contents, values)
        | _boxes(contents, values)
        | _sound(contents, values)
        | _points(contents, values)
        | {contents.model.name: contents.model.content}
        | golden_files(contents)
        | spec_file(contents)
    )


def _of(file: str, contents: Contents) -> str:
    stem, suffix = file.rsplit(".", 1)
    return f"{stem}_named.{suffix}" if contents.several else file


def _surroundings(contents: Contents, values: dict[str, Any]) -> Files:
    """Preprocessing of each input and reading out of each output."""
    found = {}
    for file, ends in (("preprocess", values["inputs"]), ("postprocess", values["outputs"])):
        for one in ends:
            path = f"src/{file}_{one['id']}.cpp" if contents.several else f"src/{file}.cpp"
            found[path] = render(_TEMPLATES, f"{file}.cpp.j2", **{**values, **one})
    return found


def _boxes(contents: Contents, values: dict[str, Any]) -> Files:
    """Of a detector, what makes boxes of its outputs, and those of the golden samples."""
    if contents.detection is None:
        return {}
    name, golden = values["ns"], contents.detection["golden"]
    rows = [[float_literal(number) for number in row] for sample in golden for row in sample]
    given = {**values, "box_counts": [len(sample) for sample in golden], "golden_boxes": rows}
    return {
        f"include/{name}/detection.h": c_detection.header(contents, name, real=True),
        "tests/golden_boxes.h": render(_TEMPLATES, "golden_boxes.h.j2", **given),
    }


def _sound(contents: Contents, values: dict[str, Any]) -> Files:
    """Of a model that is given a sound's features, what computes them."""
    if contents.sound is None:
        return {}
    name = values["ns"]
    return {f"include/{name}/sound.h": c_sounds.header(contents, name, real="double")}


def _points(contents: Contents, values: dict[str, Any]) -> Files:
    """Of a model that finds points, what makes them of its output, and those of the golden samples."""
    if contents.keypoints is None:
        return {}
    name, spec = values["ns"], contents.keypoints
    rows = [[float_literal(number) for number in row] for sample in spec["golden"] for row in sample]
    return {
        f"include/{name}/keypoints.h": c_keypoints.header(contents, name, real=True),
        "tests/golden_points.h": render(_TEMPLATES, "golden_points.h.j2", **values, golden_points=rows),
    }


def _values(contents: Contents) -> dict[str, Any]:
    name = library_name(contents.name)
    digest = [f"0x{byte:02x}" for byte in bytes.fromhex(contents.model.sha256)]
    inputs, outputs = places(contents, name)
    given: list[dict[str, Any]] = [
        {**input_numbers(one), **input_words(one), **at}
        for one, at in zip(contents.inputs, inputs, strict=True)
    ]
    said = [(f"prediction.{at['id']}", f"{at['ns']}::label") if at["q"] else () for at in outputs]
    made: list[dict[str, Any]] = [
        {**output_numbers(one), **output_words(one, *called), **at}
        for one, at, called in zip(contents.outputs, outputs, said, strict=True)
    ]
    return {
        **({} if contents.several else {**given[0], **made[0]}),
        **words(contents),
        "several": contents.several,
        "detection": contents.detection is not None,
        **sound_values(contents),
        "keypoints": contents.keypoints is not None,
        "most_off": None
        if contents.keypoints is None
        else float_literal(max(contents.keypoints["size"]) / 100),
        "states": state_words(contents),
        "inputs": given,
        "outputs": made,
        "ns": name,
        "NS": name.upper(),
        "title": contents.name,
        "version": contents.version,
        "edgekit_version": contents.edgekit_version,
        "runtime": contents.model.runtime,
        "model_file": contents.model.name,
        "model_bytes": len(contents.model.content),
        "precision": contents.model.precision,
        "sha256": _rows(digest),
        "sha_rounds": _rows([f"0x{_fraction(prime, 3):08x}U" for prime in _primes(64)]),
        "sha_start": [f"0x{_fraction(prime, 2):08x}U" for prime in _primes(8)],
        "golden_samples": contents.golden_samples,
    }


def _rows(values: list[str]) -> list[list[str]]:
    return [values[at : at + 8] for at in range(0, len(values), 8)]


def _primes(count: int) -> list[int]:
    found: list[int] = []
    for number in itertools.count(2):
        if len(found) == count:
            return found
        if all(number % prime for prime in found):
            found.append(number)
    raise AssertionError


def _fraction(prime: int, root: int) -> int:
    """The first 32 bits after the point of a prime's square or cube root."""
    scaled = prime << 32 * root
    found = math.isqrt(scaled) if root == 2 else _cube_root(scaled)
    return found & 0xFFFFFFFF


def _cube_root(number: int) -> int:
    low, high = 0, 1 << (number.bit_length() // 3 + 1)
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if middle**3 <= number else (low, middle - 1)
    return low


TARGET = Target(
    name="cpp",
    about="C++17 with CMake, on LiteRT's or ONNX Runtime's C API",
    formats=("litert", "onnx"),
    files=files,
    try_out=try_out,
    several=True,
)
