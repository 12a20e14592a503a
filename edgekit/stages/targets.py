"""What pruning can be told to aim at. This file needs no torch, so that a recipe is read in an instant."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from edgekit.config.settings import Config
from edgekit.formats import has, read_by
from edgekit.pruning.goals.targets import Goal
from edgekit.runtimes import RuntimeName

__all__ = ["MAIN", "TargetConfig"]

MAIN = ("speedup", "latency_ms", "size_kb", "peak_memory_kb", "pruning_ratio")
_DEFAULT_SPEEDUP = 2.0


class TargetConfig(Config):
    """Exactly one main target, 2x fewer MACs by default; ``shrink`` may come on top of it.

    Latency and file size are those of the exported file, ``precision`` and ``runtime`` being what will be
    shipped. Time is measured on ``device``. docs/pruning.md says what is aimed at how.
    """

    speedup: Annotated[float, Field(gt=1, le=64)] | None = None  # MACs before / MACs after, for one sample
    latency_ms: Annotated[float, Field(gt=0, le=3_600_000)] | None = None  # p50 of one sample, on `device`
    size_kb: Annotated[float, Field(gt=0, le=1e9)] | None = None  # of the exported file, in 1000 bytes
    peak_memory_kb: Annotated[float, Field(gt=0, le=1e9)] | None = None  # of activations, in 1000 bytes
    pruning_ratio: Annotated[float, Field(gt=0, lt=1)] | None = None  # share of the channels that can leave
    shrink: float = Field(1.0, ge=1, le=64)  # parameters before / parameters after; 1 asks for nothing
    steps_by: Literal["target", "latency"] = "target"  # latency: first where most time is, by the same tables
    device: str = ""  # where time is measured; empty: the run's first device that can be
    runtime: RuntimeName | None = None  # none: that of the exported format, see shipping.py
    precision: Literal["fp32", "int8"] | None = None  # none: int8 if the recipe has a qat stage
    threads: int = Field(1, ge=1, le=1024)

    @model_validator(mode="after")
    def _default_target(self) -> TargetConfig:
        # No validator before: behind it pydantic, strict, would refuse JSON's lists where tuples are wanted.
        if all(getattr(self, name, None) is None for name in (*MAIN, "plan")):
            object.__setattr__(self, "speedup", _DEFAULT_SPEEDUP)
        return self

    @model_validator(mode="after")
    def _one_target(self) -> TargetConfig:
        given = [name for name in MAIN if getattr(self, name) is not None]
        if len(given) > 1:
            raise ValueError(
                f"{' and '.join(given)} are all given, expected one main target: "
                f"set {' and '.join(f'{name}: null' for name in given[:-1])}, for example"
            )
        return self

    @model_validator(mode="after")
    def _can_be_shipped(self) -> TargetConfig:
        if self.runtime is not None and self.precision is not None:
            format = read_by(self.runtime)
            if not has(format.name, self.precision):
                why = format.why_not(self.precision)
                raise ValueError(f"{self.runtime} reads no {self.precision}: {why}")
        return self

    @property
    def goal(self) -> Goal:
        """The same in base units."""
        return Goal(
            speedup=self.speedup or 1.0,
            shrink=self.shrink,
            latency_ns=None if self.latency_ms is None else self.latency_ms * 1e6,
            size_bytes=None if self.size_kb is None else self.size_kb * 1e3,
            peak_bytes=None if self.peak_memory_kb is None else self.peak_memory_kb * 1e3,
            pruning_ratio=self.pruning_ratio,
        )

    @property
    def needs_files(self) -> bool:
        """Whether exported files have to be looked at, so that it counts how the model will be shipped."""
        wanted = (self.latency_ms, self.size_kb, self.peak_memory_kb)
        return any(value is not None for value in wanted) or self.needs_time

    @property
    def needs_time(self) -> bool:
        """Whether something has to be measured on a device."""
        return (
            self.latency_ms is not None
            or self.steps_by == "latency"
            or getattr(self, "channel_multiple", None) == "auto"
        )
