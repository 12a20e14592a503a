"""Whether what went wrong comes of too little memory, or too few files that may be open, of this process."""

from __future__ import annotations

import errno
import os

from edgekit.errors import InputError

__all__ = ["is_shortage", "says_no_memory", "shortage"]

# How C++, ONNX Runtime, LiteRT and torch say it.
_WORDS = (
    "bad_alloc",
    "failed to allocate memory",
    "can't allocate memory",
    "cannot allocate memory",
    "not enough memory",
)


def shortage(error: BaseException, where: str = "") -> InputError | None:
    """What to raise instead of ``error`` if it comes of that; else None. ``where``: the step it ended."""
    link: BaseException | None = error
    while link is not None:
        if isinstance(link, InputError):
            return None
        if _is_of_memory(link):
            return InputError(
                "not enough memory",
                where=where,
                got=next(iter(str(link).splitlines()), ""),
                next="free some, or give less at once: fewer samples, smaller batches",
            )
        if isinstance(link, OSError) and is_shortage(link):
            name = link.filename
            return InputError(
                "no more files can be open at once",
                where=where or (os.fsdecode(name) if isinstance(name, str | bytes) else ""),
                got=link.strerror or str(link),
                next="allow more of them: ulimit -n 1024",
            )
        link = link.__cause__ or (None if link.__suppress_context__ else link.__context__)
    return None


def _is_of_memory(error: BaseException) -> bool:
    """Whether it was given no memory. Libraries in C++ raise errors that hold the words alone."""
    if isinstance(error, OSError):
        return error.errno == errno.ENOMEM
    return isinstance(error, MemoryError) or (isinstance(error, RuntimeError) and says_no_memory(str(error)))


def is_shortage(error: OSError) -> bool:
    """Whether it was given no memory, or may have no more files open."""
    return error.errno in (errno.EMFILE, errno.ENFILE, errno.ENOMEM)


def says_no_memory(text: str) -> bool:
    """Whether an error's words are those of a library that got no memory."""
    return any(one in text.lower() for one in _WORDS)
