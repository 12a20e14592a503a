"""Every file on every device: right answers there, latency, and each single timing kept."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from edgekit import __version__
from edgekit.bench import stats
from edgekit.bench.benchmark import Check, Outputs, benchmark, candidates_for
from edgekit.bench.measure import Candidate
from edgekit.bench.record import FailedResult, Record, Result, read_record
from edgekit.devices.device import Device
from edgekit.errors import ComparisonError, UnreachableError
from edgekit.files import sha256, sha256_of
from edgekit.formats import FORMATS
from edgekit.pipeline.artifacts import REFERENCE, Manifest
from edgekit.pipeline.evaluation import write_inputs
from edgekit.pipeline.job import Job
from edgekit.report import Counted, Failed, Measured
from edgekit.runs.folder import write_record
from edgekit.runs.keys import code_version
from edgekit.tensors import from_numpy, shaped, shapes
from edgekit.units import human_count, human_ns

FOLDER = "measurements"  # one Record for each device, and beside it the key that it was measured under
_SAMPLE, _ASKED, _PIXELS = "sample.npy", "asked.npy", "pixels.npy"
# What a device says about itself that decides how fast it is; the rest (load, clock) changes by the minute.
_LASTING = ("machine", "board", "cpu", "affinity", "isa", "python", "runtimes")


def measure_all(job: Job, manifest: Manifest) -> list[Record]:
    """One record for each device.

    A file that can't be measured becomes a failure, and so do all files on a device that can't be reached:
    nothing else is lost, and the next call measures there again.
    """
    return [_on(job, manifest, device) for device in job.devices]


def rows_of(records: Sequence[Record]) -> tuple[list[Measured], list[Counted], list[Failed]]:
    """The rows of the report: figures and intervals from the single timings."""
    rows, counts, failures = [], [], []
    for record in records:
        judged = next((one.runtime for one in record.results if one.artifact == REFERENCE), "")
        references = {
            (one.threads, one.backend): one
            for one in record.results
            if one.artifact == REFERENCE and one.runtime == judged
        }
        for one in record.results:
            own = (references.get((one.threads, backend)) for backend in ("", one.backend))
            reference = next((found for found in own if found is not None), None)
            if one.unit == "ns":
                rows.append(_row(one, record.device, reference))
            else:
                counts.append(_counted(one, record.device, reference))
        failures += [Failed(device=record.device, **_failed(one)) for one in record.failures]
    return rows, counts, failures


def _failed(one: FailedResult) -> dict[str, Any]:
    return {key: getattr(one, key) for key in ("artifact", "runtime", "threads", "error")}


def _on(job: Job, manifest: Manifest, device: Device) -> Record:
    try:
        about = job.connections.about(device)
    except UnreachableError as error:
        return _unreached(job, manifest, device, error)
    candidates = _candidates(job, manifest, device, about)
    benchmark_of = job.recipe.benchmark
    settings: dict[str, Any] = {"min_seconds": benchmark_of.min_seconds, "min_runs": benchmark_of.min_runs}
    key = sha256_of(
        {
            "files": [(c.artifact.name, c.runtime, c.backend, c.threads) for c in candidates.values()],
            "sha256": [manifest.entries[file]["sha256"] for file, *_ in candidates],
            "settings": {**settings, "samples": benchmark_of.samples},
            "device": device.model_dump(mode="json"),
            "about": {name: about.get(name) for name in _LASTING},
            "code": code_version("bench"),
        }
    )
    path = job.run.path / FOLDER / f"{device.name}.json"
    if (kept := _kept(job, path, key)) is not None:
        job.tell("stage-skipped", "benchmark", f"{len(candidates)} measurements on {device.name}")
        return kept
    path.parent.mkdir(exist_ok=True)
    job.tell("stage-start", "benchmark", f"{len(candidates)} candidates in turns on {device.name}")
    raw = any(candidate.sample for candidate in candidates.values())
    try:
        record = benchmark(
            list(candidates.values()),
            device,
            sample=_sample(job),
            names={manifest.path_of(one.file): one.file for one in manifest.planned},
            check=_check(job, manifest, device, raw),
            about=about,
            progress=job.progress,
            transport=job.connections.to(device),
            **settings,
        )
    except UnreachableError as error:
        return _unreached(job, manifest, device, error)
    record.save(path)
    if not record.failures:  # a failure may pass: the next call measures again
        write_record(path.with_suffix(".key"), key, {}, {path.name: sha256(path)})
    job.tell("stage-end", "benchmark", _summary(record))
    return record


def _kept(job: Job, path: Path, key: str) -> Record | None:
    if job.finished(path.with_suffix(".key"), key, "benchmark") is None:
        return None
    try:
        return read_record(path)
    except ComparisonError as error:
        job.tell("warning", "benchmark", f"{error.what}; measured anew")
        return None


def _sample(job: Job) -> Path:
    """What is timed: one sample, of sequences one step."""
    return write_inputs(job.workload, job.run.work / _SAMPLE, 1, step=True)


def _inputs(job: Job, manifest: Manifest, device: Device, *, raw: bool) -> Path:
    """The samples that are asked on the device, preprocessed, or as raw pixels."""
    limit = 1 if device.here else max(1, job.recipe.benchmark.samples)
    return write_inputs(job.workload, job.run.work / (_PIXELS if raw else _ASKED), limit, raw=raw)


def _check(job: Job, manifest: Manifest, device: Device, raw: bool) -> Check | None:
    """How answers are judged; on this machine all files were evaluated already, on all samples."""
    if device.here or not job.recipe.benchmark.samples:
        return None
    pixels = _inputs(job, manifest, device, raw=True) if raw else None
    prepared = _inputs(job, manifest, device, raw=False)
    task, targets = job.workload.task, job.workload.validation.targets
    source = manifest.planned[0].rung.answers(job)
    planned = {manifest.path_of(one.file): one for one in manifest.planned}

    def judge(candidate: Candidate, outputs: Outputs) -> Mapping[str, float | None]:
        one = planned[candidate.artifact]
        expected = one.expected(one.rung.answers(job)[: len(outputs)])
        answers = shaped(from_numpy(np.ascontiguousarray(outputs)).float(), shapes(expected))
        return {
            "accuracy": task.score(answers, targets[: len(answers)]),
            "agreement": task.agreement(answers, expected),
        }

    return Check(
        lambda one: pixels if one.sample and pixels else prepared,
        judge,
        shapes(source),
        streaming=job.workload.streaming,
    )


def _candidates(
    job: Job, manifest: Manifest, device: Device, about: Mapping[str, Any]
) -> dict[tuple[str, str, str, int], Candidate]:
    """Every file in its runtime, and in others whose answers are known; in each backend with every number of
    threads. Those without a runtime there are left out.
    """
    wanted = (device.threads,) if device.threads is not None else job.recipe.benchmark.threads
    cores = device.cores or len(device.affinity) or len(about["affinity"]) or 1
    counts = dict.fromkeys(cores if count == "all" else count for count in wanted)
    found = {}
    for one in manifest.planned:
        runtime = FORMATS[one.format].runtime
        if runtime not in device.runtimes:
            job.tell("note", "benchmark", f"{Path(one.file).name}: no {runtime} on {device.name}")
            continue
        sample = job.run.work / _PIXELS if one.options.preprocessing is not None else None
        if sample is not None and not sample.exists():
            _inputs(job, manifest, device, raw=True)
        others = (manifest.entries[one.file]["evaluation"] or {}).get("runtimes", {})
        known = [name for name, own in others.items() if "error" not in own and name in device.runtimes]
        for name in (runtime, *known):
            for each in candidates_for(manifest.path_of(one.file), [name], list(counts), device, sample):
                found[one.file, name, each.backend, each.threads] = each
    return found


def _unreached(job: Job, manifest: Manifest, device: Device, error: UnreachableError) -> Record:
    job.tell("warning", "benchmark", f"{error}\n  next:     the same command measures there again")
    return Record(
        edgekit=__version__,
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        device=device.name,
        transport=device.transport,
        emulated=device.emulated,
        profile=device.model_dump(mode="json", exclude_defaults=True),
        about={},
        settings={},
        results=(),
        failures=tuple(
            FailedResult(artifact=one.file, runtime=FORMATS[one.format].runtime, threads=1, error=str(error))
            for one in manifest.planned
            if FORMATS[one.format].runtime in device.runtimes
        ),
    )


def _for_one(result: Result) -> list[float]:
    """Each run for one sample: a call of a file with a fixed batch answers for all of it."""
    return [value / result.batch for value in result.samples]


def _row(one: Result, device: str, reference: Result | None) -> Measured:
    raw = _for_one(one)
    own = stats.quantile_of_rounds([[value / one.batch for value in part] for part in one.rounds], 50)
    p50 = stats.percentile(raw, 50)
    faster: dict[str, float] = {}
    if reference is one:
        faster = {"faster": 1.0}
    elif reference is not None:
        # They took turns: compared round by round, what slowed both down cancels.
        ratio = stats.ratio_of_rounds(reference.rounds, one.rounds)
        batches = one.batch / reference.batch
        faster = {
            "faster": round(stats.percentile(_for_one(reference), 50) / p50, 4),
            "faster_low": round(ratio.low * batches, 4),
            "faster_high": round(ratio.high * batches, 4),
        }
    return Measured(
        artifact=one.artifact,
        device=device,
        runtime=one.runtime,
        backend=one.backend,
        runtime_version=one.runtime_version,
        threads=one.threads,
        load_ns=one.load,
        first_ns=one.first,
        peak_rss_bytes=one.peak_rss_bytes,
        unstable=one.unstable,
        p50_ns=round(p50),
        p90_ns=round(stats.percentile(raw, 90)),
        samples=len(raw),
        p50_low_ns=None if own is None else round(own.low),
        p50_high_ns=None if own is None else round(own.high),
        accuracy=one.accuracy.accuracy if one.accuracy else None,
        **faster,
    )


def _counted(one: Result, device: str, reference: Result | None) -> Counted:
    raw = _for_one(one)
    middle = stats.percentile(raw, 50)
    base = stats.percentile(_for_one(reference), 50) if reference is not None else None
    return Counted(
        artifact=one.artifact,
        device=device,
        runtime=one.runtime,
        threads=one.threads,
        instructions=round(middle),
        spread=round((max(raw) - min(raw)) / middle, 6),
        samples=len(raw),
        fewer=None if base is None else round(base / middle, 4),
        accuracy=one.accuracy.accuracy if one.accuracy else None,
        checked=one.accuracy.samples if one.accuracy else 0,
        snr_db=one.accuracy.snr_db if one.accuracy else None,
        peak_rss_bytes=one.peak_rss_bytes,
    )


def _summary(record: Record) -> str:
    rows = [(stats.percentile(one.samples, 50), one) for one in record.results]
    if not rows:
        return "nothing could be measured"
    p50, one = min(rows, key=lambda row: row[0])
    name = Path(one.artifact).name
    if record.emulated:
        return f"fewest instructions: {name}, {human_count(p50)}"
    threads = f"{one.threads} thread" + ("" if one.threads == 1 else "s")
    return f"fastest: {name} with {threads}, p50 {human_ns(p50)}"
