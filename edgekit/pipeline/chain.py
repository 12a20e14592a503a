"""From the trained model through the stages: each is run once, kept, and loaded when the run goes on."""

from __future__ import annotations

import copy
import random
import shutil
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, fx, nn

from edgekit.errors import EdgekitError, StageError
from edgekit.files import disk_full, sha256, sha256_of
from edgekit.int8 import ops
from edgekit.macs import count
from edgekit.pipeline.job import Job
from edgekit.pipeline.keys import code_version, model_digest
from edgekit.report import Figures, StageRow
from edgekit.run import Damaged, read_record, write_record
from edgekit.stages import STAGES
from edgekit.stages.base import Form, Stage, StageConfig, StageContext, StageResult
from edgekit.training import evaluate
from edgekit.units import human_count, human_share

_BEGUN, _DONE, _METRICS = "begun.json", "stage.json", "metrics.json"


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
    _answers: Tensor | None = field(default=None, repr=False)

    def answers(self, job: Job) -> Tensor:
        """The model's outputs for the whole validation set; computed when first asked for."""
        if self._answers is None:
            self._answers = evaluate(self.model, job.workload).outputs
        return self._answers


def climb(job: Job) -> list[Rung]:
    """The trained model, and after it every stage's result in the recipe's order.

    Raises:
        StageError: a stage failed, or broke its contract.
    """
    rungs = [_trained(job)]
    for index, config in enumerate(job.recipe.stages, 1):
        rungs.append(_stage(job, index, config, rungs))
    return rungs


def form_of(model: nn.Module) -> Form:
    """INT8 for a graph with explicit dequantise ops."""
    if isinstance(model, fx.GraphModule) and any(node.target in ops.DEQUANTIZE for node in model.graph.nodes):
        return Form.INT8
    return Form.FLOAT


# --- the trained model -----------------------------------------------------------------------------------


def _trained(job: Job) -> Rung:
    """The model as it was given. A copy: what a workload holds isn't changed."""
    model = copy.deepcopy(job.workload.model).eval()
    digest = model_digest(model)
    key = sha256_of({"step": "baseline", "workload": job.fingerprint, "code": code_version("stages")})
    path = job.run.path / "baseline.json"
    record = job.finished(path, key, "baseline")
    answers = None
    if record is None:
        job.tell("stage-start", "baseline", "the trained model")
        record, answers = _measured(job, model)
        write_record(path, key, record)
        job.tell("stage-end", "baseline", _facts(record))
    else:
        job.tell("stage-skipped", "baseline", _facts(record))
    figures = Figures.model_validate(record)
    return Rung("", model, key, figures, digest, form_of(model), record["seconds"], _answers=answers)


def _measured(job: Job, model: nn.Module) -> tuple[dict[str, Any], Tensor]:
    started = time.monotonic()
    evaluation = evaluate(model, job.workload)
    size = count(model, job.workload.example(1))
    figures = {"accuracy": evaluation.score, "parameters": size.parameters, "macs": size.macs}
    return figures | {"seconds": time.monotonic() - started}, evaluation.outputs


# --- one stage -------------------------------------------------------------------------------------------


def _stage(job: Job, index: int, config: StageConfig, rungs: Sequence[Rung]) -> Rung:
    parent, stage = rungs[-1], STAGES[config.kind]
    folder = job.run.stage(index, config.kind)
    # The parent's digest stands beside its key: should a stage that is made anew come out different, all
    # that was built on it is made anew as well.
    key = sha256_of(
        {
            "stage": config.model_dump(mode="json"),
            "seed": job.recipe.seed,
            "workload": job.fingerprint,
            "parent": [parent.key, parent.digest],
            "code": code_version("stages"),
        }
    )
    context = StageContext(job.workload, rungs[0].model, folder, job.recipe.seed, job.progress)
    done = [rung.kind for rung in rungs[1:]]
    _check_form(config.kind, "takes", stage.requires, parent.form, done)
    kept = _load_finished(job, stage, parent.model, config, context, key)
    if kept is None:
        job.tell("stage-start", config.kind)
        result, seconds = _run(job, stage, parent.model, config, context, key, done)
    else:
        result, seconds = kept
    form = form_of(result.model)
    _check_form(config.kind, "gives", stage.ensures, form, done)
    figures, answers = _figures(job, result.model, config.kind, folder, key)
    row = StageRow(
        kind=config.kind,
        accuracy=figures["accuracy"],
        parameters=figures["parameters"],
        macs=figures["macs"],
        seconds=seconds + figures["seconds"],
        changed=result.changed,
        note=result.note,
        folder=str(folder.relative_to(job.run.path)),
    )
    message = f"{_facts(figures)}; {result.note}" if result.note else _facts(figures)
    job.tell("stage-skipped" if kept else "stage-end", config.kind, message)
    digest = model_digest(result.model)
    plain = Figures.model_validate(figures)
    return Rung(config.kind, result.model, key, plain, digest, form, row.seconds, row, answers)


def _load_finished(
    job: Job, stage: Stage, model: nn.Module, config: StageConfig, context: StageContext, key: str
) -> tuple[StageResult, float] | None:
    """The stage's result if it is finished and undamaged. Else None, and its folder is as it must be."""
    folder, kind = context.folder, config.kind
    begun = _key_of(folder / _BEGUN)
    try:
        record = read_record(folder / _DONE)
    except Damaged:
        record = {"key": key}  # told below
    if record is not None and record["key"] == key:
        record = job.finished(folder / _DONE, key, kind)
        if record is not None:
            try:
                result = stage.load(model, config, context)
                known = StageResult(result.model, record["changed"], record["note"], record["details"])
                return known, record["seconds"]
            except EdgekitError as error:
                job.tell("warning", kind, f"{error.what}; made anew")
        begun = None  # whatever stands in the folder isn't to be trusted
    if begun == key and (late := _load_late(stage, model, config, context)) is not None:
        _finish(folder, key, late, seconds := _trained_seconds(late))
        return late, seconds
    if begun != key:
        if begun is not None:
            job.tell("note", kind, "settings, data or code are not those of last time; made anew")
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        write_record(folder / _BEGUN, key, {"kind": kind})
    return None


def _load_late(
    stage: Stage, model: nn.Module, config: StageConfig, context: StageContext
) -> StageResult | None:
    """The result of a stage that was killed after its last file and before its record; None if it wasn't.

    A stage's files are whole or absent, and what ``load`` needs last is written last.
    """
    try:
        return stage.load(model, config, context)
    except EdgekitError:
        return None


def _run(
    job: Job,
    stage: Stage,
    model: nn.Module,
    config: StageConfig,
    context: StageContext,
    key: str,
    done: Sequence[str],
) -> tuple[StageResult, float]:
    started = time.monotonic()
    try:
        with _seeded(job.recipe.seed):
            result = stage.run(model, config, context)
    except EdgekitError:
        raise
    except Exception as error:
        if (full := disk_full(error, context.folder)) is not None:
            raise full from error
        raise StageError(
            f"the {config.kind} stage failed",
            where=str(context.folder),
            got=f"{type(error).__name__}: {error}",
            next=f"finished before: {', '.join(done) or 'nothing'}; EDGEKIT_TRACEBACK=1 shows the traceback",
        ) from error
    # What a continued training took before it was killed stands in its history only.
    seconds = max(time.monotonic() - started, _trained_seconds(result))
    _finish(context.folder, key, result, seconds)
    return result, seconds


def _finish(folder: Path, key: str, result: StageResult, seconds: float) -> None:
    """Write the stage's record; at once after the stage, so that a kill costs nothing that was trained."""
    own = {_BEGUN, _DONE, _METRICS}
    files = {
        path.relative_to(folder).as_posix(): sha256(path)
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name not in own
    }
    content = {"changed": result.changed, "note": result.note, "details": result.details, "seconds": seconds}
    write_record(folder / _DONE, key, content, files)


def _figures(
    job: Job, model: nn.Module, kind: str, folder: Path, key: str
) -> tuple[dict[str, Any], Tensor | None]:
    """Accuracy and size of a stage's result, from last time or computed."""
    record = job.finished(folder / _METRICS, key, kind)
    if record is not None:
        return record, None
    figures, answers = _measured(job, model)
    write_record(folder / _METRICS, key, figures)
    return figures, answers


def _check_form(kind: str, verb: str, wanted: Form, found: Form, done: Sequence[str]) -> None:
    if wanted is not found:
        raise StageError(
            f"the {kind} stage {verb} {wanted.value} models",
            where=f"stage {kind}",
            got=f"a model in {found.value} form, after: {', '.join(done) or 'no stage'}",
            expected=wanted.value,
            next="put the stages of the recipe in another order",
        )


def _trained_seconds(result: StageResult) -> float:
    history = result.details.get("history") or []
    return float(sum(epoch.get("seconds", 0.0) for epoch in history))


def _key_of(path: Path) -> str | None:
    try:
        record = read_record(path)
    except Damaged:
        return "damaged"
    return None if record is None else str(record["key"])


def _facts(figures: dict[str, Any]) -> str:
    return (
        f"accuracy {human_share(figures['accuracy'])}, {human_count(figures['parameters'])} parameters, "
        f"{human_count(figures['macs'])} MACs"
    )


@contextmanager
def _seeded(seed: int) -> Iterator[None]:
    """The same random numbers for every run of a stage, whichever stages were loaded before it."""
    states = random.getstate(), np.random.get_state()
    with torch.random.fork_rng(devices=[]):
        random.seed(seed)
        np.random.seed(seed)
        torch.manual_seed(seed)
        try:
            yield
        finally:
            random.setstate(states[0])
            np.random.set_state(states[1])
