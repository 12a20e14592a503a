"""Rows that may be more than memory holds: kept in memory while they are few, in a mapped file otherwise.

The file lies in edgekit's cache and has no name any more once it is mapped: it is gone when the process ends,
however it ends.
"""

from __future__ import annotations

import contextlib
import mmap
import os
import tempfile
import weakref
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Self

import numpy as np

from edgekit.caching import cache_folder
from edgekit.errors import DataError, DiskFullError
from edgekit.files import disk_full

__all__ = ["Spool", "content_of", "forget", "is_mapped", "mapped", "memory_limit", "one_shape"]

_SHARE = 4  # one data set may take this part of the memory
_CGROUP = Path("/sys/fs/cgroup/memory.max")


def memory_limit() -> int:
    """Bytes of one split that are kept in memory: a quarter of what this machine (or container) has."""
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    with contextlib.suppress(OSError, ValueError):  # "max", or no control groups
        total = min(total, int(_CGROUP.read_text(encoding="utf-8")))
    return total // _SHARE


def is_mapped(array: np.ndarray[Any, Any]) -> bool:
    """Whether the array lies in a file, and not in memory."""
    base: Any = array
    while isinstance(base, np.ndarray):
        if isinstance(base, np.memmap):
            return True
        base = base.base
    return False


@dataclass
class _Mapping:
    """A mapped file: as long as it is there, its bytes, a digest of what they are made of, whether somebody
    was seen to have written to its memory.
    """

    file: weakref.ref[mmap.mmap]
    size: int
    content: str
    written: bool = False

    def is_written(self, address: int) -> bool:
        """``address``: of its first byte. Asked each time: a write may come after any answer of no."""
        if not self.written:
            self.written = _written_to(address, address + self.size)
        return self.written


_MAPPED: dict[int, _Mapping] = {}  # by the address of the first byte
_PAGES = Path("/proc/self/pagemap")  # proc_pid_pagemap(5): eight bytes for each page


def mapped(stream: IO[bytes], dtype: Any, shape: tuple[int, ...], content: str = "") -> np.ndarray[Any, Any]:
    """A file's values, read where they are indexed; the file may lose its name, and be closed.

    ``content``: a digest of all that they were made of, if there is one; see ``content_of``.
    """
    # "c": a write would go to memory; with "r" it would end the process.
    array = np.memmap(stream, dtype, mode="c", shape=shape)
    for address in [one for one, known in _MAPPED.items() if known.file() is None]:
        del _MAPPED[address]
    file = weakref.ref(array._mmap)  # type: ignore[attr-defined]
    _MAPPED[array.ctypes.data] = _Mapping(file, array.nbytes, content)
    return array


def forget(values: np.ndarray[Any, Any]) -> None:
    """Give back the memory that reading these values took, if they lie in a mapped file, where they stay.

    They count as this process's own memory as long as there is enough of it; who goes through a whole file
    once looks as if it held all of it.
    """
    found = _mapping_of(values)
    file = found[0].file() if found else None
    if found is None or file is None:
        return
    known, offset = found
    if known.is_written(values.ctypes.data - offset):
        return  # what was written would be lost
    page = mmap.PAGESIZE
    first = offset // page * page
    last = min(offset + values.nbytes, known.size)
    if last > first:
        file.madvise(mmap.MADV_DONTNEED, first, last - first)


def content_of(values: np.ndarray[Any, Any]) -> str | None:
    """What says as much as a digest of these values in one piece, without reading them: of which file they
    are, and which part of it; None where nobody knows, or somebody has written to that file's memory.
    """
    if not values.flags.c_contiguous or (found := _mapping_of(values)) is None:
        return None
    known, offset = found
    if not known.content or offset + values.nbytes > known.size:
        return None
    if known.is_written(values.ctypes.data - offset):
        return None
    return f"{known.content} {offset} {values.nbytes}"


def _mapping_of(values: np.ndarray[Any, Any]) -> tuple[_Mapping, int] | None:
    """The mapped file in which values begin, and their offset in it."""
    start = values.ctypes.data
    for address, known in _MAPPED.items():
        if known.file() is not None and address <= start < address + known.size:
            return known, start - address
    return None


def _written_to(start: int, end: int) -> bool:
    """Whether pages of this span are no longer the file's, but the process's own; also where nobody says.

    Asked after every batch, so of the span's own pages: a list of all mappings takes longer than a batch.
    """
    page, step = mmap.PAGESIZE, 1 << 16
    last = -(-end // page)
    try:
        with _PAGES.open("rb", buffering=0) as table:
            for first in range(start // page, last, step):
                count = min(step, last - first)
                table.seek(8 * first)
                told = np.frombuffer(table.read(8 * count), "<u8")
                flags = (told >> np.uint64(61)).astype(np.uint8)  # 1: the file's, 2: swapped out, 4: present
                if len(told) < count or bool((((flags & 6) != 0) & ((flags & 1) == 0)).any()):
                    return True
    except (OSError, ValueError):
        return True
    return False


def one_shape(where: str) -> str:
    """What to do about samples of several shapes."""
    more = ", or give the workload a task with unequal_targets" if "targets" in where else ""
    return f"resize or pad the samples to one shape first{more}"


class Spool:
    """Takes one array after the other and gives back all of them; to be used in a ``with`` block.

    Args:
        where: what they are, for messages: "train inputs".
        limit: bytes that are kept in memory; beyond it everything goes to a file.
    """

    def __init__(self, where: str, limit: int) -> None:
        self.where, self.limit = where, limit
        self.rows: list[np.ndarray[Any, Any]] = []
        self.bytes = self.count = 0
        self.shape: tuple[int, ...] = ()
        self.stream: IO[bytes] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        if self.stream is not None:
            self.stream.close()

    def add(self, row: Any) -> None:
        """Raises DataError if it is no array, or not of the first one's shape or, in the file, type;
        DiskFullError.
        """
        try:
            array = np.asarray(row)
        except (TypeError, ValueError) as error:
            raise self._unequal(str(error)) from error
        if array.dtype.kind == "f":
            array = array.astype(np.float32)
        if not self.count:
            self.shape = array.shape
        elif array.shape != self.shape:
            raise self._unequal(f"item 0 of shape {self.shape}, item {self.count} of shape {array.shape}")
        self.count += 1
        self.bytes += array.nbytes
        if self.stream is not None:
            self._write(array)
            return
        self.rows.append(array)
        if self.bytes > self.limit:
            self._open()

    def values(self) -> Any:
        """The list of rows, or a mapped array (N, …) of them, which outlives the spool."""
        if self.stream is None:
            return self.rows
        try:
            self.stream.flush()
        except OSError as error:
            raise self._full(error) from error
        return mapped(self.stream, self.dtype, (self.count, *self.shape))

    def _open(self) -> None:
        self.dtype = self.rows[0].dtype
        if self.dtype.kind not in "biuf":
            raise DataError(
                "samples are not numbers",
                where=self.where,
                got=f"dtype {self.dtype}",
                expected="integers or floating point numbers",
                next="encode text or objects as numbers first",
            )
        folder = cache_folder() / "data"
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self.stream = tempfile.TemporaryFile(dir=folder)  # noqa: SIM115 - __exit__ closes it
        except OSError as error:
            raise self._full(error) from error
        for row in self.rows:
            self._write(row)
        self.rows = []

    def _write(self, array: np.ndarray[Any, Any]) -> None:
        if not np.can_cast(array.dtype, self.dtype, "same_kind"):
            raise self._unequal(f"types {self.dtype} and {array.dtype}")
        assert self.stream is not None
        try:
            self.stream.write(np.ascontiguousarray(array, self.dtype).data)
        except OSError as error:
            raise self._full(error) from error

    def _full(self, error: OSError) -> DiskFullError | OSError:
        return disk_full(error, cache_folder() / "data", refused=True) or error

    def _unequal(self, got: str) -> DataError:
        return DataError(
            "samples don't stack to one array",
            where=self.where,
            got=got,
            expected="samples of one shape and a numeric type",
            next=one_shape(self.where),
        )
