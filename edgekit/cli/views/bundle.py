"""What a person sees of ``edgekit bundle``."""

from __future__ import annotations

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from edgekit.bundle.checking import Checked
from edgekit.units import human_bytes, human_share

__all__ = ["bundle_view"]


def bundle_view(found: Checked) -> RenderableType:
    """The bundle, its model, and what became of its golden test."""
    about = found.about
    model = about["model"]
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), show_header=False)
    table.add_column("", style="bold", no_wrap=True)
    table.add_column("", overflow="fold")
    rows = [
        ("bundle", f"{found.folder}  ({about['target']}, version {about['version']})"),
        (
            "model",
            f"{model['file']}: {model['precision']}, {human_bytes(model['size_bytes'])}, "
            f"{model['metric']} {human_share(model['accuracy'])}",
        ),
    ]
    if about["activation_bytes"]:
        rows.append(("memory", f"{human_bytes(about['activation_bytes'])} for its tensors"))
    rows.append(("files", f"{found.files}, each with the sha256 that it was written with"))
    for row in rows:
        table.add_row(*row)
    word = {True: ("passed", "green"), False: ("FAILED", "red"), None: ("not run here", "yellow")}
    text, style = word[found.tried.passed]
    table.add_row("golden test", Text.assemble((text, style), f": {found.tried.told}"))
    return Group(table, Text(f"next: {found.folder}/README.md"))
