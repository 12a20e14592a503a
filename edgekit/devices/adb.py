"""Android phones, and boards with adbd, over the Android debug bridge.

Everything goes through ``adb shell`` (its second protocol, Android 7 and later, which carries the three
streams and the exit code), so that quoting, checking and going on are those of every other shell.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
from collections.abc import Mapping, Sequence

from edgekit.devices.device import Device
from edgekit.devices.shell import ShellTransport
from edgekit.errors import DeviceError, MissingExtraError, UnreachableError

_BASE = "/data/local/tmp"
# What adb itself says, on standard error, when it is the way that failed.
_ADB_SAYS = ("error: ", "adb: error: ", "adb: no devices", "adb: device", "error:")


def open_adb(
    device: Device, *, adb: Sequence[str] = ("adb",), env: Mapping[str, str] | None = None
) -> ShellTransport:
    """Connect to a phone or board.

    Args:
        device: ``address`` is a serial as `adb devices` lists it, or host:port, which is connected to; it
            may stay empty where exactly one is there.
        adb: the client.
        env: variables for it.

    Raises:
        MissingExtraError: there is no adb on this machine.
        DeviceError: several are there, and the profile names none of them.
        UnreachableError: it isn't there, or doesn't trust this machine yet.
    """
    if shutil.which(adb[0]) is None:
        raise MissingExtraError("there is no adb here", next="on Debian and Ubuntu: apt install adb")
    channel = AdbChannel(device, list(adb), dict(env or {}))
    channel.find()
    return ShellTransport(channel, device, device.work_folder or _BASE, _BASE).connect()


class AdbChannel:
    """A serial, and the client that talks to it."""

    def __init__(self, device: Device, adb: list[str], env: dict[str, str]) -> None:
        self._device, self._adb, self.env = device, adb, env
        self.serial = device.address
        self.name = f"adb {self.serial}".strip()

    def argv(self, line: str) -> list[str]:
        return [*self._adb, "-s", self.serial, "shell", "-T", "-e", "none", line]

    def find(self) -> None:
        """Connect to host:port, or choose the only one that is there."""
        if ":" in self.serial:
            self._connect()
            return
        listed = [line.split()[0] for line in self._ask("devices").splitlines()[1:] if line.strip()]
        if self.serial in listed:
            return
        if self.serial or not listed:
            raise UnreachableError(
                "no such device is connected",
                where=self._device.name,
                got=", ".join(listed) or "none at all",
                expected=self.serial or "one device",
                next="switch USB debugging on, plug it in, and accept this machine on its screen",
            )
        if len(listed) > 1:
            raise DeviceError(
                "several devices are connected",
                where=self._device.name,
                got=", ".join(listed),
                expected="`address`: the serial of one of them",
                next=f"edgekit device add my-phone --like {self._device.name} --address {listed[0]}",
            )
        self.serial = listed[0]
        self.name = f"adb {self.serial}"

    def lost(self, returncode: int, stderr: str) -> str | None:
        words = stderr.strip()[-500:]
        if "unauthorized" in words:
            raise UnreachableError(
                "the device doesn't trust this machine yet",
                where=f"{self._device.name} ({self.name})",
                got=words,
                next="accept this machine on the device's screen",
            )
        if words.startswith(_ADB_SAYS):
            return words
        # The exit code alone doesn't tell whether the command or the connection ended.
        state = self._ask("-s", self.serial, "get-state").strip()
        return None if state == "device" else words or f"the device is {state or 'gone'}"

    def revive(self) -> None:
        if ":" in self.serial:
            with contextlib.suppress(UnreachableError):
                self._ask("disconnect", self.serial)
                self._connect()

    def close(self) -> None:
        """Adb's server keeps the connection: it isn't edgekit's alone."""

    def _connect(self) -> None:
        said = self._ask("connect", self.serial)
        if "connected to" not in said:
            raise UnreachableError(
                "the device can't be reached", where=f"{self._device.name} ({self.name})", got=said.strip()
            )

    def _ask(self, *arguments: str) -> str:
        try:
            done = subprocess.run(
                [*self._adb, *arguments],
                stdin=subprocess.DEVNULL,
                capture_output=True,
                timeout=self._device.connect_timeout_seconds,
                encoding="utf-8",
                errors="replace",
                env={**os.environ, **self.env},
                check=False,
            )
        except subprocess.TimeoutExpired:
            return ""
        return done.stdout
