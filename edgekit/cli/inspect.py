"""``edgekit inspect``."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from edgekit.cli.common import Json, complete, exits, named, print_json, run_view
from edgekit.cli.sources import Data, Pretrained, Size, SkipDamaged, Weights, begin, given


@exits
def inspect(
    target: Annotated[
        str | None,
        typer.Argument(
            metavar="WORKLOAD|FILE",
            help="my_workload.py[:function], timm:NAME, an .onnx, .tflite, .pte or .pt2 file; else the demo.",
            show_default=False,
        ),
    ] = None,
    data: Data = None,
    weights: Weights = None,
    pretrained: Pretrained = False,
    skip_damaged: SkipDamaged = False,
    size: Size = None,
    device: Annotated[
        str | None,
        typer.Option(
            "--device",
            "-d",
            metavar="NAME|FILE",
            help="Also say whether it fits this device.",
            show_default=False,
            autocompletion=complete("devices"),
            callback=named("devices"),
        ),
    ] = None,
    top: Annotated[
        int | None,
        typer.Option(
            "--top",
            min=1,
            metavar="N",
            help="How many tensors of a file to list, the largest first (10; with --json all).",
            show_default=False,
        ),
    ] = None,
    as_json: Json = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress.")] = False,
) -> None:
    """Look into a model before any training, or into an exported file.

    A model: what will prune and quantise, what the runtimes lack, MACs and memory. A file: its ops, types,
    scales, the size of its tensors, and what its runtime executes.
    """
    what = given(target, data, weights, pretrained, skip_damaged, size)
    with run_view(quiet=quiet) as progress:
        begin(what)
        from edgekit.inspecting import inspect as look

        found = look(what, device=device, top=top, progress=progress)
    if as_json:
        print_json(found)
    else:
        from edgekit.cli.views.console import console_on, plain
        from edgekit.cli.views.inspect import inspect_view

        console = console_on(sys.stdout)
        console.print(inspect_view(plain(found), console.width, top))
