"""Something is drawn by a second thread while the first uses what was drawn before."""

from __future__ import annotations

import queue
import threading
from collections.abc import Generator, Iterator
from typing import TypeVar

__all__ = ["ahead"]

T = TypeVar("T")

_SECONDS_BETWEEN_LOOKS = 0.1  # whether what is drawn is still wanted


def ahead(items: Iterator[T], count: int = 2) -> Generator[T]:
    """The same items in the same order, up to ``count`` of them drawn before they are asked for.

    What ``items`` raises is raised here, after the items before. Closed early, the thread ends as well.
    """
    drawn: queue.Queue[tuple[T] | BaseException | None] = queue.Queue(count)
    over = threading.Event()

    def give(what: tuple[T] | BaseException | None) -> None:
        while not over.is_set():
            try:
                drawn.put(what, timeout=_SECONDS_BETWEEN_LOOKS)
            except queue.Full:
                continue
            return

    def draw() -> None:
        try:
            for item in items:
                give((item,))
                if over.is_set():
                    return
            give(None)
        except BaseException as error:  # it is the caller's to handle
            give(error)

    thread = threading.Thread(target=draw, name="edgekit-ahead", daemon=True)
    thread.start()
    try:
        while (found := drawn.get()) is not None:
            if isinstance(found, BaseException):
                raise found
            yield found[0]
    finally:
        over.set()
        thread.join()
