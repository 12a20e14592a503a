"""Who may write to the terminal while a run goes on.

Compilers and runtimes print to standard output and standard error as they like, some of them from C++. A run
keeps them apart: standard output belongs to the result alone, standard error to edgekit's progress, and what
libraries print goes to a log that is shown if the run fails.
"""

from __future__ import annotations

import contextlib
import os
import sys
import tempfile
from collections.abc import Iterator
from typing import IO, TextIO

TAIL_BYTES = 4000


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
        terminal = stack.enter_context(
            open(os.dup(2), "w", encoding=sys.stderr.encoding, errors="backslashreplace")  # noqa: PTH123
        )
        output = os.dup(1)
        stack.callback(os.close, output)
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
