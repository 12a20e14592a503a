"""The machine that edgekit runs on, reached through subprocesses."""

from __future__ import annotations

import contextlib
import json
import os
import selectors
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType

from edgekit.devices.transport import Completed, Message
from edgekit.errors import MeasurementError

_STDERR_TAIL = 2000  # characters of a dead process's last words that are worth showing


class LocalTransport:
    """Files stay where they are; processes are children of this one."""

    def __init__(self) -> None:
        self.folder = tempfile.mkdtemp(prefix="edgekit-")
        self._processes: list[LocalProcess] = []

    def run(self, argv: Sequence[str], *, timeout_seconds: float) -> Completed:
        try:
            done = subprocess.run(
                list(argv),
                stdin=subprocess.DEVNULL,
                capture_output=True,
                timeout=timeout_seconds,
                encoding="utf-8",
                errors="replace",
                check=False,
            )
        except subprocess.TimeoutExpired:
            raise MeasurementError(
                "a command took too long", where=argv[0], got=f"no end after {timeout_seconds:g} s"
            ) from None
        except OSError as error:
            raise MeasurementError("a command can't be started", where=argv[0], got=str(error)) from None
        return Completed(done.returncode, done.stdout, done.stderr)

    def push(self, source: Path, name: str = "") -> str:
        """The file is on this machine already: nothing is copied, ``name`` doesn't matter."""
        if not source.is_file():
            raise MeasurementError("no such file", where=str(source))
        return str(source.resolve())

    def pull(self, source: str, target: Path) -> None:
        shutil.copyfile(source, target)

    def spawn(self, argv: Sequence[str]) -> LocalProcess:
        process = LocalProcess(argv)
        self._processes.append(process)
        return process

    def close(self) -> None:
        for process in self._processes:
            process.close()
        self._processes.clear()
        shutil.rmtree(self.folder, ignore_errors=True)

    def __enter__(self) -> LocalTransport:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class LocalProcess:
    """A child that reads and writes one JSON object a line.

    It gets its own session, so that Ctrl-C reaches edgekit alone, which then ends the child; if edgekit is
    killed, the child sees the end of its input and leaves.
    """

    def __init__(self, argv: Sequence[str]) -> None:
        self.argv = list(argv)
        self._buffer = bytearray()
        self._stderr = tempfile.TemporaryFile()  # noqa: SIM115 - a pipe would block when nobody reads it
        try:
            self._popen = subprocess.Popen(
                self.argv,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self._stderr,
                bufsize=0,
                start_new_session=True,
            )
        except OSError as error:
            self._stderr.close()
            raise MeasurementError("a process can't be started", where=argv[0], got=str(error)) from None
        assert self._popen.stdin is not None
        assert self._popen.stdout is not None
        self._stdin, self._stdout = self._popen.stdin, self._popen.stdout

    @property
    def pid(self) -> int:
        """The process's id on this machine."""
        return self._popen.pid

    def send(self, message: Message) -> None:
        line = json.dumps(message).encode() + b"\n"
        try:
            while line:
                line = line[self._stdin.write(line) or 0 :]
        except (BrokenPipeError, ValueError):
            raise self._died() from None

    def receive(self, timeout_seconds: float) -> Message:
        line = self._line(timeout_seconds)
        try:
            message = json.loads(line)
        except ValueError:
            message = None
        if not isinstance(message, dict):
            raise MeasurementError("a process spoke no JSON", got=line[:200].decode(errors="replace"))
        return message

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self._stdin.close()
        try:
            self._popen.wait(timeout=0.5)  # a worker leaves at the end of its input
        except subprocess.TimeoutExpired:
            self._popen.kill()
            self._popen.wait()
        self._stdout.close()
        self._stderr.close()

    def _line(self, timeout_seconds: float) -> bytes:
        end = time.monotonic() + timeout_seconds
        with selectors.DefaultSelector() as selector:
            if not self._stdout.closed:
                selector.register(self._stdout, selectors.EVENT_READ)
            while b"\n" not in self._buffer:
                left = end - time.monotonic()
                if self._stdout.closed:
                    raise self._died()
                if left <= 0 or not selector.select(left):
                    raise MeasurementError(
                        "a process gave no answer in time", got=f"silence for {timeout_seconds:g} s"
                    )
                chunk = os.read(self._stdout.fileno(), 1 << 16)
                if not chunk:
                    raise self._died()
                self._buffer += chunk
        line, _, rest = bytes(self._buffer).partition(b"\n")
        self._buffer = bytearray(rest)
        return line

    def _died(self) -> MeasurementError:
        """Why the process is gone: its exit code or signal, and its last words."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._popen.wait(timeout=5)
        code = self._popen.returncode
        if code is not None and code < 0:
            with contextlib.suppress(ValueError):
                reason = f"killed by {signal.Signals(-code).name}"
        else:
            reason = f"exit code {code}"
        words = self._last_words()
        hint = "this is how the kernel ends a process when memory runs out" if code == -signal.SIGKILL else ""
        return MeasurementError("a process died", got=f"{reason}{': ' if words else ''}{words}", next=hint)

    def _last_words(self) -> str:
        if self._stderr.closed:
            return ""
        # pread leaves the file's position, which the child shares, where it is.
        size = os.fstat(self._stderr.fileno()).st_size
        tail = os.pread(self._stderr.fileno(), _STDERR_TAIL, max(0, size - _STDERR_TAIL))
        return tail.decode(errors="replace").strip()
