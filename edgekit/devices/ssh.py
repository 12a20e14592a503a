"""Boards over the system's own OpenSSH: the user's ssh_config, agent, jump hosts and known hosts apply.

Nothing is needed on the board but a shell; for measuring, Python and a runtime's wheel. Host keys are checked
as ssh does it; edgekit never answers its question, and shows how to.
"""

from __future__ import annotations

import contextlib
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

from edgekit.devices.device import Device
from edgekit.devices.shell import ShellTransport
from edgekit.errors import DeviceError, MissingExtraError, UnreachableError
from edgekit.scratch import Scratch

_CONNECTION_FAILED = 255


def open_ssh(device: Device, *, options: Sequence[str] = ()) -> ShellTransport:
    """Connect to a board. ``options`` are more arguments for ssh, before the address.

    Raises:
        DeviceError: the profile names no address.
        MissingExtraError: there is no ssh on this machine.
        UnreachableError: nobody answers, or the host's key or ours isn't accepted.
    """
    if not device.address:
        raise DeviceError(
            "this profile says what the board is, and not where",
            where=device.name,
            expected="`address`: [user@]host, or a name in ~/.ssh/config",
            next=f"edgekit device add my-board --like {device.name} --address USER@HOST",
        )
    if device.address.startswith("-"):
        raise DeviceError("an address doesn't begin with '-'", where=device.name, got=device.address)
    if shutil.which("ssh") is None:
        raise MissingExtraError(
            "there is no ssh here", next="on Debian and Ubuntu: apt install openssh-client"
        )
    channel = SshChannel(device, options)
    try:
        return ShellTransport(channel, device, device.work_folder or "/tmp", "/tmp").connect()
    except BaseException:
        channel.close()
        raise


class SshChannel:
    """One master connection, over which each command is a session of its own."""

    def __init__(self, device: Device, options: Sequence[str]) -> None:
        self.name = f"ssh {device.address}"
        self.env: dict[str, str] = {}
        self._device = device
        # Whatever TMPDIR says: a socket's path is at most about 100 characters long, and 57 are ssh's.
        self._scratch = Scratch("/tmp")
        self._folder = Path(self._scratch.path)
        seconds = max(1, round(device.connect_timeout_seconds))
        self._options = [
            "-T",
            *("-o", "BatchMode=yes"),
            *("-o", f"ConnectTimeout={seconds}"),
            *("-o", "ServerAliveInterval=5"),
            *("-o", "ServerAliveCountMax=3"),
            *("-o", "ControlMaster=auto"),
            *("-o", f"ControlPath={self._folder}/%C"),
            *("-o", "ControlPersist=60"),
            *("-o", "LogLevel=ERROR"),
            *(("-p", str(device.port)) if device.port else ()),
            *options,
        ]

    def argv(self, line: str) -> list[str]:
        return ["ssh", *self._options, "--", self._device.address, line]

    def lost(self, returncode: int, stderr: str) -> str | None:
        if returncode != _CONNECTION_FAILED and returncode >= 0:
            return None
        words = stderr.strip()[-500:]
        if hint := _hint(words, self._device):
            raise UnreachableError(
                "the device lets nobody in", where=f"{self._device.name} ({self.name})", got=words, next=hint
            )
        return words or "the connection broke"

    def revive(self) -> None:
        self._end_master()

    def close(self) -> None:
        self._end_master()
        self._scratch.close()

    def _end_master(self) -> None:
        if not self._folder.is_dir() or not any(self._folder.iterdir()):
            return
        argv = ["ssh", *self._options, "-O", "exit", "--", self._device.address]
        with contextlib.suppress(OSError, subprocess.TimeoutExpired):
            subprocess.run(argv, stdin=subprocess.DEVNULL, capture_output=True, timeout=5, check=False)


def _hint(words: str, device: Device) -> str:
    """What to do where trying again changes nothing."""
    port = f"-p {device.port} " if device.port else ""
    if "Host key verification failed" in words or "HOST IDENTIFICATION HAS CHANGED" in words:
        return f"connect once by hand and check the host's key: ssh {port}{device.address}"
    if "Permission denied" in words:
        return f"give this machine's key access: ssh-copy-id {port}{device.address}"
    return ""
