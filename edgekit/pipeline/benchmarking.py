"""``edgekit bench``: files, or a run's files, on a device, with a workload's own samples."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from edgekit.bench.benchmark import Check, benchmark, candidates_for
from edgekit.bench.record import Record
from edgekit.bench.session import Candidate
from edgekit.caching import cache_folder
from edgekit.devices.asking import probe
from edgekit.devices.device import Device, load_device
from edgekit.devices.transport import connect
from edgekit.errors import (
    DataError,
    DeviceError,
    DiskFullError,
    InputError,
    Interrupted,
    MeasurementError,
    MissingExtraError,
)
from edgekit.files import disk_full, refuse_unwritable, sha256, what_is
from edgekit.formats import FORMATS, by_suffix
from edgekit.formats.onnx.ends import companions, refuse_free
from edgekit.pipeline import samples_of_files
from edgekit.pipeline.foreign_code import refuse_code
from edgekit.pipeline.places import tell_place
from edgekit.progress import Event, Progress, silent
from edgekit.runtimes import RUNTIMES
from edgekit.scratch import scratch

if TYPE_CHECKING:
    import numpy.typing as npt

    from edgekit.workload import Workload

FOLDER, HERE = "benchmarks", Path("bench-results")  # in a run folder; for files that belong to none


@dataclass(frozen=True)
class _Subject:
    """A file to be measured. ``raw``: it takes the workload's raw pixels."""

    path: Path
    name: str
    raw: bool = False


def bench(
    targets: Sequence[str | Path],
    device: str | Path | Device = "local",
    *,
    workload: str | Path | Workload | None = None,
    inputs: Path | None = None,
    samples: int = 256,
    runtimes: Sequence[str] = (),
    threads: Sequence[int | Literal["all"]] = (),
    min_seconds: float = 1.0,
    min_runs: int = 50,
    profile: bool = False,
    out: Path | None = None,
    allow_compiled: bool = False,
    progress: Progress = silent,
) -> tuple[Record, Path]:
    """Measure files on a device, all of them in turns.

    Args:
        targets: .onnx, .tflite, .pte and .pt2 files, and run folders, of which all files are taken.
        device: a profile, its name or its file.
        workload: whose validation samples the files are asked on the device; a run of the embedded demo
            needs none.
        inputs: a .npy of preprocessed samples (N, ...) instead: answers are compared with this machine's.
        samples: at most so many of them are sent; 0: no check of the answers.
        runtimes: instead of those that the file and the device have in common.
        threads: numbers of threads; by default the profile's, or 1.
        min_seconds: see ``bench.measure``.
        min_runs: see ``bench.measure``.
        profile: also say which ops take how long.
        out: where the record is written; by default ``benchmarks/`` of the run, or ``bench-results/`` here.
        allow_compiled: run AOTInductor packages that somebody else compiled; nothing keeps native code from
            whatever the user may do.
        progress: told what happens.

    Returns:
        The record, and its file.

    Raises:
        InputError: a target that is none or would execute something, an unknown device, inputs that don't
            fit.
        MeasurementError: the device can't be reached, or nothing could be measured.
    """
    tell_place(progress, "devices", device)
    profile_of = device if isinstance(device, Device) else load_device(device)
    if out is not None:
        refuse_unwritable(out)
    try:
        return _bench(
            targets,
            profile_of,
            workload=workload,
            inputs=inputs,
            samples=samples,
            runtimes=runtimes,
            threads=threads,
            min_seconds=min_seconds,
            min_runs=min_runs,
            profile=profile,
            out=out,
            allow_compiled=allow_compiled,
            progress=progress,
        )
    except KeyboardInterrupt:
        raise Interrupted(
            "interrupted",
            where=profile_of.name,
            got="nothing was written, and nothing is left on the device",
            next="give the same command again: it measures anew",
        ) from None


def _bench(
    targets: Sequence[str | Path],
    profile_of: Device,
    *,
    workload: str | Path | Workload | None,
    inputs: Path | None,
    samples: int,
    runtimes: Sequence[str],
    threads: Sequence[int | Literal["all"]],
    min_seconds: float,
    min_runs: int,
    profile: bool,
    out: Path | None,
    allow_compiled: bool,
    progress: Progress,
) -> tuple[Record, Path]:
    subjects, run = _subjects(targets)
    for one in subjects:
        refuse_code(one.path, allow_compiled)
    source = _workload(workload, run, inputs)
    _refuse(subjects, profile_of, sampled=source is not None or inputs is not None)
    started = Event("stage-start", "benchmark", f"{len(subjects)} files on {profile_of.name}")
    progress(started)
    with connect(profile_of) as link, scratch() as folder:
        about = probe(profile_of, transport=link)
        counts = _threads(threads, profile_of, about)
        prepared = _Prepared(Path(folder), source, inputs, samples, subjects)
        candidates = _candidates(subjects, runtimes, counts, profile_of, prepared)
        _refuse_missing(candidates, profile_of)
        candidates = [replace(one, native=allow_compiled) for one in candidates]
        record = benchmark(
            candidates,
            profile_of,
            sample=prepared.timed or prepared.sample,
            names={one.path: one.name for one in subjects},
            check=prepared.check(),
            min_seconds=min_seconds,
            min_runs=min_runs,
            profile_runs=20 if profile else 0,
            about=about,
            progress=progress,
            transport=link,
        )
    path = _saved(record, out or _path(run, profile_of, record))
    progress(Event("stage-end", "benchmark", f"written to {path}"))
    if not record.results:
        _blame(subjects, inputs)
        raise MeasurementError(
            "nothing could be measured",
            where=profile_of.name,
            got=record.failures[0].error,
            next=f"see {path}",
        )
    return record, path


def _refuse(subjects: Sequence[_Subject], device: Device, *, sampled: bool) -> None:
    """Raise InputError for files that can't be timed as they are. ``sampled``: on samples that are given."""
    for one in subjects:
        if not sampled:
            refuse_free(one.path)
        beside = [other.name for other in companions(one.path)]
        if beside and not device.here:
            raise InputError(
                "weights beside the file can't be taken to a device",
                where=str(one.path),
                got=", ".join(beside),
                expected="one file",
                next="put them into it: onnx.save(onnx.load('file.onnx'), 'whole.onnx')",
            )


def _refuse_missing(candidates: Sequence[Candidate], device: Device) -> None:
    """Raise MissingExtraError if nothing can be measured here for want of a package."""
    runtimes = [RUNTIMES[name] for name in dict.fromkeys(one.runtime for one in candidates)]
    if device.here and not device.python and not any(one.installed() for one in runtimes):
        missing = runtimes[0]
        raise MissingExtraError(
            f"measuring in {missing.title} needs {missing.package}",
            where=str(candidates[0].artifact),
            got="not installed",
            next=missing.install(),
        )


def _saved(record: Record, path: Path) -> Path:
    """Write the record. Raises DiskFullError where that can't be done: it says where it is kept instead."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        record.save(path)
        return path
    except (OSError, DiskFullError) as error:
        full = disk_full(error, path, refused=True)
        if full is None:
            raise
    for folder in (HERE, Path(tempfile.gettempdir()), cache_folder() / "bench"):
        other = (folder / f"edgekit-{path.name}").absolute()
        try:
            other.parent.mkdir(parents=True, exist_ok=True)
            record.save(other)
        except (OSError, DiskFullError):
            continue
        full.next = f"nothing has to be measured again, all timings are in {other}: move that file"
        raise full
    full.next = "free some space, and measure again: the timings could be kept nowhere else either"
    raise full


def _blame(subjects: Sequence[_Subject], inputs: Path | None) -> None:
    """Raise InputError if what was given is why nothing could be measured: a damaged file, or its samples.

    Compiled code, which only its runtime can read, is blamed for nothing.
    """
    from edgekit.inspecting.artifact import inspect_artifact, suffixes
    from edgekit.runtimes.native import is_native

    for one in subjects:
        if one.path.suffix in suffixes() and not is_native(one.path):
            found = inspect_artifact(one.path, top=0)
            if inputs is not None:
                samples_of_files.refuse_misfit(inputs, found.get("inputs") or [], one.path)


def _subjects(targets: Sequence[str | Path]) -> tuple[list[_Subject], Path | None]:
    """The files, and the run folder if one was given. Raises InputError."""
    found: list[_Subject] = []
    runs = []
    for target in targets:
        path = Path(target)
        if path.is_dir():
            runs.append(path)
            found += _of_run(path)
        elif not path.is_file():
            raise InputError("nothing to measure", where=str(target), got=what_is(path), next="ls runs")
        elif by_suffix(path.suffix) is None:
            known = dict.fromkeys(one.suffix for one in FORMATS.values())
            raise InputError(
                "no runtime for such a file",
                where=str(target),
                expected=f"a run folder, or {', '.join(known)}",
            )
        else:
            found.append(_Subject(path, path.name))
    if len(runs) > 1:
        raise InputError(
            "one run at a time", got=", ".join(map(str, runs)), next="give the files that you want to compare"
        )
    twice = [one.name for one in found if sum(other.name == one.name for other in found) > 1]
    if twice and len({sha256(one.path) for one in found if one.name in twice}) > 1:
        found = [_Subject(one.path, str(one.path), one.raw) if one.name in twice else one for one in found]
    return found, runs[0] if runs else None


def _of_run(path: Path) -> list[_Subject]:
    from edgekit.runs.folder import Damaged, check_files, check_plain
    from edgekit.runs.manifest import read_manifest

    check_plain(path)
    try:
        manifest = read_manifest(path)
        if manifest is not None:
            check_files(path, manifest["files"])
    except Damaged as damage:
        raise InputError("the run folder is damaged", where=str(path), got=str(damage)) from None
    if manifest is None:
        raise InputError(
            "this is no run folder with exported files",
            where=str(path),
            expected="a folder that `edgekit compress` made",
            next="ls runs",
        )
    entries = [one for one in manifest["artifacts"] if by_suffix(Path(one["file"]).suffix)]
    return [_Subject(path / one["file"], one["file"], _takes_pixels(one)) for one in entries]


def _takes_pixels(entry: Mapping[str, Any]) -> bool:
    options = entry.get("options") or {}
    return bool(isinstance(options, dict) and options.get("preprocessing"))


def _workload(spec: str | Path | Workload | None, run: Path | None, inputs: Path | None) -> Workload | None:
    if inputs is not None:
        if spec is not None:
            raise InputError("samples come from a workload or from a file", got=f"{spec} and {inputs}")
        return None
    from edgekit.opening import load_workload

    if run is None:
        return None if spec is None else load_workload(spec)
    from edgekit.pipeline import reopening

    identity = reopening.identity_of(run)
    if spec is None and identity["workload"] != reopening.DEMO:
        return None
    if spec is None or isinstance(spec, str | Path):
        return reopening.workload_of(run, spec, identity)[0]
    return spec


def _threads(
    wanted: Sequence[int | Literal["all"]], device: Device, about: Mapping[str, Any]
) -> tuple[int, ...]:
    listed = wanted or ((device.threads,) if device.threads is not None else (1,))
    cores = device.cores or len(device.affinity) or len(about["affinity"]) or 1
    return tuple(dict.fromkeys(cores if one == "all" else one for one in listed))


def _candidates(
    subjects: Sequence[_Subject],
    runtimes: Sequence[str],
    threads: Sequence[int],
    device: Device,
    prepared: _Prepared,
) -> list[Candidate]:
    found: list[Candidate] = []
    for one in subjects:
        format = by_suffix(one.path.suffix)
        assert format is not None  # it was looked up when the file was taken
        fitting = [name for name in format.runtimes if name in device.runtimes]
        chosen = [name for name in fitting if name in runtimes] if runtimes else fitting[:1]
        found += candidates_for(one.path, chosen, threads, device, prepared.pixels if one.raw else None)
    if not found:
        raise DeviceError(
            "no runtime of this device takes these files",
            where=device.name,
            got=", ".join(sorted({one.path.suffix for one in subjects})),
            expected=f"files for {', '.join(runtimes or device.runtimes)}",
        )
    return found


def _path(run: Path | None, device: Device, record: Record) -> Path:
    stamp = record.created.replace(":", "").replace("-", "")[:15]
    return (run / FOLDER if run else HERE) / f"{device.name}-{stamp}.json"


class _Prepared:
    """The samples as files, preprocessed once. ``sample`` is what is timed on; None: a random input."""

    def __init__(
        self,
        folder: Path,
        workload: Workload | None,
        inputs: Path | None,
        samples: int,
        subjects: Sequence[_Subject],
    ) -> None:
        self._workload, self._count = workload, samples
        self.sample: Path | None = None
        self.pixels: Path | None = None
        self.timed: Path | None = None  # where another sample is timed than files are asked
        if inputs is not None:
            self.sample = samples_of_files.cut(inputs, folder / "inputs.npy", samples)
        elif workload is not None:
            from edgekit.pipeline.evaluation import write_inputs

            limit = samples or 1
            self.sample = write_inputs(workload, folder / "inputs.npy", limit)
            if workload.states:
                self.timed = write_inputs(workload, folder / "step.npy", 1, step=True)
            if any(one.raw for one in subjects):
                self.pixels = write_inputs(workload, folder / "pixels.npy", limit, raw=True)

    def check(self) -> Check | None:
        """How the files' answers are judged; None: they can't be."""
        if not self._count or self.sample is None:
            return None
        shape = None
        if self._workload is not None:
            import torch

            from edgekit.execution import call, mode
            from edgekit.tensors import shapes

            with mode(self._workload.model, training=False), torch.no_grad():
                shape = shapes(call(self._workload.model, self._workload.whole(1)))
        judge = self._judge if self._workload is not None else None
        streaming = {} if self._workload is None else self._workload.streaming
        return Check(self._inputs, judge, shape, streaming=streaming)

    def _inputs(self, candidate: Candidate) -> Path:
        path = candidate.sample or self.sample
        assert path is not None
        return path

    def _judge(self, candidate: Candidate, outputs: npt.NDArray[Any]) -> dict[str, float | None]:
        import numpy as np

        from edgekit.tensors import from_numpy

        assert self._workload is not None
        names = outputs.dtype.names
        own = names is not None and self._workload.task.ends_with(names)
        if names is not None and not own and not self._workload.task.outputs:
            outputs = outputs[next(iter(self._workload.outputs), names[0])]
        answers = from_numpy(np.ascontiguousarray(outputs)).float()
        targets = self._workload.validation.targets[: len(answers)]
        try:
            self._workload.task.check_outputs(answers, targets)
        except DataError as error:
            raise MeasurementError("the answers don't fit the task", got=str(error)) from None
        return {"accuracy": self._workload.task.score(answers, targets)}
