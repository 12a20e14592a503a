"""``edgekit bundle``."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from edgekit.cli.common import (
    Debug,
    Json,
    Quiet,
    complete,
    exits,
    named,
    print_json,
    run_view,
    show_tracebacks,
)
from edgekit.errors import InputError


@exits
def bundle(
    run: Annotated[
        Path,
        typer.Argument(
            metavar="RUN|BUNDLE",
            help="The folder of a finished run; with --check, a bundle.",
            show_default=False,
        ),
    ],
    workload: Annotated[
        str | None,
        typer.Argument(
            metavar="WORKLOAD",
            help="The workload of the run; a run of the embedded demo needs none.",
            show_default=False,
        ),
    ] = None,
    target: Annotated[
        str,
        typer.Option("--target", "-t", metavar="NAME", help="{targets}.", show_default=False),
    ] = "",
    artifact: Annotated[
        str,
        typer.Option(
            "--artifact",
            "-a",
            metavar="FILE",
            help="Which file of the run; else the recommended one, or the nearest that the target takes.",
            show_default=False,
        ),
    ] = "",
    device: Annotated[
        str | None,
        typer.Option(
            "--device",
            "-d",
            metavar="NAME|FILE",
            help="A profile whose memory is a budget, such as mcu-cortex-m4.",
            show_default=False,
            autocompletion=complete("devices"),
            callback=named("devices"),
        ),
    ] = None,
    name: Annotated[
        str,
        typer.Option(
            "--name", metavar="NAME", help="Of the bundle; else the workload's.", show_default=False
        ),
    ] = "",
    version: Annotated[
        str, typer.Option("--bundle-version", metavar="VERSION", help="Of the bundle.")
    ] = "1.0.0",
    out: Annotated[
        Path | None,
        typer.Option(
            "--out", "-o", metavar="DIR", help="The folder; else bundles/NAME-TARGET.", show_default=False
        ),
    ] = None,
    force: Annotated[
        bool, typer.Option("--force", help="Replace a bundle there even if somebody changed its files.")
    ] = False,
    check: Annotated[
        bool,
        typer.Option("--check", help="Compare a bundle's files with their sha256, and run its golden test."),
    ] = False,
    allow_code: Annotated[
        bool,
        typer.Option(
            "--allow-code", help="With --check: run the golden test even of a bundle that somebody else made."
        ),
    ] = False,
    as_json: Json = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Make what an app needs beside the model file: code, labels, golden samples; or --check that.

    The model's own answers to a few validation samples go with it, and its golden test compares with them:
    built and run at once where this machine can do so.
    """
    show_tracebacks(debug)
    if not check and not target:
        raise InputError(
            "no target", expected="--target python, cpp, android, ios or arduino", next="or --check BUNDLE"
        )
    if check and (target or workload):
        raise InputError("--check looks at a bundle that is there", got="a target or a workload as well")
    with run_view(quiet=quiet) as progress:
        from edgekit.bundle.checking import check as look

        folder = run
        if not check:
            from edgekit.bundle.writing import bundle as make

            folder = make(
                run,
                target,
                workload,
                artifact=artifact,
                device=device,
                name=name,
                version=version,
                out=out,
                force=force,
                progress=progress,
            )
        found = look(folder, allow_code=allow_code, progress=progress)
    if as_json:
        told = {"passed": found.tried.passed, "told": found.tried.told, "figures": found.tried.figures}
        print_json({**found.about, "folder": str(folder), "golden_test": told})
    else:
        from edgekit.cli.views.bundle import bundle_view
        from edgekit.cli.views.console import console_on

        console_on(sys.stdout).print(bundle_view(found))
