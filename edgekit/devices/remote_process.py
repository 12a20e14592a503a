"""A process on a device, behind the local client (ssh, adb) that carries its streams."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Sequence
from typing import TYPE_CHECKING

from edgekit.devices.process import LocalProcess
from edgekit.errors import MeasurementError

if TYPE_CHECKING:
    from edgekit.devices.shell import ShellTransport


class RemoteProcess(LocalProcess):
    """Like a local one, but that its end may also be the connection's, which is told apart."""

    def __init__(self, argv: Sequence[str], link: ShellTransport) -> None:
        self._link = link
        self._remote_pid: int | None = None
        super().__init__(argv, link.channel.env)

    def begin(self, timeout_seconds: float) -> None:
        """Read the first line, which is the process's id over there. Raises MeasurementError."""
        try:
            self._remote_pid = int(self.line(timeout_seconds))
        except ValueError:
            raise MeasurementError("a process said no id", where=self._link.device.name) from None

    def close(self) -> None:
        running = self._popen.poll() is None
        with contextlib.suppress(OSError):
            self._stdin.close()
        if running and self._remote_pid is not None:
            try:
                self._popen.wait(timeout=2.0)
            except Exception:  # it hangs: the client's end alone would leave it there
                self._link.kill(self._remote_pid)
        super().close()

    def died(self) -> MeasurementError:
        code = self.exit_code()
        words = self.last_words()
        if code is not None and (reason := self._link.channel.lost(code, words)):
            return self._link.unreachable(reason)
        if code is not None and code > 128:
            with contextlib.suppress(ValueError):
                return self.death(
                    f"killed by {signal.Signals(code - 128).name}", code == 128 + signal.SIGKILL
                )
        if code in (126, 127):
            return MeasurementError(
                "a process can't be started",
                where=self._link.device.name,
                got=words,
                next="set `python` in the device's profile to a Python 3.8 or later that is there",
            )
        return self.death(f"exit code {code}", False)
