"""What a person is told when a command fails: one message, never a traceback of edgekit's own."""

from __future__ import annotations

import errno

from edgekit.errors import DiskFullError, EdgekitError, InputError, Interrupted, WorkloadError
from edgekit.files import disk_full


def explain(error: BaseException, command: str) -> tuple[str, int]:
    """The message for a person, and the exit code. ``command`` is what was called, to be called again."""
    if isinstance(error, KeyboardInterrupt):
        error = Interrupted("interrupted", next=f"the same command goes on where it was: {command}")
    full = None if isinstance(error, (InputError, Interrupted)) else not_written(error)
    if full is not None:
        error = full
    if isinstance(error, WorkloadError) and error.user_traceback:
        return f"{error.user_traceback.rstrip()}\n\nerror: {error}", error.exit_code
    if isinstance(error, Interrupted):
        return str(error), error.exit_code
    if isinstance(error, EdgekitError):
        return f"error: {error}", error.exit_code
    return (
        f"error: edgekit failed unexpectedly: {type(error).__name__}: {error}\n"
        f"  next:     EDGEKIT_TRACEBACK=1 {command}   shows where; please report it with that",
        1,
    )


def not_written(error: BaseException) -> DiskFullError | None:
    """The error for a full disk, or a place that may not be used, if that is what ``error`` comes from."""
    if isinstance(error, OSError) and error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return DiskFullError(
            "no permission",  # to read or to write: nobody knows any more what was tried
            where=str(error.filename or ""),
            got=error.strerror or str(error),
            next="choose another place, for example with --out",
        )
    return disk_full(error)
