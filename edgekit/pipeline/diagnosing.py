"""What compression broke: every file's answers against the original's, and the recommended file's on inputs
that were corrupted.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from edgekit.batching import fitting
from edgekit.diagnosis.judged import Judged, judge
from edgekit.diagnosis.layers import layers_of
from edgekit.diagnosis.marked import marked_of, most_changed
from edgekit.diagnosis.record import Diagnosis, LayerRow, Marked, Seen
from edgekit.diagnosis.seen import seen_of
from edgekit.errors import MeasurementError, WorkloadError
from edgekit.files import sha256_of
from edgekit.pipeline.artifacts import REFERENCE, Manifest, Planned
from edgekit.pipeline.chain import Rung
from edgekit.pipeline.evaluation import answers_of
from edgekit.pipeline.job import Job
from edgekit.pipeline.probing import Probing
from edgekit.runs.folder import write_record
from edgekit.runs.keys import code_version
from edgekit.stages.base import Form
from edgekit.tasks.curves import Curves
from edgekit.tensors import Targets, Tensors
from edgekit.training.computing.memory import give_back
from edgekit.units import human_share
from edgekit.workload import Workload

__all__ = ["RECORD", "diagnose_all", "judged_file"]

RECORD = "diagnosis.json"
_LAYER_SAMPLES, _FEWEST_LAYER_SAMPLES = 256, 16
_MARKED = 6  # pictures, twice each in the page
_LAYER_BYTES = 64 << 20  # of samples that are there at once


def diagnose_all(job: Job, rungs: Sequence[Rung], manifest: Manifest, probed: str) -> Diagnosis:
    """Judge all files by their answers, and probe ``probed`` (an ``Artifact.file``) beside the original.

    A probe that fails is missing from the diagnosis, and says why; nothing else fails.

    Raises DiskFullError: the record can't be written.
    """
    settings = job.recipe.diagnose
    key = sha256_of(
        {
            "answers": {one.file: _kept(manifest, one) for one in manifest.planned},
            "probed": probed,
            "files": [manifest.entries[file]["sha256"] for file in (REFERENCE, probed)],
            "workload": job.fingerprint,
            "groups": job.workload.groups,
            "settings": settings.model_dump(mode="json"),
            "code": code_version("diagnosis"),
        }
    )
    path = job.run.path / RECORD
    if (record := job.finished(path, key, "diagnose", _read)) is not None:
        job.tell("stage-skipped", "diagnose", f"{len(manifest.planned)} files")
        return _read(record)
    job.tell("stage-start", "diagnose", "what compression broke")
    found = _Diagnosing(job, rungs, manifest, probed).run()
    write_record(path, key, {"diagnosis": found.to_json()})
    for text in _corrupted_text(found):
        job.tell("note", "diagnose", text)
    job.tell("stage-end", "diagnose", _summary(found))
    return found


def _read(record: dict[str, Any]) -> Diagnosis:
    return Diagnosis.from_json(record["diagnosis"])


def judged_file(job: Job, original: dict[str, Any], file: dict[str, Any]) -> Judged:
    """A file against the original's, by the answers that their evaluations kept."""
    before, after = answers_of(job, original), answers_of(job, file)
    assert before is not None
    assert after is not None
    return _most_changed(job.workload, job.workload.validation.targets, before, after)


def _most_changed(workload: Workload, targets: Targets, before: Tensors, after: Tensors) -> Judged:
    """Of several outputs the one whose answers agree least."""
    parts = {part.task.agreement(part.of(after), part.of(before)): part for part in workload.task.parts()}
    part = parts[min(parts)]
    judged = judge(part.task, part.target(targets), part.of(before), part.of(after), workload.groups)
    return dataclasses.replace(judged, output=part.name)


def _kept(manifest: Manifest, one: Planned) -> Any:
    return manifest.entries[one.file]["evaluation"]["answers"]


class _Diagnosing:
    def __init__(self, job: Job, rungs: Sequence[Rung], manifest: Manifest, probed: str) -> None:
        self.job, self.rungs, self.manifest, self.probed = job, rungs, manifest, probed
        self.workload, self.settings = job.workload, job.recipe.diagnose
        self.missing: list[str] = []

    def run(self) -> Diagnosis:
        started = time.monotonic()
        give_back()
        files = self._judged()
        probes = self._probes()
        flips = files[self.probed].flips if self.probed in files else ()
        return Diagnosis(
            reference=REFERENCE,
            files=files,
            class_names=self.workload.classes,
            probed=self.probed,
            seen=self._seen([flip.row for flip in flips]),
            marked=self._marked(files),
            curves=self._curves(files),
            layers=self._layers(),
            missing=tuple(self.missing),
            seconds=time.monotonic() - started,
            **probes,
        )

    def _judged(self) -> dict[str, Judged]:
        entries = self.manifest.entries
        before = answers_of(self.job, entries[REFERENCE]["evaluation"])
        if before is None:
            self.missing.append("answers are too many to be kept, so that none are compared")
            return {}
        targets, found = self.workload.validation.targets, {}
        for one in self.manifest.planned:
            after = answers_of(self.job, entries[one.file]["evaluation"])
            if one.file != REFERENCE and after is not None:
                found[one.file] = _most_changed(self.workload, targets, before, after)
        return found

    def _seen(self, rows: Sequence[int]) -> tuple[Seen, ...]:
        try:
            return seen_of(self.workload, rows)
        except WorkloadError as error:  # after an hour of training, a sample without its text is still one
            self.missing.append(f"samples can't be shown: {error.what}")
            return ()

    def _marked(self, files: dict[str, Judged]) -> tuple[Marked, ...]:
        """Pictures whose score fell most in the probed file, or the first ones: what was found in them."""
        entries = self.manifest.entries
        told = [answers_of(self.job, entries[name]["evaluation"]) for name in (REFERENCE, self.probed)]
        if self.probed not in files or any(one is None for one in told):
            return ()
        scores = files[self.probed].scores
        before, after = told
        assert before is not None
        assert after is not None
        if scores is not None:
            fell = [one.row for one in scores.worse]
        else:
            fell = most_changed(self.workload.task, before, after)
        rows = list(dict.fromkeys([*fell, *range(len(self.workload.validation))]))[:_MARKED]
        return marked_of(self.workload, rows, before, after)

    def _curves(self, files: dict[str, Judged]) -> tuple[Curves, Curves] | None:
        """Of the original and the probed file, on all validation samples."""
        entries = self.manifest.entries
        told = [answers_of(self.job, entries[name]["evaluation"]) for name in (REFERENCE, self.probed)]
        before, after = (
            None if one is None else self.workload.task.curves(one, self.workload.validation.targets)
            for one in told
        )
        return None if self.probed not in files or before is None or after is None else (before, after)

    def _layers(self) -> tuple[LayerRow, ...]:
        """Of the int8 graph; where there is none, of the model that the probed file was made from."""
        (rung,) = (one.rung for one in self.manifest.planned if one.file == self.probed)
        rung = next((one for one in reversed(self.rungs) if one.form is Form.INT8), rung)
        most = min(self.settings.samples, _LAYER_SAMPLES)
        samples = fitting(self.workload.example(1).nbytes, most, _LAYER_BYTES, fewest=_FEWEST_LAYER_SAMPLES)

        def tell(done: int, total: int) -> None:
            self.job.tell("step", "diagnose", "noise of the layers", done=done, total=total)

        example = self.workload.example(max(1, samples))
        return layers_of(rung.model, example, noise=samples > 0, tell=tell)

    def _probes(self) -> dict[str, Any]:
        """The fields of a Diagnosis that come from probes; none where they can't be run, or aren't wanted."""
        if not self.settings.samples or not (self.settings.corruptions or self.settings.adversarial):
            return {}
        planned = {one.file: one for one in self.manifest.planned}
        probing = Probing(self.job, self.rungs[0].model, [planned[REFERENCE], planned[self.probed]])
        try:
            found = probing.run(self.manifest)
        except MeasurementError as error:
            self.missing.append(f"robustness: {error}")
            return {}
        self.missing += probing.missing
        return found


def _corrupted_text(found: Diagnosis) -> Iterator[str]:
    """Of several inputs each one, and of several outputs: means over all that was done to it."""
    probes = (("corrupted", found.corrupted), ("under attack", found.attacked))
    for what, rows in probes:
        for name in dict.fromkeys(one.input for one in rows if one.input):
            own = [one for one in rows if one.input == name]
            told = [("score", [(one.before, one.after) for one in own])]
            told += [(output, [one.outputs[output] for one in own]) for output in own[0].outputs]
            means = []
            for output, pairs in told:
                before, after = (
                    human_share(sum(pair[side] for pair in pairs) / len(pairs)) for side in (0, 1)
                )
                means.append(f"{output} {before} → {after}")
            yield f"{name} {what}: {', '.join(means)}"


def _summary(found: Diagnosis) -> str:
    judged = found.files.get(found.probed)
    if judged is None or judged.churn is None:
        return f"{len(found.files)} files"
    changed = judged.churn.changed.value or 0.0
    text = f"{human_share(changed)} of the answers of {Path(found.probed).name} changed"
    return f"{text}, {judged.churn.broken} for worse, {judged.churn.repaired} for better"
