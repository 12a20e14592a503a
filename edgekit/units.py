"""Numbers for a person. Files and interfaces keep plain units: ``latency_ns``, ``size_bytes``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def human_bytes(size: float) -> str:
    """``1536`` as ``1.5 KB``; decimal units, as file managers and datasheets use."""
    for unit in ("B", "KB", "MB"):
        if size < 1000:
            return f"{_three(size)} {unit}" if unit != "B" else f"{size:.0f} B"
        size /= 1000
    return f"{_three(size)} GB"


def human_count(count: float) -> str:
    """``269722`` as ``270 k``."""
    for unit in ("", " k", " M", " G"):
        if count < 1000:
            return f"{_three(count)}{unit}" if unit else f"{count:.0f}"
        count /= 1000
    return f"{_three(count)} T"


def human_ns(nanoseconds: float) -> str:
    """``285000`` as ``285 µs``."""
    for unit in ("ns", "µs", "ms"):
        if nanoseconds < 1000:
            return f"{_three(nanoseconds)} {unit}"
        nanoseconds /= 1000
    return f"{_three(nanoseconds)} s"


def human_seconds(seconds: float) -> str:
    """``3725`` as ``1 h 02 min``."""
    if seconds < 10:
        return f"{seconds:.1f} s"
    if seconds < 60:
        return f"{seconds:.0f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest:02d} s"
    return f"{minutes // 60} h {minutes % 60:02d} min"


def human_share(share: float | None, digits: int = 2) -> str:
    """``0.9173`` as ``91.73 %``; ``–`` for what isn't known."""
    return "–" if share is None else f"{100 * share:.{digits}f} %"


def score_name(task: Mapping[str, Any]) -> str:
    """What a task's number is called, from its description: "accuracy", "mean IoU", "R²" …"""
    return str(task.get("metric", "top-1")).replace("top-1", "accuracy")


def _three(value: float) -> str:
    return f"{value:.2f}" if value < 10 else f"{value:.1f}" if value < 100 else f"{value:.0f}"
