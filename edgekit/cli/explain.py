"""What a person is told when a command fails: one message, never a traceback of edgekit's own."""

from __future__ import annotations

import errno
import os

from edgekit.errors import DiskFullError, EdgekitError, InputError, Interrupted, WorkloadError, printable
from edgekit.files import disk_full
from edgekit.shortage import shortage

# What is wrong with a path that was given, not with edgekit.
_OF_PATHS = (
    errno.ENAMETOOLONG,
    errno.ELOOP,
    errno.ENOTDIR,
    errno.EISDIR,
    errno.EILSEQ,
    errno.EIO,
    errno.ESTALE,
)
_FORBIDDEN = (errno.EACCES, errno.EPERM, errno.EROFS)
_TRACEBACK = 8000  # characters of a user's own


def explain(error: BaseException, command: str) -> tuple[str, int]:
    """The message for a person, and the exit code. ``command`` is what was called, to be called again."""
    if isinstance(error, KeyboardInterrupt):
        error = Interrupted("interrupted", next=f"the same command goes on where it was: {command}")
    if not isinstance(error, (InputError, Interrupted)):
        error = not_written(error) or _given(error) or error
    if isinstance(error, WorkloadError) and error.user_traceback:
        traceback = printable(error.user_traceback.rstrip(), _TRACEBACK)
        return f"{traceback}\n\nerror: {error}", error.exit_code
    if isinstance(error, Interrupted):
        return str(error), error.exit_code
    if isinstance(error, EdgekitError):
        return f"error: {error}", error.exit_code
    return (
        f"error: edgekit failed unexpectedly: {type(error).__name__}: {printable(str(error))}\n"
        f"  next:     EDGEKIT_TRACEBACK=1 {command}   shows where; please report it with that",
        1,
    )


def not_written(error: BaseException) -> DiskFullError | None:
    """The error for a full disk, or a place that may not be used, if that is what ``error`` comes from."""
    full = disk_full(error)
    if full is None and isinstance(error, OSError) and error.errno in _FORBIDDEN:
        return DiskFullError(
            "no permission",  # to read or to write: nobody knows any more what was tried
            where=_file_of(error),
            got=error.strerror or str(error),
            next="choose another place, for example with --out",
        )
    return full


def _given(error: BaseException) -> InputError | None:
    """The error for a path that can't be one, or memory that there isn't; None for anything else."""
    where = error.where if isinstance(error, EdgekitError) else ""
    if (wanting := shortage(error, where)) is not None:
        return wanting
    if isinstance(error, UnicodeEncodeError) and error.reason == "surrogates not allowed":
        return InputError("a name holds what is no Unicode", got=repr(error.object))
    if isinstance(error, OSError) and error.errno in _OF_PATHS:
        return InputError("this path can't be used", where=_file_of(error), got=error.strerror or str(error))
    return None


def _file_of(error: OSError) -> str:
    return os.fsdecode(error.filename) if isinstance(error.filename, (str, bytes)) else ""
