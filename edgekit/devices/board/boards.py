"""Boards that run: started, found again by other edgekits, and stopped.

For each CPU there is at most one board. ``running/CPU.json`` in the cache tells who it is; a board outlives
the process that started it, and is forgotten when its own process is gone.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import secrets
import subprocess
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from edgekit.devices.board import qemu
from edgekit.devices.board.build import BoardFiles, ensure_built
from edgekit.devices.board.cache import cache_folder, locked, say, try_lock
from edgekit.errors import MeasurementError
from edgekit.files import read_json, write_json
from edgekit.progress import Progress, silent


@dataclass(frozen=True)
class RunningBoard:
    """A board that runs, and how it is reached.

    ``adb_argv`` with ``adb_env`` is an adb client with a server of its own, which knows no other device and
    ends with the board. ``boot_seconds`` is what booting it took. ``keep``: it runs until it is stopped;
    otherwise until nobody uses it any more.
    """

    cpu: str
    pid: int
    ssh_port: int
    adb_port: int
    key: Path
    known_hosts: Path
    console: Path
    adb_argv: list[str]
    adb_env: dict[str, str] = field(default_factory=dict)
    boot_seconds: float = 0.0
    keep: bool = True

    user = "root"
    host = "127.0.0.1"

    @property
    def adb_serial(self) -> str:
        """What `adb connect` and `adb -s` are given."""
        return f"{self.host}:{self.adb_port}"

    def ssh_options(self) -> list[str]:
        """Arguments for ssh and scp but the port (-p, -P): our key alone; the board's host key is checked."""
        return [
            *("-F", "/dev/null"),  # the user's configuration is for other hosts
            *("-o", f"IdentityFile={_quoted(self.key)}", "-o", "IdentitiesOnly=yes"),
            *(
                "-o",
                f"UserKnownHostsFile={_quoted(self.known_hosts)}",
                "-o",
                "GlobalKnownHostsFile=/dev/null",
            ),
            *("-o", "StrictHostKeyChecking=yes"),
        ]

    def to_json(self) -> dict[str, Any]:
        """As a JSON value."""
        return {key: str(value) if isinstance(value, Path) else value for key, value in asdict(self).items()}

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> RunningBoard:
        """Back from ``to_json``. Raises TypeError or KeyError: written by another edgekit."""
        paths = {name: Path(value[name]) for name in ("key", "known_hosts", "console")}
        return cls(**{**value, **paths})


def _quoted(path: Path) -> str:
    """A path in a configuration line of ssh, which takes several, and % for its own variables."""
    return '"' + str(path).replace("%", "%%") + '"'


def running() -> list[RunningBoard]:
    """All boards that run, by name; those whose process is gone are forgotten."""
    return [board for path in sorted(_folder().glob("*.json")) if (board := _read(path.stem)) is not None]


def start(cpu: str, progress: Progress = silent, *, keep: bool = True) -> RunningBoard:
    """Boot a board with this CPU, or find the one that runs; builds what it needs.

    Args:
        cpu: a name in ``qemu.CPUS``.
        progress: is told of each step.
        keep: let it run until ``stop``; otherwise it ends with the last ``booted`` that uses it.

    Raises:
        MissingExtraError, DeviceError: see ``ensure_built``; an unknown CPU.
        MeasurementError: it doesn't come up, with what its console said last.
    """
    qemu.cpu_option(cpu)
    with _changing(cpu, progress):
        board = _read(cpu)
        if board is None:
            board = _boot(ensure_built(progress), cpu, progress, keep)
        elif keep and not board.keep:
            board = replace(board, keep=True)
        write_json(_path(cpu), board.to_json())
        return board


def stop(cpu: str) -> bool:
    """End a board, and its adb server; returns whether one ran. Who uses it now loses it."""
    qemu.cpu_option(cpu)
    with _changing(cpu, silent):
        board = _read(cpu)
        if board is None:
            return False
        _end(board)
        return True


@contextlib.contextmanager
def booted(cpu: str, progress: Progress = silent) -> Iterator[RunningBoard]:
    """A board while it is needed: one that runs, or one that is booted, and stopped by its last user."""
    qemu.cpu_option(cpu)
    _folder().mkdir(parents=True, exist_ok=True)
    descriptor = os.open(_folder() / f"{cpu}.users", os.O_CREAT | os.O_RDWR, 0o666)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH)  # waits only while the last user stops it
        yield start(cpu, progress, keep=False)
    finally:
        try:
            if try_lock(descriptor, fcntl.LOCK_EX):
                board = _read(cpu)
                if board is not None and not board.keep:
                    stop(cpu)
        finally:
            os.close(descriptor)


def _boot(files: BoardFiles, cpu: str, progress: Progress, keep: bool) -> RunningBoard:
    say(progress, f"booting {cpu}")
    console = _folder() / f"{cpu}.console"
    started = time.monotonic()
    pid, ports = qemu.launch(files, cpu, console)
    try:
        qemu.wait_until_ready(pid, console)
        seconds = time.monotonic() - started
        known_hosts = _folder() / f"{cpu}.known_hosts"
        known_hosts.write_text(f"[127.0.0.1]:{ports.ssh} {files.host_key}\n")
    except BaseException:
        qemu.terminate(pid, console)
        raise
    say(progress, f"{cpu} came up in {seconds:.1f} s")
    server = f"localabstract:edgekit-adb-{secrets.token_hex(8)}"
    return RunningBoard(
        cpu=cpu,
        pid=pid,
        ssh_port=ports.ssh,
        adb_port=ports.adb,
        key=files.key,
        known_hosts=known_hosts,
        console=console,
        adb_argv=files.adb.argv,
        # A server of its own: it looks for no phones, and leaves the user's, of whatever version, alone.
        adb_env={
            **files.adb.env,
            "ADB_SERVER_SOCKET": server,
            "ADB_USB": "0",
            "ADB_EMU": "0",
            "ADB_MDNS": "0",
        },
        boot_seconds=round(seconds, 2),
        keep=keep,
    )


def _end(board: RunningBoard) -> None:
    with contextlib.suppress(OSError, subprocess.TimeoutExpired):  # it may never have been started
        subprocess.run(
            [*board.adb_argv, "kill-server"],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            env={**os.environ, **board.adb_env},
            timeout=qemu.STOP_SECONDS,
            check=False,
        )
    qemu.terminate(board.pid, board.console)
    _forget(board.cpu)


def _read(cpu: str) -> RunningBoard | None:
    try:
        board = RunningBoard.from_json(read_json(_path(cpu)))
    except FileNotFoundError:
        return None
    except (TypeError, KeyError, ValueError) as error:
        raise MeasurementError(
            "another edgekit wrote about a board here what this one can't read",
            where=str(_path(cpu)),
            got=repr(error),
            next="stop that board with the edgekit that started it, or end its QEMU and remove this file",
        ) from None
    if qemu.is_ours(board.pid, board.console):
        return board
    _forget(cpu)
    return None


def _forget(cpu: str) -> None:
    for suffix in ("json", "known_hosts", "console"):
        (_folder() / f"{cpu}.{suffix}").unlink(missing_ok=True)


def _folder() -> Path:
    return cache_folder() / "running"


def _path(cpu: str) -> Path:
    return _folder() / f"{cpu}.json"


def _changing(cpu: str, progress: Progress) -> contextlib.AbstractContextManager[None]:
    return locked(_folder() / f"{cpu}.lock", progress, what=f"starts or stops {cpu}")
