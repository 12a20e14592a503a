"""A whole benchmark on one device: what it is, whether the files are right there, and how fast; one Record.

Correctness before timing: a file that answers wrongly on the device is told before its latency.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from edgekit import __version__
from edgekit.bench.benchmark_model import SAMPLE, measure_with_benchmark_model
from edgekit.bench.evaluating import evaluate
from edgekit.bench.measure import Failure, measure
from edgekit.bench.record import Accuracy, FailedResult, Record, Result
from edgekit.bench.session import Candidate, located
from edgekit.devices.asking import probe
from edgekit.devices.device import Device
from edgekit.devices.probe_shell import without_python
from edgekit.devices.transport import Transport, linked
from edgekit.errors import MeasurementError, UnreachableError
from edgekit.progress import Event, Progress, silent
from edgekit.runtimes import RUNTIMES

Outputs = npt.NDArray[Any]
Key = tuple[Path, str, str]  # file, runtime, backend: what an answer can depend on

# Below this, in dB against the same file on this machine, a device computes something else. Integer kernels
# agree bit by bit, float ones to about 100 dB; files whose layers are float in part lie between.
WRONG_DB = 20.0


@dataclass(frozen=True)
class Check:
    """What the files are asked on the device, and how their answers are judged.

    Args:
        inputs: the .npy of samples for a candidate, (N, ...), preprocessed as its file wants them.
        judge: a candidate and its answers (N, ...) → ``accuracy`` and ``agreement``, as in Accuracy.
        output_shape: of one output, as the torch model gives it; of several by name.
        here: also have the same files answer on this machine, and compare.
        streaming: how files are asked that are called step by step (see ``evaluating.evaluate``).
    """

    inputs: Callable[[Candidate], Path]
    judge: Callable[[Candidate, Outputs], Mapping[str, float | None]] | None = None
    output_shape: tuple[int, ...] | dict[str, tuple[int, ...]] | None = None
    here: bool = True
    streaming: Mapping[str, Any] = field(default_factory=dict)


def benchmark(
    candidates: Sequence[Candidate],
    device: Device,
    *,
    sample: Path | None = None,
    names: Mapping[Path, str] | None = None,
    check: Check | None = None,
    min_seconds: float = 1.0,
    min_runs: int = 50,
    profile_runs: int = 0,
    about: Mapping[str, Any] | None = None,
    progress: Progress = silent,
    transport: Transport | None = None,
) -> Record:
    """Check and measure files on a device. For most arguments see ``measure``.

    Args:
        candidates: what is measured.
        device: where.
        sample: what the files are timed on.
        names: what a file is called in the record, instead of its own name.
        check: how to tell that the files are right; None: they are only timed.
        min_seconds: see ``measure``.
        min_runs: see ``measure``.
        profile_runs: see ``measure``.
        about: what the device said of itself, if it was asked already.
        progress: told what happens.
        transport: the way to the device, which stays open.

    Raises:
        MeasurementError: the device can't be reached, or isn't what its profile says. What happens to a
            single file becomes a failure in the record.
    """
    started = time.monotonic()
    with linked(device, transport) as link:
        about = dict(about or probe(device, transport=link))
        check_device_identity(device, about)
        judged: dict[Key, Accuracy] = {}
        broken: dict[Key, MeasurementError] = {}
        bare = without_python(device)
        if check is not None and not bare:
            judged, broken = _check(candidates, device, check, link, progress)
        rest = [one for one in candidates if _key(one) not in broken]
        limits: dict[str, Any] = {"min_seconds": min_seconds, "min_runs": min_runs}
        if bare:
            measured = measure_with_benchmark_model(
                rest, device, link, profile=profile_runs, progress=progress, **limits
            )
        else:
            measured = measure(
                rest,
                device,
                sample=sample,
                profile_runs=profile_runs,
                progress=progress,
                transport=link,
                **limits,
            )
    found = iter(measured)
    results: list[Result] = []
    failures: list[FailedResult] = []
    for one in candidates:
        name = {"artifact": (names or {}).get(one.artifact, one.artifact.name)}
        outcome = Failure(one, device.name, broken[_key(one)]) if _key(one) in broken else next(found)
        if isinstance(outcome, Failure):
            failures.append(outcome.result.model_copy(update=name))
        else:
            results.append(outcome.result.model_copy(update={**name, "accuracy": judged.get(_key(one))}))
    return Record(
        edgekit=__version__,
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        device=device.name,
        transport=device.transport,
        emulated=device.emulated,
        profile=device.model_dump(mode="json", exclude_defaults=True),
        about=about,
        settings={
            **limits,
            "input": "random" if sample is None or bare else "data",
            **({"sample": SAMPLE} if bare else {}),
        },
        results=tuple(results),
        failures=tuple(failures),
        seconds=round(time.monotonic() - started, 3),
    )


def check_device_identity(device: Device, about: Mapping[str, Any]) -> None:
    """Raise MeasurementError if the device is another than its profile says: architecture, or no GPU."""
    machine = {"arm64": "aarch64", "amd64": "x86_64", "armv8l": "armv7l"}.get(
        about["machine"], about["machine"]
    )
    if device.arch is not None and machine != device.arch:
        raise MeasurementError(
            "this device isn't what its profile says",
            where=device.name,
            got=f"architecture {machine}",
            expected=device.arch,
            next="correct `arch` in the profile, or `address`: perhaps another board answers there",
        )

    if device.gpu and device.providers and not about.get("gpus"):
        raise MeasurementError(
            "no such device",
            where=device.name,
            got="no GPU: nvidia-smi and the driver name none",
            expected=f"a GPU ({device.gpu})",
            next="look whether its driver is loaded, or choose another device: edgekit device ls",
        )


def _key(candidate: Candidate) -> Key:
    return candidate.artifact, candidate.runtime, candidate.backend


def _check(
    candidates: Sequence[Candidate], device: Device, check: Check, link: Transport, progress: Progress
) -> tuple[dict[Key, Accuracy], dict[Key, MeasurementError]]:
    judged: dict[Key, Accuracy] = {}
    broken: dict[Key, MeasurementError] = {}
    firsts = {_key(one): one for one in reversed(candidates)}
    for key, one in reversed(firsts.items()):
        try:
            judged[key] = _judge(one, device, check, link, progress)
        except UnreachableError:  # the device is gone for all of them
            raise
        except MeasurementError as error:
            broken[key] = error if str(one) in error.where else located(error, one, device)
            progress(Event("warning", "benchmark", str(broken[key])))
    return judged, broken


def _judge(
    candidate: Candidate, device: Device, check: Check, link: Transport, progress: Progress
) -> Accuracy:
    inputs = check.inputs(candidate)

    def answers(on: Device, way: Transport | None) -> Outputs:
        return evaluate(
            candidate.artifact,
            candidate.runtime,
            on,
            inputs,
            threads=candidate.threads,
            backend=candidate.backend if on is device else "",
            layout=candidate.layout,
            output_shape=check.output_shape,
            streaming=check.streaming,
            progress=progress,
            transport=way,
        )

    outputs = answers(device, link)
    found = Accuracy(samples=len(outputs), outputs_sha256=digest(outputs))
    if check.judge is not None:
        found = found.model_copy(update=dict(check.judge(candidate, outputs)))
    if not check.here or device.here or device.kind.made_up:
        return found
    here = Device(name="local", transport="local", runtimes=(candidate.runtime,))
    try:
        expected = answers(here, None)
    except MeasurementError as error:
        progress(Event("note", "benchmark", f"not compared with this machine: {error.got or error.what}"))
        return found
    snr = _snr_db(expected, outputs)
    equal = digest(expected) == found.outputs_sha256
    text = f"{candidate.artifact.name} on {device.name}: "
    if snr < WRONG_DB:
        text += f"answers otherwise than on this machine ({snr:.1f} dB)"
        progress(Event("warning", "benchmark", text))
    else:
        text += "bit-equal to this machine" if equal else f"{snr:.1f} dB against this machine"
        progress(Event("note", "benchmark", f"{text}, {len(outputs)} samples"))
    return found.model_copy(update={"snr_db": snr, "against": "the same file on this machine"})


def digest(outputs: Outputs) -> str:
    """sha256 of answers: equal if, and only if, they are equal bit by bit, in type and shape."""
    kind = outputs.dtype.str if outputs.dtype.names is None else outputs.dtype.descr
    head = f"{kind}{outputs.shape}".encode()
    return hashlib.sha256(head + np.ascontiguousarray(outputs).tobytes()).hexdigest()


def _snr_db(expected: Outputs, outputs: Outputs) -> float:
    """Signal-to-noise ratio in dB, 200 for equal answers (which have none); of several outputs the lowest."""
    if expected.dtype.names != outputs.dtype.names or expected.shape != outputs.shape:
        return -200.0
    if expected.dtype.names is not None:
        return min(_snr_db(expected[name], outputs[name]) for name in expected.dtype.names)
    signal = expected.astype(np.float64)
    noise = float(((outputs.astype(np.float64) - signal) ** 2).sum())
    power = float((signal**2).sum())
    if noise == 0:
        return 200.0
    if power == 0 or not np.isfinite(noise):
        return -200.0
    return float(np.clip(10 * np.log10(power / noise), -200.0, 200.0))


def candidates_for(
    artifact: Path,
    runtimes: Sequence[str],
    threads: Sequence[int],
    device: Device,
    sample: Path | None = None,
) -> list[Candidate]:
    """One candidate for each runtime, each of the profile's backends for it, and each number of threads.

    Of a GPU's profile only what runs on the GPU; of any other what it names comes after the CPU.
    """
    found = []
    for runtime in runtimes:
        backends = RUNTIMES[runtime].backends_on(device)
        base = Candidate(artifact, runtime, 1, sample=sample)
        found += [replace(base, threads=n, backend=b) for b in backends for n in threads]
    return found
