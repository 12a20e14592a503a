"""What a person sees of ``edgekit prune``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.console import Group, RenderableType
from rich.text import Text

from edgekit.cli.views.artifact import facts, table, title
from edgekit.units import human_count, human_share

# Outputs are no choice of anybody; see pruning/coupling/trial.py, which needs torch.
_OUTPUTS = "its channels are the model's outputs"


def prune_view(found: Mapping[str, Any]) -> RenderableType:
    """A result of ``edgekit.pipeline.pruning``: what is left of the model, layer by layer."""
    parts = _sensitivity(found) if found["kind"] == "sensitivity" else _plan(found)
    return Group(*parts)


def _plan(found: Mapping[str, Any]) -> list[RenderableType]:
    accuracy = found["accuracy"]
    change = f"{human_share(accuracy['before'])} → {human_share(accuracy['after'])}"
    rows = [
        ("MACs", f"{_fewer(found['macs'])}, {found['speedup']:.2f}× fewer"),
        ("parameters", f"{_fewer(found['parameters'])}, {found['shrink']:.2f}× fewer"),
        ("accuracy", f"{change} {accuracy['note']} ({accuracy['samples']} {accuracy['split']} samples)"),
        *([("the cut alone", human_share(accuracy["cut_alone"]))] if "cut_alone" in accuracy else []),
        *_aimed(found),
        ("plan", found["plan"]),
        ("weights", found["weights"]),
    ]
    if gone := found.get("removed_blocks"):
        rows.append(("blocks left out", ", ".join(row["block"] for row in gone)))
    if found.get("ranked_by_magnitude"):
        rows.append(("by magnitude", ", ".join(found["ranked_by_magnitude"])))
    name = f"replayed {found['replayed']}" if "replayed" in found else ""
    parts: list[RenderableType] = [title(found["workload"], name), facts(rows)]
    if found["cut"]:
        cut = table(["layer"], ["channels", "left", "share"], [])
        for row in found["cut"]:
            before, after = row["channels_before"], row["channels_after"]
            cut.add_row(Text(row["layer"], "bold"), str(before), str(after), human_share(after / before, 0))
        parts += [Text(""), cut]
    whole = [row for row in found["kept_whole"] if row["reason"] != _OUTPUTS]
    if whole:
        kept = table(["kept whole"], ["layers"], ["because"])
        for row in whole:
            kept.add_row(Text(row["layer"], "bold"), str(len(row["layers"])), row["reason"])
        parts += [Text(""), kept]
    return parts


def _aimed(found: Mapping[str, Any]) -> list[tuple[str, str]]:
    """What the exported file shows, where that is what was aimed at."""
    rows = []
    for name in ("latency_ms", "size_kb", "peak_memory_kb"):
        if name in found:
            one, shipped = found[name], found["shipped"]
            where = f"{shipped['precision']} in {shipped['runtime']}"
            where += f" on {shipped['device']}" if name == "latency_ms" else ""
            what, _, unit = name.replace("_", " ").rpartition(" ")
            text = f"{one['before']:g} → {one['measured']:g} {unit} (predicted {one['predicted']:g}), {where}"
            rows.append((what, text))
    if "channel_multiple" in found:
        rows.append(("multiples of", f"{found['channel_multiple']['taken']}, which the kernels like"))
    return rows


def _fewer(pair: Mapping[str, int]) -> str:
    return f"{human_count(pair['before'])} → {human_count(pair['after'])}"


def _sensitivity(found: Mapping[str, Any]) -> list[RenderableType]:
    told = f"by {found['importance']}, {found['samples']} training samples, not fine-tuned"
    listed = table(["layer"], ["channels left: score", "", "", "mean drop"], [])
    for group in found["groups"]:
        points = group["points"]
        shown = [points[len(points) * part // 4] for part in (1, 2, 3)] if len(points) > 3 else points[:3]
        cells = [f"{point['channels']:.0f}: {human_share(point['score'], 1)}" for point in shown]
        cells += [""] * (3 - len(cells))
        listed.add_row(Text(group["layer"], "bold"), *cells, human_share(group["mean_drop"], 1))
    parts: list[RenderableType] = [
        title(found["workload"], told),
        facts([("score, whole", human_share(found["score"])), ("files", ", ".join(found["files"]))]),
        Text(""),
        listed,
    ]
    return parts + ([Text(f"! {found['plot_error']}", "yellow")] if found["plot_error"] else [])
