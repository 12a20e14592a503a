"""Which rows are the same file, bit by bit, in as little memory as a million of them leave."""

from __future__ import annotations

__all__ = ["Copies"]

_BYTES = 16  # of a digest: enough to tell any number of files apart


class Copies:
    """Rows by what their files hold."""

    def __init__(self) -> None:
        self._first: dict[bytes, int] = {}
        self._more: dict[bytes, list[int]] = {}

    def add(self, row: int, sha256: str) -> None:
        """``sha256``: of the row's file, in hexadecimal digits."""
        key = bytes.fromhex(sha256)[:_BYTES]
        if (first := self._first.setdefault(key, row)) != row:
            self._more.setdefault(key, [first]).append(row)

    def groups(self) -> list[list[int]]:
        """Those of several rows, each in order."""
        return sorted(sorted(rows) for rows in self._more.values())
