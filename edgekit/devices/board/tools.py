"""The programs on this machine that run the board and talk to it: QEMU and adb.

Taken from PATH where they are, else out of Debian's packages into the cache, with all their libraries but
the C library; nothing is installed.
"""

from __future__ import annotations

import platform
import shutil
from dataclasses import dataclass, field
from pathlib import Path

from edgekit.devices.board import host
from edgekit.devices.board.cache import built, cache_folder, say
from edgekit.devices.board.packages import BACKPORTS, Apt, unpack
from edgekit.errors import DeviceError
from edgekit.files import sha256_of
from edgekit.progress import Progress, silent

QEMU = "qemu-system-aarch64"
_NEEDED_GLIBC = (2, 36)  # Debian 12's, which its programs are linked with
# Packages whose files must stay the host's own: the C library belongs to the loader that the host has.
_UNUSED = ("libc6", "libc-bin", "passwd", "adduser", "debconf", "perl-base", "iso-codes")


@dataclass(frozen=True)
class Tool:
    """How a program is run: the beginning of its command, and variables for it."""

    argv: list[str]
    env: dict[str, str] = field(default_factory=dict)


def qemu(progress: Progress = silent) -> Tool:
    """The emulator. Raises DeviceError: it is neither here nor to be had."""
    found = shutil.which(QEMU)
    if found:
        return Tool([found])
    # That of backports: Debian 12's own knows no Cortex-A55.
    folder = _unpacked("qemu", "qemu-system-arm", BACKPORTS, progress)
    return Tool([str(folder / "usr/bin" / QEMU), "-L", str(folder / "usr/share/qemu")], _libraries(folder))


def adb(progress: Progress = silent) -> Tool:
    """The client of the Android debug bridge. Raises DeviceError: it is neither here nor to be had."""
    found = shutil.which("adb")
    if found:
        return Tool([found])
    folder = _unpacked("adb", "adb", "", progress)
    return Tool([str(folder / "usr/lib/android-sdk/platform-tools/adb")], _libraries(folder))


def _unpacked(name: str, package: str, release: str, progress: Progress) -> Path:
    architecture = host.architecture()
    recipe = sha256_of([package, release, architecture, _UNUSED])[:12]
    folder = cache_folder() / f"{name}-{recipe}"

    def build(target: Path) -> None:
        _check_glibc(package)
        say(progress, f"fetching {package}")
        apt = Apt(cache_folder() / "apt", architecture)
        apt.update()
        for file in apt.fetch([package], release=release):
            if file.name.partition("_")[0] not in _UNUSED:
                unpack(file, target)

    built(folder, build, progress)
    return folder


def _check_glibc(package: str) -> None:
    name, version = platform.libc_ver()
    numbers = tuple(int(part) for part in version.split(".")[:2] if part.isdigit())
    if name != "glibc" or numbers < _NEEDED_GLIBC:
        raise DeviceError(
            f"Debian 12's {package} doesn't run on this machine",
            got=f"{name or 'an unknown C library'} {version}".strip(),
            expected=f"glibc {'.'.join(map(str, _NEEDED_GLIBC))} or later",
            next=f"install the system's own: on Debian and Ubuntu, apt install {package}",
        )


def _libraries(folder: Path) -> dict[str, str]:
    """Where the loader finds the libraries: every folder that holds some."""
    found = {path.parent for top in ("lib", "usr/lib") for path in (folder / top).rglob("*.so.*")}
    ordered = sorted(found, key=lambda path: (len(path.parts), str(path)))
    return {"LD_LIBRARY_PATH": ":".join(map(str, ordered))}
