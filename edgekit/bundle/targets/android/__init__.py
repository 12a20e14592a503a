"""A Gradle module in Kotlin: LiteRT, coroutines, pictures from CameraX, and an instrumented golden test.

The arithmetic (``Preprocessing.kt``, ``Postprocessing.kt``, ``Picture.kt``) knows nothing of Android, so that
it can be compiled and run without it; ``Model.kt`` is the thin rest. With several inputs or outputs each has
a package of its own; samples are given as they are then, not as pictures.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from edgekit.bundle.common import golden_files, spec_file
from edgekit.bundle.contents import Contents
from edgekit.bundle.names import identifier
from edgekit.bundle.targets.base import Files, Settings, Target, Tried
from edgekit.bundle.targets.phones import (
    Outline,
    alone,
    boxes_of,
    end_words,
    facts,
    look_at,
    outline,
    real,
    tolerance_words,
)
from edgekit.bundle.templates import render
from edgekit.errors import ExportError

__all__ = ["TARGET", "VERSIONS", "files", "try_out"]

# What fits together: AGP 8.13 wants Gradle 8.13, JDK 17 and at most API 36, and knows Kotlin up to 2.3.
# LiteRT 1.4 is the line with the Interpreter in plain Java and libraries for 32-bit ARM as well.
VERSIONS = {
    "agp": "8.13.2",
    "gradle": "8.13",
    "kotlin": "2.2.21",
    "sdk": "36",
    "min_sdk": "23",
    "litert": "1.4.2",
    "coroutines": "1.10.2",
    "camera": "1.5.3",
    "runner": "1.7.0",
    "junit": "1.3.0",
}

_TEMPLATES = Path(__file__).parent / "templates"

# NumPy's type → Kotlin's array, an element as Float, the view of a ByteBuffer, bytes of an element.
_ARRAYS = {
    "float32": ("FloatArray", "{}", "asFloatBuffer()", 4),
    "float64": ("DoubleArray", "{}.toFloat()", "asDoubleBuffer()", 8),
    "uint8": ("ByteArray", "({}.toInt() and 0xFF).toFloat()", "", 1),
    "int8": ("ByteArray", "{}.toFloat()", "", 1),
    "int16": ("ShortArray", "{}.toFloat()", "asShortBuffer()", 2),
    "int32": ("IntArray", "{}.toFloat()", "asIntBuffer()", 4),
    "int64": ("LongArray", "{}.toFloat()", "asLongBuffer()", 8),
}
_ENDS = ("float32", "uint8", "int8", "int16", "int32", "int64")


def files(contents: Contents, settings: Settings) -> Files:
    """The module's files; see ``Target``."""
    name = identifier(contents.name)
    source, test = f"src/main/kotlin/edgekit/{name}", f"src/androidTest/kotlin/edgekit/{name}"
    make = _several if contents.several else _one
    return {
        **make(contents, source, test),
        f"src/main/assets/{name}/model.tflite": contents.model.content,
        **spec_file(contents, f"src/main/assets/{name}/model.json"),
        **golden_files(contents, f"src/androidTest/assets/{name}/"),
    }


_GRADLE = {
    "settings.gradle.kts": "settings.gradle.kts.j2",
    "build.gradle.kts": "build.gradle.kts.j2",
    "gradle.properties": "gradle.properties.j2",
    "src/main/AndroidManifest.xml": "AndroidManifest.xml.j2",
}


def _one(contents: Contents, source: str, test: str) -> Files:
    it = outline(contents)
    values = _values(it) | {"package": f"edgekit.{it.name}", "several": False, "found": None}
    rendered = {
        "README.md": "README.md.j2",
        **_GRADLE,
        f"{source}/{it.type}.kt": "Model.kt.j2",
        f"{source}/Preprocessing.kt": "Preprocessing.kt.j2",
        f"{source}/Postprocessing.kt": "Postprocessing.kt.j2",
        f"{test}/GoldenTest.kt": "GoldenTest.kt.j2",
    }
    if it.camera:
        rendered[f"{source}/Picture.kt"] = "Picture.kt.j2"
    return {path: render(_TEMPLATES, template, **values) for path, template in rendered.items()}


def _several(contents: Contents, source: str, test: str) -> Files:
    """Each input and output in a package of its own, with the very code that a single one has."""
    made: Files = {}
    ends: dict[str, list[dict[str, Any]]] = {"inputs": [], "outputs": []}
    for side, file in (("input", "Preprocessing"), ("output", "Postprocessing")):
        for id, view in alone(contents, f"{side}s"):
            package = f"{id.rstrip('_')}_{side}"
            values = _values(outline(view)) | {"package": f"edgekit.{identifier(contents.name)}.{package}"}
            values |= {"several": True, "id": id} | end_words(view, side)
            made[f"{source}/{package}/{file}.kt"] = render(_TEMPLATES, f"{file}.kt.j2", **values)
            ends[f"{side}s"].append(values)
    tasks = [one["it"].task for one in ends["outputs"]]
    # What they have in common says nothing of an input or output: the first ones stand for all.
    values = ends["inputs"][0] | ends | {"contents": contents, "facts": facts(contents)}
    values |= {"classes": set(tasks) != {"values"}, "tops": "class" in tasks}
    found, picture = boxes_of(contents), values["it"]
    values |= {"found": found}
    if found is not None:
        made[f"{source}/Boxes.kt"] = render(_TEMPLATES, "Boxes.kt.j2", **values)
        if found["camera"]:
            given = ends["inputs"][0] | {"found": found, "it": picture}
            made[f"{source}/Picture.kt"] = render(_TEMPLATES, "Picture.kt.j2", **given)
    values["it"] = replace(picture, raw=None)  # pictures as those of a single output have it
    values["absolute"] = any(one["it"].arithmetic and one["end"].scale is None for one in ends["inputs"])
    rendered = {
        "README.md": "README_named.md.j2",
        **_GRADLE,
        f"{source}/{values['it'].type}.kt": "Model_named.kt.j2",
        f"{source}/Buffers.kt": "Buffers.kt.j2",
        f"{test}/GoldenTest.kt": "GoldenTest_named.kt.j2",
    }
    return made | {path: render(_TEMPLATES, template, **values) for path, template in rendered.items()}


def try_out(folder: Path, scratch: Path) -> Tried:
    """There is no Android SDK here: the sources are parsed."""
    for path in sorted(folder.rglob("*.xml")):
        try:
            ElementTree.fromstring(path.read_bytes())
        except ElementTree.ParseError as error:
            return Tried(False, f"{path.relative_to(folder).as_posix()}: {error}")
    return look_at(folder, {".kt": "tree_sitter_kotlin", ".kts": "tree_sitter_kotlin"}, "Android SDK")


def _values(it: Outline) -> dict[str, Any]:
    ends = (it.contents.raw.dtype, it.contents.input.dtype, it.contents.output.dtype)
    for end, known in zip(("raw", "input", "output"), (tuple(_ARRAYS), _ENDS, _ENDS), strict=True):
        dtype = getattr(it.contents, end).dtype
        if dtype not in known:
            raise ExportError(
                "a type that Kotlin has no array for", where=end, got=dtype, expected=", ".join(known)
            )
    raw, input, output = ends
    return it.values | {
        "array": _ARRAYS[raw][0],
        "as_float": _ARRAYS[raw][1],
        "view": _ARRAYS[raw][2],
        "bytes": _ARRAYS[raw][3],
        "input_bytes": _ARRAYS[input][3],
        "output_bytes": _ARRAYS[output][3],
        "limits": {"int8": (-128, 127), "uint8": (0, 255), "int16": (-32768, 32767)},
        "real": real,
        "versions": VERSIONS,
        "facts": facts(it.contents),
        "tolerance": tolerance_words(it.contents),
    }


TARGET = Target(
    name="android",
    about="Gradle module in Kotlin with LiteRT: coroutines, CameraX pictures, instrumented golden test",
    formats=("litert",),
    files=files,
    try_out=try_out,
    several=True,
)
