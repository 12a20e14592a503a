"""What is known about an exported file: what is stored in it, and what a runtime makes of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from edgekit.bench.onnx_ends import companions, size_of
from edgekit.errors import EdgekitError, InputError, MeasurementError, MissingExtraError
from edgekit.files import sha256
from edgekit.inspecting import guarded, runtimes
from edgekit.inspecting.judged import judged

__all__ = ["FORMATS", "format_of", "inspect_artifact"]

FORMATS = {"onnx": "an ONNX file", "litert": "a LiteRT file", "int8_graph": "an int8 graph"}
SUFFIXES = {".onnx": "onnx", ".tflite": "litert", ".pt2": "int8_graph"}
_TIMEOUT_SECONDS = 300.0


def inspect_artifact(path: Path, *, top: int | None = None) -> dict[str, Any]:
    """Everything about a file, as JSON. ``top``: how many of the largest tensors are listed; None: all.

    ``judged``: what the run that wrote it found out, where the file still lies in its folder (``judged.py``).

    All reading is done in a child process: whatever a damaged file does to it, here it is an error.

    Raises:
        InputError: no such kind of file, or one that is damaged.
        MissingExtraError: what reads this kind of file isn't installed.
        MeasurementError: its runtime refuses the file (``got`` holds its own words), or crashes on it.
    """
    format = format_of(path)
    _require(format)
    what = f"can't inspect {FORMATS[format]}"
    found: dict[str, Any] = guarded.call(
        look, str(path), format, what=what, where=str(path), next=_NEXT, timeout_seconds=_TIMEOUT_SECONDS
    )
    tensors, digest = found["tensors"], sha256(path)
    return {
        "schema": 1,
        "kind": "artifact",
        "file": str(path),
        "format": format,
        "size_bytes": size_of(path),
        "files_beside": [one.name for one in companions(path)],
        "sha256": digest,
        **found,
        "judged": judged(path, digest),
        "tensors_in_file": len(tensors),
        "tensors": tensors if top is None else tensors[:top],
        "activations": found["activations"] if top is None else found["activations"][:top],
    }


_NEXT = "export it again, or compare its sha256 with the one in manifest.json"


def format_of(path: Path) -> str:
    """One of ``FORMATS``: by content where it is plain, else by the name.

    Raises InputError: not a file, empty, or neither content nor name of a known kind.
    """
    try:
        with path.open("rb") as stream:
            head = stream.read(16)
    except OSError as error:
        raise InputError(
            "this file can't be read", where=str(path), got=error.strerror or str(error)
        ) from None
    if not head:
        raise InputError("this file is empty", where=str(path), got="0 bytes", next=_NEXT)
    if head[4:8] == b"TFL3":
        return "litert"
    if head.startswith(b"PK\x03\x04") and path.suffix in {".pt2", ""}:
        return "int8_graph"
    if path.suffix in SUFFIXES:
        return SUFFIXES[path.suffix]
    if head[0] == 0x08:  # the field ir_version, which ONNX files begin with
        return "onnx"
    raise InputError(
        "no kind of file that edgekit inspects",
        where=str(path),
        got=f"{path.suffix or 'no suffix'}, beginning with {head[:8]!r}",
        expected="a workload (.py), or an .onnx, .tflite or .pt2 file",
        next="weights alone (.pth, .safetensors) hold no graph: inspect the workload that loads them"
        if path.suffix in {".pth", ".pt", ".safetensors", ".bin"}
        else "",
    )


def _require(format: str) -> None:
    if format == "litert" and not runtimes.installed("litert"):
        raise MissingExtraError(
            "inspecting a LiteRT file needs ai-edge-litert",
            got="not installed",
            next='pip install "edgekit-toolkit[litert]"',
        )


# --- in the child process --------------------------------------------------------------------------------


def look(path: str, format: str) -> dict[str, Any]:
    """Read a file and let its runtime load it; see ``inspect_artifact``. Called through ``guarded``."""
    if format == "int8_graph":
        from edgekit.inspecting import graph_file

        return {**graph_file.read(Path(path)), "executed": None}
    if (
        format == "litert"
    ):  # the runtime verifies the offsets inside the file, which the schema's reader trusts
        executed = _executed(path, format)
        return {**_structure(path, format), "executed": executed}
    structure = _structure(path, format)
    answer = _executed(path, format) if runtimes.installed(format) else None
    return {"arena": None, **structure, "executed": answer}


def _structure(path: str, format: str) -> dict[str, Any]:
    """What the format's own reader finds; any failure of it is the file's."""
    try:
        if format == "onnx":
            from edgekit.inspecting import onnx_file

            return onnx_file.read(Path(path))
        from edgekit.inspecting import tflite_file

        return tflite_file.read(Path(path))
    except EdgekitError:
        raise
    except Exception as error:
        raise InputError(
            f"this is not {FORMATS[format]}, or it is damaged",
            where=path,
            got="; ".join(filter(None, [_one_line(error), _words(path, format)])),
            next=_NEXT,
        ) from error


def _executed(path: str, format: str) -> dict[str, Any]:
    try:
        return runtimes.executed(path, format)
    except Exception as error:
        raise MeasurementError(
            f"{runtimes.NAMES[format]} refuses the file", where=path, got=_one_line(error), next=_NEXT
        ) from error


def _words(path: str, format: str) -> str:
    """What the runtime says to the same file, if it is there."""
    if not runtimes.installed(format):
        return ""
    try:
        runtimes.load(path, format)
    except Exception as error:
        return f"{runtimes.NAMES[format]}: {_one_line(error)}"
    return f"{runtimes.NAMES[format]} loads it all the same"


def _one_line(error: Exception) -> str:
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text[:600]}" if text else type(error).__name__
