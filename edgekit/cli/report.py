"""``edgekit report``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from edgekit.cli.common import Debug, Json, exits, print_json, show_tracebacks
from edgekit.cli.streams import say
from edgekit.errors import RunFolderError


@exits
def report(
    runs: Annotated[
        list[Path],
        typer.Argument(metavar="RUN...", help="Run folders of `edgekit compress`, finished or not."),
    ],
    out: Annotated[
        Path | None,
        typer.Option(
            "--out",
            "-o",
            metavar="FILE",
            help="The page; by default report.html in the run folder, of several runs here.",
            show_default=False,
        ),
    ] = None,
    as_markdown: Annotated[
        bool,
        typer.Option(
            "--markdown", help="Print the table of one finished run in Markdown, and write no page."
        ),
    ] = False,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Write report.html again, or lay several runs side by side in one page.

    Nothing is computed anew: what a run hasn't found out yet is listed as missing.
    """
    show_tracebacks(debug)
    from edgekit.files import disk_full
    from edgekit.report import page

    if as_markdown:
        _print_markdown(runs)
        return

    loaded = [page.load(run) for run in dict.fromkeys(runs)]
    path = out or (loaded[0].folder / "report.html" if len(loaded) == 1 else Path("report.html"))
    if path.is_dir():
        raise RunFolderError(
            "the page needs a file",
            where=str(path),
            got="a folder",
            next=f"--out {path / 'report.html'}",
        )
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        loaded = page.write(loaded, path)
    except OSError as error:
        full = disk_full(error, path, refused=True)
        if full is None:
            raise
        raise full from error
    missing = {run.name: list(run.missing) for run in loaded if run.missing}
    if as_json:
        print_json({"page": str(path), "missing": missing})
        return
    for name, lines in missing.items():
        for line in lines:
            say(f"! {name}: {line}", err=True)
    say(path)


def _print_markdown(runs: list[Path]) -> None:
    """Raises RunFolderError: several runs, or none that has ended."""
    from edgekit.report.markdown import markdown
    from edgekit.report.summary import Report

    if len(runs) != 1:
        raise RunFolderError("one table is of one run", where="--markdown", got=f"{len(runs)} runs")
    try:
        found = Report.load(runs[0])
    except (OSError, ValueError) as error:
        raise RunFolderError(
            "no report of a finished run",
            where=str(runs[0] / "report.json"),
            got=str(error).splitlines()[0][:200],
            next="edgekit compress goes on with a run that hasn't ended",
        ) from error
    say(markdown(found).rstrip("\n"))
