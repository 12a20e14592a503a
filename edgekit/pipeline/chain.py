"""From the trained model through the stages: each is run once, kept, and loaded when the run goes on."""

from __future__ import annotations

import copy
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from pydantic import BaseModel, Field
from torch import fx, nn

from edgekit.config.settings import TrainingConfig
from edgekit.errors import EdgekitError, StageError, WeightsError
from edgekit.execution import call, mode
from edgekit.files import disk_full, sha256_of
from edgekit.graph import ops
from edgekit.int8.integers import OnIntegers, is_fixed_sum
from edgekit.macs import count
from edgekit.pipeline import contract, distributed
from edgekit.pipeline.job import Job
from edgekit.pipeline.stage_folder import METRICS, StageFolder, trained_seconds
from edgekit.report import Figures, StageRow
from edgekit.runs.folder import write_record
from edgekit.runs.keys import code_version, model_digest
from edgekit.shortage import shortage
from edgekit.stages import STAGES
from edgekit.stages.base import Form, Shipping, Stage, StageConfig, StageContext, StageResult
from edgekit.stages.shipping import identity, unused
from edgekit.tensors import Tensors, cat
from edgekit.training import evaluate
from edgekit.training.computing import parallel
from edgekit.training.computing.memory import give_back
from edgekit.training.seeds import seeded
from edgekit.units import human_count, human_share, score_name

ROWS = 8  # samples in memory at a time
_DOING = {"prune": "finding out what can leave", "qat": "capturing and calibrating"}  # before it trains


@dataclass(eq=False)
class Rung:
    """The model after a stage (``kind`` "" for the trained model), what it can do, and what made it."""

    kind: str
    model: nn.Module
    key: str
    figures: Figures
    digest: str
    form: Form
    seconds: float = 0.0
    row: StageRow | None = None
    _answers: Tensors | None = field(default=None, repr=False)
    steady_db: float | None = None  # of an int8 graph, once it was asked for; see ladder.py
    _first: Tensors | None = field(default=None, repr=False)
    _fixed: Tensors | None = field(default=None, repr=False)

    def answers(self, job: Job, *, fixed_sums: bool = False) -> Tensors:
        """The model's outputs for the whole validation set; computed when first asked for. ``fixed_sums``: of
        an int8 graph as runtimes compute it that add so (``int8/integers.py``).
        """
        if fixed_sums and self.form is Form.INT8:
            assert isinstance(self.model, fx.GraphModule)
            if any(map(is_fixed_sum, self.model.graph.nodes)):
                if self._fixed is None:
                    self._fixed = evaluate(OnIntegers(self.model, fixed_sums=True), job.workload).outputs
                return self._fixed
        if self._answers is None:
            self._answers = evaluate(as_executed(self.model), job.workload).outputs
        return self._answers

    def first_answers(self, job: Job, count: int) -> Tensors:
        """The outputs for ``job.workload.whole(count)``, the same few each time; computed once."""
        example = job.workload.whole(count)
        if self._first is None or len(self._first) != len(example):
            self._first = answers_of_few(as_executed(self.model), example)
        return self._first


def as_executed(model: nn.Module) -> nn.Module:
    """The model that is asked: for an int8 graph one that computes as the kernels of its files do."""
    if form_of(model) is not Form.INT8:
        return model
    assert isinstance(model, fx.GraphModule)
    return OnIntegers(model)


def answers_of_few(model: nn.Module, example: Tensors) -> Tensors:
    """The outputs for ``example`` (N, …), a few rows in memory at a time; in the eval mode."""
    with mode(model, training=False), torch.no_grad():
        return cat([call(model, part) for part in example.split(ROWS)])


def run_stages(job: Job) -> list[Rung]:
    """The trained model, and after it every stage's result in the recipe's order.

    Raises:
        StageError: a stage failed, or broke its contract.
    """
    rungs = [_trained(job)]
    for index, config in enumerate(job.recipe.stages, 1):
        rungs.append(_stage(job, index, config, rungs))
        give_back()
    return rungs


def form_of(model: nn.Module) -> Form:
    """INT8 for a graph with explicit dequantise ops."""
    if isinstance(model, fx.GraphModule) and any(node.target in ops.DEQUANTIZE for node in model.graph.nodes):
        return Form.INT8
    return Form.FLOAT


def untold(job: Job) -> Rung:
    """The model as it was given, before anybody has asked how good it is."""
    # A copy: what a workload holds isn't changed.
    model = copy.deepcopy(job.workload.model).eval()
    key = sha256_of({"step": "baseline", "workload": job.fingerprint, "code": code_version("baseline")})
    nothing = Figures(accuracy=0, parameters=0, macs=0)
    return Rung("", model, key, nothing, model_digest(model), form_of(model))


def trainings(config: BaseModel) -> Iterator[TrainingConfig]:
    """All that a stage's settings hold, those of recovery and sparse learning too."""
    for name in type(config).model_fields:
        value = getattr(config, name)
        if isinstance(value, TrainingConfig):
            yield value
        elif isinstance(value, BaseModel):
            yield from trainings(value)


class _Told(Figures):
    """What a record of figures holds."""

    seconds: float = Field(ge=0)


def _trained(job: Job) -> Rung:
    """The model as it was given, with what it can do."""
    rung = untold(job)
    path = job.run.path / "baseline.json"
    if (record := job.finished(path, rung.key, "baseline", _Told.model_validate)) is None:
        path.unlink(missing_ok=True)
        job.tell("stage-start", "baseline", "the trained model")
        figures, answers = _figures(job, rung.model, "baseline", path, rung.key)
        job.tell("stage-end", "baseline", _facts(job, figures))
    else:
        figures, answers = record, None
        job.tell("stage-skipped", "baseline", _facts(job, figures))
    return replace(
        rung, figures=Figures.model_validate(figures), seconds=figures["seconds"], _answers=answers
    )


def _stage(job: Job, index: int, config: StageConfig, rungs: Sequence[Rung]) -> Rung:
    parent, stage = rungs[-1], STAGES[config.kind]
    config = contract.with_choice(job, parent, rungs[0].model, config)
    # The parent's digest stands beside its key: should a stage that is made anew come out different, all
    # that was built on it is made anew as well.
    exports = job.recipe.exports
    shipping = Shipping(
        exports.formats, exports.precisions, job.devices, job.connections.to, job.connections.about
    )
    key = sha256_of(
        {
            **identity(config, shipping),
            "stage": config.model_dump(mode="json"),
            "seed": job.recipe.seed,
            "workload": job.fingerprint,
            "parent": [parent.key, parent.digest],
            "code": code_version(config.kind, unused(config)),
        }
    )
    folder = StageFolder(job, job.run.stage(index, config.kind), config.kind, key)
    context = StageContext(
        job.workload,
        rungs[0].model,
        folder.path,
        job.recipe.seed,
        job.progress,
        shipping,
        job.prepared.pop(parent.digest, None) if config.kind == "prune" else None,
    )
    done = [rung.kind for rung in rungs[1:]]
    _check_form(config.kind, "takes", stage.requires, parent.form, done)
    kept = folder.load(lambda: stage.load(parent.model, config, context))
    if kept is None:
        job.tell("stage-start", config.kind, _DOING.get(config.kind, ""))
    distributed.share(folder.path, finished=kept is not None)
    result, seconds = kept or _run(folder, stage, parent.model, config, context, done)
    form = form_of(result.model)
    _check_form(config.kind, "gives", stage.ensures, form, done)
    figures, answers = _figures(job, result.model, config.kind, folder.path / METRICS, key)
    plain = Figures.model_validate(figures)
    row = StageRow(
        **plain.model_dump(),
        kind=config.kind,
        seconds=seconds + figures["seconds"],
        changed=result.changed,
        note=result.note,
        folder=folder.path.relative_to(job.run.path).as_posix(),
        kept_float=tuple(result.details.get("float", ())),
        doubts=tuple(result.details.get("doubts", ())),
    )
    message = "; ".join(filter(None, [_facts(job, figures), result.note]))
    job.tell("stage-end" if kept is None else "stage-skipped", config.kind, message)
    digest = model_digest(result.model)
    return Rung(config.kind, result.model, key, plain, digest, form, row.seconds, row, answers)


def _run(
    folder: StageFolder,
    stage: Stage,
    model: nn.Module,
    config: StageConfig,
    context: StageContext,
    done: Sequence[str],
) -> tuple[StageResult, float]:
    """Run the stage, and note that it is finished."""
    started = time.monotonic()
    try:
        result = _attempt(folder, stage, model, config, context)
    except EdgekitError:
        raise
    except Exception as error:
        if (full := disk_full(error, folder.path)) is not None:
            raise full from error
        if (wanting := shortage(error, f"stage {config.kind}")) is not None:
            raise wanting from error
        raise StageError(
            f"the {config.kind} stage failed",
            where=str(folder.path),
            got=f"{type(error).__name__}: {error}",
            next=f"finished before: {', '.join(done) or 'nothing'}; EDGEKIT_TRACEBACK=1 shows the traceback",
        ) from error
    # What a continued training took before it was killed stands in its history only.
    seconds = max(time.monotonic() - started, trained_seconds(result))
    folder.finish(result, seconds)
    distributed.share(folder.path, finished=True)
    return result, seconds


def _attempt(
    folder: StageFolder, stage: Stage, model: nn.Module, config: StageConfig, context: StageContext
) -> StageResult:
    """Run the stage; once more from its beginning if it stumbles over what a killed one left."""
    continued = folder.is_continued()
    try:
        with seeded(context.seed):
            return stage.run(model, config, context)
    except WeightsError as error:
        if not continued or parallel.current().size > 1:  # the others can't begin again with it
            raise
        folder.tell("warning", f"{error.what} ({error.where}); the stage starts over")
    folder.begin()
    with seeded(context.seed):
        return stage.run(model, config, context)


def _figures(
    job: Job, model: nn.Module, part: str, path: Path, key: str
) -> tuple[dict[str, Any], Tensors | None]:
    """accuracy, parameters, macs and seconds, from the record in ``path`` or measured; and the outputs."""
    if (record := job.finished(path, key, part, _Told.model_validate)) is not None:
        return record, None
    started = time.monotonic()

    def tell(done: int, total: int) -> None:
        job.tell("step", part, "asking the model", done=done, total=total)

    evaluation = evaluate(as_executed(model), job.workload, tell=tell)
    size = count(model, job.workload.example(1))
    figures = {
        "accuracy": evaluation.score,
        "parameters": size.parameters,
        "macs": size.macs,
        "seconds": time.monotonic() - started,
    }
    write_record(path, key, figures)
    return figures, evaluation.outputs


def _check_form(kind: str, verb: str, wanted: Form, found: Form, done: Sequence[str]) -> None:
    if wanted is not found:
        raise StageError(
            f"the {kind} stage {verb} {wanted.value} models",
            where=f"stage {kind}",
            got=f"a model in {found.value} form, after: {', '.join(done) or 'no stage'}",
            expected=wanted.value,
            next="put the stages of the recipe in another order",
        )


def _facts(job: Job, figures: dict[str, Any]) -> str:
    score = score_name(job.workload.task.describe())
    return (
        f"{score} {human_share(figures['accuracy'])}, {human_count(figures['parameters'])} parameters, "
        f"{human_count(figures['macs'])} MACs"
    )
