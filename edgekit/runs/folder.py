"""The run folder: who it belongs to, what in it is finished, and that it is still what was written.

::

    run.json            which run this is: workload, recipe; another run is refused
    recipe.yaml         the recipe with every default written out
    workload.py         of a model by name: the same as a workload file; data.csv is its split
    preflight.json      that all files could be written, before anything was trained
    baseline.json       the trained model's figures
    stages/1-prune/     one folder for each stage: its files, stage.json (finished), metrics.json
    artifacts/          the exported files, and the preprocessing that they expect
    manifest.json       every artifact with its sha256, its parent and its metrics
    answers/            what each file answered to the validation set, as NumPy arrays
    measurements/       one file for each device, with every single timing
    logs/               what TensorBoard and MLflow were told, where they were asked for
    diagnosis.json      what compression broke, sample by sample
    guard.json          the stages that were left out as their files broke too much
    MODEL_CARD.md       what the model is, good for and bad at; also in the manifest
    report.json         written when all of that is there; report.key has its sha256
    report.html         the same to look at, with pictures: one file that works offline
    work/               while a run goes on only

Everything that is finished has a *record*: a JSON file with the key of what went into it, the sha256 of
each file that belongs to it, and a sha256 of its own. A record with another key is out of date; a file that
doesn't fit its record is damaged; both are simply made anew.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import shutil
import stat
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

from edgekit.errors import RunFolderError
from edgekit.files import (
    disk_full,
    inside,
    kind_of,
    read_json,
    remove_leftovers,
    sha256,
    sha256_of,
    write_json,
)
from edgekit.scratch import sweep

SCHEMA = 1
_IDENTITY = "run.json"
_LOCK = ".lock"
_DIFFERENCES = 5  # shown when a folder belongs to another run


class Damaged(Exception):
    """A record, or a file that belongs to it, is not what was written. Says what, for the warning."""


class RunFolder:
    """An open run folder; nobody else writes to it until ``close``. A context manager."""

    def __init__(self, path: Path, lock: int, *, new: bool = False) -> None:
        self.path, self.new = path, new
        self._lock: int | None = lock
        self._forgotten = False

    @classmethod
    def open(cls, path: Path, identity: Mapping[str, Any]) -> RunFolder:
        """Create the folder of this run, or continue in it.

        ``identity`` is JSON: all that makes this run another one than its neighbour. A folder that isn't this
        run's is left exactly as it is.

        Raises:
            RunFolderError: it belongs to another run, is in use, damaged, no run folder, or holds links.
            DiskFullError: it can't be created or written.
        """
        path = path.absolute()
        try:
            _check_device_identity(path)
            check_plain(path)
            _check_places(path)
            new = not path.exists()
            path.mkdir(parents=True, exist_ok=True)
            folder = cls(path, _take_lock(path), new=new)
        except OSError as error:
            full = disk_full(error, path, refused=True)
            if full is None:
                raise
            raise full from error
        try:
            folder._identify(identity)
            remove_leftovers(path)
            folder._drop_work()
            sweep()  # what a killed command left needs no other that makes folders
        except BaseException:
            folder.close()
            if new:  # nothing came of it: as if it had never been
                shutil.rmtree(path, ignore_errors=True)
            raise
        return folder

    @property
    def artifacts(self) -> Path:
        """Where the exported files are."""
        return self.path / "artifacts"

    @property
    def work(self) -> Path:
        """For what is needed while a run goes on; made when asked for, removed by ``close``."""
        work = self.path / "work"
        work.mkdir(exist_ok=True)
        return work

    def stage(self, index: int, kind: str) -> Path:
        """The folder of a stage; ``index`` counts from 1."""
        return self.path / "stages" / f"{index}-{kind}"

    def forget(self) -> None:
        """Nothing came of it: ``close`` removes the folder, unless it was there before."""
        self._forgotten = self.new

    def close(self) -> None:
        """Let others have the folder. May be called twice."""
        if self._lock is not None:
            self._drop_work()
            if self._forgotten:
                shutil.rmtree(self.path, ignore_errors=True)
            os.close(self._lock)  # closing gives the lock back
            self._lock = None

    def __enter__(self) -> RunFolder:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _drop_work(self) -> None:
        shutil.rmtree(self.path / "work", ignore_errors=True)

    def _identify(self, identity: Mapping[str, Any]) -> None:
        path = self.path / _IDENTITY
        if not path.exists():
            write_record(path, sha256_of(identity), {"schema": SCHEMA, "run": dict(identity)})
            return
        try:
            record = read_record(path)
            assert record is not None
            there = record["run"]
        except (Damaged, KeyError) as error:
            raise RunFolderError(
                "the run folder is damaged: nobody can say any more which run it belongs to",
                where=str(path),
                got=str(error),
                next="choose another output folder, or remove this one",
            ) from None
        if there != json.loads(json.dumps(identity)):
            raise RunFolderError(
                "the output folder belongs to another run",
                where=str(self.path),
                got="; ".join(_differences(there, identity)),
                expected="an empty folder, or one of a run with the same model, data and recipe",
                next="choose another output folder (without one, every run gets its own)",
            )


def run_name(workload: str, recipe: str, identity: Mapping[str, Any]) -> str:
    """The folder's name for a run that wasn't given one: ``digits-mobile-1f0c9a3e``."""
    return f"{workload}-{recipe}-{sha256_of(identity)[:8]}"


# --- records ---------------------------------------------------------------------------------------------


def write_record(
    path: Path,
    key: str,
    content: Mapping[str, Any],
    files: Mapping[str, str] | None = None,
    *,
    indent: int | None = 2,
) -> None:
    """Say that something is finished.

    Args:
        path: the record's file; its folder must exist.
        key: hash of all that went into it.
        content: the result, JSON.
        files: name (relative to the record) to sha256 of each file that belongs to it.
        indent: as for ``json.dumps``; None for long lists of numbers.

    Raises:
        DiskFullError: the record can't be written.
    """
    record = {**json.loads(json.dumps(content)), "key": key, "files": dict(files or {})}
    write_json(path, {**record, "sha256": sha256_of(record)}, indent=indent)


def read_record(path: Path) -> dict[str, Any] | None:
    """The record, or None if there is none.

    Raises:
        Damaged: the record is no longer what was written. Its files are not looked at, see ``check_files``.
    """
    try:
        record = read_json(path)
        told = record.pop("sha256")
        right = told == sha256_of(record)
        if not isinstance(record["key"], str) or not all(
            isinstance(name, str) and isinstance(digest, str) for name, digest in record["files"].items()
        ):
            raise TypeError("no record")
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        told = str(error.strerror) if isinstance(error, OSError) else type(error).__name__
        raise Damaged(f"{path.name} can't be read ({told})") from None
    if not right:
        raise Damaged(f"{path.name} was changed since it was written")
    assert isinstance(record, dict)
    return record


def check_files(folder: Path, files: Mapping[str, str]) -> None:
    """Raise Damaged unless every file is there, inside of the folder, with its sha256."""
    for name, expected in files.items():
        try:
            found = sha256(inside(folder, name))
        except OSError as error:
            raise Damaged(f"{name} can't be read ({error.strerror})") from None
        except ValueError as error:
            raise Damaged(str(error)) from None
        if found != expected:
            raise Damaged(f"{name} was changed since it was written")


def finished(path: Path, key: str) -> dict[str, Any] | None:
    """The record of what was finished with this key, its files checked; None if there is none.

    Raises:
        Damaged: there is a record, but it or one of its files is damaged.
    """
    record = read_record(path)
    if record is None or record["key"] != key:
        return None
    check_files(path.parent, record["files"])
    return record


def holds(path: Path, record: dict[str, Any], check: Callable[[dict[str, Any]], object]) -> None:
    """Raise Damaged if ``check`` raises: a record that fits its own sha256 may still hold anything."""
    try:
        check(record)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        said = str(error).splitlines() or [""]
        raise Damaged(
            f"{path.name} doesn't hold what it should ({said[0] or type(error).__name__})"
        ) from None


def check_plain(path: Path) -> None:
    """Raise RunFolderError if a run folder holds anything but files and folders.

    edgekit makes no links: one would have it write, or delete, somewhere else. What is no file can keep a
    reader waiting for ever.
    """
    for place, folders, files in os.walk(path):
        for name in (*folders, *files):
            one = Path(place, name)
            try:
                mode = one.lstat().st_mode
            except FileNotFoundError:  # another process works in the folder
                continue
            if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
                to = f" to {one.readlink()}" if stat.S_ISLNK(mode) else ""
                raise RunFolderError(
                    "the run folder holds what edgekit never makes",
                    where=str(path),
                    got=f"{one.relative_to(path)}: {kind_of(mode)}{to}",
                    expected="files and folders",
                    next="remove that if it is yours; if somebody else made this folder, don't trust it",
                )


# --- who a folder belongs to -----------------------------------------------------------------------------


def _check_device_identity(path: Path) -> None:
    """Refuse what can't be a run folder before anything is written into it."""
    try:
        str(path).encode()
    except UnicodeEncodeError:
        raise RunFolderError(
            "the output folder's name is no UTF-8", where=str(path), next="choose another one"
        ) from None
    if "\0" in str(path):
        raise RunFolderError("the output folder's name holds NUL", where=str(path), next="choose another one")
    if path.exists() and not path.is_dir():
        raise RunFolderError("the output folder is a file", where=str(path), next="choose another one")
    names = {entry.name for entry in path.iterdir()} if path.is_dir() else set()
    # A run that was killed in its first moments left a lock, and perhaps a temporary file.
    foreign = sorted(name for name in names if name != _LOCK and not name.startswith(f".{_IDENTITY}."))
    if foreign and _IDENTITY not in names:
        raise RunFolderError(
            "the output folder holds something else",
            where=str(path),
            got=", ".join(foreign[:_DIFFERENCES]) + (", …" if len(foreign) > _DIFFERENCES else ""),
            expected="an empty folder, or one of an earlier run",
            next="choose another output folder",
        )


_FILES = (
    *(_IDENTITY, _LOCK),
    *("recipe.yaml", "preflight.json", "baseline.json", "manifest.json", "diagnosis.json", "guard.json"),
    *("MODEL_CARD.md", "report.json", "report.html"),
)
_FOLDERS = ("stages", "artifacts", "answers", "measurements", "logs", "work")


def _check_places(path: Path) -> None:
    """What would be in the way of the run's files, told before anything is computed for them."""
    wrong = [f"{name} is a folder" for name in _FILES if (path / name).is_dir()]
    flat = [one for name in ("answers", "measurements") for one in (path / name).glob("*")]
    wrong += [f"{one.relative_to(path)} is a folder" for one in flat if one.is_dir()]
    there = [path / name for name in _FOLDERS if os.path.lexists(path / name)]
    wrong += [f"{one.name} is no folder" for one in there if not one.is_dir()]
    if wrong:
        raise RunFolderError(
            "the run folder is damaged",
            where=str(path),
            got=", ".join(wrong),
            next="remove that, and run the same command again: it goes on where it was",
        )


def _take_lock(path: Path) -> int:
    # Not through a link, which may have been put there since the folder was looked at.
    handle = os.open(path / _LOCK, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK, 0o666)
    if os.fstat(handle).st_nlink > 1:
        os.close(handle)
        raise RunFolderError("the lock is another file as well", where=str(path / _LOCK), next="remove it")
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        with contextlib.suppress(OSError):
            owner = os.pread(handle, 20, 0).decode("ascii", "replace").strip()
        os.close(handle)
        raise RunFolderError(
            "the output folder is in use",
            where=str(path),
            got=f"process {owner or '?'} is working in it",
            next="wait for its end, or choose another output folder",
        ) from None
    os.ftruncate(handle, 0)
    with contextlib.suppress(OSError):  # a full disk; the number is only for the message above
        os.pwrite(handle, f"{os.getpid()}\n".encode(), 0)
    return handle


def _differences(there: Any, here: Any) -> list[str]:
    """What differs between two JSON values, one line each."""
    old, new = dict(_flat(there, "")), dict(_flat(json.loads(json.dumps(here)), ""))
    lines = []
    for name in [*old, *(name for name in new if name not in old)]:
        one, other = old.get(name, "absent"), new.get(name, "absent")
        if one != other:
            one, other = (value[:12] if len(value) == 64 else value for value in (one, other))
            lines.append(f"{name} {one} there, {other} now")
    more = len(lines) - _DIFFERENCES
    return lines[:_DIFFERENCES] + ([f"and {more} more"] if more > 0 else [])


def _flat(value: Any, name: str) -> Iterator[tuple[str, str]]:
    if isinstance(value, dict):
        for key, item in value.items():
            yield from _flat(item, f"{name}.{key}" if name else key)
    elif isinstance(value, list):
        for index, item in enumerate(value):
            yield from _flat(item, f"{name}[{index}]")
    else:
        yield name, value if isinstance(value, str) else json.dumps(value)
