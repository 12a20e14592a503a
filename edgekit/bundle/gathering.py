"""``Contents`` out of a finished run: one of its files, and what its workload says about raw samples."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from edgekit import __version__
from edgekit.bundle.choosing import choose
from edgekit.bundle.contents import Contents, Format, ModelFile, Tensor
from edgekit.errors import InputError, RunFolderError
from edgekit.files import sha256_of_bytes
from edgekit.progress import Event, Progress, silent
from edgekit.run import Damaged, check_files, read_record

if TYPE_CHECKING:
    from edgekit.report import Report
    from edgekit.workload import Workload
    from edgekit.workload.preprocessing import Layout

__all__ = ["GOLDEN", "gather"]

GOLDEN = 16  # samples in a bundle; targets for small memories take fewer
_CARD = "MODEL_CARD.md"


def gather(
    run: Path,
    workload: str | Path | None = None,
    *,
    artifact: str = "",
    formats: Sequence[Format] = ("litert", "onnx"),
    precisions: Sequence[str] = (),
    name: str = "",
    version: str = "1.0.0",
    golden: int = GOLDEN,
    progress: Progress = silent,
) -> Contents:
    """All that a bundle is made from.

    Args:
        run: folder of a finished run; nothing in it is changed.
        workload: the file that the run was made from; a run of the embedded demo needs none.
        artifact: which file, by its name; empty: see ``choose``.
        formats, precisions: what the target takes, preferred first.
        name: of the bundle; empty: the workload's.
        version: of the bundle.
        golden: how many validation samples to keep with the file's answers.
        progress: told which file was taken.

    Raises:
        RunFolderError: not finished, or damaged.
        InputError: no such file, or none that the target takes.
        WorkloadError: another workload than the run's.
    """
    from edgekit.pipeline import reopening

    identity = reopening.identity_of(run)
    again = f"edgekit bundle {run} my_workload.py --target …"
    reopening.require_workload(run, workload, identity, again)
    manifest, report = _manifest(run), _report(run)
    entry = choose(run, manifest, report, artifact=artifact, formats=formats, precisions=precisions)
    progress(Event("note", "bundle", f"{entry['file']} ({entry['format']}, {entry['precision']})"))
    loaded, _ = reopening.workload_of(run, workload, identity)
    return _contents(run, manifest, report, entry, loaded, name or loaded.name, version, golden)


# --- the run ---------------------------------------------------------------------------------------------


def _manifest(run: Path) -> dict[str, Any]:
    try:
        found = read_record(run / "manifest.json")
    except Damaged as damage:
        raise RunFolderError("the run folder is damaged", where=str(run), got=str(damage)) from None
    if found is None or "card" not in found:
        raise _unfinished(run, "no model card" if found else "no manifest.json")
    return found


def _report(run: Path) -> Report:
    from edgekit.report import Report

    try:
        return Report.load(run)
    except OSError:
        raise _unfinished(run, "no report.json") from None
    except ValueError as error:
        raise RunFolderError(
            "the run folder is damaged", where=str(run / "report.json"), got=str(error).splitlines()[0]
        ) from None


def _unfinished(run: Path, got: str) -> RunFolderError:
    return RunFolderError(
        "this run isn't finished",
        where=str(run),
        got=got,
        next="give its command again, it goes on where it was",
    )


# --- the file --------------------------------------------------------------------------------------------


def _contents(
    run: Path,
    manifest: dict[str, Any],
    report: Report,
    entry: dict[str, Any],
    workload: Workload,
    name: str,
    version: str,
    count: int,
) -> Contents:
    from edgekit.bundle.golden import golden, raw_form, raw_samples
    from edgekit.inspecting.artifact import inspect_artifact

    path = run / entry["file"]
    try:
        check_files(run, {entry["file"]: entry["sha256"]})
    except Damaged as damage:
        raise RunFolderError("the run folder is damaged", where=str(run), got=str(damage)) from None
    inspected = inspect_artifact(path)
    samples, embedded = raw_samples(workload, entry, count)
    task = workload.task.describe()
    example = workload.example(1)
    source = _torch_output_shape(workload, example)
    taken = tuple(samples.shape[1:]) if embedded else tuple(example.shape[1:])
    input, output = _end(inspected["inputs"][0], taken), _end(inspected["outputs"][0], source[1:])
    if embedded:
        input = replace(input, layout="NHWC")
    class_axis = _class_axis(workload, source, output.shape)
    layout = _layout(workload, input, embedded)
    content = path.read_bytes()
    return Contents(
        name=_checked(name),
        version=version,
        model=ModelFile(path.name, entry["format"], entry["precision"], content, sha256_of_bytes(content)),
        raw=raw_form(workload, samples, layout),
        input=input,
        output=output,
        preprocessing={**workload.preprocessing.to_dict(), "layout": layout},
        embedded=embedded,
        task=task,
        classes=workload.classes,
        class_axis=class_axis,
        golden=golden(path, entry, workload, samples, class_axis, embedded),
        accuracy=float(entry["evaluation"]["accuracy"]),
        activation_bytes=(inspected["arena"] or {}).get("bytes"),
        macs=next((one.macs for one in report.artifacts if one.file == entry["file"]), 0),
        parameters=next((one.parameters for one in report.artifacts if one.file == entry["file"]), 0),
        card=manifest["card"],
        card_markdown=_card(run),
        latency={
            (one.device, one.threads): one.p50_ns
            for one in report.measurements
            if one.artifact == entry["file"]
        },
        edgekit_version=__version__,
    )


def _checked(name: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", name):
        raise InputError(
            "a name that can't name a package",
            where="--name",
            got=repr(name),
            expected="letters, digits, '.', '_' and '-'",
        )
    return name


def _card(run: Path) -> str:
    try:
        return (run / _CARD).read_text(encoding="utf-8")
    except OSError:
        raise _unfinished(run, f"no {_CARD}") from None


def _end(port: dict[str, Any], sample: tuple[int, ...]) -> Tensor:
    """An end of the file for one sample; ``sample``: its shape in the torch model, without a batch."""
    shape = (1, *(size if isinstance(size, int) else want for size, want in _sizes(port, sample)))
    layout: Literal["NCHW", "NHWC", "any"] = "any"
    if len(sample) == 3:
        layout = "NCHW" if shape[1:] == sample else "NHWC"
    return Tensor(port["name"], shape, port["dtype"], port.get("scale"), port.get("zero_point"), layout)


def _sizes(port: dict[str, Any], sample: tuple[int, ...]) -> list[tuple[Any, int]]:
    found = list(port["shape"][1:])
    if len(found) != len(sample):
        raise RunFolderError(
            "the file has another shape than its model",
            where=str(port["name"]),
            got=str(port["shape"]),
            expected=str(sample),
        )
    return list(zip(found, sample, strict=True))


def _layout(workload: Workload, input: Tensor, embedded: bool) -> Layout:
    """That of raw samples.

    "any" says that training changes no order, but a file may: three dimensions of which the first goes to the
    end are channels, whatever they stand for. One channel alone moves nowhere.
    """
    if embedded:
        return "NHWC"
    layout = workload.preprocessing.layout
    if layout == "any" and input.layout == "NHWC" and input.shape[-1] > 1:
        return "NCHW"
    return layout


def _torch_output_shape(workload: Workload, example: Any) -> tuple[int, ...]:
    import torch

    from edgekit.execution import Forward, mode

    with mode(workload.model, training=False), torch.no_grad():
        return tuple(Forward(workload.model)(example).shape)


def _class_axis(workload: Workload, source: tuple[int, ...], shape: tuple[int, ...]) -> int | None:
    """Where the class scores are in the file's output, which may have moved the channels to the end."""
    axis = getattr(workload.task, "class_dim", None)
    if axis is None:
        return None
    axis %= len(source)
    return axis if shape[1:] == source[1:] else len(shape) - 1
