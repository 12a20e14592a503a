"""What the commands write to, and who may write to the terminal while a run goes on.

A terminal that shows less than Unicode, a reader that went away and a full disk cost what couldn't be shown,
never the work.

Compilers and runtimes print to standard output and standard error as they like, some of them from C++. A run
keeps them apart: standard output belongs to the result alone, standard error to edgekit's progress, and what
libraries print goes to a log that is shown if the run fails.
"""

from __future__ import annotations

import codecs
import contextlib
import errno
import io
import os
import sys
import tempfile
from collections.abc import Iterator
from typing import IO, TextIO

TAIL_BYTES = 4000

_PLAIN = "edgekit.plain"  # the name of ``_in_plain``
_SPELLED = {
    **{"×": "x", "→": "->", "←": "<-", "…": "...", "–": "-", "—": "-", "−": "-", "·": "*", "★": "*"},
    **{"✓": "+", "✗": "x", "µ": "u", "≥": ">=", "≤": "<=", "≈": "~", "±": "+-", "°": " deg", "━": "-"},
}


def _in_plain(error: UnicodeError) -> tuple[str, int]:
    """What is written for a character that an encoding lacks, as ``codecs.register_error`` wants it."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    one = error.object[error.start]
    return _SPELLED.get(one) or one.encode("ascii", "backslashreplace").decode(), error.start + 1


codecs.register_error(_PLAIN, _in_plain)


class Output(io.TextIOWrapper):
    """Text to a file of this process, which may be full, or closed at its other end.

    The first failure is kept in ``failure``; from then on everything written is dropped. Nothing raises.
    """

    def __init__(self, descriptor: int, encoding: str, *, line_buffering: bool = False) -> None:
        self.failure: OSError | None = None
        binary = open(descriptor, "wb", closefd=False)  # noqa: SIM115
        super().__init__(binary, encoding, _PLAIN, line_buffering=line_buffering)

    def write(self, text: str) -> int:
        try:
            return super().write(text)
        except OSError as error:
            self._drop(error)
            return len(text)

    def flush(self) -> None:
        try:
            super().flush()
        except OSError as error:
            self._drop(error)

    def _drop(self, error: OSError) -> None:
        self.failure = self.failure or error
        with contextlib.suppress(OSError):  # what is in the buffer goes there, too
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, self.fileno())
            os.close(nowhere)


def open_standard() -> None:
    """Standard output and standard error that no command can fail on. Once for a process, at its start.

    A standard stream that is closed is opened on nothing: else the next file to be opened would get its
    number, and whatever a library prints.
    """
    for descriptor in (0, 1, 2):
        try:
            os.fstat(descriptor)
        except OSError:
            nowhere = os.open(os.devnull, os.O_RDWR)
            if nowhere != descriptor:
                os.dup2(nowhere, descriptor)
                os.close(nowhere)
    if sys.stdin is None:
        sys.stdin = open(0, encoding="utf-8", closefd=False)  # noqa: SIM115
    for name, descriptor in (("stdout", 1), ("stderr", 2)):
        old: TextIO | None = getattr(sys, name)
        lines = descriptor == 2 or os.isatty(descriptor)
        setattr(sys, name, Output(descriptor, old.encoding if old else "utf-8", line_buffering=lines))


def say(text: object = "", *, err: bool = False, nl: bool = True) -> None:
    """Print to standard output or standard error as it is; click would take ASCII for a mistake."""
    stream = sys.stderr if err else sys.stdout
    stream.write(f"{text}\n" if nl else str(text))
    stream.flush()


def unwritten() -> OSError | None:
    """What kept standard output from being written; a reader that wants no more is no failure."""
    sys.stdout.flush()
    failure = getattr(sys.stdout, "failure", None)
    return failure if isinstance(failure, OSError) and failure.errno != errno.EPIPE else None


class Streams:
    """What ``apart`` gives: ``terminal`` is where edgekit may write, standard error as it was before."""

    def __init__(self, terminal: TextIO, log: IO[bytes] | None) -> None:
        self.terminal = terminal
        self._log = log

    def redirect_to_log(self) -> None:
        """From here on, what libraries print goes to the log instead of standard error."""
        if self._log is not None:
            _flush()
            os.dup2(self._log.fileno(), 1)
            os.dup2(self._log.fileno(), 2)

    def tail(self) -> str:
        """The last that went to the log."""
        if self._log is None:
            return ""
        _flush()
        size = os.fstat(self._log.fileno()).st_size
        text = os.pread(self._log.fileno(), TAIL_BYTES, max(0, size - TAIL_BYTES))
        lines = text.decode("utf-8", "replace").strip().splitlines()
        return "\n".join(line for line in lines if not line.startswith(_NOTHING_NEW)).strip()


# Said by LiteRT for every file that it opens; it explains no failure.
_NOTHING_NEW = "INFO: Created TensorFlow Lite XNNPACK delegate for CPU."


@contextlib.contextmanager
def apart(*, keep_log: bool = True) -> Iterator[Streams]:
    """Standard output is out of reach for everybody else until the end.

    First everything goes to standard error, so that a user's own ``print`` is seen; after
    ``redirect_to_log()`` to the log, unless ``keep_log`` is False. Where the standard streams are no files of
    this process (an embedding program, a test), only Python's own are redirected.
    """
    _flush()
    if not (_is_file(sys.stdout, 1) and _is_file(sys.stderr, 2)):
        with contextlib.redirect_stdout(sys.stderr):
            yield Streams(sys.stderr, None)
        return
    with contextlib.ExitStack() as stack:
        log = stack.enter_context(tempfile.TemporaryFile()) if keep_log else None
        kept, output = os.dup(2), os.dup(1)
        stack.callback(os.close, kept)
        stack.callback(os.close, output)
        terminal = stack.enter_context(Output(kept, sys.stderr.encoding, line_buffering=True))
        try:
            os.dup2(2, 1)
            yield Streams(terminal, log)
        finally:
            _flush()
            os.dup2(output, 1)
            os.dup2(terminal.fileno(), 2)


def _flush() -> None:
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):
            stream.flush()


def _is_file(stream: TextIO | None, descriptor: int) -> bool:
    try:
        return stream is not None and stream.fileno() == descriptor
    except (OSError, ValueError):
        return False
