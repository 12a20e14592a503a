"""What ``edgekit data`` shows."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

_CLASSES, _FILES = 40, 20
_MODES = {
    "L": "grey",
    "1": "black and white",
    "P": "with a palette",
    "RGBA": "RGB with transparency",
    "LA": "grey with transparency",
    "I;16": "16 bits, grey",
    "I": "32 bits, grey",
    "F": "floating point",
}


def data_view(found: Mapping[str, Any]) -> RenderableType:
    """Takes what ``ImageFiles.look`` gives."""
    lines: list[RenderableType] = [
        Text(
            f"{found['data']}: {found['pictures']:,} pictures of {len(found['classes'])} classes, split by "
            f"{found['split_by']}"
        ),
        _classes(found["classes"]),
    ]
    if sizes := found["sizes"]:
        smallest, median, largest = (
            f"{w}x{h}" for w, h in (sizes[key] for key in ("smallest", "median", "largest"))
        )
        one = f"all of {median}" if sizes["different"] == 1 else f"{smallest} to {largest}, median {median}"
        lines.append(Text(f"sizes: {one}"))
        kinds = ", ".join(f"{count:,} {_MODES.get(mode, mode)}" for mode, count in found["modes"].items())
        lines.append(Text(f"kinds: {kinds}"))
    for key, what in (
        ("turned", "turned by their EXIF data"),
        ("animated", "with several frames, of which the first counts"),
    ):
        if found[key]:
            lines.append(Text(f"{found[key]:,} {what}"))
    if copies := sum(len(one["pictures"]) - 1 for one in found["duplicates"]):
        lines.append(Text(f"{copies:,} copies of other pictures"))
    if others := found["other_files"]:
        told = ", ".join(f"{count:,} {suffix}" for suffix, count in others.items())
        lines.append(Text(f"other files: {told}"))
    lines += [Text(f"! {note}", "yellow") for note in found["notes"]]
    if damaged := found["damaged"]:
        count = "1 file" if len(damaged) == 1 else f"{len(damaged):,} files"
        lines.append(Text(f"! {count} can't be read:", "red"))
        lines += [Text(f"    {one['file']}: {one['why']}") for one in damaged[:_FILES]]
        if len(damaged) > _FILES:
            lines.append(Text(f"    and {len(damaged) - _FILES:,} more (--json has all)"))
    return Group(*lines)


def _classes(classes: list[Mapping[str, Any]]) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column("class", overflow="fold")
    table.add_column("train", justify="right")
    table.add_column("validation", justify="right")
    for one in classes[:_CLASSES]:
        table.add_row(Text(one["name"]), f"{one['train']:,}", f"{one['validation']:,}")
    if len(classes) > _CLASSES:
        table.add_row(Text(f"and {len(classes) - _CLASSES:,} more", "dim"), "", "")
    return table
