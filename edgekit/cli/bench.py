"""``edgekit bench``."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Literal

import typer

from edgekit.cli.common import Debug, Json, Quiet, complete, exits, print_json, run_view, show_tracebacks
from edgekit.cli.streams import say


@exits
def bench(
    targets: Annotated[
        list[str],
        typer.Argument(
            metavar="ARTIFACT|RUN...",
            help="Exported files ({suffixes}), measured in turns; or a run folder.",
            show_default=False,
        ),
    ],
    device: Annotated[
        str,
        typer.Option(
            "--device",
            "-d",
            metavar="NAME|FILE",
            help="Where; see `edgekit device ls`.",
            autocompletion=complete("devices"),
        ),
    ] = "local",
    workload: Annotated[
        str | None,
        typer.Option(
            "--workload",
            "-w",
            metavar="FILE",
            help="Whose validation samples are asked on the device; a run of the demo needs none.",
            show_default=False,
        ),
    ] = None,
    inputs: Annotated[
        Path | None,
        typer.Option(
            "--input",
            metavar="NPY|NPZ",
            help="Samples (N, ...) instead of a workload, of several inputs an .npz with an array for each; "
            "else files are timed on random ones.",
            show_default=False,
        ),
    ] = None,
    samples: Annotated[
        int, typer.Option("--samples", min=0, metavar="N", help="How many are asked; 0: timing alone.")
    ] = 256,
    threads: Annotated[
        str,
        typer.Option("--threads", metavar="LIST", help="Such as 1,4,all; by default the profile's, or 1."),
    ] = "",
    runtime: Annotated[
        list[str] | None,
        typer.Option(
            "--runtime", metavar="NAME", help="Instead of the file's first. Repeatable.", show_default=False
        ),
    ] = None,
    min_seconds: Annotated[float, typer.Option(min=0, max=600, help="For each candidate.")] = 1.0,
    min_runs: Annotated[int, typer.Option(min=1, max=1_000_000, help="For each candidate.")] = 50,
    profile: Annotated[bool, typer.Option("--profile", help="Also say which ops take how long.")] = False,
    out: Annotated[
        Path | None,
        typer.Option("--out", "-o", metavar="FILE", help="Where the results go (.json).", show_default=False),
    ] = None,
    allow_compiled: Annotated[
        bool,
        typer.Option(
            "--allow-compiled",
            help="Run AOTInductor packages (.pt2) that somebody else compiled: native code.",
        ),
    ] = False,
    as_json: Json = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Take exported files to a device, check their answers there, and measure them.

    Every single timing is kept in a JSON file, for `edgekit compare` and `edgekit gate`.
    """
    show_tracebacks(debug)
    with run_view(quiet=quiet) as progress:
        from edgekit.pipeline.benchmarking import bench as measure

        record, path = measure(
            targets,
            device,
            workload=workload,
            inputs=inputs,
            samples=samples,
            runtimes=runtime or (),
            threads=_threads(threads),
            min_seconds=min_seconds,
            min_runs=min_runs,
            profile=profile,
            out=out,
            allow_compiled=allow_compiled,
            progress=progress,
        )
    if as_json:
        print_json(record.model_dump(mode="json"))
    else:
        from edgekit.cli.views.bench import bench_view
        from edgekit.cli.views.console import console_on

        console = console_on(sys.stdout)
        console.print(bench_view(record))
        say(f"all timings: {path}")


def _threads(text: str) -> list[int | Literal["all"]]:
    from edgekit.errors import InputError

    found: list[int | Literal["all"]] = []
    for word in filter(None, (part.strip() for part in text.split(","))):
        if word == "all":
            found.append("all")
        elif word.isdigit() and int(word) > 0:
            found.append(int(word))
        else:
            raise InputError("this is no number of threads", got=repr(word), expected="such as 1,4,all")
    return found
