"""The machine that edgekit runs on, reached through subprocesses."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType

from edgekit.devices import locking
from edgekit.devices.device import Device
from edgekit.devices.process import LocalProcess
from edgekit.devices.transport import Completed
from edgekit.errors import MeasurementError
from edgekit.progress import Progress, silent
from edgekit.scratch import Scratch
from edgekit.shortage import is_shortage

__all__ = ["LocalProcess", "LocalTransport", "open_local"]


def open_local(device: Device) -> LocalTransport:
    """Reach this machine, as its profile wants it."""
    environment = dict(one.split("=", 1) for one in device.setup)
    return LocalTransport(device.work_folder or None, environment)


class LocalTransport:
    """Files stay where they are; processes are children of this one."""

    def __init__(self, base: str | None = None, environment: Mapping[str, str] | None = None) -> None:
        self._scratch = Scratch(base)
        self.folder = self._scratch.path
        # What runtimes write for themselves (ONNX Runtime leaves a session file) goes with the folder.
        self._environment = {"TMPDIR": self.folder, **(environment or {})}
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
                env={**os.environ, **self._environment} if self._environment else None,
            )
        except subprocess.TimeoutExpired:
            raise MeasurementError(
                "a command took too long", where=argv[0], got=f"no end after {timeout_seconds:g} s"
            ) from None
        except OSError as error:
            if is_shortage(error):  # of this process, whatever is to be started
                raise
            raise MeasurementError("a command can't be started", where=argv[0], got=str(error)) from None
        return Completed(done.returncode, done.stdout, done.stderr)

    def push(self, source: Path, name: str = "") -> str:
        """The file is on this machine already: nothing is copied, ``name`` doesn't matter."""
        if not source.is_file():
            raise MeasurementError("no such file", where=str(source))
        return str(source.resolve())

    def push_all(self, sources: Sequence[Path]) -> str:
        """Where they don't stand side by side already, they are copied."""
        for source in sources:
            self.push(source)
        folders = {source.resolve().parent for source in sources}
        if len(folders) == 1:
            return str(folders.pop())
        together = Path(self.folder) / "files"
        together.mkdir(exist_ok=True)
        for source in sources:
            shutil.copyfile(source, together / source.name)
        return str(together)

    def pull(self, source: str, target: Path) -> None:
        shutil.copyfile(source, target)

    def spawn(self, argv: Sequence[str]) -> LocalProcess:
        process = LocalProcess(argv, self._environment)
        self._processes.append(process)
        return process

    @contextlib.contextmanager
    def lock(self, *, exclusive: bool, progress: Progress = silent) -> Iterator[None]:
        with locking.held(locking.of_this_machine(), exclusive=exclusive, progress=progress, device="local"):
            yield

    def reconnect(self) -> None:
        """Nothing to do: it is always there."""

    def close(self) -> None:
        for process in self._processes:
            process.close()
        self._processes.clear()
        self._scratch.close()

    def __enter__(self) -> LocalTransport:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
