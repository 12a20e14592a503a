"""``edgekit export``."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from edgekit.cli.common import Debug, Json, Quiet, complete, exits, print_json, run_view, show_tracebacks
from edgekit.cli.sources import Data, Pretrained, Size, SkipDamaged, Weights, begin, given


@exits
def export(
    source: Annotated[
        str,
        typer.Argument(
            metavar="RUN|CHECKPOINT",
            help="A run folder, an int8_graph.pt2, or a trained model: a workload file, timm:NAME.",
            show_default=False,
        ),
    ],
    workload: Annotated[
        str | None,
        typer.Argument(
            metavar="WORKLOAD",
            help="The workload of a run or an int8 graph; a run of the embedded demo needs none.",
            show_default=False,
        ),
    ] = None,
    data: Data = None,
    weights: Weights = None,
    pretrained: Pretrained = False,
    skip_damaged: SkipDamaged = False,
    size: Size = None,
    formats: Annotated[
        str,
        typer.Option(
            "--format",
            "-f",
            metavar="LIST",
            help="Any of {formats}.",
            show_default=True,
        ),
    ] = "onnx,litert",
    precisions: Annotated[
        str,
        typer.Option(
            "--precision",
            "-p",
            metavar="LIST",
            help="Of {precisions}; by default int8 where there is an int8 "
            "graph, and fp16 for aotinductor alone.",
            show_default=False,
        ),
    ] = "",
    out: Annotated[
        Path | None,
        typer.Option(
            "--out",
            "-o",
            metavar="DIR",
            help="A folder for the files; those of a run are in its artifacts/ in any case.",
            show_default=False,
        ),
    ] = None,
    device: Annotated[
        str | None,
        typer.Option(
            "--device",
            "-d",
            metavar="NAME|FILE",
            help="What ONNX files are spelled for, instead of the run's device.",
            show_default=False,
            autocompletion=complete("devices"),
        ),
    ] = None,
    batch: Annotated[
        int | None,
        typer.Option(
            "--batch", metavar="N", help="A fixed batch; else free in ONNX and AOTInductor, 1 in LiteRT."
        ),
    ] = None,
    io: Annotated[
        str | None,
        typer.Option(
            "--io",
            metavar="TYPE",
            help="Ends of quantised LiteRT files: float32, int8 or uint8; else their activations'.",
            show_default=False,
        ),
    ] = None,
    embed_preprocessing: Annotated[
        bool, typer.Option("--embed-preprocessing", help="Files that take raw uint8 pixels, (N, H, W, C).")
    ] = False,
    temperature: Annotated[
        str,
        typer.Option(
            "--temperature",
            metavar="NUMBER|fitted",
            help="Divide the scores, inside the last layer; fitted: by what the run's diagnosis found.",
            show_default=False,
        ),
    ] = "1",
    head: Annotated[
        str,
        typer.Option(
            "--head",
            metavar="KIND",
            help="Of a detector's files: raw (the model's own outputs), decoded (boxes in pixels, and "
            "scores) or nms (suppressed as well).",
        ),
    ] = "raw",
    as_json: Json = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Export what is compressed already in further formats and precisions, without training.

    Nothing is calibrated again: int8 files come from the run's int8 graph.
    """
    show_tracebacks(debug)
    what_from = given(source, data, weights, pretrained, skip_damaged, size)
    assert what_from is not None  # the argument is there
    with run_view(quiet=quiet) as progress:
        begin(what_from)
        from edgekit.pipeline.export_request import export_request
        from edgekit.pipeline.exporting import export_files

        listed = [
            [name.strip() for name in text.split(",") if name.strip()] for text in (formats, precisions)
        ]
        what = export_request(
            *listed,
            batch=batch,
            io=io,
            embed_preprocessing=embed_preprocessing,
            temperature=temperature,
            head=head,
        )
        entries = export_files(what_from, workload, what, device=device, out=out, progress=progress)
    if as_json:
        print_json(entries)
    else:
        from edgekit.cli.views.console import console_on
        from edgekit.cli.views.export import export_view

        console_on(sys.stdout).print(export_view(entries))
