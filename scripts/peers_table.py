"""The tables of benchmarks/results/int8_against_peers.json, for docs/int8.md."""

from __future__ import annotations

from typing import Any

__all__ = ["near", "times"]

_NEAR = {
    "edgekit onnx": "edgekit, ONNX",
    "edgekit litert": "edgekit, LiteRT",
    "ort tuned": "ONNX Runtime, tuned",
    "aeq": "ai-edge-quantizer",
    "nncf openvino": "NNCF, OpenVINO",
}
# Runtime -> the float file, edgekit's int8 file and the peer's int8 file in it.
_TIMES = {
    "ONNX Runtime": ("fp32 onnx", "edgekit onnx", "ort tuned"),
    "LiteRT": ("fp32 litert", "edgekit litert", "aeq"),
    "OpenVINO": ("fp32 openvino", "edgekit openvino", "nncf openvino"),
}
_OWN_FLOAT = "edgekit fp32 litert"


def near(found: dict[str, Any]) -> str:
    """Decibels of each road's file against the float model, over everything and of the worst channel."""
    rows = [
        [row["name"].partition(":")[2], *(_decibels(row.get("files", {}).get(road, {})) for road in _NEAR)]
        for row in found["rows"]
    ]
    return _table(["network", *_NEAR.values()], rows, found)


def times(found: dict[str, Any]) -> str:
    """Milliseconds of float / edgekit's int8 / the peer's int8 in each runtime, and ratios of the best."""
    rows = []
    for row in found["rows"]:
        files = row.get("files", {})
        cells = [
            " / ".join(_milliseconds(files.get(road, {})) for road in roads) for roads in _TIMES.values()
        ]
        float_, ours, peer = (_best(files, which) for which in (0, 1, 2))
        rows.append([row["name"].partition(":")[2], *cells, _ratio(float_, ours), _ratio(peer, ours)])
    return _table(["network", *_TIMES, "float / edgekit", "peer / edgekit"], rows, found)


def _best(files: dict[str, Any], which: int) -> float | None:
    roads = [roads[which] for roads in _TIMES.values()] + ([_OWN_FLOAT] if which == 0 else [])
    known = [files[road]["p50_us"] for road in roads if "p50_us" in files.get(road, {})]
    return min(known, default=None)


def _ratio(other: float | None, ours: float | None) -> str:
    return f"{other / ours:.2f}" if other and ours else "?"


def _milliseconds(one: dict[str, Any]) -> str:
    return f"{one['p50_us'] / 1e3:.2f}" if "p50_us" in one else "fails" if "error" in one else "?"


def _decibels(one: dict[str, Any]) -> str:
    if "snr_db" not in one:
        return "fails"
    worst = one["worst_channel_db"]
    return f"{one['snr_db']:.1f}" + ("" if worst is None else f" ({worst:.1f})")


def _table(head: list[str], rows: list[list[str]], found: dict[str, Any]) -> str:
    lines = ["", f"| {' | '.join(head)} |", "| --- |" + " --- |" * (len(head) - 1)]
    lines += [f"| {' | '.join(row)} |" for row in rows]
    about = (
        f"{found['calibration_samples']} calibration and {found['held_out']} held-out inputs, commit "
        f"{found['commit'][:8]}: [int8_against_peers.json](../benchmarks/results/int8_against_peers.json)."
    )
    return "\n".join([*lines, "", about, "", ""])
