"""What can't work is known before anything is trained: every file of the recipe is written once beforehand.

The model is captured, and written in every format and precision that the recipe asks for. Where a qat stage
follows, that stage runs on a handful of samples without training, and int8 files are written from its graph.
Each file answers two samples in its runtime. All of it goes the way that the run itself goes later, with the
weights as they are; pruning only makes layers narrower, and it is asked whether they may become as narrow as
is wanted. Who refuses says so in the first minute, and nothing has been trained for it.

What is final already is kept: the original's fp32 ONNX file, to which all gains refer, and files of a float
model that no stage changes. The others are thrown away.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from edgekit.bench.evaluating import evaluate
from edgekit.config.settings import TrainingConfig
from edgekit.errors import EdgekitError, InputError, WorkloadError
from edgekit.execution import call, mode
from edgekit.files import disk_full, sha256_of
from edgekit.formats import FORMATS, INT8_GRAPH, Precision, pairs
from edgekit.formats.exporting import export
from edgekit.formats.options import ExportOptions
from edgekit.graph.capture import capture
from edgekit.int8.lower import lower
from edgekit.int8.precision import kept_float
from edgekit.pipeline import artifacts, chain, evaluation, ladder, microcontroller, planning
from edgekit.pipeline.foreseen import warn_of_memory
from edgekit.pipeline.job import Job
from edgekit.progress import silent
from edgekit.runs.folder import write_record
from edgekit.runs.keys import code_version
from edgekit.runtimes.device.runtime_onnxruntime import UNFUSED
from edgekit.scratch import scratch
from edgekit.shortage import shortage
from edgekit.stages import STAGES, students
from edgekit.stages.base import Form, StageConfig, StageContext
from edgekit.stages.distill import DistillConfig
from edgekit.stages.prune_config import PruneConfig
from edgekit.stages.reachable import check_cut
from edgekit.tensors import apply, from_numpy, shaped, shapes
from edgekit.training.computing.memory import give_back
from edgekit.training.seeds import seeded
from edgekit.workload.given_file import original_file

if TYPE_CHECKING:
    from torch import nn

__all__ = ["RECORD", "check_given", "rehearse"]

RECORD = "preflight.json"
# An int8 file that is further from its graph is looked at closely. Unsteady networks are near it; whether
# theirs are right is asked of the files that are kept.
_LOST_DB = 10.0
_SAMPLES, _BATCH = 8, 4  # that the rehearsed qat stage calibrates on
_RUN = 2  # samples that each file is asked

_Step = tuple[str, Callable[[], None]]


def rehearse(job: Job) -> None:
    """Try all that the recipe will do with the model but training it; skipped if it was done.

    Raises:
        WorkloadError: the model can't be captured, converted or trained; the message has layer and reason.
        DiskFullError: a file can't be written.
    """
    original = chain.untold(job)
    options = planning.options_of(job)
    files = _files(job)
    key = _key(job, original, options, files)
    told = ", ".join(f"{format} {precision}" for format, precision in files)
    if job.finished(job.run.path / RECORD, key, "preflight") is not None:
        job.tell("stage-skipped", "preflight", told)
        return
    (job.run.path / RECORD).unlink(missing_ok=True)
    job.tell("stage-start", "preflight", "everything but the training, once")
    warn_of_memory(job)
    started, seconds = time.monotonic(), {}
    with scratch() as folder:
        with _refused(job, "its stages"):
            steps = _Rehearsal(job, original, options, files, Path(folder)).steps()
        for index, (name, step) in enumerate(steps):
            job.tell("step", "preflight", name, done=index, total=len(steps))
            began = time.monotonic()
            with _refused(job, name):
                step()
            give_back()
            seconds[name] = time.monotonic() - began
    write_record(job.run.path / RECORD, key, {"steps": seconds, "seconds": time.monotonic() - started})
    job.tell("stage-end", "preflight", f"{told}: nothing is refused")


def check_given(job: Job, original: chain.Rung) -> None:
    """Compare a model that was read from an ONNX file with that file in ONNX Runtime, on a few samples.

    Raises WorkloadError: they disagree, or the file doesn't run.
    """
    if (given := original_file(original.model)) is None:
        return
    options = planning.options_of(job)
    with scratch() as folder, _refused(job, given.name):
        rehearsal = _Rehearsal(job, original, options, [], Path(folder))
        rehearsal.ask(planning.reference(original, options), given)


@dataclass(frozen=True)
class _Rehearsal:
    job: Job
    original: chain.Rung
    options: ExportOptions
    files: list[tuple[str, Precision]]
    folder: Path

    def steps(self) -> list[_Step]:
        """What is tried, by name; what takes least comes first."""
        shipped, trained = self._shipped()
        reference = planning.reference(self.original, self.options)
        config = _quantising(self.job)
        found: list[_Step] = []
        if patterns := getattr(config, "float", ()):
            found.append(("layers in float", lambda: self._check_names(shipped, patterns)))
        found += [("train mode", lambda: self._train(shipped))] if trained else []
        if (cut := self._first_cut()) is not None:
            found.append(("what can be cut", lambda: self._cut(*cut)))
        found.append((Path(planning.REFERENCE).name, lambda: self._keep(reference)))
        float_files = [one for one in self.files if one[1] not in INT8_GRAPH]
        format, precision = planning.REFERENCE_FORM
        if shipped is self.original.model and not FORMATS[format].tags(self.options, precision):
            float_files = [one for one in float_files if one != planning.REFERENCE_FORM]
        if any(STAGES[one.kind].ensures is Form.FLOAT for one in self.job.recipe.stages):
            found += [self._file(shipped, *one) for one in float_files]
        else:
            found += [self._kept_file(*one) for one in float_files]
        int8_files = [one for one in self.files if one[1] in INT8_GRAPH]
        if config is not None:
            graph: list[nn.Module] = []
            found.append(("int8 graph", lambda: graph.append(self._quantise(shipped, config))))
            found += [self._file(graph, *one) for one in int8_files]
        return found

    def _shipped(self) -> tuple[nn.Module, bool]:
        """The model that files are made of, and whether it is trained.

        That is the workload's own student, if it takes the model's place; others are made of the model.
        """
        model, trained = self.original.model, False
        for stage in self.job.recipe.stages:
            if (student := _student(self.job, stage)) == "given":
                model = self._given()
            trained = trained or _trains(stage, student)
        return model, trained

    def _first_cut(self) -> tuple[nn.Module, PruneConfig] | None:
        """The first prune stage and its model, but for the weights; None if that is not known yet."""
        model = self.original.model
        for stage in self.job.recipe.stages:
            if isinstance(stage, PruneConfig):
                return model, stage
            if (student := _student(self.job, stage)) == "given":
                model = self._given()
            elif student in ("width", "depth"):
                return None  # whose layers are chosen by its stage
        return None

    def _given(self) -> nn.Module:
        """The workload's own student, with fresh weights."""
        own = self.job.workload.build_student()
        assert own is not None  # it is given
        return own.eval()

    def _cut(self, model: nn.Module, config: PruneConfig) -> None:
        def tell(message: str) -> None:
            self.job.tell("note", "preflight", message)

        example, seed = self.job.workload.example(2), self.job.recipe.seed
        found = check_cut(model, example, config, seed=seed, tell=tell)
        if found is not None and model is self.original.model:
            self.job.prepared[self.original.digest] = found

    def _train(self, model: nn.Module) -> None:
        if note := self.job.workload.check_training(model):
            self.job.tell("note", "preflight", note)

    def _check_names(self, model: nn.Module, patterns: Collection[str]) -> None:
        kept_float(lower(capture(model, self.job.workload.example(1))), patterns)

    def _keep(self, planned: planning.Planned) -> None:
        artifacts.write_early(self.job, planned)
        self.ask(planned, self.job.run.path / planned.file)

    def ask(self, planned: planning.Planned, path: Path) -> None:
        """Let the file answer in its runtime, and look at its answers: some runtimes take an op that they
        have no kernel for, some converters compute something else.
        """
        inputs = self.folder / "inputs.npy"
        evaluation.write_inputs(
            self.job.workload, inputs, _RUN, raw=planned.options.preprocessing is not None
        )
        device = evaluation.device_for(self.job, planned)
        backend = evaluation.backend_for(self.job, planned)
        outputs = evaluate(
            path,
            FORMATS[planned.format].runtime,
            device,
            inputs,
            batch=_RUN,
            backend=backend,
            streaming=self.job.workload.streaming,
        )
        model = planned.rung.model
        with mode(model, training=False), torch.no_grad():
            source = planned.expected(call(model, self.job.workload.whole(_RUN)))
        answers = shaped(from_numpy(np.ascontiguousarray(outputs)).float(), shapes(source))
        graded = apply(lambda values: values * planned.options.temperature, answers)
        found: dict[str, Any] = ladder.parity_of(planned, graded, source)
        if planned.precision not in INT8_GRAPH or found["snr_db"] < _LOST_DB:
            ladder.check_gate(self.job, planned, found, path.name, fused=backend != UNFUSED, path=path)

    def _ask_microcontroller(self, path: Path) -> None:
        shipped, _ = self._shipped()
        if note := microcontroller.refuse(path, shipped, self.job.workload.example(_RUN)):
            self.job.tell("note", "preflight", f"microcontroller: {note}")

    def _quantise(self, model: nn.Module, config: StageConfig) -> nn.Module:
        small = {"calibration_samples": _SAMPLES, "calibration_batch": _BATCH}
        training = config.training.model_copy(update={"epochs": 0})  # type: ignore[attr-defined]
        few = config.model_copy(update={**small, "training": training})
        folder = self.folder / config.kind
        folder.mkdir()
        context = StageContext(self.job.workload, self.original.model, folder, self.job.recipe.seed, silent)
        with seeded(self.job.recipe.seed):
            made: nn.Module = STAGES[config.kind].run(model, few, context).model
        return made

    def _kept_file(self, format: str, precision: Precision) -> _Step:
        """A file of the float model, which no stage changes."""
        one = planning.planned_for(self.job, [self.original], format, precision, self.options)
        return f"{format} {precision}", lambda: self._keep(one)

    def _file(self, model: nn.Module | list[nn.Module], format: str, precision: Precision) -> _Step:
        """``model``: or the list that will hold it."""

        def write() -> None:
            path = self.folder / f"preflight_{precision}{FORMATS[format].suffix}"
            settings: dict[str, Any] = {"format": format, "precision": precision, "options": self.options}
            own = model[0] if isinstance(model, list) else model
            export(own, self.job.workload.example(1), path, metadata={}, **settings)
            rung = dataclasses.replace(
                self.original, model=own, form=chain.form_of(own), _answers=None, _first=None
            )
            self.ask(planning.Planned(path.name, format, precision, rung, self.options), path)
            if self.job.recipe.exports.microcontroller and (format, precision) == ("litert", "int8"):
                self._ask_microcontroller(path)
            path.unlink()

        return f"{format} {precision}", write


def _files(job: Job) -> list[tuple[str, Precision]]:
    """Those that the recipe will write; float ones too, where its guard may fall back to a float model."""
    exports, quantised = job.recipe.exports, _quantising(job) is not None
    wanted = planning.possible(exports.precisions, quantised=quantised)
    if job.recipe.guard.limits and job.recipe.guard.otherwise == "fall_back":
        wanted = tuple(dict.fromkeys((*wanted, *planning.possible(exports.precisions, quantised=False))))
    return pairs(exports.formats, wanted)


def _quantising(job: Job) -> StageConfig | None:
    """The stage that makes the int8 graph."""
    return next((one for one in job.recipe.stages if STAGES[one.kind].ensures is Form.INT8), None)


def _trains(stage: StageConfig, student: str) -> bool:
    """Whether the stage trains a float model, in train mode: an int8 graph has none."""
    if STAGES[stage.kind].ensures is Form.INT8 or student == "none":
        return False
    if getattr(stage, "steps", 1) > 1 or getattr(stage, "sparse", None) is not None:
        return True
    return getattr(stage, "training", TrainingConfig()).epochs > 0


def _student(job: Job, stage: StageConfig) -> str:
    """Which student the stage takes, "" if it is none that does. Raises StageError if there is no such."""
    if not isinstance(stage, DistillConfig):
        return ""
    context = StageContext(job.workload, job.workload.model, job.run.path)
    return students.kind_of(stage, context)


def _key(job: Job, original: chain.Rung, options: ExportOptions, files: list[tuple[str, Precision]]) -> str:
    return sha256_of(
        {
            "step": "preflight",
            "of": [original.key, original.digest],
            "stages": [stage.model_dump(mode="json") for stage in job.recipe.stages],
            "files": files,
            "options": options.describe(),
            "microcontroller": job.recipe.exports.microcontroller,
            "code": code_version("preflight"),
        }
    )


@contextmanager
def _refused(job: Job, step: str) -> Iterator[None]:
    """What fails here is a fault of what was given, as far as it can be known: nothing has begun yet."""
    try:
        yield
    except InputError:
        raise
    except EdgekitError as error:
        if (wanting := shortage(error, f"preflight ({step})")) is not None:
            raise wanting from error
        raise WorkloadError(
            error.what,
            where=f"workload {job.workload.name}, tried before any training ({step})"
            + (f": {error.where}" if error.where else ""),
            got=error.got,
            expected=error.expected,
            next=error.next or "write that layer in other ops, or leave the format out of exports.formats",
        ) from error
    except Exception as error:
        if (full := disk_full(error, job.run.path)) is not None:
            raise full from error
        if (wanting := shortage(error, f"preflight ({step})")) is not None:
            raise wanting from error
        lines = [line.strip() for line in str(error).splitlines() if line.strip()] or ["no message"]
        raise WorkloadError(
            f"this model can't go through the recipe: {step} fails",
            where=f"workload {job.workload.name}, tried before any training",
            got=f"{type(error).__name__}: {lines[0]}",
            next="EDGEKIT_TRACEBACK=1 shows the traceback; another recipe may leave this step out",
        ) from error
