"""Ctrl-C that isn't lost: converters call Python from C++, and some of those calls swallow exceptions."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from edgekit.progress import Event, Progress


@contextmanager
def noticed(progress: Progress) -> Iterator[Progress]:
    """A ``progress`` that raises KeyboardInterrupt at the next event after one that got lost.

    One that came out as another error (the converter's "failed") is KeyboardInterrupt again at the end.
    Where Ctrl-C belongs to somebody else (another thread, an embedding program with a handler of its own)
    nothing is changed.
    """
    own = signal.default_int_handler
    if (
        threading.current_thread() is not threading.main_thread()
        or signal.getsignal(signal.SIGINT) is not own
    ):
        yield progress
        return
    interrupted = False

    def note(number: int, frame: FrameType | None) -> None:
        nonlocal interrupted
        interrupted = True
        own(number, frame)

    def watched(event: Event) -> None:
        progress(event)
        if interrupted:
            raise KeyboardInterrupt

    signal.signal(signal.SIGINT, note)
    try:
        yield watched
    except Exception:
        if interrupted:
            raise KeyboardInterrupt from None
        raise
    finally:
        signal.signal(signal.SIGINT, own)
