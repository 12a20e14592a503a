"""Runtimes for boards without network or pip: wheels are downloaded here, and unpacked there.

``~/edgekit-site/<python>-<hash>`` on the board holds them, the hash being that of the wheels, so that what is
there already isn't unpacked again. It stays until ``remove``. The board's ``PYTHONPATH`` is set to it by
``setup`` in its profile.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgekit.config import configfile
from edgekit.devices.device import Device, find_device, load_device
from edgekit.devices.profile_setup import pointed_at, write_setup
from edgekit.devices.transport import Transport, linked
from edgekit.devices.transports import addressed
from edgekit.devices.wheels import OLDEST_GLIBC, Board, download, requirements
from edgekit.errors import DeviceError, MeasurementError
from edgekit.files import sha256
from edgekit.progress import Event, Progress, silent
from edgekit.scratch import scratch
from edgekit.units import human_bytes

FOLDER = "edgekit-site"  # in the home of whoever edgekit is on the board
_SCRIPT = Path(__file__).with_name("site_folder.py")


@dataclass(frozen=True)
class Installed:
    """What there is now. ``profile`` is the file that was changed; None: ``setup`` has to be put into one."""

    folder: str
    versions: dict[str, str]
    setup: tuple[str, ...]
    was_there: bool
    profile: Path | None

    @property
    def line(self) -> str:
        """The profile's line."""
        return f"setup: {json.dumps(list(self.setup), ensure_ascii=False)}"


def install(
    name: str | Path,
    packages: Sequence[str] = (),
    *,
    progress: Progress = silent,
    transport: Transport | None = None,
) -> Installed:
    """Put runtimes on a board, and point its profile at them if it is in the user's configuration folder.

    Args:
        name: the board's profile, or its file.
        packages: pip's requirements, instead of NumPy and the profile's runtimes.
        progress: told what happens.
        transport: the way to the board, which stays open.

    Raises:
        DeviceError: not a board with a CPython and glibc of its own, or there is no such wheel for it.
        MissingExtraError: no pip here.
        DiskFullError: no space here.
        MeasurementError: the board can't be reached, has no space, or can't import what was put there.
    """
    path, device = find_device(name), load_device(name)
    _refuse_others(device)
    with linked(device, transport) as link, scratch() as folder:
        board = ask(device, link)
        wanted = list(packages) or requirements(device, board)
        progress(Event("note", "benchmark", f"downloading {', '.join(wanted)} for {device.name}"))
        wheels = download(wanted, board, Path(folder))
        with link.lock(exclusive=True, progress=progress):
            target, was_there = _put(wheels, board, device, link, progress)
            versions = _verify(_named(wanted, wheels), target, was_there, device, link)
    setup = pointed_at(device.setup, target, FOLDER)
    return Installed(target, versions, setup, was_there, _write(path, setup))


def remove(
    name: str | Path, *, transport: Transport | None = None
) -> tuple[list[str], tuple[str, ...], Path | None]:
    """Take away all that ``install`` put on a board, for every Python there.

    Returns:
        The folders that were there; the profile's ``setup`` without them; the profile if it was changed.

    Raises:
        DeviceError: not a board. MeasurementError: it can't be reached, or refuses.
    """
    path, device = find_device(name), load_device(name)
    _refuse_others(device)
    with linked(device, transport) as link, link.lock(exclusive=True):
        home = str(_run(device, link, "ask")["home"])
        removed = _run(device, link, "remove", f"{home}/{FOLDER}")["removed"]
    setup = pointed_at(device.setup, "", FOLDER)
    return [str(one) for one in removed], setup, _write(path, setup) if setup != device.setup else None


def _write(path: Path, setup: tuple[str, ...]) -> Path | None:
    """Change the profile if it is the user's; those that are shipped or elsewhere are left as they are."""
    mine = configfile.user_folder("devices")
    if not mine.is_dir() or path.resolve().parent != mine.resolve():
        return None
    return path if write_setup(path, setup) else None


# --- there -----------------------------------------------------------------------------------------------


def ask(device: Device, link: Transport) -> Board:
    """What decides which wheels fit. Raises DeviceError: there are none for such a Python."""
    said = _run(device, link, "ask")
    kind, libc = said["implementation"], list(said["libc"])
    glibc = re.match(r"2\.(\d+)", libc[1]) if libc[0] == "glibc" else None
    if kind != "cpython" or glibc is None or int(glibc[1]) < OLDEST_GLIBC:
        raise DeviceError(
            "there are no wheels for such a Python",
            where=f"{device.interpreter} on {device.name}",
            got=f"{kind} with {' '.join(libc).strip() or 'a C library that is none of glibc'}",
            expected="CPython with glibc 2.17 or later",
            next="install the runtimes on the board itself, and name its Python in the profile with `python`",
        )
    if not said["writable"]:
        raise MeasurementError(
            "the home folder can't be written",
            where=device.name,
            got=str(said["home"]),
            next="add HOME=… to `setup` in the device's profile, a folder that can",
        )
    machine = str(said["machine"])
    if said["bits"] == 32:  # a 32-bit system often runs below a 64-bit kernel
        machine = {"aarch64": "armv7l", "armv8l": "armv7l", "x86_64": "i686"}.get(machine, machine)
    major, minor = said["version"][:2]
    return Board((major, minor), machine, int(glibc[1]), str(said["home"]))


def _put(
    wheels: Sequence[Path], board: Board, device: Device, link: Transport, progress: Progress
) -> tuple[str, bool]:
    names = sorted(f"{wheel.name} {sha256(wheel)}" for wheel in wheels)
    digest = hashlib.sha256("\n".join(names).encode()).hexdigest()
    target = f"{board.home}/{FOLDER}/{board.tag}-{digest[:12]}"
    size = human_bytes(sum(wheel.stat().st_size for wheel in wheels))
    progress(Event("note", "benchmark", f"sending {len(wheels)} wheels ({size}) to {device.name}"))
    answer = _run(device, link, "unpack", target, *(link.push(wheel) for wheel in wheels))
    if answer.get("error") == "no space":
        raise MeasurementError(
            "the device's disk is full",
            where=f"{board.home} on {device.name}",
            got=f"{human_bytes(answer['free_bytes'])} free",
            expected=human_bytes(answer["needed_bytes"]),
            next=f"free some space there; `edgekit device install {device.name} --remove` removes older ones",
        )
    return target, bool(_answered(answer, device, "unpack")["was_there"])


def _named(wanted: Sequence[str], wheels: Sequence[Path]) -> list[str]:
    """Those of the distributions that were asked for, and aren't there only because others need them."""

    def plain(name: str) -> str:
        return re.sub(r"[-_.]+", "-", name).lower()

    asked = {plain(re.split(r"[^\w.-]", one.strip(), maxsplit=1)[0]) for one in wanted}
    names = [wheel.name.split("-")[0] for wheel in wheels]
    return [name for name in names if plain(name) in asked] or names  # a wheel's path or address names none


def _verify(
    names: Sequence[str], target: str, was_there: bool, device: Device, link: Transport
) -> dict[str, str]:
    """Import everything there; what can't be imported isn't left behind. Raises MeasurementError."""
    path = pointed_at(device.setup, target, FOLDER)
    try:
        return dict(_answered(_run(device, link, "check", *names, env=path), device, "check")["versions"])
    except MeasurementError as error:
        if not was_there:
            _run(device, link, "remove", target)
        raise MeasurementError(
            "the board can't import what was put there",
            where=error.where,
            got=error.got,
            next="name another version, or what is missing besides, with --package; "
            "after SIGILL, an older version: the CPU lacks instructions of this one",
        ) from None


def _run(device: Device, link: Transport, *arguments: str, env: Sequence[str] = ()) -> dict[str, Any]:
    """Run the script there, and read its answer. Raises MeasurementError: there is no such Python."""
    script = link.push(_SCRIPT)
    done = link.run(
        [*(["env", *env] if env else []), device.interpreter, script, *arguments],
        timeout_seconds=device.timeout_seconds,
    )
    try:
        if done.returncode:
            raise ValueError(f"exit code {done.returncode}")
        answer: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    except (ValueError, IndexError) as error:
        raise MeasurementError(
            "the board's Python gave no answer",
            where=f"{device.interpreter} on {device.name}",
            got=f"{error}: {done.stderr.strip()[-500:]}",
            expected="Python 3.8 or later, which `python` in the profile may name",
        ) from None
    return answer if arguments[0] == "unpack" else _answered(answer, device, arguments[0])


def _answered(answer: dict[str, Any], device: Device, verb: str) -> dict[str, Any]:
    if "error" in answer:
        raise MeasurementError(
            "the device refused", where=f"{verb} on {device.name}", got=str(answer["error"])
        )
    return answer


def _refuse_others(device: Device) -> None:
    if not device.kind.address:
        raise DeviceError(
            "runtimes are put on boards only",
            where=device.name,
            got=f"transport {device.transport}",
            expected=addressed(),
            next="pip install numpy onnxruntime ai-edge-litert" if device.here else "",
        )
