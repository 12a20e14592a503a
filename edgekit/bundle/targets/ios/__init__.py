"""A Swift package: LiteRT, an actor, pictures from CoreVideo, and a golden test in XCTest.

``Runtime.swift`` is the only file that knows LiteRT, ``Picture.swift`` the only one that knows CoreVideo.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from edgekit.bundle.common import golden_files, spec_file
from edgekit.bundle.contents import Contents
from edgekit.bundle.names import scalars
from edgekit.bundle.targets.base import Files, Settings, Target, Tried
from edgekit.bundle.targets.phones import facts, look_at, outline, real, tolerance_words
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
    it = outline(safe)
    module = it.type.removesuffix("Model") + "Bundle"
    values = _values(safe, module) | it.values
    source, test = f"Sources/{module}", f"Tests/{module}Tests"
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
    return {
        **{path: render(_TEMPLATES, template, **values) for path, template in rendered.items()},
        f"{source}/Resources/model.tflite": safe.model.content,
        **spec_file(safe, f"{source}/Resources/model.json"),
        **golden_files(safe, f"{test}/Golden/"),
    }


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
    if contents.classes is None:
        return contents
    return replace(contents, classes=tuple(map(scalars, contents.classes)))


TARGET = Target(
    name="ios",
    about="Swift package with LiteRT: an actor, CVPixelBuffer, golden test in XCTest",
    formats=("litert",),
    files=files,
    try_out=try_out,
)
