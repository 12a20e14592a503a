"""Memory that a training frees and takes again in every step stays with the process while it trains.

glibc gives large blocks back to the kernel as soon as they are free, and every step pays for them anew: each
page of 4 KiB is a fault and is cleared first. That costs most on virtual machines, where a fault goes through
two page tables.
"""

from __future__ import annotations

import ctypes
import functools
import gc
import platform
from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["give_back", "keeping_freed_memory"]

# mallopt(3): parameters of glibc's malloc.
_TRIM_THRESHOLD, _MMAP_THRESHOLD, _MMAP_MAX = -1, -3, -4
_NEVER = 2**31 - 1  # an int in C
_USUAL_MMAP_MAX = 65536
_LARGEST_MMAP_THRESHOLD = 32 * 1024 * 1024  # with 64 bits


@contextmanager
def keeping_freed_memory() -> Iterator[bool]:
    """In here malloc keeps what is freed; at the end the system gets it back. Yields whether that is so.

    This is for the whole process. Without glibc (macOS, Windows, musl) nothing changes. What glibc had chosen
    before can't be asked for: afterwards its thresholds stand where they rise to by themselves in a process
    that frees large blocks (32 MiB, and twice that at the heap's end).

    Source: mallopt(3), malloc_trim(3) of the Linux man-pages.
    """
    libc = _glibc()
    if libc is None:
        yield False
        return
    kept = bool(libc.mallopt(_MMAP_MAX, 0)) and bool(libc.mallopt(_TRIM_THRESHOLD, _NEVER))
    try:
        yield kept
    finally:
        libc.mallopt(_MMAP_MAX, _USUAL_MMAP_MAX)
        libc.mallopt(_MMAP_THRESHOLD, _LARGEST_MMAP_THRESHOLD)
        libc.mallopt(_TRIM_THRESHOLD, 2 * _LARGEST_MMAP_THRESHOLD)
        libc.malloc_trim(0)


def give_back() -> None:
    """What nobody holds any more goes back to the system, between steps that need memory for other things.

    Graphs refer to themselves, so they wait for the collector; malloc keeps what is small (malloc_trim(3)).
    """
    gc.collect()
    if (libc := _glibc()) is not None:
        libc.malloc_trim(0)


@functools.cache
def _glibc() -> ctypes.CDLL | None:
    return ctypes.CDLL(None) if platform.libc_ver()[0] == "glibc" else None
