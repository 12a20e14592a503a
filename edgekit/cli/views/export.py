"""What a person sees of ``edgekit export``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from edgekit.units import human_bytes, human_share


def export_view(entries: Sequence[Mapping[str, Any]]) -> RenderableType:
    """One row a file: size, and accuracy and agreement where there was data to find them."""
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column("", overflow="fold")
    heads = ["bytes", "accuracy", "same answer as\nits torch model", "made from"]
    for head in heads:
        table.add_column(head, justify="right", no_wrap=True)
    for entry in entries:
        found = entry["evaluation"]
        shares = [human_share(found[key]) if found else "–" for key in ("accuracy", "parity")]
        name = Text(str(entry["path"]), "bold")
        table.add_row(name, human_bytes(entry["size_bytes"]), *shares, entry["parent"]["stage"])
    return Group(table)
