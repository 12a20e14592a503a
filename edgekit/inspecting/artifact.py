"""What is known about an exported file: what is stored in it, and what a runtime makes of it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from edgekit import guarded
from edgekit.errors import InputError, MeasurementError, MissingExtraError, OutOfMemoryError
from edgekit.files import opened, sha256
from edgekit.formats import FORMATS, Format, by_suffix
from edgekit.formats.onnx.ends import companions, size_of
from edgekit.inspecting.judged import judged
from edgekit.inspecting.reading import NEXT, called, look, look_at_graph, reference_of
from edgekit.runtimes import RUNTIMES

__all__ = ["INT8_GRAPH", "format_of", "inspect_artifact", "suffixes"]

_GRAPH_SUFFIX = ".pt2"
INT8_GRAPH = "int8_graph"  # the stage's, which is no exported file
_TIMEOUT_SECONDS = 300.0


def inspect_artifact(path: Path, *, top: int | None = None) -> dict[str, Any]:
    """Everything about a file, as JSON. ``top``: how many of the largest tensors are listed; None: all.

    ``judged``: what the run that wrote it found out, where the file still lies in its folder (``judged.py``).

    All reading is done in a child process: whatever a damaged file does to it, here it is an error. Where it
    is killed for memory, the file is read without its runtime, and ``executed_error`` says so.

    Raises:
        InputError: no such kind of file, or one that is damaged; its runtime refuses it (``got`` holds its
            own words), or crashes on it.
        MissingExtraError: what reads this kind of file isn't installed.
    """
    format = format_of(path)
    companions(path)  # what it says of files beside it is looked at before anybody follows it
    limits: dict[str, Any] = {"where": str(path), "next": NEXT, "timeout_seconds": _TIMEOUT_SECONDS}
    found: dict[str, Any]
    if format == INT8_GRAPH:
        found = _asked(look_at_graph, str(path), what="can't inspect an int8 graph", **limits)
    else:
        one = FORMATS[format]
        about = str(path), reference_of(one), *_runtime(one)
        what = f"can't inspect {called(one)}"
        try:
            found = _asked(look, *about, what=what, **limits)
        except _Starved as error:
            if one.runtime_first:
                raise
            # Reading alone takes far less: a runtime unpacks and plans.
            found = _asked(look, *about[:3], "", what=what, **limits)
            found["executed_error"] = f"not asked, as loading took more memory than there is ({error.got})"
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


class _Starved(InputError):
    """The child got too little memory."""


def _asked(function: Callable[..., dict[str, Any]], *arguments: Any, **about: Any) -> dict[str, Any]:
    """``guarded.call``; what goes wrong there is the fault of the file, all that the child was given."""
    try:
        found: dict[str, Any] = guarded.call(function, *arguments, **about)
    except MeasurementError as error:
        kind = _Starved if isinstance(error, OutOfMemoryError) else InputError
        raise kind(error.what, where=error.where, got=error.got, next=error.next) from None
    return found


def format_of(path: Path) -> str:
    """A format's name, or ``INT8_GRAPH``: by content where it is plain, else by the file's name.

    Raises InputError: not a file, empty, or neither content nor name of a known kind.
    """
    try:
        with opened(path) as stream:
            head = stream.read(16)
    except OSError as error:
        raise InputError(
            "this file can't be read", where=str(path), got=error.strerror or str(error)
        ) from None
    if not head:
        raise InputError("this file is empty", where=str(path), got="0 bytes", next=NEXT)
    for one in _readable():
        if one.magic is not None and head[one.magic[0] :].startswith(one.magic[1]):
            return one.name
    if head.startswith(b"PK\x03\x04") and path.suffix in {_GRAPH_SUFFIX, ""}:
        return INT8_GRAPH
    known = {one.suffix: one.name for one in _readable()} | {_GRAPH_SUFFIX: INT8_GRAPH}
    if path.suffix in known:
        return known[path.suffix]
    for one in _readable():
        if one.begins and head.startswith(one.begins):
            return one.name
    raise InputError(
        "no kind of file that edgekit inspects",
        where=str(path),
        got=f"{path.suffix or 'no suffix'}, beginning with {head[:8]!r}",
        expected=f"a workload (.py), or {listed()}",
        next="weights alone (.pth, .safetensors) hold no graph: inspect the workload that loads them"
        if path.suffix in {".pth", ".pt", ".safetensors", ".bin"}
        else "",
    )


def suffixes() -> list[str]:
    """Of the files that are inspected."""
    return [*(one.suffix for one in _readable()), _GRAPH_SUFFIX]


def listed() -> str:
    """The same in words."""
    *others, last = suffixes()
    return f"an {', '.join(others)} or {last} file"


def _readable() -> list[Format]:
    """Of formats that share a suffix the first: what is in the files of both is the same kind of graph."""
    return [one for one in FORMATS.values() if one.reads and by_suffix(one.suffix) is one]


def _runtime(format: Format) -> tuple[str, str]:
    """The name of the one that its files are judged by, and its version here.

    Raises MissingExtraError if it is missing where nothing can be read without it.
    """
    runtime = RUNTIMES[format.runtime]
    if runtime.installed():
        return runtime.name, runtime.version()
    if format.runtime_first:
        raise MissingExtraError(
            f"inspecting {called(format)} needs {runtime.package}",
            got="not installed",
            next=runtime.install(),
        )
    return runtime.name, ""
