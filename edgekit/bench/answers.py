"""A .npy file that is written row by row, and that a later process may go on with.

Runs on the device beside ``worker.py``: standard library and NumPy, Python 3.8 or later. Plain writes, not a
memory map: on a full disk a map kills the process (SIGBUS), while a write is an OSError that can be told.
"""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO

import numpy as np


class Answers:
    """Rows of the array (total, *shape) that a file is to hold.

    Args:
        path: the file.
        total: number of rows.
        start: rows that are there already; the others are written from here on.
        first: an array (N, *shape) whose type and rows the file has.

    Raises ValueError: with ``start``, the file is none of such rows or holds fewer of them; OSError.
    """

    def __init__(self, path: str, total: int, start: int, first: Any) -> None:
        self.shape, self.dtype = (total, *first.shape[1:]), first.dtype
        # Looks at no more than the answers' own type and rows, before anything is overwritten.
        offset = self._checked(path, start) if start else 0
        self._file: BinaryIO = open(path, "r+b" if start else "wb")  # noqa: SIM115, PTH123 - closed by __exit__
        if start:
            self._file.seek(offset + start * self._row_bytes)
            self._file.truncate()
        else:
            header = {"descr": np.lib.format.dtype_to_descr(self.dtype), "fortran_order": False}
            np.lib.format.write_array_header_1_0(self._file, {**header, "shape": self.shape})

    @property
    def _row_bytes(self) -> int:
        return int(self.dtype.itemsize * np.prod(self.shape[1:], dtype=np.int64))

    def _checked(self, path: str, start: int) -> int:
        """Where the rows begin in a file that is to be continued."""
        with open(path, "rb") as file:  # noqa: PTH123
            try:
                version = np.lib.format.read_magic(file)
                if version != (1, 0):
                    raise ValueError(f"version {version}")
                shape, fortran, dtype = np.lib.format.read_array_header_1_0(file)
            except ValueError as error:
                raise ValueError(f"{path} can't be continued: {error}") from None
            offset = file.tell()
            held = (os.fstat(file.fileno()).st_size - offset) // max(1, self._row_bytes)
        if (shape, dtype, fortran) != (self.shape, self.dtype, False):
            wanted = f"{self.dtype}{list(self.shape)}"
            raise ValueError(f"{path} can't be continued: it holds {dtype}{list(shape)}, expected {wanted}")
        if held < start:
            raise ValueError(f"{path} can't be continued at row {start}: it holds {held} rows")
        return offset

    def write(self, rows: Any) -> None:
        """Append rows."""
        if rows.shape[1:] != self.shape[1:] or rows.dtype != self.dtype:
            first, then = ([str(one.dtype), *one.shape[1:]] for one in (self, rows))
            raise ValueError(f"the file answered rows of {first} at first, then of {then}")
        self._file.write(np.ascontiguousarray(rows).data)

    def settle(self) -> None:
        """Have what was written on the disk, so that it is still there after a loss of power."""
        self._file.flush()
        os.fsync(self._file.fileno())

    def __enter__(self) -> Answers:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()


def sha256(path: str) -> str:
    """Hex digest of a file."""
    digest = hashlib.sha256()
    with Path(path).open("rb") as file:
        for block in iter(lambda: file.read(1 << 20), b""):
            digest.update(block)
    return digest.hexdigest()
