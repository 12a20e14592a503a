"""Headers and libraries of runtimes out of packages: fetched once, into edgekit's real cache.

ONNX Runtime's library is in its Python wheel, its header isn't: that is in Debian 13's ``libonnxruntime-dev``
(85 kB; apt checks Debian's signature). TensorFlow Lite's C API, header and library, is in the npm package
``tfjs-tflite-node`` (5 MB). LiteRT's library for other processors is in the Python wheels for those.
"""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path

from edgekit import caching
from edgekit.devices.board import packages
from edgekit.devices.board.cache import built
from edgekit.errors import EdgekitError

CACHE = caching.cache_folder() / "cpp"  # read before a test sets another one
_SUITE = "trixie"
_TFLITE = ("tfjs-tflite-node-0.0.2", "3be1632328a76a2475e5b6833253763c802c859433becb4d879ee1860e3b5284")
_SECONDS = 120.0


class Unavailable(Exception):
    """It can't be had here; the text says why."""


def onnxruntime_headers() -> Path:
    """The folder with ``onnxruntime_c_api.h``. Raises Unavailable."""
    folder = CACHE / "onnxruntime-headers"
    _fetched(folder, _debian_headers)
    return folder


def tflite_root() -> Path:
    """A folder with ``include/`` and ``lib/`` of TensorFlow Lite 2.9.0. Raises Unavailable."""
    folder = CACHE / _TFLITE[0]
    _fetched(folder, _npm_tflite)
    return folder


def arm_litert_root() -> Path:
    """A folder with LiteRT's library for 64-bit ARM. Raises Unavailable."""
    folder = CACHE / "litert-arm64"
    _fetched(folder, _arm_wheel)
    return folder


def _fetched(folder: Path, fetch: Callable[[Path], None]) -> None:
    try:
        built(folder, fetch)
    except (EdgekitError, OSError, subprocess.SubprocessError) as error:
        raise Unavailable(f"{folder.name} can't be fetched: {str(error).splitlines()[0]}") from error


def _debian_headers(folder: Path) -> None:
    apt = folder / "apt"
    for name in ("etc/apt", "state/lists/partial", "cache/archives/partial", "unpacked"):
        (apt / name).mkdir(parents=True)
    (apt / "status").write_text("")
    line = f"deb [signed-by={packages.KEYRING}] {packages.debian_mirror().main} {_SUITE} main\n"
    (apt / "sources.list").write_text(line)
    settings = {
        "Dir::State": apt / "state",
        "Dir::State::status": apt / "status",
        "Dir::Cache": apt / "cache",
        "Dir::Etc::sourcelist": apt / "sources.list",
        "Dir::Etc::sourceparts": "/dev/null",
        "APT::Sandbox::User": "root",
        "APT::Update::Error-Mode": "any",
        "Acquire::Languages": "none",
        "Debug::NoLocking": "true",
    }
    options = [text for key, value in settings.items() for text in ("-o", f"{key}={value}")]
    _run(["apt-get", "-qq", *options, "update"], apt)
    _run(["apt-get", "-qq", *options, "download", "libonnxruntime-dev"], apt)
    packages.unpack(next(apt.glob("*.deb")), apt / "unpacked")
    for header in (apt / "unpacked/usr/include/onnxruntime").glob("*.h"):
        header.rename(folder / header.name)
    shutil.rmtree(apt)


def _npm_tflite(folder: Path) -> None:
    name, digest = _TFLITE
    _run(["npm", "pack", "--silent", "@".join(name.rsplit("-", 1))], folder)
    archive = folder / f"{name}.tgz"
    if hashlib.sha256(archive.read_bytes()).hexdigest() != digest:
        raise OSError(f"{archive.name} isn't the package that it was")
    with tarfile.open(archive) as packed:
        packed.extractall(folder, filter="data")
    parts = folder / "package" / "cc_deps"
    (parts / "include").rename(folder / "include")
    (parts / "linux_amd64").rename(folder / "lib")
    shutil.rmtree(folder / "package")
    archive.unlink()


def _arm_wheel(folder: Path) -> None:
    wanted = ["--platform", "manylinux_2_27_aarch64", "--python-version", "3.11", "ai-edge-litert>=2.3,<2.4"]
    pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary=:all:"]
    _run([*pip, *wanted], folder)
    wheel = next(folder.glob("*.whl"))
    with zipfile.ZipFile(wheel) as packed:
        (folder / "libLiteRt.so").write_bytes(packed.read("ai_edge_litert/libLiteRt.so"))
    wheel.unlink()


def _run(command: Sequence[str], folder: Path) -> None:
    subprocess.run(command, cwd=folder, check=True, capture_output=True, timeout=_SECONDS)
