"""The items of a user's dataset, one after the other; one that fails is told with its number and its file."""

from __future__ import annotations

import contextlib
import io
import time
from collections.abc import Collection, Iterable, Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import torch

from edgekit.errors import DataError, EdgekitError, WorkloadError
from edgekit.progress import Event, reading
from edgekit.ragged import Gathering
from edgekit.spool import Spool, memory_limit
from edgekit.workload.loading import user_traceback

__all__ = ["Spools", "file_of", "items", "map_style"]

_SOURCES = {".py", ".pyc", ".so"}
_EVERY = 0.5  # seconds between what is told
_LONGEST = 4096  # characters of a path, on Linux


def map_style(data: Any) -> bool:
    """Whether a dataset is asked by index; others are iterated over."""
    # torch's iterable datasets inherit a __getitem__ that only raises.
    indexed = hasattr(data, "__len__") and hasattr(data, "__getitem__")
    return indexed and not isinstance(data, torch.utils.data.IterableDataset)


def items(data: Any, name: str) -> Iterator[Any]:
    """All items of a dataset, map-style or iterable. ``name`` ("train") stands in messages.

    Raises WorkloadError: the dataset's own code failed; with the number of the item, the file that was being
    read, if there was one, and the traceback of that code.
    """
    each = (data[index] for index in range(len(data))) if map_style(data) else data
    return _told(each, name, len(data) if map_style(data) else 0)


def _told(each: Iterable[Any], name: str, total: int) -> Iterator[Any]:
    index, last = 0, time.monotonic()
    try:
        for item in each:
            yield item
            index += 1
            if time.monotonic() - last >= _EVERY:
                last = time.monotonic()
                reading(Event("step", "data", f"reading the {name} data", done=index, total=total))
    except EdgekitError:
        raise
    except Exception as error:
        file = file_of(error)
        raise WorkloadError(
            f"an item of this dataset can't be read: {type(error).__name__}: {error}",
            where=f"{name} data, item {index}" + (f" ({file})" if file else ""),
            next="replace that file, or leave it out of the data" if file else "see the traceback above",
            user_traceback=user_traceback(error),
        ) from error


class Spools:
    """What the items of a dataset hold: one array each, or a dict of them; to be used in a ``with`` block.

    Args:
        where: what they are, for messages: "train inputs".
        unequal: keys of what is of another number in each item; "" for the item itself.
    """

    def __init__(self, where: str, unequal: Collection[str] = ()) -> None:
        self.where, self.unequal = where, unequal
        self.spools: dict[str | None, Spool | Gathering] = {}
        self.stack = contextlib.ExitStack()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.stack.close()

    def add(self, item: Any) -> None:
        """Raises what ``Spool.add`` raises, and DataError for an item with other keys than the first."""
        single = "" in self.unequal or not isinstance(item, Mapping)
        parts = {None: item} if single else dict(item)
        if not self.spools:
            limit = memory_limit() // max(1, len(parts))
            for key in parts:
                where = self.where if key is None else f"{self.where}: {key}"
                if (key or "") in self.unequal:
                    self.spools[key] = Gathering(where)
                else:
                    self.spools[key] = self.stack.enter_context(Spool(where, limit))
        if parts.keys() != self.spools.keys():
            known = ", ".join(map(str, self.spools))
            raise DataError(
                "items of a dataset differ in what they hold",
                where=f"{self.where}, item {self.count}",
                got=", ".join(map(str, parts)) if isinstance(item, Mapping) else "one array",
                expected="one array" if None in self.spools else known,
            )
        for key, one in parts.items():
            self.spools[key].add(one)

    def values(self) -> Any:
        """What ``Spool.values`` gives, of the one, or in a dict."""
        if None in self.spools:
            return self.spools[None].values()
        return {key: spool.values() for key, spool in self.spools.items()}

    @property
    def count(self) -> int:
        """Of items."""
        return next((spool.count for spool in self.spools.values()), 0)

    @property
    def bytes(self) -> int:
        """Of all of them."""
        return sum(spool.bytes for spool in self.spools.values())

    @property
    def outside(self) -> bool:
        """Whether any of it went to a file."""
        return any(spool.stream is not None for spool in self.spools.values())


def file_of(error: BaseException) -> str:
    """The file that was being read when this was raised; "" if none is known.

    Decoders often don't say it themselves ("image file is truncated"). But one of the functions that were
    running has its path, or the open file.
    """
    told = getattr(error, "filename", None)
    if isinstance(told, (str, Path)) and str(told):
        return str(told)
    frames: list[TracebackType] = []
    trace = error.__traceback__
    while trace is not None:
        frames.append(trace)
        trace = trace.tb_next
    for one in reversed(frames):
        if one.tb_frame.f_locals is one.tb_frame.f_globals:
            continue  # a module: none of its names is about this item
        for value in list(one.tb_frame.f_locals.values()):
            if found := _path_in(value):
                return found
    return ""


def _path_in(value: Any) -> str:
    """The path of a file that is there, in a name, an open file, or a picture that knows its file."""
    if isinstance(value, io.IOBase):
        value = getattr(value, "name", None)
    elif not isinstance(value, (str, Path)):
        value = getattr(value, "__dict__", {}).get("filename")  # Pillow's pictures
    if not isinstance(value, (str, Path)) or not 0 < len(str(value)) < _LONGEST:
        return ""
    path = Path(value)
    try:
        return str(path) if path.suffix not in _SOURCES and path.is_file() else ""
    except (OSError, ValueError):  # a name that no file can have
        return ""
