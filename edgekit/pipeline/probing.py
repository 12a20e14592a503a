"""The original and the recommended file on inputs that were corrupted: in parts, so that many large samples
take no more memory than few.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from edgekit.batching import fitting as within
from edgekit.bench.evaluating import answering
from edgekit.bench.session import Candidate
from edgekit.devices.asking import resolve_threads
from edgekit.diagnosis.adversarial import EPSILONS, Channels, NoGradient, fgsm_signs, moved
from edgekit.diagnosis.corruptions import SEVERITIES, corrupted_parts, fitting, span_of
from edgekit.diagnosis.record import Attacked, Corrupted
from edgekit.drawing import shuffled
from edgekit.execution import spans
from edgekit.formats import FORMATS
from edgekit.pipeline.artifacts import Manifest, Planned
from edgekit.pipeline.evaluation import backend_for, batch_for, device_for
from edgekit.pipeline.job import Job
from edgekit.tensors import Tensors, cat, from_numpy, shaped, shapes

__all__ = ["Probing"]

_PART_BYTES = 32 << 20  # of samples, as the model takes them, that are corrupted at once
_ANSWER_BYTES = 256 << 20  # of one file's answers to all of them


class Probing:
    """Probes of one run. ``both``: the original's file and the probed one. ``missing``: what wasn't asked."""

    def __init__(self, job: Job, original: nn.Module, both: Sequence[Planned]) -> None:
        self.job, self.original, self.both = job, original, both
        self.workload, self.settings = job.workload, job.recipe.diagnose
        self.missing: list[str] = []
        self.rows = self._rows()
        sample = self.workload.example(1)
        self.spans = spans(len(self.rows), max(2, _PART_BYTES // max(1, sample.nbytes)))

    def run(self, manifest: Manifest) -> dict[str, Any]:
        """The fields of a Diagnosis that come from probes. Raises MeasurementError."""
        with ExitStack() as stack:
            self.answers = [stack.enter_context(self._answering(one, manifest)) for one in self.both]
            clean = self._scores(self._raw(), "untouched")
            return {
                "probe_samples": len(self.rows),
                "clean_before": clean[0],
                "clean_after": clean[1],
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
        shape = shapes(one.rung.answers(self.job))
        batch = batch_for(self.job, one)
        return answering(candidate, device, batch=batch, output_shape=shape, progress=self.job.progress)

    def _raw(self) -> Iterator[Tensor]:
        inputs = self.workload.validation.inputs
        assert isinstance(inputs, Tensor)  # several aren't probed
        for start, end in self.spans:
            yield inputs[self.rows[start:end]]

    def _arrays(self) -> Iterator[np.ndarray[Any, Any]]:
        for part in self._raw():
            yield part.numpy()

    def _corrupted(self) -> Iterator[Corrupted]:
        if not self.settings.corruptions:
            return
        layout, seed = self.workload.preprocessing.layout, self.job.recipe.seed
        names = list(fitting(next(self._arrays()), layout))
        if not names:
            self.missing.append("corruptions: none are known for inputs of this kind")
            return
        span = span_of(self._arrays())
        total = len(names) * len(SEVERITIES)
        for index, (name, severity) in enumerate((n, s) for n in names for s in SEVERITIES):
            corrupted = corrupted_parts(self._arrays(), layout, name, severity, seed=seed, span=span)
            what = f"{name}, severity {severity}"
            scores = self._scores(map(torch.from_numpy, corrupted), what, index, total)
            yield Corrupted(name, severity, *scores)

    def _attacked(self) -> Iterator[Attacked]:
        """Moved in the space of the model's inputs: files that take pixels can't be asked."""
        preprocessing, task = self.workload.preprocessing, self.workload.task
        if not self.settings.adversarial:
            return
        if preprocessing.dtype != "float32":
            self.missing.append("adversarial probe: token ids can't be moved a little")
            return
        if any(one.options.preprocessing is not None for one in self.both):
            self.missing.append("adversarial probe: files that preprocess by themselves take whole bytes")
            return
        black, white = span_of(self._arrays())
        occurring = Channels.of(map(preprocessing, self._raw()), preprocessing.layout)
        told: dict[float, list[list[Tensors]]] = {epsilon: [] for epsilon in EPSILONS}
        for (start, end), raw in zip(self.spans, self._raw(), strict=True):
            self.job.tell("step", "diagnose", "adversarial", done=start, total=len(self.rows))
            inputs = preprocessing(raw)
            targets = self.workload.validation.targets[self.rows[start:end]]
            try:
                signs = fgsm_signs(self.original, task, inputs, targets)
            except NoGradient as why:
                self.missing.append(f"adversarial probe: no gradient arrives at the model's inputs ({why})")
                return
            for epsilon in EPSILONS:
                changed = moved(inputs, signs, epsilon, float(white - black), preprocessing, occurring)
                told[epsilon].append(self._answered(changed, changed))
        for epsilon, parts in told.items():
            yield Attacked(epsilon, *self._scored(parts))

    def _scores(self, parts: Iterable[Tensor], what: str, index: int = 0, total: int = 0) -> list[float]:
        """Of both files on raw samples that come in parts. ``index`` of ``total``: of what is asked."""
        told = []
        for part in parts:
            self.job.tell("step", "diagnose", what, done=index, total=total)
            told.append(self._answered(part, self.workload.preprocessing(part)))
        return self._scored(told)

    def _answered(self, raw: Tensor, inputs: Tensor) -> list[Tensors]:
        """What each file says to a part: pixels go to those that take them."""
        path = self.job.run.work / "probe.npy"
        found: dict[str, Tensors] = {}
        for answer, one in zip(self.answers, self.both, strict=True):
            if one.file in found:  # the original itself is what is recommended
                continue
            pixels = raw if self.workload.preprocessing.layout == "NHWC" else raw.movedim(1, -1)
            takes = inputs if one.options.preprocessing is None else pixels
            np.save(path, takes.contiguous().numpy())
            outputs = from_numpy(np.ascontiguousarray(answer(path))).float()
            found[one.file] = shaped(outputs, shapes(one.rung.answers(self.job)))
        path.unlink()
        return [found[one.file] for one in self.both]

    def _scored(self, told: Sequence[Sequence[Tensors]]) -> list[float]:
        targets = self.workload.validation.targets[self.rows]
        return [self.workload.task.score(cat(list(each)), targets) for each in zip(*told, strict=True)]
