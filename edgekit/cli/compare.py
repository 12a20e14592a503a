"""``edgekit compare`` and ``edgekit gate``."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from edgekit.cli.common import Json, Quiet, exits, print_json, run_view


@exits
def compare(
    first: Annotated[
        Path, typer.Argument(metavar="A", help="Results of `edgekit bench`: a file, or a run folder.")
    ],
    second: Annotated[
        Path | None,
        typer.Argument(
            metavar="B", help="Others; without them, all of A with its first.", show_default=False
        ),
    ] = None,
    device: Annotated[
        str,
        typer.Option(
            "--device", "-d", metavar="NAME|FILE", help="Where, if A and B are exported files instead."
        ),
    ] = "local",
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Say faster, slower, or not distinguishable, with the interval.

    A and B may be exported files: they are measured now, in turns. Results of different devices, or of an
    emulated and a real one, are refused.
    """
    from edgekit.bench.compare import compare as compared
    from edgekit.formats import by_suffix

    if second is not None and by_suffix(first.suffix) and by_suffix(second.suffix):
        with run_view(quiet=quiet) as progress:
            from edgekit.pipeline.benchmarking import bench

            _, first = bench([first, second], device, progress=progress)
            second = None
    report = compared(first, second)
    if as_json:
        print_json(report.model_dump(mode="json"))
    else:
        from edgekit.cli.views.bench import compare_view
        from edgekit.cli.views.console import console_on

        console = console_on(sys.stdout)
        console.print(compare_view(report))


@exits
def gate(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="A run folder, or results of `edgekit bench`.")],
    baseline: Annotated[
        Path, typer.Option("--baseline", metavar="OLD", help="What it must not fall behind.")
    ],
    max_slowdown: Annotated[
        str, typer.Option("--max-slowdown", metavar="SHARE", help="How much longer a run may take.")
    ] = "5%",
    max_drop: Annotated[
        float,
        typer.Option("--max-drop", metavar="POINTS", min=0, help="Accuracy it may lose, in points."),
    ] = 0.5,
    max_growth: Annotated[
        str | None,
        typer.Option("--max-growth", metavar="SHARE", help="How much a file may grow.", show_default=False),
    ] = None,
    strict: Annotated[bool, typer.Option("--strict", help="What only looks worse fails, too.")] = False,
    junit: Annotated[
        Path | None,
        typer.Option("--junit", metavar="FILE", help="Also JUnit XML, for CI systems.", show_default=False),
    ] = None,
    as_json: Json = False,
) -> None:
    """Exit with 1 if something got slower, less accurate, or is missing: for continuous integration."""
    from edgekit.bench.gate import check_gate, parse_share
    from edgekit.bench.junit import save_junit

    report = check_gate(
        run,
        baseline,
        max_slowdown=parse_share(max_slowdown),
        max_drop=max_drop,
        max_growth=None if max_growth is None else parse_share(max_growth),
        strict=strict,
    )
    if junit is not None:
        save_junit(report, junit)
    if as_json:
        print_json(report.to_json())
    else:
        from edgekit.cli.views.bench import gate_view
        from edgekit.cli.views.console import console_on

        console = console_on(sys.stdout)
        console.print(gate_view(report))
    if not report.passed:
        raise typer.Exit(1)
