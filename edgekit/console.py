"""What a person sees: progress, tables, messages. The only file that imports rich."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any, TextIO

from rich.console import Console, Group, RenderableType
from rich.markup import escape
from rich.progress import BarColumn, Progress, SpinnerColumn, TaskID, TextColumn
from rich.table import Table
from rich.text import Text

from edgekit.progress import Event
from edgekit.units import human_seconds, human_share

PLAIN_WIDTH = 140  # where the output is no terminal, and the width is the reader's business


def console_on(stream: TextIO) -> Console:
    """A console that takes its width from its own stream; rich would ask the standard ones."""
    import os

    width: int | None = None
    try:
        width = os.get_terminal_size(stream.fileno()).columns
    except (OSError, ValueError):
        width = PLAIN_WIDTH
    return Console(file=stream, width=width or PLAIN_WIDTH, highlight=False, soft_wrap=False)


# --- progress --------------------------------------------------------------------------------------------


class RunView:
    """Shows the events of a run: a live line in a terminal, plain lines elsewhere. Use it as the ``progress``.

    ``quiet`` leaves only warnings.
    """

    def __init__(self, stream: TextIO, *, quiet: bool = False) -> None:
        self.console = console_on(stream)
        self._quiet = quiet
        self._started: dict[str, float] = {}
        self._task: TaskID | None = None
        self._live: Progress | None = None
        if self.console.is_terminal and not quiet:
            self._live = Progress(
                SpinnerColumn(),
                TextColumn("{task.description}"),
                BarColumn(bar_width=24),
                TextColumn("{task.fields[facts]}"),
                console=self.console,
                transient=True,
                redirect_stdout=False,
                redirect_stderr=False,
            )

    def __enter__(self) -> RunView:
        if self._live:
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._live:
            self._live.stop()

    def __call__(self, event: Event) -> None:
        """Show one event."""
        if event.kind == "warning":
            self._line("!", event, "yellow")
        elif self._quiet:
            return
        elif event.kind == "stage-start":
            self._started[event.stage] = time.monotonic()
            if self._live:
                self._bar(event)
            else:
                self._line("…", event)
        elif event.kind in ("step", "epoch"):
            if self._live:
                self._bar(event)
            elif event.kind == "epoch":
                self._line(" ", event)
        elif event.kind == "stage-end":
            self._end_bar()
            self._line("✓", event, "green", seconds=self._seconds(event.stage))
        elif event.kind == "stage-skipped":
            self._end_bar()
            self._line("✓", event, "dim", prefix="kept from before")
        else:
            self._line("·", event)

    def _line(
        self, mark: str, event: Event, style: str = "", seconds: float | None = None, prefix: str = ""
    ) -> None:
        line = Text(f"{mark} ", style=style)
        line.append(f"{event.stage:<10}", style="bold")
        line.append("  ".join(filter(None, [prefix, _facts(event), event.message])))
        if seconds is not None:
            line.append(f"  ({human_seconds(seconds)})", style="dim")
        self.console.print(line)

    def _bar(self, event: Event) -> None:
        assert self._live is not None
        if self._task is None:
            self._task = self._live.add_task("", total=None, facts="")
        description = f"[bold]{escape(event.stage)}[/]"
        if event.epochs:
            description += f" epoch {event.epoch}/{event.epochs}"
        share = event.done / event.total if event.total else 0.0
        done, total = (event.epoch - 1 + share, event.epochs) if event.epochs else (event.done, event.total)
        if event.kind == "epoch":
            done = event.epoch
        self._live.update(
            self._task,
            description=description,
            completed=max(done, 0),
            total=total or None,
            facts=escape(_facts(event) or event.message),
        )

    def _end_bar(self) -> None:
        if self._live and self._task is not None:
            self._live.remove_task(self._task)
            self._task = None

    def _seconds(self, stage: str) -> float | None:
        started = self._started.pop(stage, None)
        return None if started is None else time.monotonic() - started


def _facts(event: Event) -> str:
    if event.kind not in ("step", "epoch"):
        return ""
    facts = []
    if event.kind == "epoch" and event.epochs:
        facts.append(f"epoch {event.epoch}/{event.epochs}")
    if not event.epochs and event.total:
        facts.append(f"{event.done}/{event.total}")
    if event.loss is not None:
        facts.append(f"loss {event.loss:.3f}")
    if event.accuracy is not None:
        facts.append(f"train {human_share(event.accuracy, 1)}")
    if event.images_per_second:
        facts.append(f"{event.images_per_second:.0f} images/s")
    if event.seconds_left is not None:
        facts.append(f"{human_seconds(event.seconds_left)} left")
    return "  ".join(facts)
