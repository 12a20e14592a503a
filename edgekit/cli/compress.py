"""``edgekit compress``."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import typer

from edgekit.cli.common import (
    Debug,
    Json,
    Quiet,
    Sets,
    complete,
    exits,
    print_json,
    run_view,
    show_tracebacks,
)
from edgekit.cli.sources import Data, Mean, Pretrained, Size, SkipDamaged, Std, Weights, begin, given
from edgekit.errors import Interrupted


@contextlib.contextmanager
def _interrupts_told_once(others: bool) -> Iterator[None]:
    """Ctrl-C reaches every process; the first one's message is enough."""
    try:
        yield
    except Interrupted:
        if others:
            raise typer.Exit(Interrupted.exit_code) from None
        raise


def _settings(
    samples: int | None, max_drop: float | None, confidence: float | None, head: str | None
) -> list[str]:
    """What options set in the recipe."""
    found = [] if samples is None else [f"diagnose.samples={samples}"]
    found += [] if head is None else [f"exports.head={head}"]
    if max_drop is not None:
        found += [f"recommend.max_accuracy_drop={max_drop!r}", "recommend.contract=true"]
    return found if confidence is None else [*found, f"recommend.confidence={confidence!r}"]


@exits
def compress(
    workload: Annotated[
        str | None,
        typer.Argument(
            metavar="WORKLOAD",
            help="my_workload.py[:function]; timm:NAME, torchvision:NAME, hf:FOLDER, net.py:function or "
            "FILE.onnx|pt2 with --data; without one, the embedded demo.",
            show_default=False,
        ),
    ] = None,
    data: Data = None,
    weights: Weights = None,
    pretrained: Pretrained = False,
    skip_damaged: SkipDamaged = False,
    size: Size = None,
    mean: Mean = None,
    std: Std = None,
    recipe: Annotated[
        str,
        typer.Option(
            "--recipe",
            "-r",
            metavar="NAME|FILE",
            help="How to compress; see `edgekit recipe ls`.",
            autocompletion=complete("recipes"),
        ),
    ] = "mobile",
    device: Annotated[
        list[str] | None,
        typer.Option(
            "--device",
            "-d",
            metavar="NAME|FILE",
            help="Where to measure, instead of the recipe's devices. Repeatable.",
            show_default=False,
            autocompletion=complete("devices"),
        ),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            "--out",
            "-o",
            metavar="DIR",
            help="The run folder; by default one under runs/. An interrupted run in it goes on.",
            show_default=False,
        ),
    ] = None,
    samples: Annotated[
        int | None,
        typer.Option(
            "--samples",
            metavar="N",
            min=0,
            help="Spoil so many validation samples to see what breaks, instead of the recipe's number.",
            show_default=False,
        ),
    ] = None,
    max_drop: Annotated[
        float | None,
        typer.Option(
            "--max-drop",
            metavar="POINTS",
            min=0,
            max=100,
            help="A contract: no int8 file may lose more points of the task's own metric. As many layers as "
            "that takes stay float; where it can't be kept, the command fails and says what costs most.",
            show_default=False,
        ),
    ] = None,
    confidence: Annotated[
        float | None,
        typer.Option(
            "--confidence",
            metavar="SHARE",
            help="How sure --max-drop has to be, 0.95 for one: by the interval of the difference on the same "
            "validation samples. Without it the drop as measured counts.",
            show_default=False,
        ),
    ] = None,
    head: Annotated[
        str | None,
        typer.Option(
            "--head",
            metavar="KIND",
            help="Of a detector's files, instead of the recipe's: raw, decoded or nms; see `edgekit export`.",
            show_default=False,
        ),
    ] = None,
    sets: Sets = None,
    log: Annotated[
        list[str] | None,
        typer.Option(
            "--log",
            metavar="tensorboard|mlflow",
            help="Tell every epoch there too; training.csv is written in any case. Repeatable.",
            show_default=False,
        ),
    ] = None,
    as_json: Json = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Distill, prune and quantize a trained model, export it, and measure the files.

    Killed at any moment, the same command goes on where it was. Several processes share the training:
    `torchrun --nproc-per-node 2 -m edgekit compress ...`
    """
    from edgekit.processes import rank_here

    show_tracebacks(debug)
    others = rank_here() > 0  # of several processes the first one tells
    what = given(workload, data, weights, pretrained, skip_damaged, size, mean, std)
    with _interrupts_told_once(others), run_view(quiet=quiet or others) as progress:
        begin(what)
        from edgekit.pipeline import compress as run
        from edgekit.progress import silent

        report = run(
            what,
            recipe=recipe,
            devices=tuple(device or ()),
            out=out,
            overrides=(*(sets or ()), *_settings(samples, max_drop, confidence, head)),
            log=tuple(log or ()),
            progress=silent if others else progress,
        )
    if others:
        return
    if as_json:
        print_json(report.to_json())
    else:
        from edgekit.cli.views.console import console_on, plain, report_view

        console = console_on(sys.stdout)
        console.print(report_view(plain(report.to_json()), console.width))
