"""What is asked of the machine that emulates: its kind, its commands, and how they are run."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from edgekit.errors import DeviceError, EdgekitError, MeasurementError, MissingExtraError

# Command → the Debian package that it comes from.
_PACKAGES = {
    "apt-get": "apt",
    "apt-cache": "apt",
    "apt-config": "apt",
    "dpkg-deb": "dpkg",
    "mke2fs": "e2fsprogs",
    "ssh-keygen": "openssh-client",
    "tar": "tar",
}
_ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}
# Where administrators' commands are, which the PATH of others often lacks.
_MORE = ("/usr/local/sbin", "/usr/sbin", "/sbin")


def architecture() -> str:
    """Debian's name of this machine's architecture. Raises DeviceError: none that can emulate the board."""
    machine = platform.machine()
    if sys.platform != "linux" or machine not in _ARCHITECTURES:
        raise DeviceError(
            "the emulated board can't be built on this machine",
            got=f"{sys.platform} on {machine}",
            expected="Linux on x86_64 or aarch64, Debian or derived from it",
            next="use a real board over ssh, or build it in a container of Debian 12",
        )
    return _ARCHITECTURES[machine]


def command(name: str) -> str:
    """Path of a command. Raises MissingExtraError that names its package."""
    found = shutil.which(name) or shutil.which(name, path=os.pathsep.join(_MORE))
    if found is None:
        package = _PACKAGES.get(name, name)
        raise MissingExtraError(
            f"the emulated board needs {name}, which is not installed",
            next=f"on Debian and Ubuntu: apt install {package}",
        )
    return found


def run(
    argv: Sequence[str | Path],
    *,
    what: str,
    env: Mapping[str, str] | None = None,
    failure: type[EdgekitError] = MeasurementError,
    next: str = "",
) -> str:
    """Run a command to its end; its standard output.

    Raises ``failure``, with the command's last words, if it ends with anything but 0; ``what`` says what
    failed then.
    """
    words = [str(one) for one in argv]
    try:
        done = subprocess.run(
            words,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            encoding="utf-8",
            errors="replace",
            env={**os.environ, "LC_ALL": "C", **(env or {})},
            check=False,
        )
    except OSError as error:
        raise failure(what, where=words[0], got=error.strerror or str(error), next=next) from None
    if done.returncode:
        raise failure(
            what, where=Path(words[0]).name, got=last_words(done.stdout + "\n" + done.stderr), next=next
        )
    return done.stdout


def last_words(text: str, lines: int = 6) -> str:
    """The last lines of what a command said: its errors (apt's "E:", pip's "ERROR:") if it marks them."""
    said = [line.strip() for line in text.splitlines() if line.strip()]
    marked = [line for line in said if line.startswith(("E:", "ERROR:"))]
    return "\n".join((marked or said)[-lines:]) or "nothing"
