"""A process beside this one that goes on telling what is done while all threads here are held up.

A converter in C++ may keep Python's lock for minutes; not even a thread can say then that the run lives. The
process knows one line and a clock. It hears every half second that all is well, and says nothing; it ends
when the pipe to it is closed, so also when this process is killed.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from typing import Final

__all__ = ["Bystander"]

# What it gets: lines of seconds since something was shown, seconds since the step began, and the text.
_SCRIPT: Final = """
import os, select, sys, time
after, rest, line = float(sys.argv[1]), b"", None
shown = began = time.monotonic()
while True:
    ready = select.select([0], [], [], after / 20)[0]
    now = time.monotonic()
    if ready:
        data = os.read(0, 65536)
        if not data:
            break
        *whole, rest = (rest + data).split(b"\\n")
        if whole:
            ago, since, line = whole[-1].split(b"\\t", 2)
            shown, began = now - float(ago), now - float(since)
    elif line is not None and now - shown >= after:
        shown, seconds = now, int(now - began)
        took = f"{seconds // 60} min {seconds % 60} s" if seconds >= 60 else f"{seconds} s"
        os.write(1, line.replace(b"%SECONDS%", took.encode()) + b"\\n")
"""
SECONDS: Final = "%SECONDS%"  # in a text: how long the step has taken by then


class Bystander:
    """Writes to the file that has the number ``output`` what it was told last, where ``after`` seconds pass
    in which nothing was shown. On Windows, which can't wait for a pipe and a clock, it does nothing.
    """

    def __init__(self, output: int, after: float) -> None:
        self._process: subprocess.Popen[bytes] | None = None
        if os.name == "nt":
            return
        with contextlib.suppress(OSError):  # nobody needs it
            self._process = subprocess.Popen(
                [sys.executable, "-I", "-S", "-c", _SCRIPT, str(after)],
                stdin=subprocess.PIPE,
                stdout=output,
                stderr=subprocess.DEVNULL,
                start_new_session=True,  # an interrupt from the keyboard is not for it
            )
            assert self._process.stdin is not None
            os.set_blocking(self._process.stdin.fileno(), False)

    def hear(self, text: str, *, shown: float, since: float) -> None:
        """All is well here.

        Args:
            text: what to say if that is the last that is heard; ``SECONDS`` in it is filled in.
            shown: seconds since something was shown.
            since: seconds since the step began.
        """
        if self._process is None or self._process.stdin is None:
            return
        line = f"{shown:.2f}\t{since:.2f}\t{' '.join(text.splitlines())}\n".encode(errors="replace")
        with contextlib.suppress(OSError):  # it has ended, or doesn't read
            os.write(self._process.stdin.fileno(), line)

    def close(self) -> None:
        """End the process."""
        if self._process is None:
            return
        assert self._process.stdin is not None
        with contextlib.suppress(OSError):
            self._process.stdin.close()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(timeout=2)
        self._process = None
