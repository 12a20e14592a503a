"""The original and the recommended file on inputs that were corrupted: in parts, so that many large samples
take no more memory than few.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from edgekit.batching import fitting as within
from edgekit.bench.evaluating import answering
from edgekit.bench.session import Candidate
from edgekit.devices.asking import resolve_threads
from edgekit.diagnosis.adversarial import EPSILONS, Channels, NoGradient, fgsm_signs, moved
from edgekit.diagnosis.corruptible import Corruptible, mask_of, unmasked
from edgekit.diagnosis.corruptions import SEVERITIES, corrupted_parts, span_of
from edgekit.diagnosis.record import Attacked, Corrupted
from edgekit.drawing import shuffled
from edgekit.execution import spans
from edgekit.formats import FORMATS
from edgekit.pipeline.artifacts import Manifest, Planned
from edgekit.pipeline.evaluation import backend_for, batch_for, device_for
from edgekit.pipeline.job import Job
from edgekit.tasks import Outputs
from edgekit.tensors import NamedTensors, Tensors, cat, from_numpy, shaped, shapes, to_numpy
from edgekit.workload.preprocessing import NamedPreprocessing, Preprocessing

__all__ = ["Probing"]

_PART_BYTES = 32 << 20  # of samples, as the model takes them, that are corrupted at once
_ANSWER_BYTES = 256 << 20  # of one file's answers to all of them


@dataclass(frozen=True)
class _Scores:
    """Of the original and of the probed file; ``outputs``: of each of several."""

    before: float
    after: float
    outputs: dict[str, tuple[float, float]] = field(default_factory=dict)


class Probing:
    """Probes of one run. ``both``: the original's file and the probed one. ``missing``: what wasn't asked."""

    def __init__(self, job: Job, original: nn.Module, both: Sequence[Planned]) -> None:
        self.job, self.original, self.both = job, original, both
        self.workload, self.settings = job.workload, job.recipe.diagnose
        self.missing: list[str] = []
        self.rows = self._rows()
        sample = self.workload.whole(1)
        self.spans = spans(len(self.rows), max(2, _PART_BYTES // max(1, sample.nbytes)))

    def run(self, manifest: Manifest) -> dict[str, Any]:
        """The fields of a Diagnosis that come from probes. Raises MeasurementError."""
        with ExitStack() as stack:
            self.answers = [stack.enter_context(self._answering(one, manifest)) for one in self.both]
            clean = self._scores(self._raw(), "untouched")
            self.corruptible = Corruptible.of(self._raw(), self.workload.preprocessing)
            return {
                "probe_samples": len(self.rows),
                "clean_before": clean.before,
                "clean_after": clean.after,
                "clean_outputs": clean.outputs,
                "corrupted": tuple(self._corrupted()),
                "attacked": tuple(self._attacked()),
            }

    def _rows(self) -> Tensor:
        """Which samples: all, or some drawn with the recipe's seed; fewer where each has a large answer."""
        count = len(self.workload.validation)
        answer = self.both[0].rung.answers(self.job)[:1].nbytes
        wanted = within(answer, min(count, self.settings.samples), _ANSWER_BYTES)
        return shuffled(count, self.job.recipe.seed)[:wanted].sort().values

    def _answering(self, one: Planned, manifest: Manifest) -> Any:
        device = device_for(self.job, one)
        candidate = Candidate(
            manifest.path_of(one.file),
            FORMATS[one.format].runtime,
            resolve_threads("all", device),
            backend=backend_for(self.job, one),
        )
        shape = shapes(one.expected(one.rung.answers(self.job)))
        batch = batch_for(self.job, one)
        return answering(
            candidate,
            device,
            batch=batch,
            output_shape=shape,
            streaming=self.workload.streaming,
            progress=self.job.progress,
        )

    def _raw(self) -> Iterator[Tensors]:
        inputs = self.workload.validation.inputs
        for start, end in self.spans:
            yield inputs[self.rows[start:end]]

    def _arrays(self, name: str) -> Iterator[np.ndarray[Any, Any]]:
        for part in self._raw():
            yield (part[name] if isinstance(part, NamedTensors) else part).numpy()

    def _preprocessing(self, name: str) -> Preprocessing:
        own = self.workload.preprocessing
        return own.inputs[name] if isinstance(own, NamedPreprocessing) else own

    def _corrupted(self) -> Iterator[Corrupted]:
        if not self.settings.corruptions:
            return
        found, seed = self.corruptible, self.job.recipe.seed
        if unknown := found.unknown:
            of = f" of {', '.join(unknown)}" if any(unknown) else ""
            self.missing.append(f"corruptions{of}: none are known for inputs of this kind")
        self._tell_left("corruptions")
        asked = [(i, name, s) for i, names in found.corrupted.items() for name in names for s in SEVERITIES]
        spans_of = {name: span_of(self._arrays(name)) for name in found.corrupted}
        for index, (name, corruption, severity) in enumerate(asked):
            corrupted = corrupted_parts(
                self._arrays(name),
                self._preprocessing(name).layout,
                corruption,
                severity,
                seed=seed,
                span=spans_of[name],
            )
            what = f"{corruption}{f' of {name}' if name else ''}, severity {severity}"
            scores = self._scores(self._with(name, corrupted), what, index, len(asked))
            yield Corrupted(corruption, severity, scores.before, scores.after, name, scores.outputs)

    def _with(self, name: str, corrupted: Iterable[np.ndarray[Any, Any]]) -> Iterator[Tensors]:
        """Raw samples with one of their inputs corrupted, the others as they are."""
        for part, array in zip(self._raw(), corrupted, strict=True):
            changed = torch.from_numpy(array)
            if not isinstance(part, NamedTensors):
                yield changed
                continue
            mask = mask_of(part, name, self.corruptible.left)
            whole = changed if mask is None else unmasked(part[name], changed, mask)
            yield part.replaced(name, whole)

    def _tell_left(self, probe: str) -> None:
        told = [f"{name} ({why})" for name, why in self.corruptible.left.items()]
        if told:
            self.missing.append(f"{probe}: left as they are: {', '.join(told)}")

    def _attacked(self) -> Iterator[Attacked]:
        """Moved in the space of the model's inputs: files that take pixels can't be asked."""
        if not self.settings.adversarial:
            return
        found = self.corruptible
        ids = [name for name in (*found.corrupted, *found.unknown) if name not in found.moved]
        if ids:
            of = f" of {', '.join(ids)}" if any(ids) else ""
            self.missing.append(f"adversarial probe{of}: token ids can't be moved a little")
        self._tell_left("adversarial probe")
        if any(one.options.preprocessing is not None for one in self.both):
            self.missing.append("adversarial probe: files that preprocess by themselves take whole bytes")
            return
        for name in found.moved:
            try:
                yield from self._attacked_at(name)
            except NoGradient as why:
                end = f"input {name}" if name else "model's inputs"
                self.missing.append(f"adversarial probe: no gradient arrives at the {end} ({why})")

    def _attacked_at(self, name: str) -> list[Attacked]:
        """One input moved, the others as they are. Raises NoGradient."""
        preprocessing, task = self._preprocessing(name), self.workload.task
        black, white = span_of(self._arrays(name))
        prepared = (preprocessing(torch.from_numpy(array)) for array in self._arrays(name))
        occurring = Channels.of(prepared, preprocessing.layout)
        told: dict[float, list[list[Tensors]]] = {epsilon: [] for epsilon in EPSILONS}
        what = f"adversarial, {name}" if name else "adversarial"
        for (start, end), raw in zip(self.spans, self._raw(), strict=True):
            self.job.tell("step", "diagnose", what, done=start, total=len(self.rows))
            inputs: Tensors = self.workload.preprocessing(raw)
            targets = self.workload.validation.targets[self.rows[start:end]]
            signs = fgsm_signs(self.original, task, inputs, targets, name)
            for epsilon in EPSILONS:
                own = inputs[name] if isinstance(inputs, NamedTensors) else inputs
                changed = moved(own, signs, epsilon, float(white - black), preprocessing, occurring)
                given = inputs.replaced(name, changed) if isinstance(inputs, NamedTensors) else changed
                told[epsilon].append(self._answered(given, given))
        scored = {epsilon: self._scored(parts) for epsilon, parts in told.items()}
        return [Attacked(e, one.before, one.after, name, one.outputs) for e, one in scored.items()]

    def _scores(self, parts: Iterable[Tensors], what: str, index: int = 0, total: int = 0) -> _Scores:
        """Of both files on raw samples that come in parts. ``index`` of ``total``: of what is asked."""
        told = []
        for part in parts:
            self.job.tell("step", "diagnose", what, done=index, total=total)
            told.append(self._answered(part, self.workload.preprocessing(part)))
        return self._scored(told)

    def _answered(self, raw: Tensors, inputs: Tensors) -> list[Tensors]:
        """What each file says to a part: pixels go to those that take them."""
        path = self.job.run.work / "probe.npy"
        found: dict[str, Tensors] = {}
        for answer, one in zip(self.answers, self.both, strict=True):
            if one.file in found:  # the original itself is what is recommended
                continue
            takes = inputs
            if one.options.preprocessing is not None:
                assert isinstance(raw, Tensor)  # pixels: ``embed.refuse``
                takes = raw if self.workload.preprocessing.layout == "NHWC" else raw.movedim(1, -1)
            np.save(path, to_numpy(takes.contiguous()))
            outputs = from_numpy(np.ascontiguousarray(answer(path))).float()
            found[one.file] = shaped(outputs, shapes(one.expected(one.rung.answers(self.job))))
        path.unlink()
        return [found[one.file] for one in self.both]

    def _scored(self, told: Sequence[Sequence[Tensors]]) -> _Scores:
        targets, task = self.workload.validation.targets[self.rows], self.workload.task
        before, after = (cat(list(each)) for each in zip(*told, strict=True))
        if not isinstance(task, Outputs):
            return _Scores(task.score(before, targets), task.score(after, targets))
        one, other = task.scores(before, targets), task.scores(after, targets)
        outputs = {name: (one[name], other[name]) for name in one}
        return _Scores(min(one.values()), min(other.values()), outputs)
