"""What a file holds, or a member of a shard, whose path is ``SHARD#OFFSET+SIZE#NAME``."""

from __future__ import annotations

import errno
import os
import re
from pathlib import Path

from edgekit.files import NotAFile, opened, read_bytes
from edgekit.media.sorts import Unreadable

__all__ = ["beginning", "member_path", "place_of", "whole"]

_PLACE = re.compile(r"(?P<shard>.+\.tar)#(?P<offset>\d{1,18})\+(?P<size>\d{1,18})#[^/]*", re.I | re.S)
_HARMLESS = re.compile(r"[^A-Za-z0-9._-]+")
_NAME = 100  # characters


def member_path(shard: str, offset: int, size: int, name: str) -> str:
    """Of a member; ``name`` is for people alone, and becomes harmless."""
    return f"{shard}#{offset}+{size}#{_HARMLESS.sub('_', name.rpartition('/')[2])[-_NAME:]}"


def place_of(path: str) -> tuple[str, int, int] | None:
    """The shard, the offset and the bytes of a member; None for any other path."""
    found = _PLACE.fullmatch(path) if "#" in path else None
    return None if found is None else (found["shard"], int(found["offset"]), int(found["size"]))


def whole(path: str, most: int) -> bytes:
    """All bytes, at most ``most``. Raises Unreadable. Never waits for a pipe."""
    try:
        return _read(path, most)
    except OSError as error:
        raise Unreadable(error.strerror or str(error)) from None


def beginning(path: str, most: int) -> bytes:
    """The first bytes, up to ``most``. Raises OSError."""
    if (place := place_of(path)) is None:
        with opened(Path(path)) as stream:
            return stream.read(most)
    return _of_shard(path, *place[:2], min(place[2], most))


def _read(path: str, most: int) -> bytes:
    if (place := place_of(path)) is None:
        return read_bytes(Path(path), most)
    if place[2] > most:
        raise NotAFile(errno.EFBIG, f"{place[2]} bytes, more than the {most} that it may have", path)
    return _of_shard(path, *place)


def _of_shard(path: str, shard: str, offset: int, size: int) -> bytes:
    with opened(Path(shard)) as stream:
        there = max(0, os.fstat(stream.fileno()).st_size - offset)
        found = os.pread(stream.fileno(), size, offset) if size <= there else b""
    if len(found) < size:
        raise NotAFile(errno.EINVAL, f"cut off: {there:,} of {size:,} bytes are in the shard", path)
    return found
