"""``edgekit init``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from edgekit.cli.common import Debug, Quiet, exits, run_view, show_tracebacks
from edgekit.cli.sources import (
    Data,
    Mean,
    Pretrained,
    Size,
    SkipDamaged,
    Std,
    Weights,
    begin,
    numbers,
)
from edgekit.cli.streams import say
from edgekit.errors import InputError


@exits
def init(
    source: Annotated[
        str,
        typer.Argument(
            metavar="MODEL",
            help="timm:NAME, torchvision:NAME, hf:FOLDER, net.py:function or FILE.onnx|pt2.",
            show_default=False,
        ),
    ],
    data: Data = None,
    weights: Weights = None,
    pretrained: Pretrained = False,
    skip_damaged: SkipDamaged = False,
    size: Size = None,
    mean: Mean = None,
    std: Std = None,
    out: Annotated[Path, typer.Option("--out", "-o", metavar="FILE", help="The workload file.")] = Path(
        "my_workload.py"
    ),
    force: Annotated[bool, typer.Option("--force", help="Write over a file that is there.")] = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Write a model by name and data by folder as a workload file, to be edited.

    `edgekit compress FILE` does the same as with the name and the folder.
    """
    show_tracebacks(debug)
    with run_view(quiet=quiet):
        from edgekit.files import atomic_create, atomic_write, refuse_unwritable
        from edgekit.sources.request import Source

        middle, spread = numbers("--mean", mean), numbers("--std", std)
        what = Source(source, data, weights, pretrained, skip_damaged, size, mean=middle, std=spread)
        begin(what)
        refuse_unwritable(out)
        there = InputError("there is a file already", where=str(out), next="name another with -o, or --force")
        if out.exists() and not force:
            raise there
        from edgekit.sources.making import prepared
        from edgekit.sources.writing import written

        model, made = prepared(what)
        text = written(made, model, out).encode()
        try:
            (atomic_write if force else atomic_create)(out, text)
        except FileExistsError:
            raise there from None
    say(f"{out}: edit it, then  edgekit compress {out} --recipe quick")
