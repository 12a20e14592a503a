"""A Gradle module in Kotlin: LiteRT, coroutines, pictures from CameraX, and an instrumented golden test.

The arithmetic (``Preprocessing.kt``, ``Postprocessing.kt``, ``Picture.kt``) knows nothing of Android, so that
it can be compiled and run without it; ``Model.kt`` is the thin rest.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from edgekit.bundle.common import golden_files, spec_file
from edgekit.bundle.contents import Contents
from edgekit.bundle.targets.base import Files, Settings, Target, Tried
from edgekit.bundle.targets.phones import Outline, facts, look_at, outline, real, tolerance_words
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
    it = outline(contents)
    values = _values(it)
    source, test = f"src/main/kotlin/edgekit/{it.name}", f"src/androidTest/kotlin/edgekit/{it.name}"
    rendered = {
        "README.md": "README.md.j2",
        "settings.gradle.kts": "settings.gradle.kts.j2",
        "build.gradle.kts": "build.gradle.kts.j2",
        "gradle.properties": "gradle.properties.j2",
        "src/main/AndroidManifest.xml": "AndroidManifest.xml.j2",
        f"{source}/{it.type}.kt": "Model.kt.j2",
        f"{source}/Preprocessing.kt": "Preprocessing.kt.j2",
        f"{source}/Postprocessing.kt": "Postprocessing.kt.j2",
        f"{test}/GoldenTest.kt": "GoldenTest.kt.j2",
    }
    if it.camera:
        rendered[f"{source}/Picture.kt"] = "Picture.kt.j2"
    return {
        **{path: render(_TEMPLATES, template, **values) for path, template in rendered.items()},
        f"src/main/assets/{it.name}/model.tflite": contents.model.content,
        **spec_file(contents, f"src/main/assets/{it.name}/model.json"),
        **golden_files(contents, f"src/androidTest/assets/{it.name}/"),
    }


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
)
