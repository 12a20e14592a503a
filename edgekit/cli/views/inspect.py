"""What a person sees of ``edgekit inspect``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from edgekit.cli.views.artifact import arena_text, artifact_parts, facts, port, sizes, table, title
from edgekit.cli.views.console import PLAIN_WIDTH
from edgekit.int8.rules import PREDICTED
from edgekit.runtimes import RUNTIMES
from edgekit.units import human_bytes, human_count, human_share

_TITLES = {name: RUNTIMES[name].title for name in PREDICTED}
SHOWN = 10  # tensors and activations, where --top says nothing


def inspect_view(
    found: Mapping[str, Any], width: int = PLAIN_WIDTH, top: int | None = None
) -> RenderableType:
    """The result of ``edgekit.inspecting.inspect``: what is wrong first, then tables."""
    parts = _model(found, width) if found["kind"] == "model" else artifact_parts(found, top or SHOWN)
    if "device" in found:
        parts += [Text(""), *_device(found["device"])]
    return Group(*parts)


# --- a model ---------------------------------------------------------------------------------------------


def _ports(found: Mapping[str, Any], side: str) -> str:
    if side in found:
        return str(port(found[side]))
    return ", ".join(f"{name} {port(one)}" for name, one in found[f"{side}s"].items())


def _model(found: Mapping[str, Any], width: int) -> list[RenderableType]:
    totals, arena = found["totals"], found["arena"]
    parts: list[RenderableType] = [
        title(found["name"], f"{_ports(found, 'input')} → {_ports(found, 'output')}"),
        *_warnings(found),
        Text(""),
        facts(
            [
                ("parameters, MACs", f"{human_count(totals['parameters'])}, {human_count(totals['macs'])}"),
                (
                    "file, about",
                    f"{human_bytes(totals['fp32_bytes'])} float, {human_bytes(totals['int8_bytes'])} int8",
                ),
                *[(f"arena, {key}", arena_text(arena[key])) for key in ("fp32", "int8")],
                *[(f"int8 in {label}", _coverage(found["runtimes"][key])) for key, label in _TITLES.items()],
                ("pruning", _pruning(found["pruning"])),
            ]
        ),
        Text(""),
        _layers(found["layers"], width),
        Text(""),
        _operators(found["operators"]),
    ]
    lacks = _lacks(found["runtimes"])
    return parts + ([Text(""), lacks] if lacks else [])


def _warnings(found: Mapping[str, Any]) -> list[Text]:
    lines = [found["int8_error"]] if found["int8_error"] else []
    for key, label in _TITLES.items():
        refused = [row for row in found["runtimes"][key]["lacks"] if row["refused"]]
        lines += [f"no file for {label}: {row['op']}: {row['reason']} ({row['way_out']})" for row in refused]
    lines += [f"can't be pruned: {found['pruning']['error']}"] if found["pruning"]["error"] else []
    return [Text(f"! {line}", "yellow") for line in lines]


def _coverage(runtime: Mapping[str, Any]) -> str:
    if not runtime["exports"]:
        return "no file"
    return f"{human_share(runtime['coverage'], 1)} of MACs (predicted)"


def _pruning(pruning: Mapping[str, Any]) -> str:
    if pruning["furthest"] is None:
        return "not possible"
    if not pruning["groups"]:
        return "no channels can be cut"
    furthest, limits = pruning["furthest"], pruning["limits"]
    text = f"{len(pruning['groups'])} groups of channels can be cut, {len(pruning['kept_whole'])} can't; "
    return text + (
        f"at most {furthest['speedup']:.1f}× fewer MACs, {furthest['shrink']:.1f}× fewer parameters "
        f"(channel_multiple {limits['channel_multiple']}, max_ratio {limits['max_ratio']:g})"
    )


def _layers(layers: Sequence[Mapping[str, Any]], width: int) -> Table:
    listed = table(["layer", "kind", "input → output"], ["MACs", "parameters"], ["prunes", "integer"])
    for row in layers:
        shapes = f"{sizes(row['input'])} → {sizes(row['output'])}"
        if row["weight"] and len(row["weight"]) > 2:
            shapes += f", {'×'.join(map(str, row['weight'][2:]))}"
        listed.add_row(
            Text(row["name"], "bold"),
            row["kind"],
            shapes,
            human_count(row["macs"]),
            human_count(row["parameters"]),
            _prunes(row["prunable"], width),
            _integer(row),
        )
    return listed


def _prunes(prunable: Mapping[str, Any], width: int) -> Text:
    if not prunable["cut"]:
        return Text(f"no: {prunable['reason']}", "dim")
    others = prunable["with"]
    text = f"yes, {prunable['channels']}"
    if others:
        text += f" with {others[0]}" + (f" and {len(others) - 1} more" if len(others) > 1 else "")
    return Text(text if width >= PLAIN_WIDTH else f"yes, {prunable['channels']}")


def _integer(row: Mapping[str, Any]) -> Text:
    floats = {label: row[key]["reason"] for key, label in _TITLES.items() if not row[key]["integer"]}
    if not floats:
        return Text("both", "green")
    if len(set(floats.values())) == 1 and len(floats) == len(_TITLES):
        return Text(f"no: {next(iter(floats.values()))}", "yellow")
    return Text("; ".join(f"not in {label}: {reason}" for label, reason in floats.items()), "yellow")


def _operators(operators: Sequence[Mapping[str, Any]]) -> Text:
    roles = {
        "clamp": "clamps (part of the layer before)",
        "move": "moves (integers as they are)",
        "integer": "integer",
        "float": "float islands",
        "index": "shapes and indices",
    }
    text = Text("other ops", "bold")
    for role, label in roles.items():
        rows = [row for row in operators if row["role"] == role]
        if rows:
            names = ", ".join(f"{row['op']} {row['count']}" for row in rows)
            text.append(f"\n  {label}: {names}", "yellow" if role == "float" else "")
    return text


def _lacks(runtimes: Mapping[str, Any]) -> Table | None:
    """One line for what both runtimes lack for the same reason."""
    found: dict[tuple[str, ...], list[str]] = {}
    for key, label in _TITLES.items():
        for row in runtimes[key]["lacks"]:
            line: tuple[str, ...] = (row["op"], str(row["count"]), row["reason"], row["way_out"])
            found.setdefault(line, []).append(label)
    listed = table(["what a runtime lacks", "op"], ["count"], ["because", "way out"])
    for line, labels in found.items():
        listed.add_row("both" if len(labels) == len(_TITLES) else labels[0], *line)
    return listed if found else None


# --- a device --------------------------------------------------------------------------------------------


def _device(device: Mapping[str, Any]) -> list[RenderableType]:
    memory, dot = device["memory"], device["int8_dot_product"]
    rows = [("cpu", device["cpu"] or "not asked")]
    for key, label in _TITLES.items():
        one = device["runtimes"][key]
        rows.append((label, (one["version"] or "applies") if one["applies"] else f"no: {one['reason']}"))
    needed = "unknown" if memory["needed_bytes"] is None else f"about {human_bytes(memory['needed_bytes'])}"
    have = "unknown" if memory["bytes"] is None else human_bytes(memory["bytes"])
    verdict = {True: "enough", False: "NOT enough", None: "can't be compared"}[memory["suffices"]]
    flash = device["flash"]
    kept = "activations" if flash else "weights and activations"
    rows.append(("memory", f"{verdict}: needs {needed} ({kept}), has {have}"))
    if flash:
        verdict = "enough" if flash["suffices"] else "NOT enough"
        sizes = human_bytes(flash["needed_bytes"]), human_bytes(flash["bytes"])
        rows.append(("flash", f"{verdict}: needs {sizes[0]} (the file), has {sizes[1]}"))
    has = {True: "yes", False: "no", None: ""}[dot["has"]]
    rows.append(("int8 dot products", " ".join(filter(None, [has, ", ".join(dot["by"]), dot["note"]]))))
    return [title(f"on {device['name']}", device["description"]), facts(rows)]
