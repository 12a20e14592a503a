"""A child process that speaks one JSON object a line: a worker, or the client that reaches one."""

from __future__ import annotations

import contextlib
import json
import os
import selectors
import signal
import subprocess
import tempfile
import time
from collections.abc import Mapping, Sequence

from edgekit.devices.transport import Message
from edgekit.errors import MeasurementError, OutOfMemoryError
from edgekit.shortage import is_shortage

_STDERR_TAIL = 2000  # characters of a dead process's last words that are worth showing


class LocalProcess:
    """A child that reads and writes one JSON object a line.

    It gets its own session, so that Ctrl-C reaches edgekit alone, which then ends the child; if edgekit is
    killed, the child sees the end of its input and leaves.
    """

    def __init__(self, argv: Sequence[str], env: Mapping[str, str] | None = None) -> None:
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
                env=None if env is None else {**os.environ, **env},
                start_new_session=True,
            )
        except OSError as error:
            self._stderr.close()
            if is_shortage(error):  # of this process, whatever is to be started
                raise
            raise MeasurementError("a process can't be started", where=argv[0], got=str(error)) from None
        assert self._popen.stdin is not None
        assert self._popen.stdout is not None
        self._stdin, self._stdout = self._popen.stdin, self._popen.stdout

    @property
    def pid(self) -> int:
        """The process's id on this machine."""
        return self._popen.pid

    @property
    def running(self) -> bool:
        """Whether it hasn't ended yet."""
        return self._popen.poll() is None

    def send(self, message: Message) -> None:
        line = json.dumps(message).encode() + b"\n"
        try:
            while line:
                line = line[self._stdin.write(line) or 0 :]
        except (BrokenPipeError, ValueError):
            raise self.died() from None

    def receive(self, timeout_seconds: float) -> Message:
        line = self.line(timeout_seconds)
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

    def line(self, timeout_seconds: float) -> bytes:
        """The next line of its standard output, without the line's end. Raises MeasurementError."""
        end = time.monotonic() + timeout_seconds
        with selectors.DefaultSelector() as selector:
            if not self._stdout.closed:
                selector.register(self._stdout, selectors.EVENT_READ)
            while b"\n" not in self._buffer:
                left = end - time.monotonic()
                if self._stdout.closed:
                    raise self.died()
                if left <= 0 or not selector.select(left):
                    raise self._silent(timeout_seconds)
                chunk = os.read(self._stdout.fileno(), 1 << 16)
                if not chunk:
                    raise self.died()
                self._buffer += chunk
        line, _, rest = bytes(self._buffer).partition(b"\n")
        self._buffer = bytearray(rest)
        return line

    def _silent(self, timeout_seconds: float) -> MeasurementError:
        words = self.last_words()
        return MeasurementError(
            "a process gave no answer in time",
            got=f"silence for {timeout_seconds:g} s{': ' if words else ''}{words}",
            next="if it only takes longer: set timeout_seconds in the device's profile",
        )

    def died(self) -> MeasurementError:
        """Why the process is gone: its exit code or signal, and its last words."""
        code = self.exit_code()
        if code is not None and code < 0:
            with contextlib.suppress(ValueError):
                return self.death(f"killed by {signal.Signals(-code).name}", code == -signal.SIGKILL)
        return self.death(f"exit code {code}", False)

    def exit_code(self) -> int | None:
        """Its exit code, negative for a signal; None if it goes on without its standard output."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._popen.wait(timeout=5)
        return self._popen.returncode

    def death(self, reason: str, killed: bool) -> MeasurementError:
        """The error for a process that ended for this reason, ``killed`` by SIGKILL or not."""
        words = self.last_words()
        got = f"{reason}{': ' if words else ''}{words}"
        if killed:
            return OutOfMemoryError(
                "a process was killed",
                got=got,
                next="this is how the kernel ends one when memory runs out: free some, there",
            )
        return MeasurementError("a process died", got=got)

    def last_words(self) -> str:
        """The end of what it wrote to standard error."""
        if self._stderr.closed:
            return ""
        # pread leaves the file's position, which the child shares, where it is.
        size = os.fstat(self._stderr.fileno()).st_size
        tail = os.pread(self._stderr.fileno(), _STDERR_TAIL, max(0, size - _STDERR_TAIL))
        return tail.decode(errors="replace").strip()
