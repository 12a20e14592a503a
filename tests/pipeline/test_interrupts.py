from __future__ import annotations

import contextlib
import os
import signal
import threading
import time
from collections.abc import Callable

import pytest

from edgekit.pipeline.interrupts import noticed
from edgekit.progress import Event, silent

EVENT = Event("step", "export")


def press() -> None:
    """Ctrl-C, and time for it to arrive."""
    os.kill(os.getpid(), signal.SIGINT)
    time.sleep(0.05)


def swallow() -> None:
    with contextlib.suppress(KeyboardInterrupt):
        press()


def convert() -> None:
    try:
        press()
    except KeyboardInterrupt:
        raise RuntimeError("conversion failed") from None


def fail() -> None:
    raise RuntimeError("its own")


def during(library: Callable[[], None], events: list[Event]) -> None:
    """A library's work between two events."""
    with noticed(events.append) as progress:
        progress(EVENT)
        library()
        progress(EVENT)


@pytest.mark.parametrize("library", [press, swallow, convert])
def test_an_interrupt_is_noticed_whatever_a_library_makes_of_it(library: Callable[[], None]) -> None:
    with pytest.raises(KeyboardInterrupt):
        during(library, [])


def test_without_an_interrupt_nothing_is_different() -> None:
    events: list[Event] = []
    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(RuntimeError, match="its own"):
        during(fail, events)
    during(lambda: None, events)
    assert events == [EVENT] * 3
    assert signal.getsignal(signal.SIGINT) is before


def test_a_handler_of_somebody_else_stays() -> None:
    pressed: list[int] = []
    before = signal.signal(signal.SIGINT, lambda number, frame: pressed.append(number))
    try:
        with noticed(silent) as progress:
            press()
            progress(EVENT)
    finally:
        signal.signal(signal.SIGINT, before)
    assert pressed == [signal.SIGINT]


def test_other_threads_are_left_alone() -> None:
    seen: list[object] = []

    def run() -> None:
        with noticed(silent) as progress:
            seen.append(progress)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    assert seen == [silent]
