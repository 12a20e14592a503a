"""Whether what went wrong comes of too little memory, or too few files that may be open, of this process."""

from __future__ import annotations

import errno
import os

from edgekit.errors import EdgekitError, InputError

__all__ = ["is_shortage", "says_no_memory", "shortage"]

# How C++, ONNX Runtime, LiteRT, torch, oneDNN and Python say it.
_WORDS = (
    "bad_alloc",
    "failed to allocate memory",
    "can't allocate memory",
    "cannot allocate memory",
    "not enough memory",
    "could not create a primitive",
    "could not create a memory object",
    "can't start new thread",
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
    if isinstance(error, EdgekitError):  # says already what it is about
        return False
    return isinstance(error, MemoryError) or says_no_memory(str(error))


def is_shortage(error: OSError) -> bool:
    """Whether it was given no memory, or may have no more files open."""
    return error.errno in (errno.EMFILE, errno.ENFILE, errno.ENOMEM)


def says_no_memory(text: str) -> bool:
    """Whether an error's words are those of a library that got no memory."""
    text = text.lower().replace("could not create a primitive descriptor", "")  # of what oneDNN doesn't know
    return any(one in text for one in _WORDS)
