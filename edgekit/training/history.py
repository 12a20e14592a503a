"""What a training tells afterwards: its epochs, and whatever happened that one wouldn't expect."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from edgekit.training.floor import floor_text
from edgekit.training.overfitting import gap_text
from edgekit.units import human_share

__all__ = ["TrainingHistory"]


@dataclass(frozen=True)
class TrainingHistory:
    """``epochs``: one entry each, "epoch" (from 1), "loss", "accuracy" (on training batches), "lr",
    "seconds", "images_per_second", "roll_backs" (before it), and with early stopping "held_out" (its score).

    ``facts``: JSON. "roll_backs": for each "epoch" in which the training diverged, "back_to" (the epochs that
    were kept), "seen" (what it was) and "lr" (the peak from there). "lr_found": the range test's result.
    "kept_epoch": the one whose weights were kept, where early stopping chose; "stopped_early": whether it
    was the patience that ended the training. "features": the pairs of layers that were compared; "teachers":
    how many, if several; "unlabelled": there were no labels to train on. "sized": how the settings followed
    the data; "floor": see ``floor.Floor``; "gap": see ``overfitting.gap``; "untouched": parameters that had
    no gradient; "thawed": the model was frozen as a whole; "more_outputs": what it would answer in train
    mode.
    """

    epochs: list[dict[str, float]] = field(default_factory=list)
    facts: dict[str, Any] = field(default_factory=dict)

    @property
    def note(self) -> str:
        """The facts as one line for the report; "" if there is nothing to tell."""
        told = []
        if self.facts.get("thawed"):
            told.append("the model was frozen as a whole: all of it was trained")
        if more := self.facts.get("more_outputs"):
            told.append(
                f"in train mode the model answers {more}: only what it answers in eval mode was trained"
            )
        if sized := self.facts.get("sized"):
            told.append(sized)
        if found := self.facts.get("lr_found"):
            told.append(lr_text(found))
        told += [roll_back_text(one) for one in self.facts.get("roll_backs", ())]
        if kept := self.facts.get("kept_epoch"):
            score = human_share(self.epochs[kept - 1]["held_out"])
            stopped = "stopped" if self.facts.get("stopped_early") else "ended"
            told.append(f"{stopped} after epoch {len(self.epochs)}, epoch {kept} kept (held out: {score})")
        if count := self.facts.get("teachers"):
            told.append(f"{count} teachers, averaged")
        if self.facts.get("unlabelled"):
            told.append("no labels: learned from the teacher's answers alone")
        if features := self.facts.get("features"):
            told.append(features_text(features))
        if untouched := self.facts.get("untouched"):
            told.append(untouched_text(untouched))
        if (floor := self.facts.get("floor")) and (text := floor_text(floor)):
            told.append(text)
        if found := self.facts.get("gap"):
            told.append(gap_text(found))
        return "; ".join(told)

    def details(self) -> dict[str, Any]:
        """For a stage's details: "history", and "training" where there are facts."""
        facts = {key: value for key, value in self.facts.items() if value}
        return {"history": self.epochs, **({"training": facts} if facts else {})}


def lr_text(found: dict[str, Any]) -> str:
    """The learning rate that was found, in words."""
    return f"lr {found['lr']:.2g} by a range test"


def roll_back_text(one: dict[str, Any]) -> str:
    """A roll-back in words."""
    there = f"the end of epoch {one['back_to']}" if one["back_to"] else "the beginning"
    return f"diverged in epoch {one['epoch']} ({one['seen']}): back to {there} with half the learning rate"


def features_text(features: dict[str, Any]) -> str:
    """Which layers were compared, in words."""
    pairs = features["pairs"]
    if not pairs:
        return f"{features['kind']} left out: no two layers of teacher and student have one resolution"
    names = ", ".join(f"{one['student']} to {one['teacher']}" for one in pairs)
    return f"{features['kind']} between layers: {names}"


def untouched_text(names: list[str]) -> str:
    """Which parameters had no gradient, in words."""
    shown = ", ".join(names[:3]) + (" …" if len(names) > 3 else "")
    count = f"{len(names)} parameter{'' if len(names) == 1 else 's'}"
    return f"no gradient reaches {count} ({shown}): left as they are"
