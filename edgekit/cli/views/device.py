"""What a person sees of ``edgekit device``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from edgekit.devices.transports import TRANSPORTS
from edgekit.units import human_bytes

if TYPE_CHECKING:
    from edgekit.bench.roundtrip import Step


def devices_view(rows: Sequence[Mapping[str, Any]]) -> RenderableType:
    """Name, transport and description; what is wrong with a profile that can't be used."""
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for head in ("", "reached by", ""):
        table.add_column(head, overflow="fold")
    for row in rows:
        if "fault" in row:
            table.add_row(Text(row["name"], "bold"), "", Text(row["fault"], "red"))
            continue
        reach = TRANSPORTS[row["transport"]].shown or row["transport"]
        table.add_row(
            Text(row["name"], "bold"), f"{reach} {row['address']}".strip(), Text(row["description"])
        )
    return table


def probe_view(name: str, about: Mapping[str, Any]) -> RenderableType:
    """What a device said of itself, a line each; what it couldn't tell is left out."""
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), show_header=False)
    table.add_column("", style="bold", no_wrap=True)
    table.add_column("", overflow="fold")
    for key, value in about.items():
        text = _told(key, value)
        if text:
            table.add_row(key.replace("_", " "), Text(text))
    return Group(Text(name, "bold"), table)


def check_view(name: str, steps: Sequence[Step]) -> RenderableType:
    """A line for each step; at the end, whether the device can be used."""
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), show_header=False)
    table.add_column("", no_wrap=True)
    table.add_column("", no_wrap=True)
    table.add_column("", overflow="fold")
    for step in steps:
        mark = Text("ok", "green") if step.passed else Text("failed", "bold red")
        table.add_row(mark, step.name, Text(step.detail))
    failed = [step.name for step in steps if not step.passed]
    end = f"{name} can be used" if not failed else f"{name} can't be used as it is: {', '.join(failed)}"
    return Group(table, Text(""), Text(end, "bold red" if failed else "bold green"))


def _told(key: str, value: Any) -> str:
    if value in (None, "", [], {}):
        return ""
    if key.endswith("_bytes"):
        return human_bytes(value)
    if isinstance(value, Mapping):
        parts = [f"{name} {_told(name, one)}" for name, one in value.items() if one is not None]
        return ", ".join(parts)
    if isinstance(value, list):
        return ", ".join(_told("", one) if isinstance(one, Mapping) else str(one) for one in value)
    return str(value)
