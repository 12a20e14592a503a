"""What compression broke: every file's answers against the original's, and the recommended file's on inputs
that were spoiled.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from edgekit.bench.evaluating import Answering, answering
from edgekit.bench.session import Candidate
from edgekit.devices.device import resolve_threads
from edgekit.diagnosis.adversarial import EPSILONS, fgsm_signs, moved
from edgekit.diagnosis.corruptions import SEVERITIES, corrupt, fitting, value_range
from edgekit.diagnosis.judged import Judged, judge
from edgekit.diagnosis.layers import layers_of
from edgekit.diagnosis.record import Attacked, Corrupted, Diagnosis, LayerRow, Seen
from edgekit.diagnosis.seen import seen_of
from edgekit.errors import MeasurementError, WorkloadError
from edgekit.files import sha256_of
from edgekit.pipeline.artifacts import REFERENCE, Manifest, Planned
from edgekit.pipeline.chain import Rung
from edgekit.pipeline.evaluation import BATCH, answers_of, backend_for, device_for
from edgekit.pipeline.job import Job
from edgekit.pipeline.keys import code_version
from edgekit.report.summary import RUNTIME
from edgekit.run import write_record
from edgekit.stages.base import Form
from edgekit.units import human_share

__all__ = ["RECORD", "diagnose_all"]

RECORD = "diagnosis.json"
_LAYER_SAMPLES = 256


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
            "code": [code_version("diagnosis"), code_version("bench")],
        }
    )
    path = job.run.path / RECORD
    if (record := job.finished(path, key, "diagnose")) is not None:
        job.tell("stage-skipped", "diagnose", f"{len(manifest.planned)} files")
        return Diagnosis.from_json(record["diagnosis"])
    job.tell("stage-start", "diagnose", "what compression broke")
    found = _Diagnosing(job, rungs, manifest, probed).run()
    write_record(path, key, {"diagnosis": found.to_json()})
    job.tell("stage-end", "diagnose", _summary(found))
    return found


def _kept(manifest: Manifest, one: Planned) -> Any:
    return manifest.entries[one.file]["evaluation"]["answers"]


class _Diagnosing:
    def __init__(self, job: Job, rungs: Sequence[Rung], manifest: Manifest, probed: str) -> None:
        self.job, self.rungs, self.manifest, self.probed = job, rungs, manifest, probed
        self.workload, self.settings = job.workload, job.recipe.diagnose
        self.missing: list[str] = []

    def run(self) -> Diagnosis:
        started = time.monotonic()
        files = self._judged()
        probes = self._probes()
        flips = files[self.probed].flips if self.probed in files else ()
        return Diagnosis(
            reference=REFERENCE,
            files=files,
            class_names=self.workload.classes,
            probed=self.probed,
            seen=self._seen([flip.row for flip in flips]),
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
                found[one.file] = judge(self.workload.task, targets, before, after, self.workload.groups)
        return found

    def _seen(self, rows: Sequence[int]) -> tuple[Seen, ...]:
        try:
            return seen_of(self.workload, rows)
        except WorkloadError as error:  # after an hour of training, a sample without its text is still one
            self.missing.append(f"samples can't be shown: {error.what}")
            return ()

    def _layers(self) -> tuple[LayerRow, ...]:
        """Of the int8 graph; where there is none, of the model that the probed file was made from."""
        (rung,) = (one.rung for one in self.manifest.planned if one.file == self.probed)
        rung = next((one for one in reversed(self.rungs) if one.form is Form.INT8), rung)
        return layers_of(rung.model, self.workload.example(_LAYER_SAMPLES))

    # --- spoiled inputs ----------------------------------------------------------------------------------

    def _probes(self) -> dict[str, Any]:
        """The fields of a Diagnosis that come from probes; none where they can't be run, or aren't wanted."""
        rows = self._rows()
        if not len(rows) or not (self.settings.corruptions or self.settings.adversarial):
            return {}
        raw = self.workload.validation.inputs[rows]
        planned = {one.file: one for one in self.manifest.planned}
        both = [planned[REFERENCE], planned[self.probed]]
        try:
            with ExitStack() as stack:
                answers = [stack.enter_context(self._answering(one)) for one in both]
                clean = self._scores(answers, both, raw, rows)
                found: dict[str, Any] = {
                    "probe_samples": len(rows),
                    "clean_before": clean[0],
                    "clean_after": clean[1],
                    "corrupted": tuple(self._corrupted(answers, both, raw, rows)),
                    "attacked": tuple(self._attacked(answers, both, raw, rows)),
                }
        except MeasurementError as error:
            self.missing.append(f"robustness: {error}")
            return {}
        return found

    def _rows(self) -> Tensor:
        """Which samples: all, or some drawn with the recipe's seed."""
        count = len(self.workload.validation)
        wanted = min(count, self.settings.samples)
        order = torch.randperm(count, generator=torch.Generator().manual_seed(self.job.recipe.seed))
        return order[:wanted].sort().values

    def _answering(self, one: Planned) -> Any:
        device = device_for(self.job, one)
        threads = resolve_threads("all", device)
        backend = backend_for(self.job, one)
        path = self.manifest.path_of(one.file)
        candidate = Candidate(path, RUNTIME[one.format], threads, backend=backend)
        shape = tuple(one.rung.answers(self.job).shape[1:])
        return answering(candidate, device, batch=BATCH, output_shape=shape, progress=self.job.progress)

    def _corrupted(
        self, answers: list[Answering], both: list[Planned], raw: Tensor, rows: Tensor
    ) -> Iterator[Corrupted]:
        if not self.settings.corruptions:
            return
        samples, layout = raw.numpy(), self.workload.preprocessing.layout
        names = list(fitting(samples, layout))
        if not names:
            self.missing.append("corruptions: none are known for inputs of this kind")
        total = len(names) * len(SEVERITIES)
        for index, (name, severity) in enumerate((n, s) for n in names for s in SEVERITIES):
            self.job.tell("step", "diagnose", f"{name}, severity {severity}", done=index, total=total)
            spoiled = torch.from_numpy(corrupt(samples, layout, name, severity, seed=self.job.recipe.seed))
            before, after = self._scores(answers, both, spoiled, rows)
            yield Corrupted(name, severity, before, after)

    def _attacked(
        self, answers: list[Answering], both: list[Planned], raw: Tensor, rows: Tensor
    ) -> Iterator[Attacked]:
        """Moved in the space of the model's inputs: files that take pixels can't be asked."""
        preprocessing, task = self.workload.preprocessing, self.workload.task
        if not self.settings.adversarial:
            return
        if preprocessing.dtype != "float32":
            self.missing.append("adversarial probe: token ids can't be moved a little")
            return
        if any(one.options.preprocessing is not None for one in both):
            self.missing.append("adversarial probe: files that preprocess by themselves take whole bytes")
            return
        inputs = preprocessing(raw)
        targets = self.workload.validation.targets[rows]
        signs = fgsm_signs(self.rungs[0].model, task, inputs, targets)
        black, white = value_range(raw.numpy())
        for epsilon in EPSILONS:
            self.job.tell("step", "diagnose", f"adversarial, {epsilon * 255:.0f}/255")
            changed = moved(inputs, signs, epsilon, float(white - black), preprocessing)
            yield Attacked(epsilon, *self._scores(answers, both, changed, rows, prepared=True))

    def _scores(
        self,
        answers: list[Answering],
        both: list[Planned],
        samples: Tensor,
        rows: Tensor,
        *,
        prepared: bool = False,
    ) -> list[float]:
        """Of the original and the probed file on samples that are raw, or what the model takes."""
        targets = self.workload.validation.targets[rows]
        inputs = samples if prepared else self.workload.preprocessing(samples)
        path = self.job.run.work / "probe.npy"
        scores: dict[str, float] = {}
        for answer, one in zip(answers, both, strict=True):
            if one.file in scores:  # the original itself is what is recommended
                continue
            takes_pixels = one.options.preprocessing is not None
            pixels = samples if self.workload.preprocessing.layout == "NHWC" else samples.movedim(1, -1)
            np.save(path, (pixels if takes_pixels else inputs).contiguous().numpy())
            outputs = torch.from_numpy(np.ascontiguousarray(answer(path))).float()
            shape = (len(rows), *one.rung.answers(self.job).shape[1:])
            scores[one.file] = self.workload.task.score(outputs.reshape(shape), targets)
        path.unlink()
        return [scores[one.file] for one in both]


def _summary(found: Diagnosis) -> str:
    judged = found.files.get(found.probed)
    if judged is None or judged.churn is None:
        return f"{len(found.files)} files"
    changed = judged.churn.changed.value or 0.0
    text = f"{human_share(changed)} of the answers of {Path(found.probed).name} changed"
    return f"{text}, {judged.churn.broken} for worse, {judged.churn.repaired} for better"
