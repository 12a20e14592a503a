"""Requests of the host, line by line from standard input, and what to do when the host is gone.

Runs on the device beside ``worker.py``: standard library, Python 3.8 or later.
"""

from __future__ import annotations

import json
import os
import queue
import threading
from typing import Any, Iterator

ORPHANED = 3  # exit code of a worker whose host left while it worked


class Requests:
    """Complete lines from a file descriptor, which a thread of its own reads.

    When the input ends while a request is being worked on, the connection was lost: the process leaves at
    once, be it inside native code, so that no orphan keeps a device busy. (A runtime that holds the
    interpreter's lock all the while delays this.) When it ends at rest, all being ``answered``, or after
    "quit", iteration ends.
    """

    def __init__(self, descriptor: int) -> None:
        self._lines: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
        self._unanswered = 0
        self._lock = threading.Lock()
        threading.Thread(target=self._read, args=(descriptor,), daemon=True).start()

    def __iter__(self) -> Iterator[bytes]:
        while True:
            line = self._lines.get()
            if line is None:
                return
            yield line

    def answered(self) -> None:
        """The work on the line that came last is done: from here on, an end of the input is no loss."""
        with self._lock:
            self._unanswered -= 1

    def _read(self, descriptor: int) -> None:
        # os.read, not sys.stdin: a buffered reader's lock would be held while the interpreter shuts down.
        rest = b""
        while True:
            try:
                chunk = os.read(descriptor, 1 << 16)
            except OSError:
                chunk = b""
            if not chunk:
                break
            *lines, rest = (rest + chunk).split(b"\n")
            for line in lines:
                with self._lock:
                    self._unanswered += 1
                self._lines.put(line)
                if _quits(line):  # what comes before it is still wanted, though the input ends here
                    return
        with self._lock:
            if self._unanswered:
                os._exit(ORPHANED)
        self._lines.put(None)


def parse(line: bytes) -> dict[str, Any]:
    """A request. Raises ValueError if it isn't a JSON object with a "do"."""
    try:
        message = json.loads(line.decode("utf-8"))
    except ValueError as error:
        raise ValueError(f"a request is no JSON: {error}") from None
    if not isinstance(message, dict) or not isinstance(message.get("do"), str):
        raise ValueError(f'a request is a JSON object with a "do", got {line[:200]!r}')
    return message


def _quits(line: bytes) -> bool:
    try:
        return str(parse(line)["do"]) == "quit"
    except ValueError:
        return False
