"""What a person is told when a command fails: one message, never a traceback of edgekit's own."""

from __future__ import annotations

import errno

from edgekit.errors import DiskFullError, EdgekitError, InputError, Interrupted, WorkloadError


def explain(error: BaseException, command: str) -> tuple[str, int]:
    """The message for a person, and the exit code. ``command`` is what was called, to be called again."""
    if isinstance(error, KeyboardInterrupt):
        error = Interrupted("interrupted", next=f"the same command goes on where it was: {command}")
    full = None if isinstance(error, (InputError, Interrupted)) else disk_full(error)
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


def disk_full(error: BaseException) -> DiskFullError | None:
    """The error for a folder that can't be written, if that is what ``error`` is or was caused by."""
    if isinstance(error, OSError) and error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return DiskFullError(
            "no permission",
            where=str(error.filename or ""),
            got=error.strerror or str(error),
            next="choose another place, for example with --out",
        )
    link: BaseException | None = error
    while link is not None:
        # Writers in C++ and Rust (torch, safetensors, onnx) raise errors of their own, with the text alone.
        full = isinstance(link, OSError) and link.errno in (errno.ENOSPC, errno.EDQUOT)
        if full or "No space left on device" in str(link):
            return DiskFullError(
                "no space left on the disk",
                where=str(getattr(link, "filename", None) or ""),
                next="make room, or choose another place with --out; the same command then goes on",
            )
        link = link.__cause__ or (None if link.__suppress_context__ else link.__context__)
    return None
