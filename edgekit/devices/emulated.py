"""A board that qemu emulates: a real Debian arm64 system with sshd and adbd, reached as a real one is.

Its clock advances by one nanosecond with each instruction, so that everything which takes times in it counts
instructions. They are exact, and they are no time: no cache, no memory and no pipeline are modelled.
"""

from __future__ import annotations

import contextlib
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgekit.devices.device import Device, load_device
from edgekit.devices.transports import EmulatedSettings
from edgekit.errors import DeviceError
from edgekit.progress import Progress, silent

if TYPE_CHECKING:
    from edgekit.devices.board import RunningBoard
    from edgekit.devices.shell import ShellTransport

_SETUP = ("OPENBLAS_NUM_THREADS=1",)  # its shells for commands read no profile


def open_emulated(device: Device, *, progress: Progress = silent) -> ShellTransport:
    """Connect to the board, which is booted if it doesn't run, and then switched off again by ``close``.

    Raises:
        MissingExtraError: what qemu or the board's image need isn't there.
        MeasurementError: it doesn't boot.
    """
    from edgekit.devices import board

    with contextlib.ExitStack() as stack:
        # Whoever uses it last switches it off, unless `edgekit device start` said that it stays.
        running = stack.enter_context(board.booted(_settings(device).cpu, progress))
        link = _connect(device, running)
        _then(link, stack.pop_all())
    return link


def start(name: str | Path, *, progress: Progress = silent) -> RunningBoard:
    """Boot the board of a profile, and leave it running."""
    from edgekit.devices import board

    return board.start(_settings(_emulated(name)).cpu, progress=progress)


def stop(name: str | Path) -> bool:
    """Switch it off; whether it was running."""
    from edgekit.devices import board

    return board.stop(_settings(_emulated(name)).cpu)


def facts(running: RunningBoard) -> dict[str, Any]:
    """What there is to know of it, as JSON values."""
    return running.to_json()


def told(running: RunningBoard) -> str:
    """How to get in, for a person."""
    ssh = shlex.join(["ssh", *running.ssh_options(), "-p", str(running.ssh_port), "root@127.0.0.1"])
    return (
        f"{running.cpu} is running (process {running.pid}, booted in {running.boot_seconds:.1f} s)\n"
        f"  {ssh}\n  adb connect {running.adb_serial}"
    )


def _emulated(name: str | Path) -> Device:
    device = load_device(name)
    if not device.emulated:
        raise DeviceError(
            "only emulated boards are started and stopped",
            where=device.name,
            got=f"transport {device.transport}",
            next="edgekit device ls",
        )
    return device


def _settings(device: Device) -> EmulatedSettings:
    settings = device.settings
    assert isinstance(settings, EmulatedSettings)  # the row says so
    return settings


def _connect(device: Device, running: RunningBoard) -> ShellTransport:
    from edgekit.devices.adb import open_adb
    from edgekit.devices.ssh import open_ssh

    setup = (*_SETUP, *device.setup)
    if _settings(device).via == "adb":
        there = device.model_copy(update={"address": f"127.0.0.1:{running.adb_port}", "setup": setup})
        return open_adb(there, adb=running.adb_argv, env=running.adb_env)
    there = device.model_copy(update={"address": "root@127.0.0.1", "port": running.ssh_port, "setup": setup})
    return open_ssh(there, options=running.ssh_options())


def _then(link: ShellTransport, stack: contextlib.ExitStack) -> None:
    """Have ``close`` also let go of the board."""
    close = link.channel.close

    def closed() -> None:
        close()
        stack.close()

    link.channel.close = closed  # type: ignore[method-assign]
