"""The folder of wheels on a board: ask, unpack, check, remove. Run on the device as a file, never imported.

Standard library only, Python 3.8 or later. ``argv[1]`` says what to do; the answer is one JSON object:

* ``ask``: version, machine, bits, implementation, libc, home, free_bytes of home;
* ``unpack FOLDER WHEEL ...``: unpack the wheels into the folder, which is there as a whole or not at all;
* ``check DISTRIBUTION ...``: import what these distributions hold; their versions;
* ``remove FOLDER ...``: remove folders; those that were there.

What fails says so as ``{"error": ...}``.
"""

from __future__ import annotations

import importlib
import json
import os
import platform
import shutil
import struct
import sys
import zipfile
from importlib import metadata
from pathlib import Path


def ask() -> dict[str, object]:
    """What decides which wheels fit, and where they go."""
    home = Path("~").expanduser()
    return {
        "version": list(sys.version_info[:3]),
        "machine": platform.machine(),
        "bits": 8 * struct.calcsize("P"),
        "implementation": sys.implementation.name,
        "libc": list(platform.libc_ver()),
        "home": str(home),
        "writable": os.access(home, os.W_OK),
    }


def unpack(folder: str, wheels: list[str]) -> dict[str, object]:
    """Unpack into a folder beside, then rename: a board that is switched off meanwhile has no half of it."""
    target = Path(folder)
    if target.is_dir():
        return {"folder": folder, "was_there": True}
    target.parent.mkdir(parents=True, exist_ok=True)
    needed = sum(member.file_size for wheel in wheels for member in zipfile.ZipFile(wheel).infolist())
    free = shutil.disk_usage(str(target.parent)).free
    if needed > free:
        return {"error": "no space", "needed_bytes": needed, "free_bytes": free}
    part = target.with_name(target.name + ".part")
    shutil.rmtree(part, ignore_errors=True)
    try:
        for wheel in wheels:
            extract(wheel, str(part))
        part.rename(target)
    finally:
        shutil.rmtree(part, ignore_errors=True)
    return {"folder": folder, "was_there": False}


def extract(wheel: str, folder: str) -> None:
    """All that goes on Python's path; scripts and headers are left out. See the wheel format (PEP 427)."""
    with zipfile.ZipFile(wheel) as archive:
        for member in archive.infolist():
            first, _, rest = member.filename.partition("/")
            if first.endswith(".data"):
                kind, _, rest = rest.partition("/")
                if kind not in ("purelib", "platlib") or not rest:
                    continue
                member.filename = rest
            archive.extract(member, folder)  # which keeps names with ".." inside


def check(distributions: list[str]) -> dict[str, object]:
    """Import every package and module that these distributions put on the path; their versions."""
    found = {}
    for name in distributions:
        one = metadata.distribution(name)
        for module in sorted({top(str(path)) for path in one.files or []} - {""}):
            try:
                importlib.import_module(module)
            except Exception as error:
                return {"error": f"{name}: import {module}: {error!r}"}
        found[name] = one.version
    return {"versions": found}


def top(path: str) -> str:
    """The package or module that a file of a distribution makes; "" for what isn't meant to be imported."""
    first, _, rest = path.partition("/")
    name = first if rest == "__init__.py" else first[:-3] if not rest and first.endswith(".py") else ""
    return name if name.isidentifier() and not name.startswith("_") else ""


def remove(folders: list[str]) -> dict[str, object]:
    """Remove folders with all that is in them; a link itself, not where it leads."""
    gone = []
    for folder in folders:
        if Path(folder).is_symlink():
            Path(folder).unlink()
        elif Path(folder).is_dir():
            shutil.rmtree(folder)
        else:
            continue
        gone.append(folder)
    return {"removed": gone}


def main(verb: str, *arguments: str) -> dict[str, object]:
    """Do one of the four."""
    try:
        if verb == "unpack":
            return unpack(arguments[0], list(arguments[1:]))
        if verb == "check":
            return check(list(arguments))
        return remove(list(arguments)) if verb == "remove" else ask()
    except Exception as error:
        return {"error": f"{type(error).__name__}: {error}"}


if __name__ == "__main__":
    sys.stdout.write(json.dumps(main(*sys.argv[1:])) + "\n")
