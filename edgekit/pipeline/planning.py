"""Which files are written, from which rung, spelled for which device."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from edgekit.errors import ExportError, MeasurementError
from edgekit.formats import FORMATS, INT8_GRAPH, Precision, pairs
from edgekit.formats.options import ExportOptions, Target
from edgekit.pipeline.chain import Rung
from edgekit.pipeline.job import Job
from edgekit.runtimes import RUNTIMES
from edgekit.stages.base import Form
from edgekit.tensors import Tensors
from edgekit.workload.given_file import end_names, original_file

REFERENCE = "artifacts/original_fp32.onnx"
REFERENCE_FORM: tuple[str, Precision] = ("onnx", "fp32")  # its format and precision


@dataclass(frozen=True)
class Planned:
    """A file to be exported. ``file`` is relative to the run folder; ``copied``: it was there before;
    ``beside``: nobody asked for it, so that whatever refuses it costs it its place alone.
    """

    file: str
    format: str
    precision: Precision
    rung: Rung
    options: ExportOptions = field(default_factory=ExportOptions)
    copied: Path | None = None
    beside: bool = False

    def expected(self, answers: Tensors) -> Tensors:
        """What the file answers where its model gives ``answers``."""
        return answers if self.options.ending is None else self.options.ending.of(answers)


def plan(job: Job, rungs: Sequence[Rung]) -> list[Planned]:
    """Which files the recipe asks for; the original's fp32 ONNX comes first, as all gains refer to it."""
    exports, options = job.recipe.exports, options_of(job)
    planned = [reference(rungs[0], options)]
    quantised = any(rung.form is Form.INT8 for rung in rungs)
    for format, precision in pairs(exports.formats, possible(exports.precisions, quantised=quantised)):
        one = planned_for(job, rungs, format, precision, options)
        # Without a stage that changed the float model, its plain ONNX file is the original's.
        same = (one.format, one.precision) == REFERENCE_FORM and one.rung.digest == rungs[0].digest
        if not (same and not FORMATS[format].tags(options, precision)):
            planned.append(one)
    there = dict.fromkeys((one.format, one.precision) for one in planned)
    for format, precision in there:
        for other in _beside(job, format, precision):
            one = planned_for(job, rungs, other, precision, options)
            if (other, precision) not in there and FORMATS[other].differs(one.rung.model):
                planned.append(replace(one, beside=True))
    return planned


def _beside(job: Job, format: str, precision: Precision) -> list[str]:
    """Formats that have a file for another runtime, which is installed here and on a device of the run."""
    found = []
    for name, one in FORMATS.items():
        runtime = RUNTIMES[one.runtime]
        there = [device for device in job.devices if one.runtime in device.runtimes]
        if one.beside == format and precision in one.precisions and there and runtime.installed():
            versions = job.connections.about(there[0])["runtimes"]
            found += [name] if any(package in versions for package in runtime.packages) else []
    return found


def options_of(job: Job) -> ExportOptions:
    """What the recipe and the run's devices ask of all files; raises as ``embedding``."""
    exports = job.recipe.exports
    options = ExportOptions(
        batch=exports.batch,
        io=exports.io,
        target=target_of(job),
        whole_kernels=exports.microcontroller,
        ending=job.workload.task.ending(exports.head),
        names=end_names(job.workload.model),
    )
    return embedding(job, options) if exports.embed_preprocessing else options


def reference(original: Rung, options: ExportOptions) -> Planned:
    """The original's plain fp32 ONNX file; of a model that was one, the very file."""
    plain = ExportOptions(target=options.target)
    return Planned(REFERENCE, *REFERENCE_FORM, original, plain, original_file(original.model))


def possible(wanted: Sequence[Precision], *, quantised: bool) -> tuple[Precision, ...]:
    """Those that models can be written in: where the guard dropped the int8 graph, the float ones."""
    found = tuple(one for one in wanted if quantised or one not in INT8_GRAPH)
    return found or ("fp32",)


def planned_for(
    job: Job, rungs: Sequence[Rung], format: str, precision: Precision, options: ExportOptions
) -> Planned:
    """One file: its name, and the rung that it is made from."""
    name = job.workload.name if job.workload.name != "original" else "original-compressed"
    form = Form.INT8 if precision in INT8_GRAPH else Form.FLOAT
    rung = [rung for rung in rungs if rung.form is form][-1]
    file = f"artifacts/{FORMATS[format].file_name(name, options, precision)}"
    return Planned(file, format, precision, rung, options)


def target_of(job: Job) -> Target:
    """What ONNX files are spelled for: the run's first device with ONNX Runtime."""
    device = next((one for one in job.devices if "onnxruntime" in one.runtimes), None)
    if device is None:
        return Target()
    try:
        return Target.of(device, job.connections.about(device))
    except MeasurementError as error:
        job.tell("warning", "export", f"{error.what}; ONNX files are spelled for its profile alone")
        return Target.of(device)


def embedding(job: Job, options: ExportOptions) -> ExportOptions:
    """The options with the workload's preprocessing inside the model.

    Raises ExportError if the workload's samples are no uint8 images, or the preprocessing can't be embedded.
    """
    import torch

    from edgekit.formats import embed

    workload = job.workload
    raw, where = workload.validation.inputs, f"workload {workload.name}"
    if not isinstance(raw, torch.Tensor):
        embed.refuse(replace(options, preprocessing=workload.preprocessing), raw, where)
        raise AssertionError("unreachable: several inputs are refused")
    if str(raw.dtype) != "torch.uint8" or raw.dim() != 4:
        raise ExportError(
            "preprocessing can't be embedded: an app's pixels are not what this model was trained on",
            where=where,
            got=f"samples {tuple(raw.shape[1:])} {str(raw.dtype).removeprefix('torch.')}",
            expected="images as uint8",
            next="export without embedded preprocessing, or keep the workload's images as bytes",
        )
    layout = workload.preprocessing.layout
    height, width = raw.shape[1:3] if layout == "NHWC" else raw.shape[2:4]
    options = replace(options, preprocessing=workload.preprocessing, raw_size=(int(height), int(width)))
    embed.refuse(options, workload.example(1), where)
    return options
