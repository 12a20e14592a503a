"""What a person sees: progress, tables, messages. Only this folder imports rich."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TextIO

from rich.console import Console, ConsoleOptions, Group, RenderableType
from rich.markup import escape
from rich.progress import BarColumn, Progress, SpinnerColumn, TaskID, TextColumn
from rich.segment import Segment
from rich.table import Table
from rich.text import Text

from edgekit.caching import Entry
from edgekit.errors import printable
from edgekit.progress import Event
from edgekit.units import human_bytes, human_count, human_ns, human_seconds, human_share, score_name

PLAIN_WIDTH = 140  # where the output is no terminal, and the width is the reader's business


def console_on(stream: TextIO) -> Console:
    """A console that takes its width from its own stream; rich would ask the standard ones."""
    import os

    width: int | None = None
    try:
        width = os.get_terminal_size(stream.fileno()).columns
    except (OSError, ValueError):
        width = PLAIN_WIDTH
    options: Any = {"markup": False, "emoji": False, "highlight": False, "soft_wrap": False}
    return _Plain(file=stream, width=width or PLAIN_WIDTH, **options)


class _Plain(Console):
    """Names in what is shown may hold anything: a terminal is given their characters, and obeys none.

    Only what rich itself makes moves cursors and sets colours.
    """

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterator[Segment]:
        for text, style, control in super().render(renderable, options):
            yield Segment(text if control else printable(text, len(text)), style, control)


# --- progress --------------------------------------------------------------------------------------------


class RunView:
    """Shows the events of a run: a live line in a terminal, plain lines elsewhere.

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

    @property
    def is_live(self) -> bool:
        """Whether there is a line that changes; elsewhere every line stays, and few are better."""
        return self._live is not None

    @property
    def is_quiet(self) -> bool:
        """Whether only warnings are shown."""
        return self._quiet

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
            else:
                self._line(" ", event)
        elif event.kind == "stage-end":
            self._end_bar()
            self._line("✓", event, "green", seconds=self._seconds(event.stage))
        elif event.kind == "stage-skipped":
            self._end_bar()
            self._line("✓", event, "dim", prefix="kept from before")
        else:
            self._line("·", event)

    @staticmethod
    def plain(event: Event) -> str:
        """The line of a step, as it is where there is no terminal."""
        return f"  {event.stage:<10}" + "  ".join(filter(None, [_facts(event), event.message]))

    def _line(
        self, mark: str, event: Event, style: str = "", seconds: float | None = None, prefix: str = ""
    ) -> None:
        line = Text().append(f"{mark} ", style)
        line.append(f"{event.stage:<10}", style="bold")
        line.append("  ".join(filter(None, [prefix, _facts(event), event.message])))
        if seconds is not None:
            line.append(f"  ({human_seconds(seconds)})", style="dim")
        self.console.print(line)

    def _bar(self, event: Event) -> None:
        assert self._live is not None
        if self._task is None:
            self._task = self._live.add_task(event.stage, total=None, facts="")
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
            facts=escape("  ".join(filter(None, [_facts(event, epoch=False), event.message]))),
        )

    def _end_bar(self) -> None:
        if self._live and self._task is not None:
            self._live.remove_task(self._task)
            self._task = None

    def _seconds(self, stage: str) -> float | None:
        started = self._started.pop(stage, None)
        return None if started is None else time.monotonic() - started


def _facts(event: Event, *, epoch: bool = True) -> str:
    """``epoch``: whether to say which one, and how far it is; a bar shows that by itself."""
    if event.kind not in ("step", "epoch"):
        return ""
    facts = []
    if epoch and event.epochs:
        facts.append(f"epoch {event.epoch}/{event.epochs}")
    if event.total and (not event.epochs or (epoch and event.kind == "step")):
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


# --- tables ----------------------------------------------------------------------------------------------


def recipes_view(infos: Sequence[Any]) -> RenderableType:
    """``edgekit recipe ls``; takes RecipeInfo."""
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for head in ("recipe", "what it is for", "file"):
        table.add_column(head, no_wrap=head == "recipe", overflow="fold")
    for info in infos:
        purpose = Text(f"can't be used: {info.fault}", "red") if info.fault else Text(info.description)
        table.add_row(Text(info.name, "bold"), purpose, Text(str(info.path), "dim"))
    return table


def plain(value: Any) -> Any:
    """JSON values whose texts a terminal shows and doesn't obey: names in a file may hold anything."""
    if isinstance(value, str):
        return printable(value)
    if isinstance(value, Mapping):
        return {plain(key): plain(one) for key, one in value.items()}
    return [plain(one) for one in value] if isinstance(value, list | tuple) else value


def cache_view(folder: Path, entries: Sequence[Entry]) -> RenderableType:
    """``edgekit cache``."""
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for head, right in (("in the cache", False), ("size", True), ("what it is", False)):
        table.add_column(head, justify="right" if right else "left", overflow="fold")
    for one in entries:
        table.add_row(Text(one.name, "bold"), human_bytes(one.size_bytes), Text(one.what))
    total = human_bytes(sum(one.size_bytes for one in entries))
    line = f"{total} in {folder}; `edgekit cache clear` removes it" if entries else f"{folder} is empty"
    return Group(table, Text(line)) if entries else Text(line)


def report_view(report: Mapping[str, Any], width: int = PLAIN_WIDTH) -> RenderableType:
    """The end of a run, from the content of report.json: warnings first, then tables and advice."""
    parts: list[RenderableType] = [Text("")]
    parts += [Text(f"! {_sentence(warning)}", "yellow") for warning in report.get("warnings", ())]
    devices = list(dict.fromkeys(row["device"] for row in report["measurements"])) or [""]  # "": sizes alone
    for device in devices:
        parts += [Text(f"measured on {device}", "italic") if device else Text("")]
        parts += [*_result_tables(report, device, width), Text("")]
    parts += counts_view(report.get("counts", ()))
    parts += _ladder(report)
    parts += _outputs(report)
    parts += _budget(report)
    parts += _advice(report)
    return Group(*parts)


def counts_view(counts: Sequence[Mapping[str, Any]]) -> list[RenderableType]:
    """Emulated devices: instructions, and whether the answers there were right. Never a time."""
    parts: list[RenderableType] = []
    for device in dict.fromkeys(row["device"] for row in counts):
        rows = [row for row in counts if row["device"] == device]
        table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
        table.add_column("", overflow="fold")
        for head in ("instructions", "×fewer", "accuracy there", "against this machine"):
            table.add_column(head, justify="right", no_wrap=True)
        for row in rows:
            fewer = "–" if row.get("fewer") is None else f"{row['fewer']:.2f}"
            ratio = row.get("snr_db")
            same = "–" if ratio is None else "bit-equal" if ratio >= 200 else f"{ratio:.0f} dB"
            count = human_count(row["instructions"])
            table.add_row(row["artifact"], count, fewer, human_share(row.get("accuracy")), same)
        asked = max((row.get("checked", 0) for row in rows), default=0)
        note = (
            f"emulated: {device} counts instructions, which say nothing of time; {asked} samples were asked"
        )
        parts += [Text(note, "italic"), table, Text("")]
    return parts


def _ladder(report: Mapping[str, Any]) -> list[RenderableType]:
    """One line: how far each rung agrees with the one that it was made from."""
    rungs = []
    for step in report.get("ladder", ()):
        name = step["rung"].removeprefix("artifacts/")
        ratio = step["snr_db"]
        rungs.append(f"{name} {_decibels(ratio)}")
    return [Text().append("parity: ", "bold").append(" → ".join(rungs))] if rungs else []


def _outputs(report: Mapping[str, Any]) -> list[RenderableType]:
    """Of a model with several outputs, each one of the recommended file: its score and its parity;
    of a task that tells more scores than one, these.
    """
    file = report["recommended"]["artifact"]
    scores = next((one.get("scores") for one in report["artifacts"] if one["file"] == file), None)
    if not scores:
        return []
    steps = {step["rung"]: step.get("outputs") or {} for step in report.get("ladder", ())}
    tasks, told = report["task"].get("outputs", {}), []
    for name, score in scores.items():
        metric = f": {tasks[name]['metric']}" if name in tasks else ""
        line = f"{name}{metric} {human_share(score)}"
        if (found := steps.get(file, {}).get(name)) is not None:
            line += f", {_decibels(found['snr_db'])}"
            line += f" (worst channel {_decibels(found['worst_channel_db'])})"
        told.append(line)
    title = "outputs: " if tasks else "scores: "
    return [Text().append(title, "bold").append("; ".join(told))]


def _budget(report: Mapping[str, Any]) -> list[RenderableType]:
    """Of a contract about accuracy: whether it is kept, and by which layers in float."""
    if not (budget := report.get("budget")) or not budget.get("rounds"):
        return []
    count, last = len(budget["rounds"]), budget["rounds"][-1]
    line = f"{budget['max_drop']:g} points {'kept' if budget['kept'] else 'not kept'} after {count} "
    line += "round" if count == 1 else "rounds"
    line += f"; in float: {', '.join(last['float'])}" if last["float"] else "; all in int8"
    worst = ", ".join(f"{one['name']} {human_share(one['share'], 0)}" for one in budget["modules"][:4])
    line += f"; most of the noise: {worst}" if worst else ""
    return [Text().append("budget: ", "bold").append(line)]


def _decibels(ratio: float) -> str:
    return "the same numbers" if ratio >= 200 else f"{ratio:.0f} dB"


def _advice(report: Mapping[str, Any]) -> list[RenderableType]:
    recommended = report["recommended"]
    kept = recommended.get("within_limit", True)
    line = Text().append("recommended: " if kept else "nearest to what was asked for: ", "bold")
    line.append(recommended["artifact"], "bold green" if kept else "bold yellow")
    line.append(f" in {recommended['runtime']}: {recommended['reason']}")
    if not (folder := report.get("folder")):
        return [line]
    return [
        line,
        Text(f"in {folder}: report.html to look at, report.json, the files above, one folder for each stage"),
    ]


def _sentence(warning: Any) -> str:
    return str(warning["message"] if isinstance(warning, Mapping) else warning)


def _result_tables(report: Mapping[str, Any], device: str, width: int) -> list[RenderableType]:
    """One table, or two where the terminal is too narrow for all columns: sizes, then latencies."""
    measured = [row for row in report["measurements"] if row["device"] == device]
    runtimes = list(dict.fromkeys(_engine(row) for row in measured))
    score = score_name(report.get("task") or {}).replace(" against ", "\nagainst ")
    heads = [score, "parameters", "MACs", "bytes", "×smaller"]
    heads += [*(f"{runtime}\np50 / p90" for runtime in runtimes), "×faster"]
    rows = _rows(report, measured, runtimes)
    whole = _table(heads, rows)
    if Console(width=10_000).measure(whole).maximum <= width:
        return [whole]
    latencies = [(name, cells[5:]) for name, cells in rows if any(cell != "–" for cell in cells[5:])]
    return [_table(heads[:5], [(name, cells[:5]) for name, cells in rows]), _table(heads[5:], latencies)]


def _table(heads: Sequence[str], rows: Sequence[tuple[Text, Sequence[str]]]) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column("")
    for head in heads:
        table.add_column(head, justify="right", no_wrap=True)
    for name, cells in rows:
        table.add_row(name, *cells)
    return table


def _rows(
    report: Mapping[str, Any], measured: Sequence[Mapping[str, Any]], runtimes: Sequence[str]
) -> list[tuple[Text, list[str]]]:
    blanks = ["–"] * (len(runtimes) + 3)
    rows = [(Text("trained model", "bold"), [*_figures(report["baseline"]), *blanks])]
    for stage in report["stages"]:
        name = Text(stage["kind"])
        if not stage.get("changed", True):
            name.append(" (unchanged)", "dim")
        rows.append((name, [*_figures(stage), *blanks]))
    sizes = {artifact["file"]: artifact["size_bytes"] for artifact in report["artifacts"]}
    reference = sizes.get(report["reference"])
    failed = {(row["artifact"], row["runtime"]) for row in report.get("failures", ())}
    for artifact in report["artifacts"]:
        file, size = artifact["file"], artifact["size_bytes"]
        own = [row for row in measured if row["artifact"] == file]
        cells = [*_figures(artifact), human_bytes(size), f"{reference / size:.2f}" if reference else "–"]
        for runtime in runtimes:
            lines = [_latency(row) for row in own if _engine(row) == runtime]
            cells.append("\n".join(lines) or ("failed" if (file, runtime) in failed else "–"))
        cells.append("\n".join(f"{row['faster']:.2f}" if row.get("faster") else "–" for row in own) or "–")
        best = file == report["recommended"]["artifact"]
        rows.append((Text(file, "bold green" if best else ""), cells))
    return rows


def _engine(row: Mapping[str, Any]) -> str:
    """The runtime, with the backend that isn't its default: "onnxruntime CUDA"."""
    backend = str(row.get("backend") or "").removesuffix("ExecutionProvider")
    return f"{row['runtime']} {backend}".strip()


def _figures(row: Mapping[str, Any]) -> tuple[str, str, str]:
    return human_share(row["accuracy"]), human_count(row["parameters"]), human_count(row["macs"])


def _latency(row: Mapping[str, Any]) -> str:
    """``1t  285 µs / 301 µs``: threads, p50, p90; a question mark where the timing is unstable."""
    mark = " ?" if row.get("unstable") else ""
    return f"{row['threads']}t  {human_ns(row['p50_ns'])} / {human_ns(row['p90_ns'])}{mark}"
