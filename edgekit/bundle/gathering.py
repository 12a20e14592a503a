"""``Contents`` out of a finished run: one of its files, and what its workload says about raw samples."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from edgekit import __version__
from edgekit.bundle import detecting
from edgekit.bundle.choosing import choose
from edgekit.bundle.common import check_version
from edgekit.bundle.contents import Contents, Format, Input, ModelFile, Output, Tensor
from edgekit.errors import InputError, RunFolderError
from edgekit.files import sha256_of_bytes
from edgekit.progress import Event, Progress, silent
from edgekit.runs.folder import Damaged, check_files, read_record
from edgekit.runs.manifest import read_manifest

if TYPE_CHECKING:
    from edgekit.report import Report
    from edgekit.tasks import Task
    from edgekit.workload import Workload
    from edgekit.workload.preprocessing import Layout, Preprocessing

__all__ = ["GOLDEN", "gather"]

GOLDEN = 16  # samples in a bundle; targets for small memories take fewer


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
        InputError: no such file, or none that the target takes; a name or a version that can't be one.
        WorkloadError: another workload than the run's.
    """
    from edgekit.pipeline import reopening

    check_version(version)
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
        found = read_manifest(run)
    except Damaged as damage:
        raise RunFolderError("the run folder is damaged", where=str(run), got=str(damage)) from None
    if found is None or "card" not in found:
        raise _unfinished(run, "no model card" if found else "no manifest.json")
    return found


def _report(run: Path) -> Report:
    from edgekit.report import Report
    from edgekit.report.summary import REPORT_KEY

    try:
        record = read_record(run / REPORT_KEY)
        if record is None or "report.json" not in record["files"] or not (run / "report.json").exists():
            raise _unfinished(run, "no record of its report")
        check_files(run, record["files"])
        return Report.load(run)
    except (OSError, Damaged, ValueError) as error:
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
    from edgekit.inspecting.artifact import inspect_artifact

    path = run / entry["file"]
    try:
        check_files(run, {entry["file"]: entry["sha256"]})
    except Damaged as damage:
        raise RunFolderError("the run folder is damaged", where=str(run), got=str(damage)) from None
    inspected = inspect_artifact(path)
    inputs, outputs, states, names = _ends(path, entry, workload, inspected, count)
    content = path.read_bytes()
    return Contents(
        name=_checked(name),
        version=version,
        model=ModelFile(path.name, entry["format"], entry["precision"], content, sha256_of_bytes(content)),
        inputs=inputs,
        outputs=outputs,
        task=workload.task.describe(),
        accuracy=float(entry["evaluation"]["accuracy"]),
        activation_bytes=(inspected["arena"] or {}).get("bytes"),
        macs=next((one.macs for one in report.artifacts if one.file == entry["file"]), 0),
        parameters=next((one.parameters for one in report.artifacts if one.file == entry["file"]), 0),
        card=manifest["card"],
        card_markdown=_card(run, manifest["card"]),
        latency={
            (one.device, one.threads): one.p50_ns
            for one in report.measurements
            if one.artifact == entry["file"]
        },
        edgekit_version=__version__,
        states=states,
        detection=detecting.decoding(workload.task, outputs, names),
        keypoints=detecting.pointing(workload.task, outputs),
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


def _card(run: Path, card: dict[str, Any]) -> str:
    """Written anew from the manifest's: nothing else says that the file beside it is the run's."""
    from edgekit.report.card import markdown

    try:
        return markdown(card)
    except (KeyError, TypeError, ValueError, AttributeError, StopIteration) as error:
        raise RunFolderError(
            "the run folder is damaged", where=str(run), got=f"no model card ({type(error).__name__})"
        ) from None


# --- its ends --------------------------------------------------------------------------------------------


def _ends(
    path: Path, entry: dict[str, Any], workload: Workload, inspected: dict[str, Any], count: int
) -> tuple[tuple[Input, ...], tuple[Output, ...], dict[str, str], dict[str, str]]:
    """All inputs and outputs, in the file's order, which output is which input of the next step, and by the
    model's names of outputs the file's.
    """
    from edgekit.bundle import golden
    from edgekit.tensors import each

    samples, embedded = golden.raw_samples(workload, entry, count)
    kept = golden.answers(path, entry, workload, samples, embedded)
    example = workload.example(1)
    raw, whole, taken = dict(each(samples)), dict(each(workload.validation.inputs)), dict(each(example))
    named: dict[str, dict[str, str]] = {"inputs": {}, "outputs": {}}  # the model's names → the file's
    inputs = []
    for port, prepared in zip(inspected["inputs"], kept.prepared, strict=True):
        name = _named(port["name"], taken, "inputs")
        named["inputs"][name] = port["name"]
        how = golden.preprocessing_of(workload, name)
        end = _end(port, tuple((raw if embedded else taken)[name].shape[1:]))
        end = replace(end, layout="NHWC") if embedded else end
        layout = _layout(how, end, embedded)
        form = golden.raw_form(whole[name], raw[name].numpy(), layout)
        about = {**how.to_dict(), "layout": layout}
        inputs.append(Input(form, end, about, raw[name].numpy(), prepared, embedded))
    answered = _torch_answers(workload, example)
    if (written := (entry.get("options") or {}).get("ending")) is not None:
        ending = workload.task.ending(written["kind"])
        assert ending is not None  # "raw" is None in the options, too
        answered = ending.of(answered)
    source = {name: tuple(one.shape) for name, one in each(answered)}
    tasks = _tasks(workload)
    outputs = []
    for port, made, tolerance in zip(inspected["outputs"], kept.outputs, kept.tolerances, strict=True):
        name = _named(port["name"], source, "outputs")
        named["outputs"][name] = port["name"]
        task = tasks[name] if name in tasks else tasks[""]
        end = _end(port, source[name][1:])
        axis = _class_axis(task, source[name], end.shape)
        clear = golden.clear(made, axis, tolerance)
        classes = _classes(workload, task)
        outputs.append(Output(end, task.describe(), classes, axis, made, tolerance, clear))
    states = {named["outputs"][output]: named["inputs"][name] for output, name in workload.states.items()}
    return tuple(inputs), tuple(outputs), states, named["outputs"]


def _tasks(workload: Workload) -> dict[str, Task]:
    """By output, "" being any; of a model that streams, what a step of it means."""
    from edgekit.tasks import Regression

    found = {part.name: part.task for part in workload.task.parts()}
    if workload.states:
        found = {name: task.at_step() for name, task in found.items()}
        found |= {name: Regression() for name in workload.states}
    return found


def _named(name: str, known: Mapping[str, Any], what: str) -> str:
    """Which of the model's ends one of the file's is: one alone may have any name there."""
    if len(known) == 1:
        return next(iter(known))
    if name not in known:
        raise RunFolderError(
            f"the file has other {what} than its model", where=name, expected=", ".join(known)
        )
    return name


def _classes(workload: Workload, task: Task) -> tuple[str, ...] | None:
    """The workload's names of classes, for every output that has as many."""
    several = workload.task.outputs or workload.states
    if several and len(workload.classes or ()) != task.class_count:
        return None
    return workload.classes


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


def _layout(preprocessing: Preprocessing, input: Tensor, embedded: bool) -> Layout:
    """That of raw samples.

    "any" says that training changes no order, but a file may: three dimensions of which the first goes to the
    end are channels, whatever they stand for. One channel alone moves nowhere.
    """
    if embedded:
        return "NHWC"
    layout = preprocessing.layout
    if layout == "any" and input.layout == "NHWC" and input.shape[-1] > 1:
        return "NCHW"
    return layout


def _torch_answers(workload: Workload, example: Any) -> Any:
    import torch

    from edgekit.execution import Forward, mode

    with mode(workload.model, training=False), torch.no_grad():
        return Forward(workload.model)(example)


def _class_axis(task: Task, source: tuple[int, ...], shape: tuple[int, ...]) -> int | None:
    """Where the class scores are in the file's output, which may have moved the channels to the end."""
    axis = task.class_dim
    if axis is None:
        return None
    axis %= len(source)
    return axis if shape[1:] == source[1:] else len(shape) - 1
