"""The exported files, and ``manifest.json``: what each of them is, comes from, and can do."""

from __future__ import annotations

import json
import time
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

from edgekit import __version__
from edgekit.errors import CaptureError, EdgekitError, ExportError
from edgekit.files import disk_full, sha256, sha256_of, write_json
from edgekit.formats import FORMATS
from edgekit.formats.exporting import export
from edgekit.formats.onnx.ends import put_whole
from edgekit.pipeline.chain import Rung
from edgekit.pipeline.job import Job
from edgekit.pipeline.planning import REFERENCE, Planned, plan
from edgekit.runs.folder import Damaged, check_files, write_record
from edgekit.runs.keys import code_version
from edgekit.runs.manifest import MANIFEST, read_manifest
from edgekit.tensors import shapes

__all__ = ["REFERENCE", "Manifest", "Planned", "export_all", "metadata", "write_early", "write_missing"]


class Manifest:
    """The record of all artifacts, written anew whenever something about one of them is known.

    An entry: file, format, precision, options, sha256, size_bytes, key (of what it was exported from),
    parent, seconds, and evaluation (with a key of its own) once there is one. ``edgekit export`` marks what
    it wrote as added. ``card``: the model card, once a run is finished (report/card.py).

    Args:
        job: the run.
        planned: what the entries are about. Others are dropped, with their files.
        keep: sha256 of models whose added files stay; None keeps all entries.
    """

    def __init__(self, job: Job, planned: Sequence[Planned], keep: Collection[str] | None = ()) -> None:
        self.job, self.path = job, job.run.path / MANIFEST
        self.planned = planned
        self.entries: dict[str, dict[str, Any]] = {}
        self.card: dict[str, Any] | None = None
        try:
            record = read_manifest(job.run.path) or {"artifacts": []}
        except Damaged as damage:
            job.tell("warning", "export", f"{damage}; the files are exported anew")
            record = {"artifacts": []}
        self.card = record.get("card")
        wanted = {one.file for one in planned}
        for entry in record["artifacts"]:
            added = entry.get("added") and (keep is None or entry["parent"]["model_sha256"] in keep)
            if entry["file"] in wanted or added or keep is None:
                self.entries[entry["file"]] = entry
            else:  # exported for other settings of the recipe
                kept = (entry["evaluation"] or {}).get("answers") or {}
                for name in (entry["file"], *([kept["file"]] if kept else [])):
                    (job.run.path / name).unlink(missing_ok=True)

    def set(self, file: str, entry: dict[str, Any]) -> None:
        """Add or replace an entry, and write the manifest."""
        self.entries[file] = entry
        self._write()

    def leave_out(self, one: Planned, part: str, error: EdgekitError) -> None:
        """Go on without a file that nobody asked for, and say why. Raises ``error`` for any other."""
        if not one.beside:
            raise error
        self.job.tell("note", part, f"{Path(one.file).name} is left out: {error}")
        self.planned = [each for each in self.planned if each is not one]
        self.entries.pop(one.file, None)
        self.path_of(one.file).unlink(missing_ok=True)
        self._write()

    def describe(self, card: dict[str, Any]) -> None:
        """Put the model card in, and write the manifest; nothing if it is there."""
        if card != self.card:
            self.card = card
            self._write()

    def _write(self) -> None:
        first = [one.file for one in self.planned if one.file in self.entries]
        names = list(dict.fromkeys([*first, *self.entries]))
        content: dict[str, Any] = {
            "schema": 1,
            "workload": self.job.workload.name,
            "recipe": self.job.recipe.name,
            "artifacts": [self.entries[name] for name in names],
        }
        if self.card is not None:
            content["card"] = self.card
        files = {name: self.entries[name]["sha256"] for name in names}
        write_record(self.path, self.job.fingerprint, content, files)

    def path_of(self, file: str) -> Path:
        """Where a file is."""
        return self.job.run.path / file


def export_all(job: Job, rungs: Sequence[Rung]) -> Manifest:
    """Export what isn't there yet.

    Raises:
        ExportError, CaptureError: a converter failed.
        DiskFullError: a file can't be written.
    """
    planned = plan(job, rungs)
    manifest = Manifest(job, planned, {rung.digest for rung in rungs})
    return write_missing(job, manifest, rungs)


def write_missing(job: Job, manifest: Manifest, rungs: Sequence[Rung]) -> Manifest:
    """Export what is planned and not there yet; raises as ``export_all``."""
    planned = manifest.planned
    job.run.artifacts.mkdir(exist_ok=True)
    keys = {one.file: _key(job, one, rungs) for one in planned}
    missing = [one for one in planned if not _is_there(job, manifest, one, keys[one.file])]
    _write_preprocessing(job, manifest)
    if not missing:
        job.tell("stage-skipped", "export", f"{len(planned)} files")
        return manifest
    job.tell("stage-start", "export", total=len(missing))
    for index, one in enumerate(missing):
        job.tell("step", "export", Path(one.file).name, done=index, total=len(missing))
        try:
            manifest.set(one.file, _export(job, manifest, one, rungs, keys[one.file]))
        except (CaptureError, ExportError) as error:
            manifest.leave_out(one, "export", error)
    written = [Path(one.file).name for one in missing if one.file in manifest.entries]
    job.tell("stage-end", "export", ", ".join(written) or "no files")
    return manifest


def write_early(job: Job, planned: Planned) -> None:
    """Export a file of the original before anything else, if it isn't there; raises as ``export_all``."""
    manifest, rungs = Manifest(job, [planned], keep=None), [planned.rung]
    job.run.artifacts.mkdir(exist_ok=True)
    key = _key(job, planned, rungs)
    if not _is_there(job, manifest, planned, key):
        manifest.set(planned.file, _export(job, manifest, planned, rungs, key))


def _export(job: Job, manifest: Manifest, one: Planned, rungs: Sequence[Rung], key: str) -> dict[str, Any]:
    path = manifest.path_of(one.file)
    started = time.monotonic()
    try:
        if one.copied is not None:
            put_whole(one.copied, path)
        else:
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


def _write_preprocessing(job: Job, manifest: Manifest) -> None:
    """The same beside the files, for those who can't look into them."""
    workload = job.workload
    files = {one.file: (one.format, one.options.preprocessing is not None) for one in manifest.planned}
    for entry in manifest.entries.values():
        embedded = (entry.get("options") or {}).get("preprocessing") is not None
        files.setdefault(entry["file"], (entry["format"], embedded))
    content = {
        "workload": workload.name,
        "task": workload.task.describe(),
        "classes": workload.classes,
        "preprocessing": workload.preprocessing.to_dict(),
        "formula": "x = (raw * scale - mean) / std, then resized (bilinear, half-pixel centres) to size",
        "inputs": _inputs(job, [one for one in files.values() if not one[1]]),
        "files": [Path(name).name for name, (_, embedded) in files.items() if not embedded],
    }
    if pixels := [Path(name).name for name, (_, embedded) in files.items() if embedded]:
        content["files_that_take_raw_pixels"] = pixels  # uint8, NHWC, of the raw size: nothing to preprocess
    write_json(job.run.artifacts / f"{workload.name}.preprocessing.json", content)


def _inputs(job: Job, files: Sequence[tuple[str, bool]]) -> dict[str, Any]:
    """Format → shape and layout of preprocessed inputs."""
    formats = dict.fromkeys(format for format, _ in files)
    sizes = shapes(job.workload.example(1))
    if isinstance(sizes, dict):
        return {
            format: {name: FORMATS[format].input_of(list(size)) for name, size in sizes.items()}
            for format in formats
        }
    return {format: FORMATS[format].input_of(list(sizes)) for format in formats}


def _key(job: Job, one: Planned, rungs: Sequence[Rung]) -> str:
    return sha256_of(
        {
            "format": one.format,
            "precision": one.precision,
            "options": one.options.describe(),
            "model": one.rung.digest,
            "of": one.rung.key,
            "metadata": metadata(job, one, rungs),
            "code": code_version(f"export {one.format}"),
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
