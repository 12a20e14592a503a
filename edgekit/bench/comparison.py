"""What `edgekit compare` finds, as a document, and in words."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

from edgekit.bench import stats
from edgekit.bench.record import Unit

Verdict = Literal["faster", "slower", "fewer", "more", "equal", "not distinguishable"]


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Ratio(_Part):
    """Second to first; the interval is the basis of the verdict. ``level`` 1: of exact counts."""

    value: float
    low: float
    high: float
    level: float

    @classmethod
    def of(cls, estimate: stats.Estimate) -> Ratio:
        """The same as a part of a document."""
        return cls(value=estimate.value, low=estimate.low, high=estimate.high, level=estimate.level)


class Side(_Part):
    """One of the two results. Times in ``Comparison.unit``; ``accuracy`` (0…1) is that on the device."""

    label: str
    artifact: str
    p50: float
    p90: float
    runs: int
    size_bytes: int
    peak_rss_bytes: int
    runtime_version: str
    accuracy: float | None = None
    energy_uj: float | None = None
    unstable: str | None = None


class Comparison(_Part):
    """What became of ``first`` in ``second``: ``verdict`` is about the second.

    Differences are second minus first; ``accuracy_points`` are percentage points, None if unknown on a side.
    ``in_turns``: both were measured in the same rounds.
    """

    device: str
    unit: Unit
    first: Side
    second: Side
    verdict: Verdict
    ratio: Ratio
    in_turns: bool
    size_bytes: int
    peak_rss_bytes: int
    accuracy_points: float | None
    notes: tuple[str, ...] = ()

    @property
    def text(self) -> str:
        """The verdict in one sentence, with its interval."""
        change, counts = self.ratio.value - 1, self.unit == "instructions"
        if self.verdict == "equal":
            return "executes exactly as many instructions"
        span = f"{percent(self.ratio.low - 1)} to {percent(self.ratio.high - 1)}"
        if self.verdict == "not distinguishable":
            return f"not distinguishable ({span} {'instructions' if counts else 'time'})"
        size = percent(abs(change)).lstrip("+")
        if counts:
            return f"executes {size} {self.verdict} instructions"
        if self.verdict == "faster":
            how = f"{1 / self.ratio.value:.2f} times as fast" if change <= -0.5 else f"takes {size} less time"
        else:
            how = f"takes {1 + change:.2f} times as long" if change >= 1 else f"takes {size} more time"
        return f"{self.verdict}: {how} ({span})"


def percent(share: float) -> str:
    """``-0.031`` as ``−3.1 %``, always with its sign."""
    return f"{100 * share:+.1f} %".replace("-", "−")


class CompareReport(_Part):
    """All comparisons. ``unmatched``: what couldn't be compared, and why; ``notes``: what to bear in mind."""

    first: str
    second: str
    comparisons: tuple[Comparison, ...]
    unmatched: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Plain data."""
        return self.model_dump(mode="json")
