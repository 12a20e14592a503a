"""The exported files, and ``manifest.json``: what each of them is, comes from, and can do."""

from __future__ import annotations

import json
import time
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from edgekit import __version__
from edgekit.devices.device import probe
from edgekit.errors import EdgekitError, ExportError, MeasurementError
from edgekit.export import SUFFIX, ExportOptions, Format, Precision, Target, export
from edgekit.export.options import INT8_GRAPH, pairs
from edgekit.files import disk_full, sha256, sha256_of, write_json
from edgekit.pipeline.chain import Rung
from edgekit.pipeline.job import Job
from edgekit.pipeline.keys import code_version
from edgekit.run import Damaged, check_files, read_record, write_record
from edgekit.stages.base import Form

REFERENCE = "artifacts/original_fp32.onnx"


@dataclass(frozen=True)
class Planned:
    """A file to be exported. ``file`` is relative to the run folder."""

    file: str
    format: Format
    precision: Precision
    rung: Rung
    options: ExportOptions = field(default_factory=ExportOptions)


class Manifest:
    """The record of all artifacts, written anew whenever something about one of them is known.

    An entry: file, format, precision, options, sha256, size_bytes, key (of what it was exported from), parent,
    seconds, and evaluation (with a key of its own) once there is one; added for what ``edgekit export`` wrote.

    Args:
        job: the run.
        planned: what the entries are about. Others are dropped, with their files.
        keep: sha256 of models whose added files stay; None keeps all entries.
    """

    def __init__(self, job: Job, planned: Sequence[Planned], keep: Collection[str] | None = ()) -> None:
        self.job, self.path = job, job.run.path / "manifest.json"
        self.planned = planned
        self.entries: dict[str, dict[str, Any]] = {}
        try:
            record = read_record(self.path) or {"artifacts": []}
        except Damaged as damage:
            job.tell("warning", "export", f"{damage}; the files are exported anew")
            record = {"artifacts": []}
        wanted = {one.file for one in planned}
        for entry in record["artifacts"]:
            added = entry.get("added") and (keep is None or entry["parent"]["model_sha256"] in keep)
            if entry["file"] in wanted or added or keep is None:
                self.entries[entry["file"]] = entry
            else:  # exported for other settings of the recipe
                (job.run.path / entry["file"]).unlink(missing_ok=True)

    def set(self, file: str, entry: dict[str, Any]) -> None:
        """Add or replace an entry, and write the manifest."""
        self.entries[file] = entry
        first = [one.file for one in self.planned if one.file in self.entries]
        names = list(dict.fromkeys([*first, *self.entries]))
        content = {
            "schema": 1,
            "workload": self.job.workload.name,
            "recipe": self.job.recipe.name,
            "artifacts": [self.entries[name] for name in names],
        }
        files = {name: self.entries[name]["sha256"] for name in names}
        write_record(self.path, self.job.fingerprint, content, files)

    def path_of(self, file: str) -> Path:
        """Where a file is."""
        return self.job.run.path / file


def plan(job: Job, rungs: Sequence[Rung]) -> list[Planned]:
    """Which files the recipe asks for; the original's fp32 ONNX comes first, as all gains refer to it."""
    exports, target = job.recipe.exports, target_of(job)
    options = ExportOptions(batch=exports.batch, io=exports.io, target=target)
    if exports.embed_preprocessing:
        options = embedding(job, options)
    planned = [Planned(REFERENCE, "onnx", "fp32", rungs[0], ExportOptions(target=target))]
    for format, precision in pairs(exports.formats, exports.precisions):
        one = planned_for(job, rungs, format, precision, options)
        # Without a stage that changed the float model, its plain ONNX file is the original's.
        same = (one.format, one.precision, one.rung.digest) == ("onnx", "fp32", rungs[0].digest)
        if not (same and not options.suffix(format, precision)):
            planned.append(one)
    return planned


def planned_for(
    job: Job, rungs: Sequence[Rung], format: Format, precision: Precision, options: ExportOptions
) -> Planned:
    """One file: its name, and the rung that it is made from."""
    name = job.workload.name if job.workload.name != "original" else "original-compressed"
    form = Form.INT8 if precision in INT8_GRAPH else Form.FLOAT
    rung = [rung for rung in rungs if rung.form is form][-1]
    file = f"artifacts/{name}_{precision}{options.suffix(format, precision)}{SUFFIX[format]}"
    return Planned(file, format, precision, rung, options)


def target_of(job: Job) -> Target:
    """What ONNX files are spelled for: the run's first device with ONNX Runtime."""
    device = next((one for one in job.devices if "onnxruntime" in one.runtimes), None)
    if device is None:
        return Target()
    try:
        return Target.of(device, probe(device))
    except MeasurementError as error:
        job.tell("warning", "export", f"{error.what}; ONNX files are spelled for its profile alone")
        return Target.of(device)


def embedding(job: Job, options: ExportOptions) -> ExportOptions:
    """The options with the workload's preprocessing inside the model.

    Raises ExportError if the workload's samples are no uint8 images, or the preprocessing can't be embedded.
    """
    from dataclasses import replace

    from edgekit.export import embed

    workload = job.workload
    raw, where = workload.validation.inputs, f"workload {workload.name}"
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


def export_all(job: Job, rungs: Sequence[Rung]) -> Manifest:
    """Export what isn't there yet.

    Raises:
        ExportError, CaptureError: a converter failed.
        DiskFullError: a file can't be written.
    """
    planned = plan(job, rungs)
    job.run.artifacts.mkdir(exist_ok=True)
    manifest = Manifest(job, planned, {rung.digest for rung in rungs})
    return write_missing(job, manifest, rungs)


def write_missing(job: Job, manifest: Manifest, rungs: Sequence[Rung]) -> Manifest:
    """Export what is planned and not there yet; raises as ``export_all``."""
    planned = manifest.planned
    keys = {one.file: _key(job, one, rungs) for one in planned}
    missing = [one for one in planned if not _is_there(job, manifest, one, keys[one.file])]
    _write_preprocessing(job, planned)
    if not missing:
        job.tell("stage-skipped", "export", f"{len(planned)} files")
        return manifest
    job.tell("stage-start", "export", total=len(missing))
    for index, one in enumerate(missing):
        job.tell("step", "export", Path(one.file).name, done=index, total=len(missing))
        manifest.set(one.file, _export(job, manifest, one, rungs, keys[one.file]))
    job.tell("stage-end", "export", ", ".join(Path(one.file).name for one in missing))
    return manifest


def _export(job: Job, manifest: Manifest, one: Planned, rungs: Sequence[Rung], key: str) -> dict[str, Any]:
    path = manifest.path_of(one.file)
    started = time.monotonic()
    try:
        export(
            one.rung.model,
            job.workload.example(1),
            path,
            format=one.format,
            precision=one.precision,
            metadata=metadata(job, one, rungs),
            options=one.options,
        )
    except EdgekitError:
        raise
    except Exception as error:
        if (full := disk_full(error, path)) is not None:
            raise full from error
        raise ExportError("export failed", where=str(path), got=f"{type(error).__name__}: {error}") from error
    return {
        "file": one.file,
        "format": one.format,
        "precision": one.precision,
        "options": one.options.describe(),
        "sha256": sha256(path),
        "size_bytes": path.stat().st_size,
        "parent": {"stage": one.rung.kind or "trained model", "model_sha256": one.rung.digest},
        "key": key,
        "seconds": time.monotonic() - started,
        "evaluation": None,
    }


def metadata(job: Job, one: Planned, rungs: Sequence[Rung]) -> dict[str, str]:
    """What is kept inside a file: strings, JSON where there is more to say. No dates: it must not change."""
    workload = job.workload
    way = [rung.kind for rung in rungs[1 : rungs.index(one.rung) + 1]]
    preprocessing: dict[str, Any] = workload.preprocessing.to_dict()
    if one.options.preprocessing is not None:
        preprocessing = {"embedded": preprocessing, "input": "raw uint8 pixels, NHWC"}
    values: dict[str, Any] = {
        "edgekit": __version__,
        "workload": workload.name,
        "recipe": job.recipe.name,
        "stages": json.dumps(way),
        "precision": one.precision,
        "task": json.dumps(workload.task.describe()),
        "preprocessing": json.dumps(preprocessing),
        "parent_sha256": one.rung.digest,
    }
    if workload.classes is not None:
        values["classes"] = json.dumps(workload.classes, ensure_ascii=False)
    return values


def _write_preprocessing(job: Job, planned: Sequence[Planned]) -> None:
    """The same beside the files, for those who can't look into them."""
    workload = job.workload
    example = workload.example(1)
    shape = list(example.shape[1:])
    channels_last = [*shape[1:], shape[0]] if len(shape) == 3 else shape
    inputs = {
        "onnx": {"shape": ["batch", *shape], "layout": "NCHW" if len(shape) == 3 else "as is"},
        "litert": {"shape": [1, *channels_last], "layout": "NHWC" if len(shape) == 3 else "as is"},
    }
    content = {
        "workload": workload.name,
        "task": workload.task.describe(),
        "classes": workload.classes,
        "preprocessing": workload.preprocessing.to_dict(),
        "formula": "x = (raw * scale - mean) / std, then resized (bilinear, half-pixel centres) to size",
        "inputs": {format: inputs[format] for format in dict.fromkeys(one.format for one in planned)},
        "files": [Path(one.file).name for one in planned],
    }
    write_json(job.run.artifacts / f"{workload.name}.preprocessing.json", content)


def _key(job: Job, one: Planned, rungs: Sequence[Rung]) -> str:
    return sha256_of(
        {
            "format": one.format,
            "precision": one.precision,
            "options": one.options.describe(),
            "model": one.rung.digest,
            "of": one.rung.key,
            "metadata": metadata(job, one, rungs),
            "code": code_version("export"),
        }
    )


def _is_there(job: Job, manifest: Manifest, one: Planned, key: str) -> bool:
    entry = manifest.entries.get(one.file)
    if entry is None or entry["key"] != key:
        return False
    try:
        check_files(job.run.path, {one.file: entry["sha256"]})
    except Damaged as damage:
        job.tell("warning", "export", f"{damage}; exported anew")
        return False
    return True
