"""What a person sees of an inspected file, and pieces that ``inspect.py`` shares."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from edgekit.runtimes import RUNTIMES
from edgekit.units import human_bytes, human_count, human_share

__all__ = ["arena_text", "artifact_parts", "counted", "facts", "port", "sizes", "table", "title"]

_LONGEST = 200  # characters of an entry of metadata


# --- a file ----------------------------------------------------------------------------------------------


def artifact_parts(found: Mapping[str, Any], top: int) -> list[RenderableType]:
    """A title, what is left over in float, facts, tensors. ``top``: how many of each are listed."""
    versions = ", ".join(f"{key} {_version(value)}" for key, value in found["versions"].items() if value)
    beside = f" with {', '.join(found['files_beside'])}" if found.get("files_beside") else ""
    lines = [
        ("file", f"{found['format']}, {human_bytes(found['size_bytes'])}{beside}, sha256 {found['sha256']}"),
        ("versions", versions),
        *[("input", _grid(row)) for row in found["inputs"]],
        *[("output", _grid(row)) for row in found["outputs"]],
        ("weights", _weights(found)),
        ("activations", counted(found["activation_dtypes"]) or "no scales"),
        ("ops", counted(found["operators"])),
    ]
    lines += [
        (f"signature {one['key']}", f"{', '.join(one['inputs'])} → {', '.join(one['outputs'])}")
        for one in found.get("signatures", ())
    ]
    lines += _delegated(found)
    lines += _free(found)
    lines += _executed(found["executed"])
    lines += [("executed", found["executed_error"])] if "executed_error" in found else []
    lines += _judged(found.get("judged"))
    if found["arena"]:
        lines.append(("arena", arena_text(found["arena"])))
    lines += [(f"· {key}", _short(value)) for key, value in found["metadata"].items()]
    parts: list[RenderableType] = [title(found["file"], ""), *_leftovers(found), Text(""), facts(lines)]
    parts += [Text(""), _tensors(found, top)]
    if found["activations"]:
        parts += [Text(""), _activations(found["activations"][:top])]
    return parts


def _free(found: Mapping[str, Any]) -> list[tuple[str, str]]:
    """That MACs were counted at the smallest size, where a file leaves more than its batch free."""
    free = [str(size) for row in found["inputs"] for size in row["shape"][1:] if not isinstance(size, int)]
    if not free or not found["executed"]:
        return []
    return [("free sizes", f"{', '.join(free)}: taken as 1 to see what is executed; MACs are of that size")]


def _delegated(found: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Which ops stand in which piece that a file hands to a delegate, and which in none."""
    if "partitions" not in found:
        return []
    rows = [
        (f"partition {index}", f"{one['backend']}: {counted(one['operators'])}")
        for index, one in enumerate(found["partitions"])
    ]
    rows.append(("in no partition", counted(found["portable"]) or "no op"))
    if found["planned_bytes"]:
        planned = human_bytes(found["planned_bytes"])
        rows.append(("memory, planned", f"{planned} between partitions; what they take inside is not in it"))
    return rows


def _version(value: Any) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{domain} {number}" for domain, number in value.items())
    return str(value)


def _short(text: str) -> str:
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}… ({len(text)} characters)"


def _leftovers(found: Mapping[str, Any]) -> list[Text]:
    """Only where the rest is int8: in a float file nothing is left over."""
    rows = found["float_weights"]
    if not rows or not found["integer_weights"]["tensors"]:
        return []
    named = ", ".join(f"{row['used_by'] or row['name']} {human_bytes(row['bytes'])}" for row in rows[:5])
    more = f" and {len(rows) - 5} more" if len(rows) > 5 else ""
    return [Text(f"! {len(rows)} weights are still float: {named}{more}", "yellow")]


def _weights(found: Mapping[str, Any]) -> str:
    integer, floats = found["integer_weights"], found["float_weights"]
    parts = [f"{integer['tensors']} integer ({human_bytes(integer['bytes'])})"] if integer["tensors"] else []
    parts += [f"{len(floats)} float ({human_bytes(sum(row['bytes'] for row in floats))})"] if floats else []
    kinds = ", ".join(f"{key} {human_bytes(one['bytes'])}" for key, one in found["constant_dtypes"].items())
    return f"{', '.join(parts) or 'none'}; all constants: {kinds or 'none'}"


def _executed(executed: Mapping[str, Any] | None) -> list[tuple[str, str]]:
    if executed is None:
        return []
    name = f"{RUNTIMES[executed['runtime']].title} {executed['version']}"
    rows = [("executed", f"{name}: {counted(executed['operators'])}")]
    if executed["xnnpack_partitions"] is not None:
        outside = executed["outside_xnnpack"]
        left = f"; left to slower kernels: {counted(outside)}" if outside else ""
        count = executed["xnnpack_partitions"]
        rows.append(("in XNNPACK", f"{count} partition{'' if count == 1 else 's'}{left}"))
    coverage = executed["coverage"]
    if coverage is None:
        return [*rows, ("int8 coverage", f"not counted: {executed['coverage_error']}")]
    floats = [layer for layer in coverage["layers"] if not layer["integer"]]
    text = f"{human_share(coverage['share'], 1)} of {human_count(coverage['total_macs'])} MACs"
    text += (
        f"; float: {', '.join(layer['name'] for layer in floats[:5])}" if floats and coverage["share"] else ""
    )
    rows.append(("int8 coverage", text))
    if executed["arena_bytes"]:
        rows.append(
            ("arena, planned", f"{human_bytes(executed['arena_bytes'])}, scratch of its kernels included")
        )
    return rows


def _bracketed(parts: Sequence[str]) -> str:
    return f" ({'; '.join(parts)})" if parts else ""


def _judged(step: Mapping[str, Any] | None) -> list[tuple[str, str]]:
    """How near the file is to what it was made from, and whether each layer computes what it should."""
    if step is None:
        return []
    equal = step["snr_db"] >= 200  # what stands for equal numbers
    whole = "the same numbers" if equal else f"{step['snr_db']:.0f} dB"
    worst = [
        f"worst {kind} {step[f'worst_{kind}_db']:.0f}"
        for kind in ("channel", "sample")
        if step[f"worst_{kind}_db"] is not None and not equal
    ]
    if step["steady_db"] is not None:
        worst.append(f"the graph itself, with one rounding in 1,000 moved by a step, {step['steady_db']:.0f}")
    rows = [(f"against {step['against']}", f"{whole}{_bracketed(worst)}")]
    if step["layers"] and step["layers_peak"] is not None:
        text = f"{step['layers']} compared one by one on the file's own integers: at most "
        text += f"{step['layers_peak']:.1f} steps of their grids off"
        rows.append(("layers", text + (", which the network makes grow" if step["amplified"] else "")))
    if (lost := step["lost_channels"]) is not None:
        named = ", ".join(f"{one['channel']} ({one['snr_db']:.0f} dB)" for one in lost["worst"])
        rows.append(("lost channels", f"{lost['count']} of {lost['channels']}: {named}"))
    return rows


def _tensors(found: Mapping[str, Any], top: int) -> Table:
    shown = found["tensors"][:top]
    listed = table(
        [f"tensor ({len(shown)} of {found['tensors_in_file']})"], ["bytes", "share"], ["type", "scale", "for"]
    )
    for row in shown:
        listed.add_row(
            Text(row["name"], "bold"),
            human_bytes(row["bytes"]),
            human_share(row["share"], 1),
            f"{row['dtype']} {sizes(row['shape'])}",
            _scale(row),
            f"{row['role']} {row['used_by']}".strip()
            + (f" (in {row['external']})" if "external" in row else ""),
        )
    return listed


def _activations(rows: Sequence[Mapping[str, Any]]) -> Table:
    listed = table(["activation", "type", "scale"], [], [])
    for row in rows:
        listed.add_row(row["name"], " ".join([row["dtype"], sizes(row.get("shape"))]).strip(), _scale(row))
    return listed


def _scale(row: Mapping[str, Any]) -> str:
    scale = row.get("scale")
    if scale is None:
        return ""
    zero = row["zero_point"]
    if isinstance(scale, Mapping):
        text = f"{scale['count']} × {scale['min']:.3g}…{scale['max']:.3g}"
        return text + (f", zero {zero['min']}…{zero['max']}" if (zero["min"], zero["max"]) != (0, 0) else "")
    return f"{scale:.4g}, zero {zero}"


def _grid(row: Mapping[str, Any]) -> str:
    scale = _scale(row)
    return f"{row['name']}: {port(row)}" + (f", scale {scale}" if scale else "")


# --- pieces ---------------------------------------------------------------------------------------------


def title(name: str, rest: str) -> Text:
    """A name, and what else stands in its line."""
    return Text(name, "bold").append(f"  {rest}" if rest else "", "")


def facts(rows: Iterable[tuple[str, str]]) -> Table:
    """Two columns without heads: what, and how much."""
    listed = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), show_header=False)
    listed.add_column(style="dim", no_wrap=True)
    listed.add_column(overflow="fold")
    for key, value in rows:
        listed.add_row(key, Text(value))
    return listed


def table(left: Sequence[str], right: Sequence[str], rest: Sequence[str]) -> Table:
    """Columns of text, then of numbers, then of text again."""
    listed = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for head in left:
        listed.add_column(head, overflow="fold")
    for head in right:
        listed.add_column(head, justify="right", no_wrap=True)
    for head in rest:
        listed.add_column(head, overflow="fold")
    return listed


def counted(counts: Mapping[str, int]) -> str:
    """``Conv 3, Relu 2``."""
    return ", ".join(f"{name} {count}" for name, count in counts.items())


def port(row: Mapping[str, Any]) -> str:
    """Type and shape: ``float32 1×3×8×8``."""
    return f"{row['dtype']} {sizes(row['shape'])}"


def sizes(shape: Sequence[Any] | None) -> str:
    """A shape: ``1×3×8×8``."""
    return "×".join(map(str, shape)) if shape else ""


def arena_text(arena: Mapping[str, Any]) -> str:
    """The peak, where it is, and its largest tensors."""
    largest = ", ".join(f"{row['name']} {human_bytes(row['bytes'])}" for row in arena["largest"][:2])
    peak = f"{human_bytes(arena['bytes'])} at {arena['at'] or 'the input'}"
    return f"{peak}: {largest}" if largest else peak
