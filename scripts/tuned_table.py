"""The table of benchmarks/results/int8_vs_tuned.json, for docs/int8.md."""

from __future__ import annotations

from typing import Any

__all__ = ["table"]

_ROADS = {
    "edgekit onnx": "edgekit, ONNX",
    "edgekit litert": "edgekit, LiteRT",
    "ort tuned": "ONNX Runtime, tuned",
    "aeq": "ai-edge-quantizer",
}


def table(found: dict[str, Any]) -> str:
    """Decibels of each road's file against the float model, over everything and of the worst channel."""
    lines = [
        "",
        f"| network | {' | '.join(_ROADS.values())} |",
        "| --- |" + " --- |" * len(_ROADS),
    ]
    for row in found["rows"]:
        cells = [_cell(row.get("files", {}).get(road, {})) for road in _ROADS]
        lines.append(f"| {row['name'].partition(':')[2]} | {' | '.join(cells)} |")
    lines += [
        "",
        f"{found['calibration_samples']} calibration and {found['held_out']} held-out inputs, commit "
        f"{found['commit'][:8]}: [int8_vs_tuned.json](../benchmarks/results/int8_vs_tuned.json).",
        "",
        "",
    ]
    return "\n".join(lines)


def _cell(one: dict[str, Any]) -> str:
    if "snr_db" not in one:
        return "fails"
    worst = one["worst_channel_db"]
    return f"{one['snr_db']:.1f}" + ("" if worst is None else f" ({worst:.1f})")
