"""The latency of every file on every device, with each single timing kept."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from edgekit.bench import stats
from edgekit.bench.measure import Candidate, Failure, Measurement, measure
from edgekit.devices.device import Device, probe, resolve_threads
from edgekit.files import sha256_of
from edgekit.pipeline.artifacts import REFERENCE, Manifest
from edgekit.pipeline.evaluation import write_inputs
from edgekit.pipeline.job import Job
from edgekit.pipeline.keys import code_version
from edgekit.report import Failed, Measured
from edgekit.report.summary import RUNTIME
from edgekit.run import write_record
from edgekit.units import human_ns

# What a device says about itself that decides how fast it is; the rest (load, clock) changes by the minute.
_SAMPLE, _PIXELS = "sample.npy", "pixels.npy"
_LASTING = ("machine", "board", "cpu", "affinity", "isa", "python", "runtimes")


def measure_all(job: Job, manifest: Manifest) -> list[dict[str, Any]]:
    """One record for each device: about, measurements (with raw_ns), failures, seconds.

    A file that can't be measured becomes a failure; the others go on.

    Raises:
        MeasurementError: a device can't be reached.
    """
    return [_on(job, manifest, device) for device in job.devices]


def rows_of(records: Sequence[dict[str, Any]]) -> tuple[list[Measured], list[Failed]]:
    """The rows of the report: figures and intervals from the single timings."""
    rows, failures = [], []
    for record in records:
        raw = {(one["artifact"], one["threads"]): one["raw_ns"] for one in record["measurements"]}
        for one in record["measurements"]:
            rows.append(_row(one, raw.get((REFERENCE, one["threads"]))))
        failures += [Failed.model_validate(one) for one in record["failures"]]
    return rows, failures


def _on(job: Job, manifest: Manifest, device: Device) -> dict[str, Any]:
    about = probe(device)
    candidates = _candidates(job, manifest, device)
    benchmark = job.recipe.benchmark
    settings: dict[str, Any] = {"min_seconds": benchmark.min_seconds, "min_runs": benchmark.min_runs}
    key = sha256_of(
        {
            "files": [(str(c.artifact.name), c.runtime, c.threads) for c in candidates.values()],
            "sha256": [manifest.entries[file]["sha256"] for file, _ in candidates],
            "settings": settings,
            "device": device.model_dump(mode="json"),
            "about": {name: about[name] for name in _LASTING},
            "code": code_version("bench"),
        }
    )
    path = job.run.path / "measurements" / f"{device.name}.json"
    record = job.finished(path, key, "benchmark")
    if record is not None:
        job.tell("stage-skipped", "benchmark", f"{len(candidates)} measurements on {device.name}")
        return record
    path.parent.mkdir(exist_ok=True)
    job.tell("stage-start", "benchmark", f"{len(candidates)} candidates in turns on {device.name}")
    started = time.monotonic()
    sample = write_inputs(job.workload, job.run.work / _SAMPLE, limit=1)
    if any(candidate.sample for candidate in candidates.values()):
        write_inputs(job.workload, job.run.work / _PIXELS, limit=1, raw=True)
    results = measure(list(candidates.values()), device, sample=sample, progress=job.progress, **settings)
    record = {
        "about": {"name": device.name, **about},
        "settings": settings,
        "measurements": [],
        "failures": [],
        "seconds": time.monotonic() - started,
    }
    for (file, _), result in zip(candidates, results, strict=True):
        kind = "failures" if isinstance(result, Failure) else "measurements"
        record[kind].append(_kept(file, result, manifest))
    if not record["failures"]:  # a failure may pass: the next call measures again
        write_record(path, key, record, indent=None)
    job.tell("stage-end", "benchmark", _summary(record))
    return record


def _candidates(job: Job, manifest: Manifest, device: Device) -> dict[tuple[str, int], Candidate]:
    """Every file with every number of threads, once; files whose runtime isn't on the device are left out."""
    counts = dict.fromkeys(resolve_threads(count, device) for count in job.recipe.benchmark.threads)
    found = {}
    for one in manifest.planned:
        runtime = RUNTIME[one.format]
        if runtime not in device.runtimes:
            job.tell("note", "benchmark", f"{Path(one.file).name}: no {runtime} on {device.name}")
            continue
        for threads in counts:
            path = manifest.path_of(one.file)
            sample = job.run.work / _PIXELS if one.options.preprocessing is not None else None
            found[one.file, threads] = Candidate(path, runtime, threads, sample=sample)
    return found


def _kept(file: str, result: Measurement | Failure, manifest: Manifest) -> dict[str, Any]:
    where = {
        "artifact": file,
        "sha256": manifest.entries[file]["sha256"],
        "device": result.device,
        "runtime": result.runtime,
        "threads": result.threads,
    }
    if isinstance(result, Failure):
        return {**where, "error": str(result.error)}
    return {
        **where,
        "runtime_version": result.runtime_version,
        "batch": result.batch,
        "load_ns": result.load_ns,
        "first_ns": result.first_ns,
        "peak_rss_bytes": result.peak_rss_bytes,
        "base_rss_bytes": result.base_rss_bytes,
        "unstable": result.unstable,
        "raw_ns": result.raw_ns,
    }


def _row(one: dict[str, Any], reference_ns: list[int] | None) -> Measured:
    # A call of a file with a fixed batch answers for all of it: times are for one sample.
    raw = [value / one["batch"] for value in one["raw_ns"]] if one["batch"] > 1 else one["raw_ns"]
    own = stats.p50_interval(raw)
    p50 = stats.percentile(raw, 50)
    values = {key: value for key, value in one.items() if key in Measured.model_fields}
    if reference_ns is raw:
        values |= {"faster": 1.0}
    elif reference_ns is not None:
        ratio = stats.ratio_interval(reference_ns, raw)
        values |= {
            "faster": round(stats.percentile(reference_ns, 50) / p50, 4),
            "faster_low": round(ratio.low, 4),
            "faster_high": round(ratio.high, 4),
        }
    return Measured(
        **values,
        p50_ns=round(p50),
        p90_ns=round(stats.percentile(raw, 90)),
        samples=len(raw),
        p50_low_ns=round(own.low),
        p50_high_ns=round(own.high),
    )


def _summary(record: dict[str, Any]) -> str:
    rows = [(stats.percentile(one["raw_ns"], 50), one) for one in record["measurements"]]
    if not rows:
        return "nothing could be measured"
    p50, one = min(rows, key=lambda row: row[0])
    threads = f"{one['threads']} thread" + ("" if one["threads"] == 1 else "s")
    return f"fastest: {Path(one['artifact']).name} with {threads}, p50 {human_ns(p50)}"
