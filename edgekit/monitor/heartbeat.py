"""A sign of life while a long step says nothing: what is being done, and since when.

Converters and searches can't tell how far they are. A thread that only looks at the clock tells for them, so
that nobody has to guess whether a run is stuck. It knows nothing of torch, and never keeps a process alive.
"""

from __future__ import annotations

import _thread
import dataclasses
import threading
import time
from collections.abc import Callable
from types import TracebackType

from edgekit.monitor.bystander import SECONDS, Bystander
from edgekit.progress import Event, Progress
from edgekit.units import human_seconds

__all__ = ["HELD_UP", "Heartbeat"]

EVERY = 5.0  # seconds without a line: a busy machine may double it
HELD_UP = 6.5  # seconds after which a process beside this one tells, as all threads are held up
_TICK = 0.5


class Heartbeat:
    """A ``progress`` that passes events on to ``show``, and shows what is going on where none come.

    Args:
        show: is called from two threads, but never from both at once.
        sparing: every line stays, as where there is no terminal: "step" events are shown so often only that
            no ``every`` seconds pass without a line.
        every: seconds.
        beside: goes on telling where all threads here are held up; ``line`` makes the text for it.
    """

    def __init__(
        self,
        show: Progress,
        *,
        sparing: bool = False,
        every: float = EVERY,
        beside: Bystander | None = None,
        line: Callable[[Event], str] = lambda event: f"{event.stage}: {event.message}",
    ) -> None:
        self._show, self._sparing, self._every = show, sparing, every
        self._beside, self._line = beside, line
        self._lock = threading.RLock()  # an interrupt may come while it is held, and be told
        self._stopped, self._ended = threading.Event(), threading.Event()
        self._doing = Event("step", "start", "getting ready")
        self._since = self._heard = self._shown = time.monotonic()

    def __enter__(self) -> Heartbeat:
        # Not a threading.Thread: where there is no memory left its start waits for ever for a thread that
        # ended before its first line. A command that nobody hears of for a while is better.
        try:
            _thread.start_new_thread(self._run, ())
        except RuntimeError:
            self._ended.set()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stopped.set()
        self._ended.wait(timeout=1)  # it may be writing to a pipe that nobody reads
        if self._beside is not None:
            self._beside.close()

    def __call__(self, event: Event) -> None:
        """Pass an event on."""
        with self._lock:
            now = time.monotonic()
            self._note(event, now)
            if self._sparing and event.kind == "step" and now - self._shown < self._every:
                return
            self._shown = now
            self._show(event)
            self._tell_beside(now)

    def _note(self, event: Event, now: float) -> None:
        self._heard = now
        if event.kind in ("note", "warning"):
            return  # said in the middle of something, which goes on
        if (event.stage, event.message) != (self._doing.stage, self._doing.message) or event.kind != "step":
            self._since = now
        self._doing = event

    def _run(self) -> None:
        try:
            self._beat()
        finally:
            self._ended.set()

    def _beat(self) -> None:
        while not self._stopped.wait(min(_TICK, self._every / 4)):
            with self._lock:
                now = time.monotonic()
                if now - self._shown >= self._every and not self._stopped.is_set():
                    self._shown = now
                    try:
                        self._show(self._sign(now))
                    except Exception:  # a stream that was closed: the run itself will notice
                        return
                self._tell_beside(now)

    def _tell_beside(self, now: float) -> None:
        if self._beside is not None:
            text = self._line(self._saying(f"{SECONDS} so far"))
            self._beside.hear(text, shown=now - self._shown, since=now - self._since)

    def _sign(self, now: float) -> Event:
        """What is being done; since when, if nothing new is known of it."""
        if self._doing.kind == "step" and now - self._heard < self._every:
            return self._doing
        return self._saying(f"{human_seconds(now - self._since)} so far")

    def _saying(self, so_far: str) -> Event:
        doing = self._doing
        if doing.kind in ("stage-end", "stage-skipped"):
            return Event("step", "…", f"{doing.stage} is done; what follows, {so_far}")
        if doing.kind == "epoch":
            after = f"epoch {doing.epoch}/{doing.epochs} is done; what follows, {so_far}"
            return Event("step", doing.stage, after)
        message = f"{doing.message or 'at work'}, {so_far}"
        return dataclasses.replace(doing, kind="step", message=message)
