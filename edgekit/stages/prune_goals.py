"""What the prune stage aims at: its settings as goals for single cuts, and plans that meet them."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import replace

from torch import nn

from edgekit import macs
from edgekit.macs import Complexity
from edgekit.progress import Event
from edgekit.pruning import build
from edgekit.pruning.build import Built, Prepared, Scope
from edgekit.pruning.goals.search import Goal, Limits
from edgekit.pruning.goals.shipped import Shipped
from edgekit.pruning.importance.criteria import Backward
from edgekit.pruning.importance.sensitivity import Inputs
from edgekit.stages.base import StageContext
from edgekit.stages.prune_config import PruneConfig
from edgekit.stages.shipping import shipped_for
from edgekit.tensors import Tensors
from edgekit.training.computing import parallel

__all__ = ["Aiming"]


class Aiming:
    """A context manager: a way to a device that was opened is closed. ``model``: the uncut one."""

    def __init__(
        self, model: nn.Module, config: PruneConfig, context: StageContext, example: Tensors
    ) -> None:
        self.model, self.config, self.context, self.example = model, config, context, example

    @functools.cached_property
    def shipped(self) -> Shipped | None:
        """How the model will be shipped; None where nobody needs to know."""
        return shipped_for(self.config, self.context)

    def close(self) -> None:
        """Close the way to the device, if there is one."""
        if "shipped" in vars(self) and self.shipped is not None:
            self.shipped.__exit__()

    @functools.cached_property
    def before(self) -> Complexity:
        """Of the uncut model."""
        return macs.count(self.model, self.example)

    def _tell(self, done: int, total: int) -> None:
        self.context.progress(Event("step", "prune", "what channels are worth", done=done, total=total))

    def goal(self, model: nn.Module, step: int) -> Goal:
        """What is left to do for ``model`` by the end of this step: equal factors in all of them."""
        goal, steps = self.config.goal, self.config.steps
        if steps == 1:
            return goal
        now = macs.count(model, self.example)
        left = {
            "macs_left": now.macs / max(self.before.macs, 1),
            "parameters_left": now.parameters / max(self.before.parameters, 1),
        }
        found = goal.at(step / steps, self._whole, **left)
        if goal.pruning_ratio is None:
            return found
        return replace(found, pruning_ratio=1 - (1 - goal.pruning_ratio) ** (1 / steps))

    @functools.cached_property
    def _whole(self) -> dict[str, float]:
        """What the uncut model shows of what is aimed at."""
        names = list(self.config.goal.judged)
        return parallel.current().first(lambda: self._look(names)) if names else {}

    def _look(self, names: list[str]) -> dict[str, float]:
        assert self.shipped is not None
        return self.shipped.look(self.model, self.example, names)

    def plan(
        self,
        prepared: Prepared,
        goal: Goal,
        importance: str,
        scope: Scope,
        backward: Backward | None,
        inputs: Inputs,
        *,
        check: bool = True,
    ) -> Built:
        """See ``build.for_goal``. Of several processes the first one decides for all: each might measure, or
        round, differently.
        """
        work = functools.partial(self._plan, prepared, goal, importance, scope, backward, inputs, check)
        return parallel.current().first(work)

    def _plan(
        self,
        prepared: Prepared,
        goal: Goal,
        importance: str,
        scope: Scope,
        backward: Backward | None,
        inputs: Inputs,
        check: bool,
    ) -> Built:
        config = self.config

        def make(multiple: int, multiples: Mapping[str, int] | None = None) -> Built:
            return build.for_goal(
                prepared,
                self.example,
                goal,
                Limits(multiple, config.max_ratio, multiples=multiples or {}),
                importance=importance,
                scope=scope,
                patterns=config.patterns,
                backward=backward,
                inputs=inputs,
                check=check,
                shipped=self.shipped,
                steer=config.steps_by == "latency",
                blocks=config.blocks_may_leave,
                tell=self._tell,
            )

        if config.channel_multiple != "auto":
            return make(config.channel_multiple)
        from edgekit.pruning.goals.channel_multiples import by_preferred_multiple

        assert self.shipped is not None
        return by_preferred_multiple(prepared, self.shipped, make, timed=check and goal.latency_ns is None)
