"""One call of LiteRT's ``benchmark_model`` on a device: its command line, its errors, its figures.

Flags: ``tensorflow/lite/tools/benchmark/README.md`` and ``benchmark_model.cc``. A build that doesn't know one
of them says so and goes on, which is an error here where it would change what is measured.
"""

from __future__ import annotations

import contextlib
import shlex
import signal
from collections.abc import Sequence

from edgekit.bench.benchmark_output import Said, parse
from edgekit.bench.session import Candidate
from edgekit.devices.device import Device
from edgekit.devices.transport import Completed, Transport
from edgekit.errors import MeasurementError

XNNPACK = "--use_xnnpack=true"
# What stands in a profile's `delegates`; anything else is the path of a delegate's library on the device.
_DELEGATES = {
    "": XNNPACK,
    "none": "--use_xnnpack=false",
    "gpu": "--use_gpu=true",
    "nnapi": "--use_nnapi=true",
    "hexagon": "--use_hexagon=true",
}
_OTHER_BUILD = (
    "push a build of benchmark_model with this delegate, or take it out of `delegates` in the profile"
)


def call(
    candidate: Candidate,
    device: Device,
    link: Transport,
    *,
    runs: int,
    seconds: float,
    longest: float,
    warm_up: float = 0.0,
    more: Sequence[str] = (),
) -> Said:
    """Call the program once; what it said.

    Args:
        candidate: the file, the number of threads, the delegate.
        device: ``benchmark_model`` is the program's path there.
        link: the way to it.
        runs: so many runs at least,
        seconds: for so long at least,
        longest: but none is begun after so many seconds.
        warm_up: how long it runs before, in seconds; once at least.
        more: further flags.

    Raises:
        MeasurementError: the program failed, crashed, or printed something else than expected; or the
            delegate that was asked for did nothing. UnreachableError: the connection was lost.
    """
    argv = [
        *_bound(device),
        device.benchmark_model,
        f"--graph={link.push(candidate.artifact)}",
        f"--num_threads={candidate.threads}",
        f"--num_runs={runs}",
        f"--min_secs={seconds:.6f}",
        f"--max_secs={longest:.6f}",
        "--warmup_runs=1",
        f"--warmup_min_secs={warm_up:.6f}",
        _delegate(candidate.backend),
        *more,
    ]
    done = link.run(argv, timeout_seconds=device.timeout_seconds + warm_up + longest)
    if done.returncode:
        raise MeasurementError(
            "benchmark_model refused the file" if done.returncode > 0 else "benchmark_model crashed",
            got=f"{_ending(done.returncode)}: {_last_words(done)}",
        )
    try:
        # Older ones print on standard error what newer ones print on standard output.
        said = parse(f"{done.stdout}\n{done.stderr}")
    except ValueError as error:
        raise MeasurementError(
            "benchmark_model printed something else than expected",
            got=f"{error}; its last words: {_last_words(done)}",
            expected='lines such as "count=50 first=… curr=… min=… max=… avg=… std=…"',
            next=f"call it by hand there: {device.benchmark_model} --graph=FILE",
        ) from None
    _refuse_other_backend(said, candidate.backend)
    return said


def _delegate(backend: str) -> str:
    return _DELEGATES.get(backend, f"--external_delegate_path={backend}")


def _refuse_other_backend(said: Said, backend: str) -> None:
    """Raise MeasurementError if the program went on without the delegate that was asked for."""
    flag = _delegate(backend)
    if not backend:
        return  # the default, whatever it is called
    if flag in said.unknown_flags:
        raise MeasurementError(
            "this benchmark_model doesn't know the delegate", got=f"it ignored {flag}", next=_OTHER_BUILD
        )
    if backend != "none" and not said.delegate:
        raise MeasurementError(
            "the delegate took over nothing of this file",
            got="no line that says that it was applied",
            expected=f"that {flag} has an effect",
            next=_OTHER_BUILD,
        )


def _bound(device: Device) -> list[str]:
    """What binds the program to the profile's cores, as its documentation has it: toybox's taskset."""
    return ["taskset", f"{sum(1 << core for core in device.affinity):x}"] if device.affinity else []


def look_for_program(device: Device, link: Transport) -> None:
    """Raise MeasurementError if the program can't be executed there."""
    path = device.benchmark_model
    body = """[ -e "$1" ] || { echo missing; exit; }
[ -f "$1" ] && [ -x "$1" ] || { echo denied; exit; }
[ -z "$2" ] || command -v taskset >/dev/null || echo taskset"""
    argv = ["sh", "-c", body, "sh", path, "bound" if device.affinity else ""]
    word = link.run(argv, timeout_seconds=device.timeout_seconds).stdout.strip()
    if word == "taskset":
        raise MeasurementError(
            "there is no taskset on the device, which binds benchmark_model to cores",
            where=device.name,
            next="take `affinity` out of its profile",
        )
    if word:
        serial = f"adb -s {device.address}" if device.address else "adb"
        allow = f"{serial} shell chmod 755 {shlex.quote(path)}"
        raise MeasurementError(
            "benchmark_model isn't there" if word == "missing" else "benchmark_model can't be executed",
            where=f"{path} on {device.name}",
            expected="LiteRT's benchmark_model for this device, or a Python that `python` names",
            next=allow
            if word == "denied"
            else f"{serial} push benchmark_model {shlex.quote(path)} && {allow}",
        )


def _ending(returncode: int) -> str:
    if returncode > 0:
        return f"exit code {returncode}"
    if returncode == -signal.SIGKILL:
        return "killed by SIGKILL, which is how the kernel ends a process when memory runs out"
    with contextlib.suppress(ValueError):
        return f"killed by {signal.Signals(-returncode).name}"
    return f"killed by signal {-returncode}"


def _last_words(done: Completed, lines: int = 4) -> str:
    """The last lines that it marked as errors; else the last of standard error; else those of its output."""
    said = [line.strip() for line in f"{done.stdout}\n{done.stderr}".splitlines()]
    marked = [line for line in said if line.startswith(("ERROR", "FATAL"))]
    errors = [line for line in done.stderr.splitlines() if line.strip()]
    chosen = marked or errors or [line for line in said if line]
    return "\n".join(chosen[-lines:])[-500:] or "nothing"
