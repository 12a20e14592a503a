"""What the exported files can do: every answer comes from the file itself, in its runtime."""

from __future__ import annotations

import io
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from edgekit.batching import batch_size, fitting
from edgekit.bench.measure import evaluate
from edgekit.devices.asking import resolve_threads
from edgekit.devices.device import Device
from edgekit.errors import DataError, ExportError, MeasurementError
from edgekit.execution import spans
from edgekit.files import atomic_write, sha256, sha256_of
from edgekit.formats import FORMATS, coverage
from edgekit.formats.options import Target
from edgekit.pipeline import ladder
from edgekit.pipeline.artifacts import Manifest, Planned
from edgekit.pipeline.chain import Rung
from edgekit.pipeline.channels import lost_channels
from edgekit.pipeline.job import Job
from edgekit.runs.keys import code_version
from edgekit.runtimes import RUNTIMES
from edgekit.runtimes.device.runtime_onnxruntime import UNFUSED
from edgekit.stages.base import Form
from edgekit.tensors import NamedTensors, Sequences, Tensors, apply, each, from_numpy, shapes, to_numpy
from edgekit.units import human_share, score_name
from edgekit.workload import Workload

ANSWERS = "answers"  # folder below the run's: each file's outputs for the validation set, (N, …) float32
BATCH = 64
_PART_BYTES = 32 << 20  # of inputs that are prepared at once
_MOST_KEPT = 256 << 20  # bytes of one file's answers


def evaluate_all(job: Job, rungs: Sequence[Rung], manifest: Manifest) -> None:
    """Accuracy, agreement, parity and int8 coverage of every file, into the manifest.

    Raises:
        MeasurementError: a runtime crashed, hung, or refused a file.
        ExportError: a file's answers have the wrong shape.
    """
    todo = []
    for one in manifest.planned:
        entry, key = manifest.entries[one.file], _key(job, manifest, one, rungs)
        if (entry["evaluation"] or {}).get("key") != key or not _answers_there(job, entry["evaluation"]):
            todo.append((one, key))
    if not todo:
        job.tell("stage-skipped", "evaluate", f"{len(manifest.planned)} files")
        return
    job.tell("stage-start", "evaluate", total=len(todo))
    raw_kinds = {one.options.preprocessing is not None for one, _ in todo}
    inputs = {
        raw: write_inputs(job.workload, job.run.work / f"inputs-{'raw' if raw else 'prepared'}.npy", raw=raw)
        for raw in raw_kinds
    }
    for index, (one, key) in enumerate(todo):
        job.tell("step", "evaluate", Path(one.file).name, done=index, total=len(todo))
        embedded = one.options.preprocessing is not None
        try:
            found = _evaluate(job, one, rungs, manifest.path_of(one.file), inputs[embedded])
        except (MeasurementError, ExportError) as error:
            manifest.leave_out(one, "evaluate", error)
            continue
        manifest.set(one.file, {**manifest.entries[one.file], "evaluation": {"key": key, **found}})
        name = score_name(job.workload.task.describe())
        message = f"{Path(one.file).name}: {name} {human_share(found['accuracy'])}"
        job.tell("note", "evaluate", f"{message}, agreement {human_share(found['agreement'])}")
    for path in inputs.values():
        path.unlink()
    count = sum(one.file in manifest.entries for one, _ in todo)
    job.tell("stage-end", "evaluate", f"{count} files on all {len(job.workload.validation)} samples")


def write_inputs(
    workload: Workload, path: Path, limit: int | None = None, *, raw: bool = False, step: bool = False
) -> Path:
    """The preprocessed validation inputs as .npy, batch by batch: preprocessed once, for all runtimes.

    ``raw``: as uint8 pixels instead, (N, H, W, C), for files that preprocess by themselves. ``step``: of
    sequences, what the model is given in the first step.
    Plain writes, no memory map: on a full disk a map ends the process, a write raises.
    """
    samples = workload.validation.inputs[:limit]
    first = to_numpy(_prepared(workload, samples[:1], raw=raw, step=step))
    descr = np.lib.format.dtype_to_descr(first.dtype)
    with path.open("wb") as stream:
        header = {"descr": descr, "fortran_order": False, "shape": (len(samples), *first.shape[1:])}
        np.lib.format.write_array_header_2_0(stream, header)
        for start, end in spans(len(samples), fitting(first.nbytes, 4 * BATCH, _PART_BYTES)):
            stream.write(to_numpy(_prepared(workload, samples[start:end], raw=raw, step=step)).data)
    return path


def _prepared(workload: Workload, samples: Tensors, *, raw: bool, step: bool) -> Tensors:
    if not raw:
        prepared: Tensors = workload.preprocessing(samples)
        if step and isinstance(prepared, Sequences):
            prepared = prepared.step()
        return prepared.contiguous()
    assert isinstance(samples, Tensor)  # ``embed.refuse``
    return (samples if workload.preprocessing.layout == "NHWC" else samples.permute(0, 2, 3, 1)).contiguous()


def _evaluate(job: Job, one: Planned, rungs: Sequence[Rung], path: Path, inputs: Path) -> dict[str, Any]:
    started = time.monotonic()
    fixed = FORMATS[one.format].fixed_sums
    task, source = job.workload.task, one.expected(one.rung.answers(job, fixed_sums=fixed))
    device, backend = device_for(job, one), backend_for(job, one)
    outputs = evaluate(
        path,
        FORMATS[one.format].runtime,
        device,
        inputs,
        threads=resolve_threads("all", device),
        batch=batch_for(job, one),
        backend=backend,
        output_shape=shapes(source),
        streaming=job.workload.streaming,
        progress=job.progress,
    )
    answers = _fitting(from_numpy(np.ascontiguousarray(outputs)).float(), source, path)
    targets = job.workload.validation.targets
    try:
        task.check_outputs(answers, targets)
    except DataError as error:
        raise ExportError("the file's answers don't fit the task", where=path.name, got=str(error)) from error
    graded = apply(lambda values: values * one.options.temperature, answers)
    parity = ladder.parity_of(one, graded, source)
    numbers, told = (ladder.numbers_of(one, values) for values in (source, graded))
    telling = ladder.telling_samples(numbers, told, np.load(inputs, mmap_mode="r"))
    asked = time.monotonic()
    ladder.check_gate(job, one, parity, path.name, fused=backend != UNFUSED, path=path, telling=telling)
    return {
        **parity,
        "gate_seconds": time.monotonic() - asked,
        "lost_channels": _lost(job, one, rungs, graded),
        "answers": _keep(job, one, answers),
        "device": device.name,
        "backend": backend,
        "accuracy": task.score(answers, targets),
        **({"scores": scores} if (scores := task.scores(answers, targets)) else {}),
        "agreement": task.agreement(answers, rungs[-1].answers(job)),
        "parity": task.agreement(answers, source),
        "coverage": _coverage(job, path, one),
        "runtimes": _in_others(job, one, rungs, path, inputs),
        "seconds": time.monotonic() - started,
    }


def further_runtimes(job: Job, one: Planned) -> dict[str, str]:
    """By name the version of those that read the file too, and are installed where it is judged."""
    device = device_for(job, one)
    there = job.connections.about(device)["runtimes"]
    found = {}
    for name in FORMATS[one.format].runtimes[1:]:
        versions = [there[package] for package in RUNTIMES[name].packages if package in there]
        if name in (device.runtimes if device in job.devices else RUNTIMES) and versions:
            found[name] = versions[0]
    return found


def _in_others(
    job: Job, one: Planned, rungs: Sequence[Rung], path: Path, inputs: Path
) -> dict[str, dict[str, Any]]:
    """Its answers in the other runtimes that read it; what one of them refuses costs it its place alone."""
    task, source = job.workload.task, one.expected(one.rung.answers(job))
    found = dict[str, dict[str, Any]]()
    device = device_for(job, one)
    for name in further_runtimes(job, one):
        job.tell("step", "evaluate", f"{Path(one.file).name} in {RUNTIMES[name].title}")
        try:
            outputs = evaluate(
                path,
                name,
                device.model_copy(update={"runtimes": (name,)}),
                inputs,
                threads=resolve_threads("all", device),
                batch=batch_for(job, one),
                output_shape=shapes(source),
                streaming=job.workload.streaming,
                progress=job.progress,
            )
            answers = _fitting(from_numpy(np.ascontiguousarray(outputs)).float(), source, path)
            task.check_outputs(answers, job.workload.validation.targets)
        except (MeasurementError, ExportError, DataError) as error:
            job.tell(
                "note", "evaluate", f"{Path(one.file).name} isn't used with {RUNTIMES[name].title}: {error}"
            )
            found[name] = {"error": str(error)}
            continue
        graded = apply(lambda values: values * one.options.temperature, answers)
        found[name] = {
            "accuracy": task.score(answers, job.workload.validation.targets),
            "agreement": task.agreement(answers, rungs[-1].answers(job)),
            "snr_db": ladder.parity_of(one, graded, source)["snr_db"],
        }
    return found


def _lost(job: Job, one: Planned, rungs: Sequence[Rung], answers: Tensors) -> dict[str, Any]:
    """Channels that int8 lost between the last float model and the file."""
    if one.rung.form is not Form.INT8:
        return {}
    before = rungs[: rungs.index(one.rung)]
    plain = next((rung for rung in reversed(before) if rung.form is Form.FLOAT), None)
    if plain is None:
        return {}
    # A file that decodes has no channels: those of its graph's own outputs are looked at.
    answers = answers if one.options.ending is None else one.rung.answers(job)
    found = []
    for part in job.workload.task.parts():
        three = [part.of(values) for values in (plain.answers(job), one.rung.answers(job), answers)]
        for named in zip(*(each(values, part.name) for values in three), strict=True):
            name, tensors = named[0][0], [tensor for _, tensor in named]
            if tensors[0].dim() < 2:
                continue
            axis = part.task.channel_dim
            if lost := lost_channels(*(values.movedim(axis, 1) for values in tensors)):
                found.append({**lost, **({"output": name} if name else {})})
    return min(found, key=lambda lost: lost["worst"][0]["snr_db"], default={})


def answers_of(job: Job, evaluation: dict[str, Any]) -> Tensors | None:
    """What a file answered to the whole validation set; None where there was too much of it to be kept."""
    kept = evaluation["answers"]
    return None if kept is None else from_numpy(np.load(job.run.path / kept["file"], allow_pickle=False))


def _keep(job: Job, one: Planned, answers: Tensors) -> dict[str, str] | None:
    """The answers as a file, from which everything is said that the report says about them."""
    if answers.nbytes > _MOST_KEPT:
        return None
    path = job.run.path / ANSWERS / f"{Path(one.file).name}.npy"
    path.parent.mkdir(exist_ok=True)
    stream = io.BytesIO()
    np.save(stream, to_numpy(answers), allow_pickle=False)
    atomic_write(path, stream.getvalue())
    return {"file": f"{ANSWERS}/{path.name}", "sha256": sha256(path)}


def _answers_there(job: Job, evaluation: dict[str, Any]) -> bool:
    """Whether the answers that were kept are still what was written."""
    if "answers" not in evaluation:
        return False
    kept = evaluation["answers"]
    try:
        return kept is None or sha256(job.run.path / kept["file"]) == kept["sha256"]
    except OSError:
        return False


def _fitting(answers: Tensors, source: Tensors, path: Path) -> Tensors:
    """The file's answers in the torch model's shapes; runtimes may add or drop a dimension of 1."""
    if isinstance(source, NamedTensors) and isinstance(answers, NamedTensors):
        if set(answers.names) == set(source.names):
            return NamedTensors(
                {name: _fitting_one(answers[name], one, path, name) for name, one in source.items()}
            )
    elif isinstance(source, Tensor) and isinstance(answers, Tensor):
        return _fitting_one(answers, source, path)
    raise ExportError(
        "the file has other outputs than its torch model",
        where=path.name,
        got=", ".join(name for name, _ in each(answers)),
        expected=", ".join(name for name, _ in each(source)),
        next="leave this format out of exports.formats, and please report it",
    )


def _fitting_one(answers: Tensor, source: Tensor, path: Path, name: str = "") -> Tensor:
    if answers.shape == source.shape:
        return answers
    if answers.numel() == source.numel():
        return answers.reshape(source.shape)
    raise ExportError(
        "the file answers in another shape than its torch model",
        where=f"{path.name}, output {name}" if name else path.name,
        got=str(tuple(answers.shape)),
        expected=str(tuple(source.shape)),
        next="leave this format out of exports.formats, and please report it",
    )


def _coverage(job: Job, path: Path, one: Planned) -> dict[str, Any] | None:
    """The share of MACs in integer kernels, and the layers that are not; None if it couldn't be counted."""
    if not FORMATS[one.format].counted:
        return None
    try:
        counted = _counted(job, path, one)
    except MeasurementError as error:
        job.tell("warning", "evaluate", str(error))
        return None
    layers = counted.floats() if one.precision == "int8" else []
    return {
        "share": counted.share,
        "integer_macs": counted.integer_macs,
        "total_macs": counted.total_macs,
        "float_time_share": counted.float_time_share if one.precision == "int8" else None,
        "float_kernels": list(counted.float_kernels) if one.precision == "int8" else [],
        "partitions": counted.partitions,
        "outside": counted.outside,
        "float_layers": [
            {"name": layer.name, "kernel": layer.kernel, "macs": layer.macs, "reason": layer.reason}
            for layer in layers
        ],
        "layers": [asdict(layer) for layer in counted.layers],
    }


def backend_for(job: Job, one: Planned) -> str:
    """Which backend of its runtime answers for a file; "" is the runtime's default."""
    device = device_for(job, one)
    return FORMATS[one.format].backend(
        one.options, one.precision, lambda: Target.of(device, job.connections.about(device))
    )


def batch_for(job: Job, one: Planned) -> int:
    """How many samples its runtime is asked about at once: fewer where the network's tensors are large."""
    return batch_size(one.rung.model, job.workload.example(2), BATCH)


def _counted(job: Job, path: Path, one: Planned) -> coverage.Coverage:
    """Where the file is meant to run: an ONNX file that is spelled for ARM is float in part on x86."""
    there = next((device for device in job.devices if FORMATS[one.format].runtime in device.runtimes), None)
    if there is None or there.here:
        return FORMATS[one.format].coverage(path)
    return FORMATS[one.format].coverage(path, there, job.connections.to(there))


def device_for(job: Job, one: Planned) -> Device:
    """The first device of the run that is this machine and has the format's runtime, else this machine.

    On others, which are slower and further away, some samples are asked when they are measured.
    """
    for device in job.devices:
        if device.here and FORMATS[one.format].runtime in device.runtimes:
            return device
    return Device(name="local", transport="local", runtimes=(FORMATS[one.format].runtime,))


def _key(job: Job, manifest: Manifest, one: Planned, rungs: Sequence[Rung]) -> str:
    return sha256_of(
        {
            "file": manifest.entries[one.file]["sha256"],
            "workload": job.fingerprint,
            "source": one.rung.digest,
            "fake_quantized": rungs[-1].digest,
            "device": device_for(job, one).model_dump(mode="json"),
            "backend": backend_for(job, one),
            "runtimes": further_runtimes(job, one),
            "devices": [device.model_dump(mode="json") for device in job.devices if not device.here],
            "code": code_version("evaluation"),
        }
    )
