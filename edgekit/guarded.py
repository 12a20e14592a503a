"""Call a function in a process of its own, so that a crash there is an error here.

Runtimes are C++: a file that they don't expect may end the process by a signal instead of an exception. The
function is named to a fresh Python (nothing is forked: the caller may have threads); arguments and result are
JSON values.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable
from importlib import import_module
from typing import IO, Any

from edgekit import errors
from edgekit.errors import EdgekitError, MeasurementError, OutOfMemoryError
from edgekit.scratch import scratch

__all__ = ["call"]

# Started with -P: a json.py in the current folder, which may be anybody's, isn't Python's.
_CHILD = "import json, sys; sys.path[:] = json.loads(sys.argv[1]); from edgekit import guarded; "
_CHILD += "guarded._answer()"
_TAIL_BYTES = 600  # of what the process wrote to standard error: the runtime's own last words


def call(
    function: Callable[..., Any],
    *arguments: Any,
    what: str,
    where: str = "",
    next: str = "",
    timeout_seconds: float = 600.0,
    memory_bytes: int | None = None,
) -> Any:
    """``function(*arguments)``, computed in a child process.

    Args:
        function: one that can be imported by its module and name.
        arguments: JSON values (str, not Path); so is the result.
        what, where, next: for the error, if there is one: what failed, on which file, what to do.
        timeout_seconds: how long the child may take.
        memory_bytes: what the child may allocate; by default the machine's memory, so that a damaged file
            that asks for terabytes fails there instead of bringing the machine down.

    Raises:
        EdgekitError: one that the function raised, as it was.
        OutOfMemoryError: the child was killed (SIGKILL), or got no memory.
        MeasurementError: any other exception of the function; a death by a signal; no answer in time.
    """
    request = json.dumps(
        {
            "module": function.__module__,
            "name": function.__qualname__,
            "arguments": arguments,
            "memory_bytes": memory_bytes or _machine_memory(),
        }
    )
    # What the child and its runtimes leave for themselves goes with the folder, however they end.
    with tempfile.TemporaryFile() as log, scratch() as folder:
        try:
            done = subprocess.run(
                [sys.executable, "-P", "-c", _CHILD, json.dumps(sys.path)],
                input=request.encode(),
                stdout=subprocess.PIPE,
                stderr=log,
                timeout=timeout_seconds,
                check=False,
                env={**os.environ, "TMPDIR": folder},
            )
        except subprocess.TimeoutExpired:
            raise MeasurementError(
                what, where=where, got=f"no answer within {timeout_seconds:g} s", next=next
            ) from None
        answer = _parse(done.stdout)
        if answer is None:
            killed = done.returncode == -signal.SIGKILL
            kind = OutOfMemoryError if killed else MeasurementError
            raise kind(what, where=where, got=_death(done.returncode, log), next=next)
    if "result" in answer:
        return answer["result"]
    if (own := _own_error(answer)) is not None:
        raise own
    kind = OutOfMemoryError if answer["memory"] else MeasurementError
    raise kind(what, where=where, got=answer["message"], next=next)


def _parse(stdout: bytes) -> dict[str, Any] | None:
    """The child's answer; None if it didn't get so far."""
    try:
        answer = json.loads(stdout)
    except ValueError:
        return None
    return answer if isinstance(answer, dict) else None


def _death(returncode: int, log: IO[bytes]) -> str:
    """How the child ended, and the last that it said."""
    if returncode == -signal.SIGKILL:
        how = "the process was killed (SIGKILL), which is how the kernel ends one when memory runs out"
        return how + _last_words(log)
    if returncode < 0:
        with contextlib.suppress(ValueError):
            name = signal.Signals(-returncode).name
            how = f"the process crashed: {name} ({signal.strsignal(-returncode)})"
            return how + _last_words(log)
        return f"the process crashed: signal {-returncode}" + _last_words(log)
    return f"the process ended without an answer (exit code {returncode})" + _last_words(log)


def _last_words(log: IO[bytes]) -> str:
    size = log.seek(0, os.SEEK_END)
    log.seek(max(0, size - _TAIL_BYTES))
    lines = [line.strip() for line in log.read().decode("utf-8", "replace").splitlines() if line.strip()]
    return f": {' | '.join(lines[-3:])}" if lines else ""


def _own_error(answer: dict[str, Any]) -> EdgekitError | None:
    """An EdgekitError that the function raised, of the same class and with the same parts."""
    kind = getattr(errors, answer.get("kind", ""), None)
    if not (isinstance(kind, type) and issubclass(kind, EdgekitError)):
        return None
    parts: dict[str, str] = answer["parts"]
    return kind(answer["what"], **parts)


def _machine_memory() -> int | None:
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, OSError, ValueError):  # a system that doesn't say
        return None


# --- in the child ----------------------------------------------------------------------------------------


def _answer() -> None:
    """Read a request, call, write the answer: the only thing on the real standard output."""
    with os.fdopen(os.dup(1), "wb") as reply:
        os.dup2(2, 1)  # whatever else is printed, from C++ too, belongs to the log
        request = json.loads(sys.stdin.buffer.read())
        _limit_memory(request["memory_bytes"])
        try:
            function: Any = import_module(request["module"])
            for part in request["name"].split("."):
                function = getattr(function, part)
            answer = json.dumps({"result": function(*request["arguments"])})
        except EdgekitError as error:
            parts = {key: getattr(error, key) for key in ("where", "got", "expected", "next")}
            answer = json.dumps({"kind": type(error).__name__, "what": error.what, "parts": parts})
        except Exception as error:
            text = " ".join(str(error).split())
            told = f"{type(error).__name__}: {text}" if text else repr(error)
            answer = json.dumps({"message": told, "memory": isinstance(error, MemoryError)})
        reply.write(answer.encode())
        reply.flush()
    sys.stderr.flush()
    os._exit(0)  # a runtime that was given a damaged file may crash while it is taken down


def _limit_memory(size_bytes: int | None) -> None:
    if size_bytes is None:
        return
    with contextlib.suppress(ImportError, OSError, ValueError):
        import resource

        _, most = resource.getrlimit(resource.RLIMIT_DATA)
        if most == resource.RLIM_INFINITY or size_bytes < most:
            resource.setrlimit(resource.RLIMIT_DATA, (size_bytes, most))
