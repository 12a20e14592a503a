"""How much accuracy falls when one group alone loses channels: which layers are sensitive (Li et al. 2017,
"Pruning Filters for Efficient ConvNets", §3.2).

The model is cut and asked, not trained: after training everything is better, and the order mostly stays.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from edgekit.errors import MissingExtraError
from edgekit.pruning.build import Prepared
from edgekit.pruning.coupling.groups import Group
from edgekit.pruning.importance.scores import Worth
from edgekit.training.evaluation import evaluate
from edgekit.workload import Workload

__all__ = ["RATIOS", "Sensitivity", "analyse", "can_plot"]

RATIOS = (0.125, 0.25, 0.375, 0.5, 0.625, 0.75, 0.875)
_COLUMNS = 4  # of small plots
_SIZE = (2.6, 1.9)  # inches, of one


@dataclass(frozen=True)
class Sensitivity:
    """``curves``: by group, rows of "ratio" (share of its channels that left), "channels" and "score".

    ``score``: of the whole model. ``samples``: of the training data, on which all of it is.
    """

    importance: str
    samples: int
    score: float
    curves: Mapping[str, Sequence[Mapping[str, float]]]

    def to_json(self) -> dict[str, Any]:
        """As JSON, the most sensitive groups first."""
        return {
            "importance": self.importance,
            "split": "train",
            "samples": self.samples,
            "score": self.score,
            "groups": [
                {"layer": name, "mean_drop": self.mean_drop(name), "points": [dict(p) for p in points]}
                for name, points in self.ranked
            ],
        }

    @property
    def ranked(self) -> list[tuple[str, Sequence[Mapping[str, float]]]]:
        """The most sensitive first."""
        return sorted(self.curves.items(), key=lambda item: (-self.mean_drop(item[0]), item[0]))

    def mean_drop(self, group: str) -> float:
        """By how much the score is lower, over all ratios."""
        drops = [self.score - point["score"] for point in self.curves[group]]
        return sum(drops) / max(len(drops), 1)

    def plot(self, path: Path) -> None:
        """Accuracy against ratio, a small plot for each group; SVG or PNG by the name of the file.

        Raises MissingExtraError without matplotlib.
        """
        if not can_plot():
            raise MissingExtraError(
                "the plot needs matplotlib",
                where=str(path),
                next="pip install 'edgekit-toolkit[report]'",
            )
        import matplotlib
        from matplotlib.figure import Figure

        columns = max(1, min(_COLUMNS, len(self.curves)))
        rows = max(1, -(-len(self.curves) // columns))
        figure = Figure(figsize=(_SIZE[0] * columns, _SIZE[1] * rows), layout="constrained")
        lowest = min([self.score, *(p["score"] for points in self.curves.values() for p in points)])
        bottom = max(lowest, -0.1)  # R² of a model that is cut to pieces has no lower end
        for number, (name, points) in enumerate(self.ranked):
            axes = figure.add_subplot(rows, columns, number + 1)
            ratios, scores = [p["ratio"] for p in points], [p["score"] for p in points]
            axes.plot([0.0, *ratios], [self.score, *scores], marker=".")
            axes.axhline(self.score, color="0.8", linewidth=0.8, zorder=0)
            axes.set(xlim=(0, 1), ylim=(bottom - 0.05, self.score + 0.05))
            axes.set_title(name, fontsize=8)
            axes.tick_params(labelsize=7)
        figure.supxlabel("share of channels cut", fontsize=9)
        figure.supylabel(f"score, {self.samples} training samples", fontsize=9)
        # The same bytes for the same numbers: neither a date nor random identifiers.
        with matplotlib.rc_context({"svg.hashsalt": "edgekit", "svg.fonttype": "none"}):
            metadata = {"Date": None} if path.suffix == ".svg" else None
            figure.savefig(path, metadata=metadata)


def can_plot() -> bool:
    """Whether matplotlib is installed."""
    from importlib.util import find_spec

    return find_spec("matplotlib") is not None


def analyse(
    prepared: Prepared,
    worth: Worth,
    importance: str,
    workload: Workload,
    rows: Tensor,
    *,
    ratios: Sequence[float] = RATIOS,
    tell: Callable[[int, int, str], None] = lambda done, total, name: None,
) -> Sensitivity:
    """Cut each group alone, its least worthy channels, and ask the model about training samples.

    Args:
        worth: by ``importance``.
        rows: (R,) positions in the training data.
        ratios: shares of a group's channels, between 0 and 1; at least one channel leaves and one stays.
        tell: is told groups done, all groups, and the name of the next.
    """
    groups = prepared.found.groups
    whole = evaluate(prepared.model, workload, split="train", rows=rows).score
    curves: dict[str, list[dict[str, float]]] = {}
    for number, group in enumerate(groups):
        tell(number, len(groups), group.name)
        order = worth.scores[group.name].argsort(stable=True).tolist()
        curves[group.name] = [
            {
                "ratio": removed / group.channels,
                "channels": float(group.channels - removed),
                "score": _score(prepared, group, order[:removed], workload, rows),
            }
            for removed in _removals(group, ratios)
        ]
    return Sensitivity(importance, len(rows), whole, curves)


def _removals(group: Group, ratios: Sequence[float]) -> list[int]:
    """How many channels leave, rising."""
    wanted = {min(max(round(ratio * group.channels), 1), group.channels - 1) for ratio in ratios}
    return sorted(wanted) if group.channels > 1 else []


def _score(prepared: Prepared, group: Group, gone: list[int], workload: Workload, rows: Tensor) -> float:
    small = prepared.found.plan({group.name: sorted(gone)}).applied_to(prepared.model)
    return evaluate(small, workload, split="train", rows=rows).score
