"""Which measure of importance, ranked how, suits a model: each cuts it, learns for a moment, and is judged.

Judged on samples of the *training* data that none of the trials trains on; validation data is never looked
at. All trials have the same samples, steps and seed.
"""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

from torch import Tensor, nn

from edgekit.drawing import shuffled
from edgekit.errors import StageError
from edgekit.progress import Event
from edgekit.pruning.build import Built, Scope
from edgekit.pruning.importance.criteria import CRITERIA, Backward
from edgekit.training import evaluate, train
from edgekit.training.computing import parallel
from edgekit.training.early_stopping import split
from edgekit.workload import Workload
from edgekit.workload.samples import Samples, Unlabelled

if TYPE_CHECKING:
    from edgekit.stages.base import StageContext, TrainingConfig
    from edgekit.stages.substeps import Part

__all__ = ["Build", "Candidate", "Verdict", "choose", "parted"]


class Candidate(NamedTuple):
    """What a trial tries."""

    importance: str
    scope: Scope


# A plan by one candidate; not checked by export and gradients, which the winner's is later.
Build = Callable[[Candidate, "Backward | None"], Built]


@dataclass(frozen=True)
class Verdict:
    """``scores``: by candidate in the order tried, "score" (of the held-out samples), "speedup", "seconds",
    and "same_as" where another candidate cut the same channels, or "error" where its training diverged.
    """

    winner: str
    chosen: Candidate
    held_out: int  # samples
    trained_on: int  # samples
    scores: Mapping[str, Mapping[str, Any]]

    @property
    def noise(self) -> float | None:
        """One standard error of the winner's score as a share of right answers; None if it isn't one."""
        score = float(self.scores[self.winner]["score"])
        return math.sqrt(score * (1 - score) / self.held_out) if 0 <= score <= 1 else None

    @property
    def note(self) -> str:
        """One sentence for the report."""
        others = [
            (float(found["score"]), name)
            for name, found in self.scores.items()
            if name != self.winner and found.get("score") is not None and "same_as" not in found
        ]
        best = float(self.scores[self.winner]["score"])
        note = f"{self.winner} by trial ({best:.1%} held out"
        if others:
            second, name = max(others, key=lambda each: each[0])
            note += f"; next {name} {second:.1%}"
            if self.noise is not None and best - second < 2 * self.noise:
                note += ", within the noise"
        return note + ")"

    def describe(self) -> dict[str, Any]:
        """As JSON, for the report."""
        return {
            "winner": self.winner,
            **self.chosen._asdict(),
            "note": self.note,
            "held_out": self.held_out,
            "trained_on": self.trained_on,
            "noise": self.noise,
            "candidates": {name: dict(found) for name, found in self.scores.items()},
        }


def parted(workload: Workload, samples: int, held_out: int, seed: int) -> tuple[Tensor, Tensor]:
    """Rows of the training data to train on and to judge on, in at most these numbers.

    The rows to judge on are the ones that early stopping holds out, as far as both go; of a small data set
    they are a quarter at most. Raises StageError if there are too few.
    """
    count = len(workload.train)
    held = min(held_out, max(1, count // 4))
    rest, judged = split(count, held / count, seed)
    return rest[shuffled(len(rest), seed)[:samples]].sort().values, judged


def choose(
    model: nn.Module,
    candidates: Mapping[str, Candidate],
    build: Build,
    training: TrainingConfig,
    context: StageContext,
    part: Callable[[str], Part],
    rows: tuple[Tensor, Tensor],
) -> Verdict:
    """Try all candidates; of equal ones the first wins. What a killed trial has found is not tried again.

    Args:
        model: what is cut; not changed.
        candidates: by name.
        training: of each trial.
        part: the folder for a candidate.
        rows: training data to train on, and to judge on (see ``parted``).

    Raises:
        PruneError: the goal is out of reach.
        StageError: the training of every candidate diverged.
    """
    trained_on, judged = rows
    small_data = _only(context.workload, trained_on)
    scores: dict[str, dict[str, Any]] = {}
    plans: dict[str, str] = {}
    for number, (name, candidate) in enumerate(candidates.items(), 1):
        message = f"trying {name} ({number} of {len(candidates)})"
        context.progress(Event("note", "prune", message))
        folder = part(name)
        if (known := folder.done()) is None:
            criterion = CRITERIA[candidate.importance]
            backward = criterion.backward(context.workload, seed=context.seed, rows=trained_on)
            built = build(candidate, backward)
            known = {"plan": built.plan.to_json(), "speedup": built.speedup}
            same = next((other for other, plan in plans.items() if plan == known["plan"]), None)
            if same is not None:
                known |= {**scores[same], "same_as": same, "seconds": 0.0}
            else:
                known |= _tried(model, built, training, context, folder, small_data, judged)
            folder.finish(known)
        plans[name] = known["plan"]
        scores[name] = {key: value for key, value in known.items() if key != "plan"}
    return _verdict(candidates, scores, rows)


def _verdict(
    candidates: Mapping[str, Candidate], scores: dict[str, dict[str, Any]], rows: tuple[Tensor, Tensor]
) -> Verdict:
    fit = [name for name in candidates if scores[name]["score"] is not None]
    if not fit:
        raise StageError(
            "the training of every candidate diverged",
            where="stage prune: trial",
            got="; ".join(f"{name}: {found['error']}" for name, found in scores.items()),
            next="lower training.lr, or name importance and scope instead of auto",
        )
    winner = max(fit, key=lambda name: float(scores[name]["score"]))  # of equal ones the first
    return Verdict(winner, candidates[winner], len(rows[1]), len(rows[0]), scores)


def _tried(
    model: nn.Module,
    built: Built,
    training: TrainingConfig,
    context: StageContext,
    folder: Part,
    workload: Workload,
    judged: Tensor,
) -> dict[str, Any]:
    start, small = time.monotonic(), built.plan.applied_to(model)
    found: dict[str, Any] = {"score": None}
    try:
        train(
            small,
            context.teacher,
            workload,
            training,
            seed=context.seed,
            checkpoint=folder.checkpoint,
            stage="prune",
            progress=context.progress,
        )
        score = parallel.current().first(
            lambda: evaluate(small, context.workload, split="train", rows=judged).score
        )
        found["score"] = score
    except StageError as error:
        found["error"] = error.got or error.what
    return {**found, "seconds": round(time.monotonic() - start, 3)}


def _only(workload: Workload, rows: Tensor) -> Workload:
    """The same with this part of the training data; the rest of it is not there."""
    small, data = copy.copy(workload), workload.train
    part = Samples(data.inputs[rows], data.targets[rows])
    if not data.labelled:
        answered = part.targets
        part = Unlabelled(part.inputs)
        object.__setattr__(part, "known", answered)
    # Not by its constructor, which would look through all other samples once more.
    object.__setattr__(small, "train", part)
    return small
