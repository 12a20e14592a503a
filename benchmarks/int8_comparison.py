"""What int8_vs_default.py makes of measured files: which one is recommended, rows, tables and verdicts."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np

from edgekit.bench import stats

CALIBRATION, BATCH, HELD_OUT = 64, 32, 32
MIN_SNR_DB = 20.0
REQUIRED_RATIO = 2.0


@dataclass(frozen=True)
class Variant:
    """One road from the torch model to a file."""

    key: str
    title: str
    runtime: str
    precision: Literal["fp32", "int8"]
    edgekit: bool = False


VARIANTS = {
    one.key: one
    for one in (
        Variant("fp32_onnx", "edgekit fp32 ONNX", "onnxruntime", "fp32", edgekit=True),
        Variant("fp32_litert", "edgekit fp32 LiteRT", "litert", "fp32", edgekit=True),
        Variant("int8_onnx", "edgekit int8 ONNX", "onnxruntime", "int8", edgekit=True),
        Variant("int8_litert", "edgekit int8 LiteRT", "litert", "int8", edgekit=True),
        Variant("torch_fp32", "torch.onnx.export fp32", "onnxruntime", "fp32"),
        Variant("quantize_static", "onnxruntime quantize_static, defaults", "onnxruntime", "int8"),
        Variant(
            "quantize_static_pre", "onnxruntime quant_pre_process + quantize_static", "onnxruntime", "int8"
        ),
        Variant("nncf", "nncf.quantize + strip + torch.onnx.export", "onnxruntime", "int8"),
    )
}
REFERENCE = "fp32_onnx"
PEERS = ("quantize_static", "quantize_static_pre", "nncf")


@dataclass
class File:
    """One file of one network, and what was found out about it. ``error``: why there is nothing more."""

    variant: Variant
    path: Path
    error: str = ""
    raw_ns: list[int] = field(default_factory=list, repr=False)
    unstable: str = ""
    snr_db: float | None = None
    coverage: float | None = None
    size_bytes: int = 0

    @property
    def p50_ns(self) -> float:
        """Infinite for a file that could not be measured."""
        return stats.percentile(self.raw_ns, 50) if self.raw_ns else math.inf


Files = dict[str, File]


# --- from measured files to rows


def eligible(one: File) -> bool:
    """Whether edgekit may recommend the file here: measured, and right."""
    right = one.variant.precision == "fp32" or (one.snr_db is not None and one.snr_db >= MIN_SNR_DB)
    return one.variant.edgekit and bool(one.raw_ns) and not one.error and right


def recommended(files: Files) -> File | None:
    """The fastest of edgekit's eligible files, of equals the smaller one, as ``edgekit.report`` does."""
    return min(filter(eligible, files.values()), key=lambda one: (one.p50_ns, one.size_bytes), default=None)


def slower(one: File | None, reference: File | None) -> bool:
    """By p50. A file that could not be measured is not slower; its row says so."""
    return bool(one and reference and one.raw_ns and reference.raw_ns and one.p50_ns > reference.p50_ns)


def count_slower(results: dict[str, Files], choose: Callable[[Files], File | None]) -> int:
    """On how many networks the chosen file is slower than edgekit's fp32 ONNX."""
    return sum(slower(choose(files), files.get(REFERENCE)) for files in results.values())


def chosen(key: str) -> Callable[[Files], File | None]:
    return lambda files: files.get(key)


def rows(results: dict[str, Files]) -> list[dict[str, Any]]:
    """One row for each peer, the required one first; single networks and like for like in ``details``."""
    found = []
    for peer in PEERS:
        row = geometric_row(results, recommended, peer, "p50 latency, 1 thread, recommended file")
        row["details"] = [
            *network_rows(results, recommended, peer, "p50 latency, 1 thread, recommended file"),
            geometric_row(results, chosen("int8_onnx"), peer, "p50 latency, 1 thread, int8 in ONNX Runtime"),
            *network_rows(results, chosen("int8_onnx"), peer, "p50 latency, 1 thread, int8 in ONNX Runtime"),
        ]
        found.append(row)
    for key in (REFERENCE, "torch_fp32"):
        metric = "p50 latency, 1 thread, recommended file"
        found[0]["details"] += network_rows(results, recommended, key, metric)
    metric = "p50 latency, 1 thread, int8 in ONNX Runtime"
    found[0]["details"] += network_rows(results, chosen("int8_onnx"), REFERENCE, metric)
    found[0]["files"] = [described(name, one) for name, files in results.items() for one in files.values()]
    found[0]["notes"] = NOTES
    return found


NOTES = [
    "edgekit: the fastest by p50 of its four files (fp32 and int8, ONNX and LiteRT). Weights are random, so "
    f"accuracy is not judged; an int8 file is eligible if its answers reach {MIN_SNR_DB:g} dB against fp32.",
    "ratio: peer / edgekit, above 1 where edgekit is faster; ratio_low, ratio_high: 95 % bootstrap interval.",
    "slower_than_fp32: on how many networks edgekit's file of that row is slower than edgekit's fp32 ONNX; "
    "peer_slower_than_fp32: the same of the peer's.",
    f"All roads were given the same {CALIBRATION} inputs; the answers are compared on {HELD_OUT} others.",
]


def geometric_row(
    results: dict[str, Files], choose: Callable[[Files], File | None], peer: str, metric: str
) -> dict[str, Any]:
    """The geometric mean over the networks on which both could be measured."""
    pairs = [(choose(files), files.get(peer)) for files in results.values()]
    timed = [(ours.raw_ns, theirs.raw_ns) for ours, theirs in pairs if both_measured(ours, theirs)]  # type: ignore[union-attr]
    row: dict[str, Any] = {
        "name": "geometric mean",
        "metric": metric,
        "unit": "µs",
        "edgekit": microseconds(geometric_mean([stats.percentile(ours, 50) for ours, _ in timed])),
        "peer": microseconds(geometric_mean([stats.percentile(theirs, 50) for _, theirs in timed])),
        "peer_name": VARIANTS[peer].title,
        **ratio_of(timed),
        "samples": sum(len(ours) + len(theirs) for ours, theirs in timed),
        "networks": len(timed),
        "slower_than_fp32": count_slower(results, choose),
        "peer_slower_than_fp32": count_slower(results, chosen(peer)),
    }
    if len(timed) < len(results):
        row["error"] = f"measured on {len(timed)} of {len(results)} networks, see the rows of the others"
    return row


def network_rows(
    results: dict[str, Files], choose: Callable[[Files], File | None], peer: str, metric: str
) -> list[dict[str, Any]]:
    return [
        network_row(name, files, choose(files), files.get(peer), metric) for name, files in results.items()
    ]


def network_row(
    name: str, files: Files, ours: File | None, theirs: File | None, metric: str
) -> dict[str, Any]:
    timed = [(ours.raw_ns, theirs.raw_ns)] if both_measured(ours, theirs) else []  # type: ignore[union-attr]
    row: dict[str, Any] = {
        "name": name,
        "metric": metric,
        "unit": "µs",
        "edgekit": microseconds(ours.p50_ns if ours else math.inf),
        "edgekit_file": ours.variant.title if ours else None,
        "peer": microseconds(theirs.p50_ns if theirs else math.inf),
        "peer_name": theirs.variant.title if theirs else None,
        **ratio_of(timed),
        "samples": sum(len(one.raw_ns) for one in (ours, theirs) if one),
        "slower_than_fp32": int(slower(ours, files.get(REFERENCE))),
        "peer_slower_than_fp32": int(slower(theirs, files.get(REFERENCE))),
    }
    errors = [f"{one.variant.title}: {one.error}" for one in (ours, theirs) if one and one.error]
    if ours is None:
        errors.append("none of edgekit's files could be recommended")
    return row | ({"error": "; ".join(errors)} if errors else {})


def both_measured(ours: File | None, theirs: File | None) -> bool:
    return bool(ours and theirs and ours.raw_ns and theirs.raw_ns)


def ratio_of(timed: Sequence[tuple[list[int], list[int]]], resamples: int = 2000) -> dict[str, float | None]:
    """Geometric mean of peer / edgekit, and its 95 % bootstrap interval: all medians are resampled."""
    if not timed:
        return dict.fromkeys(("ratio", "ratio_low", "ratio_high"))
    ratio = geometric_mean(
        [stats.percentile(theirs, 50) / stats.percentile(ours, 50) for ours, theirs in timed]
    )
    if len(timed) == 1:
        interval = stats.ratio_interval(timed[0][1], timed[0][0])
        low, high = interval.low, interval.high
    else:
        rng = np.random.default_rng(0)
        logs = np.zeros(resamples)
        for ours, theirs in timed:
            logs += np.log(stats.bootstrap_medians(theirs, resamples, rng))
            logs -= np.log(stats.bootstrap_medians(ours, resamples, rng))
        low, high = (float(one) for one in np.exp(np.quantile(logs / len(timed), [0.025, 0.975])))
    return {"ratio": round(ratio, 4), "ratio_low": round(low, 4), "ratio_high": round(high, 4)}


def geometric_mean(values: Sequence[float]) -> float:
    """Infinite for no values: nothing was measured."""
    return math.exp(sum(math.log(value) for value in values) / len(values)) if values else math.inf


def microseconds(nanoseconds: float) -> float | None:
    return round(nanoseconds / 1e3, 2) if math.isfinite(nanoseconds) else None


def described(network: str, one: File) -> dict[str, Any]:
    return {
        "network": network,
        "file": one.variant.title,
        "runtime": one.variant.runtime,
        "precision": one.variant.precision,
        "p50_us": microseconds(one.p50_ns),
        "p90_us": microseconds(stats.percentile(one.raw_ns, 90)) if one.raw_ns else None,
        "samples": len(one.raw_ns),
        "size_bytes": one.size_bytes or None,
        "int8_coverage": None if one.coverage is None else round(one.coverage, 4),
        "snr_db": None if one.snr_db is None or math.isinf(one.snr_db) else round(one.snr_db, 1),
        "unstable": one.unstable or None,
        "error": one.error or None,
    }


def raw(results: dict[str, Files]) -> dict[str, dict[str, list[int]]]:
    """Every single timing in nanoseconds, in the order in which they were taken."""
    return {name: {key: one.raw_ns for key, one in files.items()} for name, files in results.items()}


# --- what is printed


def table(results: dict[str, Files]) -> str:
    lines = []
    for name, files in results.items():
        best = recommended(files)
        lines.append(f"\n{name}")
        for one in files.values():
            mark = "*" if one is best else " "
            lines.append(f" {mark} {one.variant.title:<50}{figures(one)}")
    return "\n".join([*lines, "\n* recommended   ? unstable timing"])


def figures(one: File) -> str:
    if one.error:
        return f"failed: {one.error}"
    text = f"{one.p50_ns / 1e3:9.1f} µs{'?' if one.unstable else ' '}"
    snr = "" if one.snr_db is None else f"{one.snr_db:6.1f} dB"
    return text + (f"{snr:>12}{one.coverage:>8.0%} int8" if one.coverage is not None else f"{snr:>12}")


def verdicts(results: dict[str, Files]) -> list[str]:
    """The two required outcomes, and what else must be said."""
    lines = []
    for peer in PEERS:
        row = geometric_row(results, recommended, peer, "")
        like = geometric_row(results, chosen("int8_onnx"), peer, "")
        lines.append(
            f"{VARIANTS[peer].title}: slower than fp32 on {row['peer_slower_than_fp32']} of {len(results)} "
            f"networks; edgekit is {row['ratio']} times as fast, its int8 ONNX {like['ratio']} times"
        )
    count = count_slower(results, chosen("int8_onnx"))
    lines.append(f"edgekit's int8 ONNX is slower than its fp32 ONNX on {count} of {len(results)} networks")
    late = [name for name, files in results.items() if late_against_fp32(files)]
    text = f"the recommended file is never slower than fp32 (any fp32 file{f'; but: {late}' if late else ''})"
    ratio = geometric_row(results, recommended, PEERS[0], "")["ratio"]
    wanted = f"{REQUIRED_RATIO:g} times as fast as {VARIANTS[PEERS[0]].title}: {ratio}"
    lines += [f"{mark(not late)}: {text}", f"{mark(ratio is not None and ratio >= REQUIRED_RATIO)}: {wanted}"]
    return lines


def late_against_fp32(files: Files) -> bool:
    """Whether nothing can be recommended, or any fp32 file is faster than what is."""
    best = recommended(files)
    floats = [one for one in files.values() if one.variant.precision == "fp32"]
    return best is None or any(slower(best, one) for one in floats)


def mark(holds: bool) -> str:
    return "PASS" if holds else "FALLS SHORT"
