"""``edgekit data``."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from edgekit.cli.common import Json, Quiet, exits, print_json, run_view
from edgekit.errors import DataError


@exits
def data(
    path: Annotated[
        Path,
        typer.Argument(
            metavar="DIR|FILE",
            help="A folder for each class; WebDataset shards; a CSV, TSV or JSONL file of paths or texts and "
            "labels; boxes as COCO, YOLO or VOC have them.",
            show_default=False,
        ),
    ],
    skip_damaged: Annotated[
        bool, typer.Option("--skip-damaged", help="Damaged files are named, and are no failure.")
    ] = False,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Look at data before anything is trained on them: classes, kinds, sizes, copies, damaged files.

    Exit code 2 if there are some that can't be read.
    """
    with run_view(quiet=quiet):
        from edgekit.sources.kinds import KINDS
        from edgekit.sources.kinds.sniffing import kind_of_data
        from edgekit.sources.request import Source

        found = KINDS[kind_of_data(path)].open(Source("", path)).look()
    if as_json:
        print_json(found)
    else:
        from edgekit.cli.views.console import console_on, plain
        from edgekit.cli.views.data import data_view

        console_on(sys.stdout).print(data_view(plain(found)))
    if (found["damaged"] or found.get("faults")) and not skip_damaged:
        raise typer.Exit(DataError.exit_code)
