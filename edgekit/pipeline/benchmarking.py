"""``edgekit bench``: files, or a run's files, on a device, with a workload's own samples."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from edgekit.bench.benchmark import Check, benchmark, candidates_for
from edgekit.bench.record import Record
from edgekit.bench.session import Candidate
from edgekit.devices.asking import probe
from edgekit.devices.device import Device, load_device
from edgekit.devices.transport import connect
from edgekit.errors import DataError, DeviceError, InputError, Interrupted, MeasurementError
from edgekit.files import sha256
from edgekit.formats import FORMATS, by_suffix
from edgekit.formats.onnx.ends import companions, refuse_free
from edgekit.progress import Event, Progress, silent

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
        progress: told what happens.

    Returns:
        The record, and its file.

    Raises:
        InputError: a target that is none, an unknown device, inputs that don't fit.
        MeasurementError: the device can't be reached, or nothing could be measured.
    """
    profile_of = device if isinstance(device, Device) else load_device(device)
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
    progress: Progress,
) -> tuple[Record, Path]:
    subjects, run = _subjects(targets)
    source = _workload(workload, run, inputs)
    _refuse(subjects, profile_of, sampled=source is not None or inputs is not None)
    started = Event("stage-start", "benchmark", f"{len(subjects)} files on {profile_of.name}")
    progress(started)
    with connect(profile_of) as link, tempfile.TemporaryDirectory(prefix="edgekit-") as folder:
        about = probe(profile_of, transport=link)
        counts = _threads(threads, profile_of, about)
        prepared = _Prepared(Path(folder), source, inputs, samples, subjects)
        candidates = _candidates(subjects, runtimes, counts, profile_of, prepared)
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
    path = out or _path(run, profile_of, record)
    path.parent.mkdir(parents=True, exist_ok=True)
    record.save(path)
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
        if beside and device.transport != "local":
            raise InputError(
                "weights beside the file can't be taken to a device",
                where=str(one.path),
                got=", ".join(beside),
                expected="one file",
                next="put them into it: onnx.save(onnx.load('file.onnx'), 'whole.onnx')",
            )


def _blame(subjects: Sequence[_Subject], inputs: Path | None) -> None:
    """Raise InputError if what was given is why nothing could be measured: a damaged file, or its samples."""
    from edgekit.inspecting.artifact import inspect_artifact, suffixes

    for one in subjects:
        if one.path.suffix in suffixes():
            found = inspect_artifact(one.path, top=0)
            if inputs is not None:
                _refuse_samples(inputs, found.get("inputs") or [], one.path)


def _refuse_samples(source: Path, inputs: Sequence[Mapping[str, Any]], path: Path) -> None:
    """Raise DataError if the samples of a .npy differ in shape from the file's only input."""
    array = _read_samples(source)
    shape = list(inputs[0].get("shape") or ()) if len(inputs) == 1 and array.dtype.names is None else []
    fits = len(shape) == array.ndim and all(
        not isinstance(size, int) or size < 1 or size == given
        for size, given in zip(shape[1:], array.shape[1:], strict=False)
    )
    if shape and not fits:
        raise DataError(
            "these samples don't fit the file",
            where=str(source),
            got=f"shape {array.shape}",
            expected=f"what {path.name} takes: {' × '.join(map(str, shape))}",
        )


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
            raise InputError("nothing to measure", where=str(target), got="nothing there", next="ls runs")
        elif by_suffix(path.suffix) is None:
            raise InputError(
                "no runtime for such a file",
                where=str(target),
                expected=f"a run folder, or {', '.join(one.suffix for one in FORMATS.values())}",
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
    from edgekit.runs.folder import Damaged, check_files, read_record

    try:
        manifest = read_record(path / "manifest.json")
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
            self.sample = _cut(inputs, folder / "inputs.npy", samples)
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
        if names is not None and not self._workload.task.outputs:
            outputs = outputs[next(iter(self._workload.outputs), names[0])]
        answers = from_numpy(np.ascontiguousarray(outputs)).float()
        targets = self._workload.validation.targets[: len(answers)]
        try:
            self._workload.task.check_outputs(answers, targets)
        except DataError as error:
            raise MeasurementError("the answers don't fit the task", got=str(error)) from None
        return {"accuracy": self._workload.task.score(answers, targets)}


def _by_name(arrays: dict[str, npt.NDArray[Any]], source: Path) -> npt.NDArray[Any]:
    """Several inputs as one array of samples."""
    from edgekit.runtimes.device.runtimes import packed

    if not arrays or len({len(one) if one.ndim else -1 for one in arrays.values()}) != 1:
        raise DataError(
            "inputs of a sample go together, and these differ in number",
            where=str(source),
            got=", ".join(f"{name} {one.shape}" for name, one in arrays.items()) or "an empty file",
            expected="an array (N, …) for each input, by its name",
        )
    rows: npt.NDArray[Any] = packed(list(arrays.items()))
    return rows


def _cut(source: Path, target: Path, samples: int) -> Path:
    """The first ``samples`` of a .npy (0: one, which is timed), or of a .npz with an array for each input.

    Raises DataError.
    """
    import numpy as np

    chosen = _read_samples(source)[: samples or 1]
    for name in chosen.dtype.names or ("",):
        _refuse_values(chosen[name] if name else chosen, f"{source}: {name}" if name else str(source))
    np.save(target, chosen)
    return target


def _read_samples(source: Path) -> npt.NDArray[Any]:
    """What a .npy holds, or a .npz as one array. Raises DataError: no such file, damaged, or no samples."""
    import numpy as np

    try:
        loaded = np.load(source, mmap_mode="r", allow_pickle=False)
        if isinstance(loaded, np.lib.npyio.NpzFile):
            with loaded:
                loaded = _by_name({name: loaded[name] for name in loaded.files}, source)
        if not isinstance(loaded, np.ndarray):
            raise ValueError("no array")
    except DataError:
        raise
    except Exception as error:  # zip, deflate and the header of an array each have failures of their own
        got = getattr(error, "strerror", None) or str(error) or type(error).__name__
        raise DataError(
            "these samples can't be read",
            where=str(source),
            got=got,
            expected="a .npy of numbers (N, …), or an .npz with one for each input",
        ) from None
    if loaded.ndim < 1 or not loaded.size:
        raise DataError("there are no samples", where=str(source), got=f"shape {loaded.shape}")
    return loaded


def _refuse_values(values: npt.NDArray[Any], where: str) -> None:
    """Raise DataError for what no model takes: no real numbers, none at all, or infinite ones and NaN."""
    import numpy as np

    if values.dtype.kind not in "biuf":
        raise DataError("samples have to be real numbers", where=where, got=f"type {values.dtype}")
    if not values.size:
        raise DataError("the samples are empty", where=where, got=f"shape {values.shape}")
    if values.dtype.kind == "f":
        finite = np.isfinite(values).reshape(len(values), -1).all(axis=1)
        if not finite.all():
            raise DataError(
                "samples hold values that are not finite",
                where=where,
                got=f"NaN or infinity in sample {int(np.argmin(finite))}",
            )
