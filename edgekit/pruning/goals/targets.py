"""What is wanted of a cut model. This file needs no torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from edgekit.macs import Complexity

__all__ = ["Goal"]

_TIGHTER = 1.01  # how much more is asked of the search when what is counted falls short of its estimate


@dataclass(frozen=True)
class Goal:
    """What is wanted of the cut model, all of it at once; 1 and None ask for nothing.

    ``speedup``, ``shrink``: how many times fewer MACs and parameters. ``pruning_ratio``: at least this share
    of the channels that can leave does. ``latency_ns`` (p50 for one sample), ``size_bytes`` (of the exported
    file) and ``peak_bytes`` (of activations): at most so much.
    """

    speedup: float = 1.0
    shrink: float = 1.0
    latency_ns: float | None = None
    size_bytes: float | None = None
    peak_bytes: float | None = None
    pruning_ratio: float | None = None

    def __str__(self) -> str:
        wanted = [f"{self.speedup:g}x fewer MACs"] if self.speedup > 1 else []
        wanted += [f"{self.shrink:g}x fewer parameters"] if self.shrink > 1 else []
        for value, base, unit in (
            (self.latency_ns, 1e6, "ms"),
            (self.size_bytes, 1e3, "kB in the file"),
            (self.peak_bytes, 1e3, "kB of activations"),
        ):
            wanted += [] if value is None else [f"at most {value / base:g} {unit}"]
        if self.pruning_ratio is not None:
            wanted.append(f"{self.pruning_ratio:g} of the channels")
        return ", ".join(wanted) or "nothing"

    def highest(self, whole: Mapping[str, float]) -> dict[str, float]:
        """By the name of a cost, how much of it is allowed. ``whole``: the costs of the uncut model."""
        found: dict[str, float] = {}
        if self.speedup > 1:
            found["macs"] = whole["macs"] / self.speedup
        if self.shrink > 1:
            found["parameters"] = whole["parameters"] / self.shrink
        if self.pruning_ratio is not None:
            found["channels"] = whole["channels"] * (1 - self.pruning_ratio)
        return found | self.judged

    @property
    def judged(self) -> dict[str, float]:
        """What the cut model itself has to show, as a file or by its graph: highest allowed values."""
        wanted = {name: getattr(self, name) for name in ("latency_ns", "size_bytes", "peak_bytes")}
        return {name: value for name, value in wanted.items() if value is not None}

    def counted(self) -> Goal:
        """The part of it that is counted, for which no file is needed."""
        return replace(self, latency_ns=None, size_bytes=None, peak_bytes=None)

    def others(self) -> list[Goal]:
        """What is asked for beside fewer MACs, each alone."""
        named = ("shrink", "latency_ns", "size_bytes", "peak_bytes", "pruning_ratio")
        return [Goal(**{name: getattr(self, name)}) for name in named]

    def asked(self) -> dict[str, float]:
        """As JSON, by the names that a recipe has for it."""
        units = {"latency_ns": ("latency_ms", 1e6), "size_bytes": ("size_kb", 1e3)}
        units["peak_bytes"] = ("peak_memory_kb", 1e3)
        factors = {n: getattr(self, n) for n in ("speedup", "shrink") if getattr(self, n) > 1}
        files = {units[name][0]: value / units[name][1] for name, value in self.judged.items()}
        share = {} if self.pruning_ratio is None else {"pruning_ratio": self.pruning_ratio}
        return {**factors, **files, **share}

    def met(self, before: Complexity, after: Complexity, figures: Mapping[str, float] | None = None) -> bool:
        """By what was counted; ``figures``: what the cut model showed of ``judged``."""
        return (
            before.macs >= self.speedup * after.macs
            and before.parameters >= self.shrink * after.parameters
            and all((figures or {}).get(name, 0.0) <= most for name, most in self.judged.items())
        )

    def tighter(self) -> Goal:
        """A little more of what is only estimated during the search, and counted afterwards."""
        return replace(
            self, speedup=1 + (self.speedup - 1) * _TIGHTER, shrink=1 + (self.shrink - 1) * _TIGHTER
        )

    def at(
        self,
        share: float,
        whole: Mapping[str, float],
        *,
        macs_left: float = 1.0,
        parameters_left: float = 1.0,
    ) -> Goal:
        """``share`` of the way there (0: nothing, 1: this goal), in equal factors, for a model on the way.

        Args:
            whole: what the uncut model shows of ``judged``.
            macs_left, parameters_left: shares of the uncut model's that the model on the way still has. Its
                ``pruning_ratio`` isn't known here and stays what it is.
        """

        def between(name: str) -> float | None:
            wanted = getattr(self, name)
            return None if wanted is None else max(wanted, whole[name]) ** (1 - share) * wanted**share

        return Goal(
            max(1.0, self.speedup**share * macs_left),
            max(1.0, self.shrink**share * parameters_left),
            between("latency_ns"),
            between("size_bytes"),
            between("peak_bytes"),
            self.pruning_ratio,
        )
