"""Markdown of benchmarks/results/reach.json: foreign networks, one row each, and how far they went."""

from __future__ import annotations

from typing import Any

_WENT = "whole way"


def table(found: dict[str, Any]) -> str:
    """All rows; what falls short is bold."""
    lines = [
        "",
        summary(found),
        "",
        "| network | went | MACs cut | float → int8 graph, dB | ONNX file, dB | LiteRT file, dB | "
        "integer MACs | XNNPACK: partitions, ops outside | "
        "prune + calibrate + export: by the clock, of a core | peak memory |",
        "| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for row in found["rows"]:
        cells = _whole_way(row) if row["went"] == _WENT else [f"**{row['went']}**", *[""] * 6]
        cost = [_seconds(row), f"{row['peak_bytes'] / 1e9:.1f} GB"]
        lines.append(f"| {row['name'].replace(':', ' ')} | {' | '.join([*cells, *cost])} |")
    short = [row for row in found["rows"] if row["went"] != _WENT]
    lines += ["", *(f"- {row['name']}: {' '.join(str(row['failure']).split())}" for row in short)]
    return "\n".join([*lines, "", ""])


def summary(found: dict[str, Any]) -> str:
    """One sentence with the figures that matter."""
    rows = found["rows"]
    went = [row for row in rows if row["went"] == _WENT]
    refused = sum(row["went"] == "refused" for row in rows)
    ended = len(rows) - len(went) - refused
    near = sum(abs(row["macs_reached"] / 1.5 - 1) <= 0.1 for row in went)
    heard = [row["longest_silence"] for row in went if row["longest_silence"]]
    silent = max((one["seconds"] for one in heard), default=0)
    peak = max((row["peak_bytes"] for row in went), default=0)
    return (
        f"{len(rows)} of the {found['known']} networks of the list were tried so far: "
        f"{len(went)} go the whole way, {refused} refused before any training, {ended} ended otherwise; "
        f"{near} of the {len(went)} are cut to within 10 % of the 1.5x that were asked for. "
        f"Largest peak memory {peak / 1e9:.1f} GB; longest silence {silent:.0f} s ({len(heard)} rows tell)."
        f"{_layers(went)}"
    )


def _layers(rows: list[dict[str, Any]]) -> str:
    """What was found out about single layers, in the rows that have it."""
    files = [step for row in rows for step in row["ladder"] if step.get("layers")]
    if not files:
        return ""
    layers = sum(step["layers"] for step in files)
    peak = max(step["layers_peak"] for step in files)
    far = max(step["layers_far"] for step in files)
    return (
        f" {layers:,} layers in {len(files)} files were compared one by one on the file's own integers: of "
        f"those that compute exactly, no value is more than {peak:.0f} step of its grid off"
        + ("." if peak < 1.5 else f", and at most {far:.2%} of a layer's values more than one.")
    )


def _whole_way(row: dict[str, Any]) -> list[str]:
    steps = {step["rung"].rpartition("_")[2]: step for step in row["ladder"]}
    onnx = steps.get("int8.onnx") or steps["7bit.onnx"]
    coverage = [f"{share:.0%}" if share is not None else "?" for share in row["coverage"].values()]
    outside = ", ".join(f"{count} {op}" for op, count in sorted(row["litert"]["outside"].items()))
    return [
        "whole way",
        f"{row['macs_reached']:.2f}",
        _decibels(steps["fake-quantised"]),
        _decibels(onnx) + ("" if "int8.onnx" in steps else ", 7 bits"),
        _decibels(steps["int8.tflite"]),
        " / ".join(dict.fromkeys(coverage)),
        f"{row['litert']['partitions']}" + (f": {outside}" if outside else ""),
    ]


def _decibels(step: dict[str, Any]) -> str:
    """Over all, and of the worst channel."""
    if step["snr_db"] >= 200:
        return "equal"
    worst = step.get("worst_channel_db")
    return f"{step['snr_db']:.0f}" + ("" if worst is None else f" ({worst:.0f})")


def _seconds(row: dict[str, Any]) -> str:
    """By the clock, and of the processor, which other programs change less."""
    spent = [
        sum(row[kind].get(part, 0) for part in ("prune", "qat", "export"))
        for kind in ("seconds", "cpu_seconds")
        if kind in row
    ]
    return ", ".join(f"{seconds:.0f} s" for seconds in spent)
