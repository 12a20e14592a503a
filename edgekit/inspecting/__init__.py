"""What can be told before any training, and what is inside an exported file.

guarded.py      a function in a process of its own, whose crash is an error here
arena.py        peak memory of a sequence of steps
rules.py        what each runtime lacks, op by op: the one table
prediction.py   what the int8 packages will do with a graph
graph_arena.py  the arena of a captured graph
channels.py     which channels can leave
model.py        all of it about a workload's model
onnx_file.py    inside an ONNX file
tflite_file.py  inside a LiteRT file
graph_file.py   inside an int8 graph
runtimes.py     what a runtime makes of a file
judged.py       what the run that wrote a file found out about it
artifact.py     all of it about a file
on_device.py    what a device's profile says about it
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from edgekit.errors import InputError, did_you_mean
from edgekit.progress import Event, Progress, silent
from edgekit.sources.request import Source, is_source

__all__ = ["inspect"]


def inspect(
    target: str | Path | Source | None = None,
    *,
    device: str | Path | None = None,
    top: int | None = None,
    progress: Progress = silent,
) -> dict[str, Any]:
    """Look at a workload's model, or at an exported file. Nothing is trained, calibrated or measured.

    Args:
        target: ``"file.py"`` or ``"file.py:function"`` (None: the embedded demo), ``"timm:NAME"`` and the
            like or a ``Source`` (which needs no data here), or the path of an .onnx, .tflite, .pte or .pt2
            file.
        device: name or path of a profile: adds ``device`` to the result.
        top: of a file, how many of the largest tensors are listed (and how many activations); None: all.

    Returns:
        JSON values; ``kind`` is "model" or "artifact". See ``inspect_model`` and ``inspect_artifact``.

    Raises:
        InputError: no such file, or a damaged one, which its runtime refuses or crashes on; a workload or a
            device profile with faults.
        CaptureError: ``torch.export`` can't capture the model.
    """
    profile = None
    if device is not None:
        from edgekit.devices import load_device

        profile = load_device(device)
    if isinstance(target, str) and is_source(target):
        target = Source(target)
    if target is None or isinstance(target, Source) or re.search(r"\.py(:|$)", str(target)):
        result = _model(target, progress)
        arena, stored = result["arena"]["int8"]["bytes"], result["totals"]["int8_bytes"]
    else:
        result = _artifact(Path(target), top)
        arena = (result["executed"] or {}).get("arena_bytes") or (result["arena"] or {}).get("bytes")
        stored = result["size_bytes"]
    if profile is None:
        return result
    from edgekit.inspecting.on_device import describe

    return {**result, "device": describe(profile, arena, stored)}


def _model(target: str | Path | Source | None, progress: Progress) -> dict[str, Any]:
    from edgekit.opening import load_workload

    def tell(message: str) -> None:
        progress(Event("note", "inspect", message))

    workload = load_workload(target, made_up=True)
    tell("looking at the model")  # before the heavy imports below, some of which print
    from edgekit.inspecting.model import inspect_model

    return inspect_model(workload, tell)


def _artifact(path: Path, top: int | None) -> dict[str, Any]:
    from edgekit.inspecting.artifact import inspect_artifact, listed, suffixes

    if not path.exists():
        folder = path.parent
        known = {".py", *suffixes()}
        names = [p.name for p in folder.iterdir() if p.suffix in known] if folder.is_dir() else []
        raise InputError(
            "no such file",
            where=str(path),
            expected=f"a workload (.py), or {listed()}",
            next=did_you_mean(path.name, names) if names else "leave it out to inspect the embedded demo",
        )
    return inspect_artifact(path, top=top)
