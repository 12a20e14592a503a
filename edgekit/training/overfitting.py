"""How far the score on what was trained on lies above the one on validation data: told, never acted on."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from edgekit.drawing import shuffled
from edgekit.training.evaluation import evaluate
from edgekit.units import human_share
from edgekit.workload import Workload

__all__ = ["gap", "gap_text", "is_new"]

_SAMPLES = 512  # of each
_GAP = 0.05  # less isn't spoken of, nor what may be chance
_MORE = 0.02  # than the original's: then it comes from this training


def gap(
    model: nn.Module, original: nn.Module | None, workload: Workload, trained: Tensor, seed: int
) -> dict[str, Any]:
    """Scores as JSON, "training" and "validation"; "original" with both of its own, where they part. {} where
    they don't.

    Args:
        original: the model that is compressed; None if there is none to compare with.
        trained: rows of the training data that were trained on; 512 of them, and of the validation data, are
            asked.
    """
    rows = {
        "training": _some(trained, seed),
        "validation": _some(torch.arange(len(workload.validation)), seed),
    }
    found = _scores(model, workload, rows)
    if not _width(found) >= max(_GAP, 2 * _noise(found, rows)):
        return {}
    if original is not None:
        found["original"] = _scores(original, workload, rows)
    return found


def is_new(found: dict[str, Any]) -> bool:
    """Whether the gap is wider than the original's."""
    own = found.get("original")
    return own is None or _width(found) >= _width(own) + _MORE


def gap_text(found: dict[str, Any]) -> str:
    """In words, with the figures."""
    both = (
        f"{human_share(found['training'])} on training data, {human_share(found['validation'])} on validation"
    )
    text = f"over-fitted: {both}" if is_new(found) else f"{both}"
    if own := found.get("original"):
        text += f" (the original: {human_share(own['training'])} and {human_share(own['validation'])})"
    return text


def _scores(model: nn.Module, workload: Workload, rows: dict[str, Tensor]) -> dict[str, Any]:
    return {
        "training": evaluate(model, workload, split="train", rows=rows["training"]).score,
        "validation": evaluate(model, workload, split="validation", rows=rows["validation"]).score,
    }


def _noise(found: dict[str, Any], rows: dict[str, Tensor]) -> float:
    """One standard error of the gap, for scores that are shares of right answers."""
    shares = {name: min(max(float(found[name]), 0.0), 1.0) for name in rows}
    return math.sqrt(sum(s * (1 - s) / max(len(rows[name]), 1) for name, s in shares.items()))


def _some(rows: Tensor, seed: int) -> Tensor:
    return rows[shuffled(len(rows), seed)[:_SAMPLES]].sort().values


def _width(found: dict[str, Any]) -> float:
    width = float(found["training"]) - float(found["validation"])
    return width if math.isfinite(width) else 0.0
