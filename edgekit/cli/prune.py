"""``edgekit prune``."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from edgekit.cli.common import Debug, Json, Quiet, exits, named, print_json, run_view, show_tracebacks
from edgekit.cli.sources import Data, Pretrained, Size, SkipDamaged, Weights, begin, given
from edgekit.errors import InputError, did_you_mean

if TYPE_CHECKING:
    from edgekit.stages.prune_config import PruneConfig

_SCOPES = ("global", "local", "isomorphic")


@exits
def prune(
    workload: Annotated[
        str | None,
        typer.Argument(
            metavar="WORKLOAD",
            help="my_workload.py[:function]; timm:NAME and the like with --data; else the embedded demo.",
            show_default=False,
        ),
    ] = None,
    data: Data = None,
    weights: Weights = None,
    pretrained: Pretrained = False,
    skip_damaged: SkipDamaged = False,
    size: Size = None,
    speedup: Annotated[
        float | None,
        typer.Option(
            "--speedup",
            metavar="X",
            help="MACs before over MACs after. What is aimed at if nothing else is: 2.",
            show_default=False,
        ),
    ] = None,
    latency_ms: Annotated[
        float | None,
        typer.Option("--latency-ms", metavar="MS", help="p50 of one sample on --device.", show_default=False),
    ] = None,
    size_kb: Annotated[
        float | None,
        typer.Option("--size-kb", metavar="KB", help="Of the exported file.", show_default=False),
    ] = None,
    peak_memory_kb: Annotated[
        float | None,
        typer.Option("--peak-memory-kb", metavar="KB", help="Of activations.", show_default=False),
    ] = None,
    pruning_ratio: Annotated[
        float | None,
        typer.Option("--pruning-ratio", metavar="R", help="Share of the channels.", show_default=False),
    ] = None,
    device: Annotated[
        str,
        typer.Option(
            "--device",
            metavar="NAME",
            help="Where time is measured.",
            show_default="local",
            callback=named("devices"),
        ),
    ] = "",
    runtime: Annotated[
        str | None,
        typer.Option("--runtime", metavar="NAME", help="{runtimes}.", show_default="onnxruntime"),
    ] = None,
    precision: Annotated[
        str | None,
        typer.Option("--precision", metavar="NAME", help="fp32 or int8.", show_default="fp32"),
    ] = None,
    threads: Annotated[int, typer.Option("--threads", metavar="N", help="Of the runtime.")] = 1,
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
            help="{criteria}.",
        ),
    ] = "magnitude",
    scope: Annotated[
        str, typer.Option("--scope", metavar="NAME", help="What is ranked: global, local or isomorphic.")
    ] = "global",
    blocks: Annotated[
        str,
        typer.Option(
            "--blocks",
            metavar="NAME",
            help="Whole residual blocks may_leave or stay; auto: they may where time is aimed at.",
        ),
    ] = "auto",
    multiple: Annotated[
        str,
        typer.Option(
            "--multiple", metavar="N", help="Channels are multiples of this; auto: of what --device likes."
        ),
    ] = "8",
    max_ratio: Annotated[
        float, typer.Option("--max-ratio", metavar="R", help="Share of a layer to cut at most.")
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
    reconstruct: Annotated[
        bool,
        typer.Option("--reconstruct/--no-reconstruct", help="Refit what stays, without labels or training."),
    ] = True,
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

    Accuracy is told as the cut leaves it, with the rest refitted. A recipe's prune stage replays the plan
    (plan: FILE), and trains.
    """
    show_tracebacks(debug)
    if plan is not None and sensitivity:
        raise InputError("--plan and --sensitivity exclude each other", next="leave one of them out")
    wanted = {
        "speedup": speedup,
        "latency_ms": latency_ms,
        "size_kb": size_kb,
        "peak_memory_kb": peak_memory_kb,
        "pruning_ratio": pruning_ratio,
        "device": device,
        "runtime": runtime,
        "precision": precision,
        "threads": threads,
        "channel_multiple": int(multiple) if multiple.isdecimal() else multiple,
        "importance": importance,
        "scope": scope,
        "blocks": blocks,
        "max_ratio": max_ratio,
        "limits": dict(_limit(text) for text in limits or []),
    }
    what = given(workload, data, weights, pretrained, skip_damaged, size)
    with run_view(quiet=quiet) as progress:
        begin(what)
        from edgekit.pipeline import pruning

        more: dict[str, Any] = {"seed": seed, "out": out, "samples": samples, "progress": progress}
        if sensitivity:
            found = pruning.analyse_sensitivity(what, _config(wanted), **more)
        elif plan is not None:
            found = pruning.replay_plan(plan, what, reconstruct=reconstruct, **more)
        else:
            found = pruning.make_plan(what, _config(wanted), reconstruct=reconstruct, **more)
    if as_json:
        print_json(found)
    else:
        from edgekit.cli.views.console import console_on
        from edgekit.cli.views.prune import prune_view

        console_on(sys.stdout).print(prune_view(found))


def _config(wanted: dict[str, Any]) -> PruneConfig:
    """The prune stage's settings. Raises InputError if they are none."""
    from pydantic import ValidationError

    from edgekit.pruning.importance.criteria import CRITERIA
    from edgekit.stages.prune_config import PruneConfig

    choices = {
        "importance": (*CRITERIA, "auto"),
        "scope": (*_SCOPES, "auto"),
        "blocks": ("auto", "may_leave", "stay"),
    }
    for name, known in choices.items():
        if wanted[name] not in known:
            advice = did_you_mean(wanted[name], known)
            raise InputError(f"unknown {name} {wanted[name]!r}, {advice}", where=f"--{name}")
    try:
        return PruneConfig.model_validate(wanted, strict=True)
    except ValidationError as error:
        fault = error.errors()[0]
        name = str(fault["loc"][0]) if fault["loc"] else ""
        where = "multiple" if name == "channel_multiple" else name.replace("_", "-")
        raise InputError(
            fault["msg"].removeprefix("Value error, "),
            where=f"--{where}" if name else "edgekit prune",
            got=str(fault["input"]) if name else "",
        ) from error


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
