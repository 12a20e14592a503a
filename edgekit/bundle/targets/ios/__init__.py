"""A Swift package: LiteRT, an actor, pictures from CoreVideo, and a golden test in XCTest.

``Runtime.swift`` is the only file that knows LiteRT, ``Picture.swift`` the only one that knows CoreVideo.
With several inputs or outputs samples are given as they are, not as pictures.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from edgekit.bundle.common import golden_files, spec_file
from edgekit.bundle.contents import Contents
from edgekit.bundle.names import scalars
from edgekit.bundle.targets.base import Files, Settings, Target, Tried
from edgekit.bundle.targets.phones import (
    alone,
    boxes_of,
    end_words,
    facts,
    look_at,
    outline,
    real,
    tolerance_words,
    type_name,
)
from edgekit.bundle.templates import render
from edgekit.errors import ExportError

__all__ = ["LITERT", "TARGET", "files", "try_out"]

# LiteRT's own Swift package: iOS 15 and macOS 12, Xcode 15; its releases are branches.
LITERT = {"url": "https://github.com/google-ai-edge/LiteRT", "branch": "release/2.3.0"}

_TEMPLATES = Path(__file__).parent / "templates"

_TYPES = {
    "float32": "Float",
    "float64": "Double",
    "uint8": "UInt8",
    "int8": "Int8",
    "int16": "Int16",
    "int32": "Int32",
    "int64": "Int64",
}


def files(contents: Contents, settings: Settings) -> Files:
    """The package's files; see ``Target``."""
    safe = _readable(contents)
    module = type_name(safe).removesuffix("Model") + "Bundle"
    source, test = f"Sources/{module}", f"Tests/{module}Tests"
    make = _several if safe.several else _one
    return {
        **make(safe, module, source, test),
        f"{source}/Resources/model.tflite": safe.model.content,
        **spec_file(safe, f"{source}/Resources/model.json"),
        **golden_files(safe, f"{test}/Golden/"),
    }


def _one(contents: Contents, module: str, source: str, test: str) -> Files:
    it = outline(contents)
    values = _values(contents, module) | it.values | {"own": "", "several": False, "found": None}
    rendered = {
        "README.md": "README.md.j2",
        "Package.swift": "Package.swift.j2",
        f"{source}/{it.type}.swift": "Model.swift.j2",
        f"{source}/Preprocessing.swift": "Preprocessing.swift.j2",
        f"{source}/Postprocessing.swift": "Postprocessing.swift.j2",
        f"{source}/Runtime.swift": "Runtime.swift.j2",
        f"{source}/Spec.swift": "Spec.swift.j2",
        f"{test}/GoldenTests.swift": "GoldenTests.swift.j2",
    }
    if it.camera:
        rendered[f"{source}/Picture.swift"] = "Picture.swift.j2"
    return {path: render(_TEMPLATES, template, **values) for path, template in rendered.items()}


def _several(contents: Contents, module: str, source: str, test: str) -> Files:
    """The very code that a single input and output has, for each of them: types begin with its name."""
    made: Files = {}
    ends: dict[str, list[dict[str, Any]]] = {"inputs": [], "outputs": []}
    for side, file in (("input", "Preprocessing"), ("output", "Postprocessing")):
        for id, view in alone(contents, f"{side}s"):
            own = "".join(part[:1].upper() + part[1:] for part in id.split("_")) + side.capitalize()
            values = _values(view, module) | outline(view).values | end_words(view, side)
            values |= {"own": own, "several": True, "id": id}
            made[f"{source}/{own}{file}.swift"] = render(_TEMPLATES, f"{file}.swift.j2", **values)
            ends[f"{side}s"].append(values)
    tasks = [one["it"].task for one in ends["outputs"]]
    # What they have in common says nothing of an input or output: the first ones stand for all.
    values = ends["inputs"][0] | ends | {"contents": contents, "facts": facts(contents)}
    values |= {"classes": set(tasks) != {"values"}, "tops": "class" in tasks}
    found, picture = boxes_of(contents), values["it"]
    values |= {"found": found}
    if found is not None:
        made[f"{source}/Boxes.swift"] = render(_TEMPLATES, "Boxes.swift.j2", **values)
        if found["camera"]:
            given = ends["inputs"][0] | {"found": found, "it": picture}
            made[f"{source}/Picture.swift"] = render(_TEMPLATES, "Picture.swift.j2", **given)
    values["it"] = replace(picture, raw=None)  # pictures as those of a single output have it
    rendered = {
        "README.md": "README_named.md.j2",
        "Package.swift": "Package.swift.j2",
        f"{source}/{values['it'].type}.swift": "Model_named.swift.j2",
        f"{source}/Runtime.swift": "Runtime_named.swift.j2",
        f"{source}/Spec.swift": "Spec.swift.j2",
        f"{test}/GoldenTests.swift": "GoldenTests_named.swift.j2",
    }
    return made | {path: render(_TEMPLATES, template, **values) for path, template in rendered.items()}


def try_out(folder: Path, scratch: Path) -> Tried:
    """There is no Swift here: the sources are parsed."""
    return look_at(folder, {".swift": "tree_sitter_swift"}, "Xcode")


def _values(contents: Contents, module: str) -> dict[str, Any]:
    types = {}
    for end in ("raw", "input", "output"):
        dtype = getattr(contents, end).dtype
        if dtype not in _TYPES:
            raise ExportError(
                "a type that Swift has no array for", where=end, got=dtype, expected=", ".join(_TYPES)
            )
        types[end] = _TYPES[dtype]
    means = (contents.preprocessing["mean"], contents.preprocessing["std"])
    return {
        "module": module,
        "types": types,
        "per_channel": any(len(set(values)) > 1 for values in means),
        "limits": {"int8": (-128, 127), "uint8": (0, 255), "int16": (-32768, 32767)},
        "real": real,
        "litert": LITERT,
        "facts": facts(contents),
        "tolerance": tolerance_words(contents),
    }


def _readable(contents: Contents) -> Contents:
    """Swift's decoder of JSON refuses lone surrogates in a name: they become the replacement character."""
    outputs = [
        one if one.classes is None else replace(one, classes=tuple(map(scalars, one.classes)))
        for one in contents.outputs
    ]
    return replace(contents, outputs=tuple(outputs))


TARGET = Target(
    name="ios",
    about="Swift package with LiteRT: an actor, CVPixelBuffer, golden test in XCTest",
    formats=("litert",),
    files=files,
    try_out=try_out,
    several=True,
)
