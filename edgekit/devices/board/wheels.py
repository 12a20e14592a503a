"""Python packages for the board: wheels for aarch64, chosen, fetched and unpacked by pip."""

from __future__ import annotations

import importlib.metadata
import sys
from collections.abc import Sequence
from pathlib import Path

from edgekit.devices.board import host
from edgekit.devices.pip import has_pip
from edgekit.errors import DeviceError, MissingExtraError

PYTHON = "3.11"
# What Debian 12's C library (2.36) can load, newest first.
PLATFORMS = (
    *(f"manylinux_2_{minor}_aarch64" for minor in (35, 34, 31, 28, 27, 26, 24, 17)),
    "manylinux2014_aarch64",
)
# Runtimes whose answers are compared with those of this machine, so in the same version; and the version
# that is taken where this machine has none.
RUNTIMES = {"onnxruntime": ">=1.30,<1.32", "ai-edge-litert": ">=2.3,<2.4"}
OTHERS = ("numpy>=2.0,<2.5",)


def requirements() -> list[str]:
    """What the board gets, as pip's requirements."""
    return [f"{name}{_version(name, default)}" for name, default in RUNTIMES.items()] + list(OTHERS)


def _version(name: str, default: str) -> str:
    try:
        # A build of one's own ("1.31.1+cu") is the same release.
        return "==" + importlib.metadata.version(name).partition("+")[0]
    except importlib.metadata.PackageNotFoundError:
        return default


def install(wanted: Sequence[str], target: Path, kept: Path) -> None:
    """Unpack wheels below ``target``, a folder for Python's path; ``kept`` holds what was downloaded.

    Raises MissingExtraError: no pip; DeviceError: no such wheel, or no network.
    """
    if not has_pip():
        raise MissingExtraError(
            "the emulated board needs pip, which is not installed",
            where=sys.executable,
            next=f"{sys.executable} -m ensurepip",
        )
    kept.mkdir(parents=True, exist_ok=True)
    try:
        _unpack(wanted, target, kept)  # without the network, if all is there
    except DeviceError:
        _pip("download", "--dest", kept, *wanted, what="wheels for the board can't be downloaded")
        _unpack(wanted, target, kept)


def _unpack(wanted: Sequence[str], target: Path, kept: Path) -> None:
    _pip(
        "install",
        *("--no-index", "--find-links", kept, "--target", target, "--no-compile", "--upgrade"),
        *("--no-warn-script-location", "--root-user-action=ignore"),
        *wanted,
        what="the board's wheels can't be unpacked",
    )


def _pip(verb: str, *arguments: str | Path, what: str) -> None:
    platforms = [word for name in PLATFORMS for word in ("--platform", name)]
    host.run(
        [
            *(sys.executable, "-P", "-m", "pip", "--quiet", "--disable-pip-version-check", verb),
            *("--only-binary=:all:", "--python-version", PYTHON, "--implementation", "cp"),
            *platforms,
            *arguments,
        ],
        what=what,
        failure=DeviceError,
        next="check the network and pip's configuration (`python -m pip config list`)",
    )
