"""The floor of a training: it never ends below what it started with, on training data that was held out."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from torch import nn

from edgekit.checkpoint import copied
from edgekit.training.held_out import HeldOut
from edgekit.units import human_share

__all__ = ["Floor", "floor_text"]

# What a stage's training starts with.
_STARTS = {"prune": "left as it was after the cut", "qat": "left as it was calibrated"}


class Floor:
    """The model as a training found it, for the time when it ends.

    Args:
        model: before the first step, also of a training that goes on from a checkpoint.
        held: the samples that judge.
        facts: of the training; "floor" is kept there: "stage", "samples" that judge, "held_out" (whether they
            are apart from those that are trained on), "before" and, in the end, "after" (scores), "kept"
            ("end" or "start").
    """

    def __init__(self, model: nn.Module, held: HeldOut, stage: str, facts: dict[str, Any]) -> None:
        assert held.judged is not None
        self.start: dict[str, Any] = copied(model.state_dict())
        self.about = {"stage": stage, "samples": len(held.judged), "held_out": held.apart}
        self.facts = facts

    def begin(self, score: Callable[[], float]) -> None:
        """Before the first step: what the start is worth. A checkpoint knows it already."""
        if "floor" not in self.facts:
            self.facts["floor"] = {**self.about, "before": _told(score())}

    def settle(self, model: nn.Module, score: Callable[[], float]) -> None:
        """At the end: the start again, if it was better. Of equal ones the end counts."""
        found = self.facts["floor"]
        found["after"] = _told(score())
        better = _worth(found["before"]) > _worth(found["after"])
        found["kept"] = "start" if better else "end"
        if better:
            model.load_state_dict(self.start)


def floor_text(found: dict[str, Any]) -> str:
    """In words, if the start was kept; else ""."""
    if found.get("kept") != "start":
        return ""
    both = " → ".join("no number" if s is None else human_share(s) for s in (found["before"], found["after"]))
    where = "held-out training data" if found["held_out"] else "its training data"
    return (
        f"training made it worse ({both} on {where}): {_STARTS.get(found['stage'], 'left as it was before')}"
    )


def _told(score: float) -> float | None:
    return score if math.isfinite(score) else None


def _worth(score: float | None) -> float:
    return -math.inf if score is None else score
