"""Pixels and features in edgekit's cache: made once, mapped, so that memory is the same for any number.

A file gets its name when all of it is there: a kill leaves nothing behind. All that are kept are bounded
(``caching.most_bytes``); larger ones are gone when the process ends.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from edgekit.caching import cache_folder, most_bytes
from edgekit.errors import DiskFullError, EdgekitError
from edgekit.files import disk_full, read_json, write_json
from edgekit.media.listing import File
from edgekit.media.pool import CRASHED, decoded
from edgekit.media.sorts import Sort, Transform
from edgekit.progress import Event, reading
from edgekit.spool import mapped
from edgekit.units import human_bytes

__all__ = ["look_at", "stored"]

_EVERY = 0.5  # seconds between what is told
_BLOCK = 8 << 20
_DIGEST = 32  # bytes of a sha256


def look_at(files: Sequence[File], sort: Sort, workers: int | None = None) -> dict[str, Any]:
    """Decode all of them, and keep nothing but what was found: what ``Look.to_json`` gives."""
    look = sort.look()
    _decode(files, sort, None, -1, look.add, workers)
    return look.to_json()


def stored(
    files: Sequence[File], sort: Sort, transform: Transform, workers: int | None = None
) -> tuple[np.ndarray[Any, Any], dict[str, Any]]:
    """The rows of all files that can be read, (N, …) of the transform's shape and type, in order; and what
    was found, see ``Look.to_json``, with a digest of all that they were made of as "content".

    Raises DiskFullError.
    """
    folder = cache_folder() / sort.many
    key = _key(files, sort, transform)
    shape, kind = transform.row
    if (kept := _kept(folder, key, transform.row_bytes(), len(files))) is not None:
        file, look = kept
        reading(Event("note", "data", f"decoded before: {len(files):,} {sort.many} from {folder}"))
    else:
        file, look = _made(folder, key, files, sort, transform, workers)
    count = len(files) - len(look["damaged"])
    with os.fdopen(file, "rb+") as stream:
        if not count:
            return np.zeros((0, *shape), kind), look
        return mapped(stream, np.dtype(kind), (count, *shape), look["content"]), look


def _key(files: Sequence[File], sort: Sort, transform: Transform) -> str:
    """Of all that the rows depend on; a file counts by its path, size and time of change."""
    digest = hashlib.sha256()
    digest.update(json.dumps([*sort.versions(), transform.to_dict()]).encode())
    folders: dict[str, str] = {}  # where they really are: a run's own workload names them from elsewhere
    for one in files:
        folder, _, name = one.path.rpartition("/")
        if folder not in folders:
            folders[folder] = os.path.realpath(folder or ("/" if one.path.startswith("/") else "."))
        path = f"{folders[folder]}/{name}"
        line = f"{path}\0{one.size_bytes}\0{one.changed}\n"
        digest.update(line.encode("utf-8", "surrogateescape"))
    return digest.hexdigest()[:32]


def _content(digests: npt.NDArray[np.uint8], damaged: Sequence[int], sort: Sort, transform: Transform) -> str:
    """Of all that decides on the rows' values: what the files hold, in order, and what is made of it."""
    digest = hashlib.sha256(json.dumps([*sort.versions(), transform.to_dict()]).encode())
    digest.update(np.delete(digests, damaged, axis=0).tobytes())
    return digest.hexdigest()


def _kept(folder: Path, key: str, row_bytes: int, files: int) -> tuple[int, dict[str, Any]] | None:
    """What an earlier run decoded, open, if all of it is there."""
    try:
        look: dict[str, Any] = read_json(folder / f"{key}.json")
        file = os.open(folder / f"{key}.bin", os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
    except (OSError, ValueError):
        return None
    with contextlib.suppress(OSError, KeyError, TypeError):
        known = len(look["content"]) == 2 * _DIGEST
        if known and os.fstat(file).st_size == (files - len(look["damaged"])) * row_bytes:
            os.utime(folder / f"{key}.json")
            return file, look
    os.close(file)
    return None


def _made(
    folder: Path,
    key: str,
    files: Sequence[File],
    sort: Sort,
    transform: Transform,
    workers: int | None,
) -> tuple[int, dict[str, Any]]:
    size = len(files) * transform.row_bytes()
    file = _nameless(folder, size)
    try:
        look = sort.look()
        digests = np.zeros((len(files), _DIGEST), np.uint8)

        def take(row: int, answer: dict[str, Any] | str) -> None:
            look.add(row, answer)
            if not isinstance(answer, str):
                digests[row] = np.frombuffer(bytes.fromhex(answer["sha256"]), np.uint8)

        _decode(files, sort, transform, file, take, workers, size)
        found = look.to_json()
        found["content"] = _content(digests, sorted(look.damaged), sort, transform)
        _close_gaps(file, sorted(look.damaged), len(files), transform.row_bytes())
        if not any(why.startswith(CRASHED) for why in look.damaged.values()):  # memory may have been short
            _keep(folder, key, file, found)
    except BaseException as error:
        os.close(file)
        if isinstance(error, OSError) and (full := disk_full(error, folder, refused=True)) is not None:
            raise full from error
        raise
    return file, found


def _nameless(folder: Path, size: int) -> int:
    """A file of the cache that has no name yet. Raises DiskFullError: there is no room for it."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        free = shutil.disk_usage(folder).free
        if free < size:
            raise DiskFullError(
                f"no room for decoded {folder.name}",
                where=str(folder),
                got=f"{human_bytes(free)} free",
                expected=human_bytes(size),
                next="edgekit cache clear, or name another folder in EDGEKIT_CACHE",
            )
        try:
            return os.open(folder, os.O_TMPFILE | os.O_RDWR | os.O_CLOEXEC, 0o600)
        except OSError:  # not every file system can
            with tempfile.TemporaryFile(dir=folder) as stream:
                return os.dup(stream.fileno())
    except OSError as error:
        raise disk_full(error, folder, refused=True) or error from error


def _decode(
    files: Sequence[File],
    sort: Sort,
    transform: Transform | None,
    file: int,
    take: Callable[[int, dict[str, Any] | str], None],
    workers: int | None,
    size: int = 0,
) -> None:
    total = len(files)
    message = f"decoding {sort.many}" + (f" to {human_bytes(size)} in the cache" if size else "")
    reading(Event("step", "data", message, total=total))
    began = last = time.monotonic()
    for done, (row, answer) in enumerate(
        decoded([one.path for one in files], sort, transform, file, workers), 1
    ):
        take(row, answer)
        now = time.monotonic()
        if now - last >= _EVERY or done == total:
            last = now
            speed = done / max(now - began, 1e-9)
            left = (total - done) / speed
            reading(
                Event(
                    "step",
                    "data",
                    message,
                    done=done,
                    total=total,
                    images_per_second=speed,
                    seconds_left=left,
                )
            )
    seconds = time.monotonic() - began
    place = f", {human_bytes(size)} in the cache" if size else ""
    reading(Event("note", "data", f"decoded {total:,} {sort.many} in {seconds:.1f} s{place}"))


def _close_gaps(file: int, missing: Sequence[int], rows: int, row_bytes: int) -> None:
    """Move what stands behind missing rows up to them."""
    for moved, gap in enumerate(missing):
        end = missing[moved + 1] if moved + 1 < len(missing) else rows
        start, length = (gap + 1) * row_bytes, (end - gap - 1) * row_bytes
        to = (gap - moved) * row_bytes
        for at in range(0, length, _BLOCK):
            block = os.pread(file, min(_BLOCK, length - at), start + at)
            os.pwrite(file, block, to + at)
    os.ftruncate(file, (rows - len(missing)) * row_bytes)


def _keep(folder: Path, key: str, file: int, found: dict[str, Any]) -> None:
    """Give the file its name, if it is none too large; what wasn't used for longest leaves for it."""
    size = os.fstat(file).st_size
    if size > most_bytes():
        reading(
            Event(
                "note",
                "data",
                f"not kept for the next run: more than the {human_bytes(most_bytes())} that are kept "
                "(EDGEKIT_CACHE_GB)",
            )
        )
        return
    # Without all of it nothing is lost: it is decoded again.
    with contextlib.suppress(OSError, EdgekitError):
        os.fdatasync(file)
        path = folder / f"{key}.bin"
        path.unlink(missing_ok=True)
        _name(file, path)
        write_json(folder / f"{key}.json", found, indent=None)
        _trim(folder, key)


def _name(file: int, path: Path) -> None:
    """Python's link follows no link of /proc, unless a folder is named for it."""
    descriptors = os.open("/proc/self/fd", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.link(str(file), path, src_dir_fd=descriptors, follow_symlinks=True)
    finally:
        os.close(descriptors)


def _trim(folder: Path, key: str) -> None:
    """Remove the oldest, until all keep to the bound."""
    records = sorted(folder.glob("*.json"), key=lambda one: one.stat().st_mtime)
    sizes = {
        one: one.with_suffix(".bin").stat().st_size for one in records if one.with_suffix(".bin").exists()
    }
    much = sum(sizes.values())
    for one in records:
        if much <= most_bytes():
            break
        if one.stem != key:
            one.unlink(missing_ok=True)
            one.with_suffix(".bin").unlink(missing_ok=True)
            much -= sizes.get(one, 0)
