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
            help="A folder for each class, or a CSV, TSV or JSONL file of paths and labels.",
            show_default=False,
        ),
    ],
    skip_damaged: Annotated[
        bool, typer.Option("--skip-damaged", help="Damaged files are named, and are no failure.")
    ] = False,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Look at pictures before anything is trained on them: classes, kinds, sizes, copies, damaged files.

    Exit code 2 if there are files that can't be read.
    """
    with run_view(quiet=quiet):
        from edgekit.pictures.files import ImageFiles

        found = ImageFiles(path).look()
    if as_json:
        print_json(found)
    else:
        from edgekit.cli.views.console import console_on, plain
        from edgekit.cli.views.data import data_view

        console_on(sys.stdout).print(data_view(plain(found)))
    if found["damaged"] and not skip_damaged:
        raise typer.Exit(DataError.exit_code)
