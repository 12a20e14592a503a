"""Settings of the prune stage. This file needs no torch, so that a recipe is read in an instant."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from edgekit.pruning.importance.criteria import CriterionName, tried
from edgekit.stages.base import Config, StageConfig, TrainingConfig
from edgekit.stages.targets import MAIN, TargetConfig

__all__ = ["PruneConfig", "Ranking", "SparseConfig", "TrialConfig"]

Ranking = Literal["global", "local", "isomorphic"]  # among all groups, none, those of the same structure
_WHAT_IS_CUT = ("shrink", "importance", "scope", "blocks", "max_ratio", "limits", "ignore", "steps")


class TrialConfig(Config):
    """How ``importance: auto`` and ``scope: auto`` choose: each cuts, learns for a moment, and is judged.

    On training data that it didn't learn from; validation data is never looked at.
    """

    candidates: tuple[CriterionName, ...] = Field(tried(), min_length=1)  # of importance: auto
    scopes: tuple[Ranking, ...] = Field(("global", "local", "isomorphic"), min_length=1)  # of scope: auto
    samples: int = Field(2048, ge=2, le=10_000_000)  # training samples that each learns from
    held_out: int = Field(1024, ge=1, le=1_000_000)  # training samples that judge; a quarter at most
    epochs: int = Field(1, ge=0, le=1000)


class SparseConfig(Config):
    """Sparse learning before the cut: weak channels shrink together with all that is coupled to them."""

    strength: float = Field(1e-3, gt=0, le=10)  # of the pull; like weight decay for the strongest channels
    training: TrainingConfig = TrainingConfig(epochs=5, lr=0.02)


class PruneConfig(TargetConfig, StageConfig):
    """Cut until the target is met (by default 2x fewer MACs), then train.

    ``limits`` and ``ignore`` name layers by patterns as in a shell; channels that are coupled to a layer are
    under its limit too. docs/pruning.md says what each choice is good for.
    """

    kind: Literal["prune"] = "prune"
    plan: str | None = Field(None, min_length=1)  # a plan.json to replay, which says already what is cut
    # Channels of what is cut; 8 or 16 suit SIMD kernels. auto: what the device's kernels like, by measuring.
    channel_multiple: Annotated[int, Field(ge=1, le=1024)] | Literal["auto"] = 8
    importance: CriterionName | Literal["auto"] = "magnitude"  # auto: by a trial
    scope: Ranking | Literal["auto"] = "global"  # auto: by a trial
    # Whole residual blocks, with the global scope. auto: they may leave where time is aimed at.
    blocks: Literal["auto", "may_leave", "stay"] = "auto"
    trial: TrialConfig = TrialConfig()  # of what is auto
    max_ratio: float = Field(0.75, gt=0, lt=1)  # share of a layer's channels that may leave at most
    # The same for some layers, as {"layer4.*": 0.5}.
    limits: dict[str, Annotated[float, Field(ge=0, lt=1)]] = Field(default_factory=dict)
    ignore: tuple[str, ...] = ()  # layers that stay whole
    sparse: SparseConfig | None = None
    steps: int = Field(1, ge=1, le=100)  # 1: one shot; else cut a little, recover, cut again
    recovery: TrainingConfig = TrainingConfig(epochs=2, lr=0.02)  # between two steps
    # Refit what stays by least squares, without labels, and estimate batch norm's statistics again. auto:
    # where that helps, by held-out training data; false: the cut is left as it is.
    reconstruct: bool | Literal["auto"] = "auto"
    training: TrainingConfig = TrainingConfig(epochs=20, lr=0.05)

    @model_validator(mode="after")
    def _plan_alone(self) -> PruneConfig:
        known = type(self).model_fields
        others = [
            name
            for name in (*MAIN, *_WHAT_IS_CUT)
            if getattr(self, name) != known[name].get_default(call_default_factory=True)
        ]
        if self.plan is not None and others:
            raise ValueError(f"the plan says already what is cut: leave out {', '.join(others)}")
        return self

    @property
    def by_trial(self) -> bool:
        """Whether something is chosen by a trial."""
        return self.plan is None and "auto" in (self.importance, self.scope)

    @property
    def blocks_may_leave(self) -> bool:
        """Whether whole blocks are looked at."""
        timed = self.latency_ms is not None or self.steps_by == "latency"
        return self.blocks == "may_leave" or (self.blocks == "auto" and timed)

    @property
    def patterns(self) -> dict[str, float]:
        """``limits`` and ``ignore`` together."""
        return {**self.limits, **dict.fromkeys(self.ignore, 0.0)}
