"""The report of a run, put together from its records alone: a run that is only read again gives the same."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from edgekit import __version__
from edgekit.bench.benchmark import WRONG_DB
from edgekit.bench.record import Accuracy, Record
from edgekit.pipeline import contract, ladder
from edgekit.pipeline.artifacts import REFERENCE, Manifest, Planned
from edgekit.pipeline.chain import Rung
from edgekit.pipeline.job import Job
from edgekit.pipeline.measuring import rows_of
from edgekit.report import Artifact, Figures, LadderStep, Report, Warned, recommend, verdicts
from edgekit.runs.keys import LIBRARIES, versions
from edgekit.tasks import Classification
from edgekit.units import human_share, score_name
from edgekit.workload import Workload
from edgekit.workload.given_file import original_file

_DOT_PRODUCTS = ("avx512_vnni", "avx_vnni", "avx_vnni_int8", "amx_int8", "asimddp", "i8mm", "sve")
_ABOUT = (
    "machine",
    "board",
    "cpu",
    "affinity",
    "governors",
    "isa",
    "memory_bytes",
    "virtual",
    "runtimes",
)


def report_of(job: Job, rungs: Sequence[Rung], manifest: Manifest, records: Sequence[Record]) -> Report:
    """Everything that is known, the recommendation, and what a reader should be warned of."""
    baseline = _baseline(rungs[0], manifest)
    stages = tuple(rung.row for rung in rungs if rung.row is not None)
    artifacts = tuple(_artifact(manifest.entries[one.file], one) for one in manifest.planned)
    measured, counts, failures = rows_of(records)
    wanted = job.recipe.recommend
    limit = wanted.max_accuracy_drop
    score = score_name(job.workload.task.describe())
    packages = tuple(dict.fromkeys(name for names in LIBRARIES.values() for name in names))
    return Report(
        workload=job.workload.name,
        recipe=job.recipe.name,
        baseline=baseline,
        stages=stages,
        artifacts=artifacts,
        measurements=tuple(measured),
        counts=tuple(counts),
        recommended=recommend(
            artifacts,
            measured,
            accuracy=baseline.accuracy,
            reference=REFERENCE,
            objective=wanted.objective,
            max_accuracy_drop=limit,
            score=score,
            every_channel=any(part.task.class_count is None for part in job.workload.task.parts()),
        ),
        warnings=tuple(_of_a_file(rungs[0], manifest))
        + tuple(_guessed(job.workload, baseline.accuracy))
        + tuple(_otherwise(records))
        + tuple(
            verdicts(
                baseline,
                stages,
                artifacts,
                measured,
                failures,
                reference=REFERENCE,
                max_accuracy_drop=limit,
                dot_products=_dot_products(records[0]) if records and records[0].about else None,
                score=score,
            )
        ),
        failures=tuple(failures),
        ladder=(*ladder.steps(job, rungs, list(manifest.entries.values())), *_elsewhere(records)),
        reference=REFERENCE,
        task=job.workload.task.describe(),
        max_accuracy_drop=limit,
        folder=_shown(job.run.path),
        seconds=_seconds(rungs, manifest, records),
        devices=tuple(
            {"name": record.device, **{key: record.about.get(key) for key in _ABOUT}} for record in records
        ),
        budget=contract.told(job),
        versions={"edgekit": __version__, **versions(packages)},
    )


def _baseline(original: Rung, manifest: Manifest) -> Figures:
    """What the trained model can do; of one that was a file, what that file does in its runtime."""
    if original_file(original.model) is None:
        return original.figures
    accuracy = manifest.entries[REFERENCE]["evaluation"]["accuracy"]
    return original.figures.model_copy(update={"accuracy": accuracy})


def _of_a_file(original: Rung, manifest: Manifest) -> Iterator[Warned]:
    """What a report of an ONNX file is measured against, and what such a file can't become."""
    if (file := original_file(original.model)) is not None:
        far = manifest.entries[REFERENCE]["evaluation"]["snr_db"]
        message = (
            f"{Path(REFERENCE).name} is {file.name} as it was given: accuracy and gains are against that "
            f"file in ONNX Runtime, and the graph that was read from it is {far:.0f} dB from it. A file "
            "has no modules: it is neither distilled nor pruned"
        )
        yield Warned(kind="source", about=REFERENCE, message=message)


def _guessed(workload: Workload, accuracy: float) -> Iterator[Warned]:
    """That the trained model knows no more than which class is the most frequent; nothing else counts."""
    labels = workload.validation.targets if workload.validation.labelled else None
    if not isinstance(workload.task, Classification) or not isinstance(labels, Tensor) or labels.dim() != 1:
        return
    known = labels[(labels >= 0) & (labels < workload.task.num_classes)]
    often = float(torch.bincount(known).max()) / len(known) if len(known) else 0.0
    if accuracy <= often:
        message = (
            f"the trained model is right about {human_share(accuracy)} of the validation data, and always "
        )
        message += (
            f"the same class would be about {human_share(often)}: its weights or its head are untrained, "
        )
        message += "or its outputs are in another order than the labels; accuracy says nothing here"
        yield Warned(kind="accuracy", about=REFERENCE, message=message)


def _elsewhere(records: Sequence[Record]) -> Iterator[LadderStep]:
    """The last rung: each file on another device, against itself on this machine."""
    for device, file, found in _compared(records):
        yield LadderStep(rung=f"{file} on {device}", against=file, agreement=None, snr_db=found.snr_db or 0.0)


def _otherwise(records: Sequence[Record]) -> Iterator[Warned]:
    for device, file, found in _compared(records):
        if found.snr_db is not None and found.snr_db < WRONG_DB:
            message = f"{file} answers otherwise on {device} than on this machine: {found.snr_db:.1f} dB on "
            message += f"{found.samples} samples, accuracy there {human_share(found.accuracy)}"
            yield Warned(kind="agreement", about=file, message=message)


def _compared(records: Sequence[Record]) -> Iterator[tuple[str, str, Accuracy]]:
    for record in records:
        for file in dict.fromkeys(one.artifact for one in record.results):
            found = next(one.accuracy for one in record.results if one.artifact == file)
            if found is not None and found.snr_db is not None:
                yield record.device, file, found


def _artifact(entry: dict[str, Any], one: Planned) -> Artifact:
    found = entry["evaluation"]
    counted = found["coverage"]
    return Artifact(
        file=entry["file"],
        format=one.format,
        precision=one.precision,
        sha256=entry["sha256"],
        size_bytes=entry["size_bytes"],
        accuracy=found["accuracy"],
        scores=found.get("scores") or {},
        agreement=found["agreement"],
        int8_coverage=None if counted is None else counted["share"],
        parity=found["parity"],
        parameters=one.rung.figures.parameters,
        macs=one.rung.figures.macs,
        parent=one.rung.kind,
        float_layers=() if counted is None else tuple(counted["float_layers"]),
        snr_db=found["snr_db"],
        steady_db=found.get("steady_db"),
        amplified=found.get("amplified", False),
        lost_channels=found.get("lost_channels") or None,
        float_time_share=None if counted is None else counted["float_time_share"],
        float_kernels=() if counted is None else tuple(counted["float_kernels"]),
        partitions=None if counted is None else counted["partitions"],
        outside={} if counted is None else counted["outside"],
        runtimes={name: own for name, own in found.get("runtimes", {}).items() if "error" not in own},
    )


def _shown(folder: Path) -> str:
    """Relative to where the command was given, if it is below: a report may be published."""
    here = Path.cwd()
    return str(folder.relative_to(here) if folder.is_relative_to(here) else folder)


def _dot_products(record: Record) -> bool:
    """Whether the CPU multiplies int8 in hardware."""
    return any(flag in _DOT_PRODUCTS for flag in record.about["isa"])


def _seconds(rungs: Sequence[Rung], manifest: Manifest, records: Sequence[Record]) -> float:
    entries = manifest.entries.values()
    return float(
        sum(rung.seconds for rung in rungs)
        + sum(entry["seconds"] + entry["evaluation"]["seconds"] for entry in entries)
        + sum(record.seconds for record in records)
    )
