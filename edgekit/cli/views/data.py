"""What ``edgekit data`` shows."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
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
    """Takes what ``look`` of ``ImageFiles``, ``SoundFiles``, ``TextFiles`` and ``BoxFiles`` gives."""
    many = "pictures" if found["kind"] == "boxes" else found["kind"]
    what = f"{found['form']}, " if "form" in found else ""
    lines: list[RenderableType] = [
        Text(
            f"{found['data']}: {what}{found[many]:,} {many} of {len(found['classes'])} classes, split by "
            f"{found['split_by']}"
        ),
        _classes(found["classes"], "boxes of" if found["kind"] == "boxes" else "class"),
        *(Text(one) for one in _facts(found)),
    ]
    if copies := sum(len(one[many]) - 1 for one in found["duplicates"]):
        lines.append(Text(f"{copies:,} copies of other {many}"))
    if others := found.get("other_files"):
        told = ", ".join(f"{count:,} {suffix}" for suffix, count in others.items())
        lines.append(Text(f"other files: {told}"))
    lines += [Text(f"! {note}", "yellow") for note in found["notes"]]
    lines += [Text(f"! {fault}", "red") for fault in found.get("faults", ())]
    if damaged := found["damaged"]:
        one, several = ("text", "texts") if many == "texts" else ("file", "files")
        count = f"1 {one}" if len(damaged) == 1 else f"{len(damaged):,} {several}"
        lines.append(Text(f"! {count} can't be read:", "red"))
        lines += [Text(f"    {one['file']}: {one['why']}") for one in damaged[:_FILES]]
        if len(damaged) > _FILES:
            lines.append(Text(f"    and {len(damaged) - _FILES:,} more (--json has all)"))
    return Group(*lines)


def _facts(found: Mapping[str, Any]) -> Iterator[str]:
    """What there is to say of this kind of data."""
    if "splits" in found:
        yield ", ".join(f"{count:,} pictures in {name}" for name, count in found["splits"].items())
    if sizes := found.get("sizes"):
        smallest, median, largest = (
            f"{w}x{h}" for w, h in (sizes[key] for key in ("smallest", "median", "largest"))
        )
        one = f"all of {median}" if sizes["different"] == 1 else f"{smallest} to {largest}, median {median}"
        yield f"sizes: {one}"
        kinds = ", ".join(f"{count:,} {_MODES.get(mode, mode)}" for mode, count in found["modes"].items())
        yield f"kinds: {kinds}"
    for key, what in (
        ("turned", "turned by their EXIF data"),
        ("animated", "with several frames, of which the first counts"),
        ("background", "without boxes"),
        ("silent", "silent from beginning to end"),
    ):
        if found.get(key):
            yield f"{found[key]:,} {what}"
    if seconds := found.get("seconds"):
        yield (
            f"lengths: {seconds['shortest']:.2f} to {seconds['longest']:.2f} s, median "
            f"{seconds['median']:.2f}, 99 % up to {seconds['most']:.2f}"
        )
        for key, unit in (("rates", " Hz"), ("channels", " channels"), ("kinds", "")):
            told = ", ".join(f"{count:,} of {one}{unit}" for one, count in found[key].items())
            yield f"{key}: {told}".replace("of 1 channels", "of 1 channel")
    if characters := found.get("characters"):
        yield (
            f"lengths: {characters['shortest']:,} to {characters['longest']:,} characters, median "
            f"{characters['median']:,}"
        )


def _classes(classes: list[Mapping[str, Any]], title: str) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column(title, overflow="fold")
    table.add_column("train", justify="right")
    table.add_column("validation", justify="right")
    for one in classes[:_CLASSES]:
        table.add_row(Text(one["name"]), f"{one['train']:,}", f"{one['validation']:,}")
    if len(classes) > _CLASSES:
        table.add_row(Text(f"and {len(classes) - _CLASSES:,} more", "dim"), "", "")
    return table
