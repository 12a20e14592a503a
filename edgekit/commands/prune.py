"""``edgekit prune``."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from edgekit.commands.common import Debug, Json, Quiet, exits, print_json, run_view, show_tracebacks
from edgekit.errors import InputError, did_you_mean

if TYPE_CHECKING:
    from edgekit.pipeline.pruning import Wish

_SCOPES = ("global", "local", "isomorphic")


@exits
def prune(
    workload: Annotated[
        str | None,
        typer.Argument(
            metavar="WORKLOAD", help="my_workload.py[:function]; else the embedded demo.", show_default=False
        ),
    ] = None,
    speedup: Annotated[
        float, typer.Option("--speedup", min=1.001, max=64, metavar="X", help="MACs before over MACs after.")
    ] = 2.0,
    plan: Annotated[
        Path | None,
        typer.Option("--plan", metavar="FILE", help="Replay this plan.json instead.", show_default=False),
    ] = None,
    sensitivity: Annotated[
        bool,
        typer.Option("--sensitivity", help="Instead of a plan: accuracy against share cut, layer by layer."),
    ] = False,
    importance: Annotated[
        str,
        typer.Option(
            "--importance",
            metavar="NAME",
            help="magnitude, taylor, hessian, bn_scale, fpgm, lamp or random.",
        ),
    ] = "magnitude",
    scope: Annotated[
        str, typer.Option("--scope", metavar="NAME", help="What is ranked: global, local or isomorphic.")
    ] = "global",
    multiple: Annotated[
        int, typer.Option("--multiple", min=1, max=1024, metavar="N", help="Channels are multiples of this.")
    ] = 8,
    max_ratio: Annotated[
        float,
        typer.Option(
            "--max-ratio", min=0.001, max=0.999, metavar="R", help="Share of a layer to cut at most."
        ),
    ] = 0.75,
    limits: Annotated[
        list[str] | None,
        typer.Option(
            "--limit",
            metavar="PATTERN=R",
            help="The same for some layers, e.g. 'layer4.*=0.5'; 0 keeps them whole. Repeatable.",
            show_default=False,
        ),
    ] = None,
    seed: Annotated[int, typer.Option("--seed", min=0, metavar="N", help="Of all that is drawn.")] = 0,
    samples: Annotated[
        int | None,
        typer.Option(
            "--samples",
            min=1,
            metavar="N",
            help="How many are asked: all validation data, or 512 training samples for --sensitivity.",
            show_default=False,
        ),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            "--out", "-o", metavar="DIR", help="For the files; else pruned/NAME.", show_default=False
        ),
    ] = None,
    as_json: Json = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Make a pruning plan, or replay one, without any training.

    Accuracy is told as the cut leaves it. A recipe's prune stage replays the plan (plan: FILE), and trains.
    """
    show_tracebacks(debug)
    if plan is not None and sensitivity:
        raise InputError("--plan and --sensitivity exclude each other", next="leave one of them out")
    with run_view(quiet=quiet) as progress:
        from edgekit.pipeline import pruning

        options: dict[str, Any] = {"out": out, "samples": samples, "progress": progress}
        if plan is not None:
            found = pruning.replay_plan(plan, workload, **options)
        else:
            wish = _wish(speedup, multiple, importance, scope, max_ratio, limits or [], seed)
            work = pruning.analyse_sensitivity if sensitivity else pruning.make_plan
            found = work(workload, wish, **options)
    if as_json:
        print_json(found)
    else:
        from edgekit.console import console_on
        from edgekit.console_prune import prune_view

        console_on(sys.stdout).print(prune_view(found))


def _wish(
    speedup: float,
    multiple: int,
    importance: str,
    scope: str,
    max_ratio: float,
    limits: list[str],
    seed: int,
) -> Wish:
    from edgekit.pipeline.pruning import Wish
    from edgekit.stages.prune import MEASURES

    if importance == "auto":
        raise InputError(
            "importance auto trains",
            where="--importance",
            next="`edgekit compress` does it; here, name one: " + ", ".join(MEASURES),
        )
    for option, value, known in (
        ("--importance", importance, (*MEASURES, "random")),
        ("--scope", scope, _SCOPES),
    ):
        if value not in known:
            raise InputError(f"unknown {option[2:]} {value!r}, {did_you_mean(value, known)}", where=option)
    by_pattern = dict(_limit(text) for text in limits)
    return Wish(speedup, multiple, importance, scope, max_ratio, by_pattern, seed)  # type: ignore[arg-type]


def _limit(text: str) -> tuple[str, float]:
    pattern, _, ratio = text.rpartition("=")
    try:
        share = float(ratio)
    except ValueError:
        share = -1.0
    if not pattern or not 0 <= share < 1:
        raise InputError(
            "a limit of another form",
            where="--limit",
            got=text,
            expected="PATTERN=R with R from 0 to below 1, such as 'layer4.*=0.5'",
        )
    return pattern, share
