"""What the prune stage does before its last training: sparse learning, a trial, and one cut or several.

Every piece of work is kept in a folder of its own (substeps.py), so that a killed stage goes on where it was.
"""

from __future__ import annotations

import copy
import dataclasses
import functools
import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from edgekit import macs
from edgekit.errors import PlanError, PruneError
from edgekit.files import read_text
from edgekit.macs import Complexity
from edgekit.progress import Event
from edgekit.pruning import build
from edgekit.pruning.build import Built, Prepared
from edgekit.pruning.compose import compose
from edgekit.pruning.goals.search import Goal
from edgekit.pruning.importance.criteria import CRITERIA, Backward
from edgekit.pruning.importance.sensitivity import Inputs, training_inputs
from edgekit.pruning.importance.sparse import GroupPenalty
from edgekit.pruning.plans.plan import Plan
from edgekit.stages import stage_files
from edgekit.stages.base import StageContext, TrainingConfig
from edgekit.stages.candidates import Candidate, Verdict, choose, parted
from edgekit.stages.healing import Healing, heal
from edgekit.stages.prune_config import PruneConfig
from edgekit.stages.prune_goals import Aiming
from edgekit.stages.substeps import Part
from edgekit.tensors import Tensors
from edgekit.training import train
from edgekit.training.held_out import HeldOut, held_out
from edgekit.training.sizing import sized

__all__ = ["Cutting", "read_plan"]


class Cutting:
    """From the prune stage's model to the cut one, before the last training."""

    def __init__(self, model: nn.Module, config: PruneConfig, context: StageContext) -> None:
        self.model, self.config, self.context = model, config, context
        chosen = config.model_dump(mode="json", exclude={"kind", "training"})
        self.settings: dict[str, Any] = {**chosen, "seed": context.seed}
        self.details: dict[str, Any] = {}

    def run(self) -> tuple[nn.Module, dict[str, Any]]:
        """The cut model, and JSON for the report. plan.json stands in the stage's folder."""
        self.aiming = Aiming(self.model, self.config, self.context, self.example)
        try:
            return self._run()
        finally:
            self.aiming.close()

    def _run(self) -> tuple[nn.Module, dict[str, Any]]:
        self.start = self._sparse(self.model)
        if self.config.plan is not None:
            small, described = self._replayed(self.config.plan)
        elif self.config.steps == 1:
            make = functools.partial(self._built, lambda: self.first, self.aiming.goal(self.start, 1))
            plan, described = self._plan(self.context.folder, self.start, self.settings, make)
            small = self._cut(self.start, plan)
        else:
            small, described = self._in_steps()
        return small, {**described, **self.details}

    @functools.cached_property
    def first(self) -> Prepared:
        """The model that the first cut starts from; looked at again only if it isn't known already."""
        if self.context.prepared is not None and self.start is self.model:
            return self.context.prepared
        return build.prepare(self.start, self.example, seed=self.context.seed, tell=self._tell)

    @functools.cached_property
    def example(self) -> Tensors:
        """Two inputs."""
        return self.context.workload.example(2)

    @functools.cached_property
    def before(self) -> Complexity:
        """Of the whole model."""
        return macs.count(self.model, self.example)

    # --- sparse learning, recovery -----------------------------------------------------------------------

    def _sparse(self, model: nn.Module) -> nn.Module:
        """A copy whose channels were pulled towards nothing; ``model`` itself if that isn't wanted."""
        if (config := self.config.sparse) is None:
            return model
        small, part = copy.deepcopy(model), self._part("sparse")
        done = part.done(small)
        if done is None:
            self._tell("sparse learning before the cut")
            found = build.prepare(small, self.example, seed=self.context.seed, tell=self._tell).found
            done = self._trained(small, config.training, part, GroupPenalty(found, config.strength))
        self.details["sparse"] = {"strength": config.strength, **done}
        return small.eval()

    def _trained(
        self, model: nn.Module, training: TrainingConfig, part: Part, penalty: GroupPenalty | None = None
    ) -> dict[str, Any]:
        history = train(
            model,
            self.context.teacher,
            self.context.workload,
            training,
            seed=self.context.seed,
            checkpoint=part.checkpoint,
            stage="prune",
            progress=self.context.progress,
            penalty=penalty,
            floor=penalty is None,  # sparse learning is after something else than the score
        )
        part.finish(history.details(), model)
        return history.details()

    # --- one cut -----------------------------------------------------------------------------------------

    def _plan(
        self, folder: Path, model: nn.Module, settings: dict[str, Any], make: Callable[[], Built]
    ) -> tuple[Plan, dict[str, Any]]:
        """The plan and its description; those of a killed run, if there are any."""
        choice = self.choice._asdict()
        if found := stage_files.begun(folder, model, settings):
            return found
        built = make()
        described = {**built.describe(), **choice}
        plan = dataclasses.replace(built.plan, settings={**settings, "result": described})
        stage_files.write_plan(plan, folder)
        return plan, described

    def _built(self, prepared: Callable[[], Prepared], goal: Goal) -> Built:
        rows = self.trial_rows[0] if self.config.by_trial else None
        criterion = CRITERIA[self.choice.importance]
        backward = criterion.backward(self.context.workload, seed=self.context.seed, rows=rows)
        return self._for_goal(prepared(), goal, self.choice, backward)

    def _for_goal(
        self,
        prepared: Prepared,
        goal: Goal,
        choice: Candidate,
        backward: Backward | None,
        *,
        check: bool = True,
    ) -> Built:
        return self.aiming.plan(
            prepared, goal, choice.importance, choice.scope, backward, self._inputs, check=check
        )

    @functools.cached_property
    def _inputs(self) -> Inputs:
        """Training inputs, not those that judge a trial."""
        rows = self.trial_rows[0] if self.config.by_trial else None
        return training_inputs(self.context.workload, seed=self.context.seed, rows=rows)

    def _cut(self, model: nn.Module, plan: Plan, suffix: str = "") -> nn.Module:
        """A smaller copy, healed where that brings it nearer to ``model``."""
        small = plan.applied_to(model)
        if self.config.reconstruct is False or not plan.touched:
            return small
        part = self._part(f"reconstruction{suffix}")
        if (done := part.done(small)) is None:
            self._tell("refitting what stays")
            size = macs.count(small, self.example).macs

            def tell(done: int, total: int) -> None:
                event = Event("step", "prune", "refitting what stays", done=done, total=total)
                self.context.progress(event)

            fitted, judged = self._healing_inputs()
            small, done = heal(
                small, model, plan, Healing(self.config.reconstruct is True, fitted, judged, size, tell)
            )
            part.finish(done, small)
        self.details |= done
        return small

    def _healing_inputs(self) -> tuple[Inputs, Inputs]:
        """Training inputs to fit on, and those that judge."""
        workload, seed = self.context.workload, self.context.seed
        fitted = training_inputs(workload, seed=seed, rows=self._held.trained)
        return fitted, training_inputs(workload, seed=seed, rows=self._held.judged)

    @functools.cached_property
    def _held(self) -> HeldOut:
        """What the last training holds out."""
        training = self.config.training.model_copy(update={"floor": True})
        return held_out(len(self.context.workload.train), training, self.context.seed, floor=True)

    # --- which importance, ranked how --------------------------------------------------------------------

    @functools.cached_property
    def choice(self) -> Candidate:
        """As wanted, or by a trial, which the details then tell of."""
        candidates = self._candidates()
        if not self.config.by_trial:
            return next(iter(candidates.values()))
        verdict = self._tried(candidates)
        self.details["trial"] = verdict.describe()
        return verdict.chosen

    def _candidates(self) -> dict[str, Candidate]:
        """By name, which says what they differ in."""
        config, trial = self.config, self.config.trial
        measures = trial.candidates if config.importance == "auto" else (config.importance,)
        scopes = trial.scopes if config.scope == "auto" else (config.scope,)
        found = {}
        for scope in scopes:
            for measure in measures:
                differs = [*([measure] if config.importance == "auto" else []), scope]
                name = "-".join(differs if config.scope == "auto" else [measure])
                found[name] = Candidate(measure, scope)
        return found

    @functools.cached_property
    def trial_rows(self) -> tuple[Tensor, Tensor]:
        """Training data that a trial learns from, and that judges it."""
        trial = self.config.trial
        return parted(self.context.workload, trial.samples, trial.held_out, self.context.seed)

    def _tried(self, candidates: dict[str, Candidate]) -> Verdict:
        goal = self.config.goal
        count = len(self._held.trained_of(len(self.context.workload.train)))
        training = sized(self.config.training, count)  # as the last one trains
        # Equal and repeatable: nothing in a trial is chosen by how fast this machine is at the moment.
        fixed: dict[str, Any] = {
            "epochs": self.config.trial.epochs,
            "early_stopping": None,
            "ema_decay": None,
        }
        fixed |= {"precision": "float32", "compile": "never"}
        return choose(
            self.start,
            candidates,
            lambda one, backward: self._for_goal(self.first, goal, one, backward, check=False),
            training.model_copy(update=fixed),
            self.context,
            lambda name: self._part(f"trial-{name}"),
            self.trial_rows,
        )

    # --- several cuts ------------------------------------------------------------------------------------

    def _in_steps(self) -> tuple[nn.Module, dict[str, Any]]:
        """Cut, recover, cut again; the plan in the stage's folder does all cuts at once."""
        model, whole, rows = self.start, Plan(), []
        described: dict[str, Any] = {}
        for step in range(1, self.config.steps + 1):
            part = self._part(f"step-{step}")
            self._tell(f"cut {step} of {self.config.steps}")
            make = functools.partial(self._built, self._prepared(model, step), self.aiming.goal(model, step))
            plan, described = self._plan(part.folder, model, {**self.settings, "step": step}, make)
            model, whole = self._cut(model, plan, f"-{step}"), compose(whole, plan)
            row = {"speedup": self.before.macs / max(macs.count(model, self.example).macs, 1)}
            if step < self.config.steps:
                done = part.done(model)
                row |= self._trained(model, self.config.recovery, part) if done is None else done
            rows.append(row)
        total = self._described(whole, model, described)
        stage_files.write_plan(
            dataclasses.replace(whole, settings={**self.settings, "result": total}), self.context.folder
        )
        return model, {**total, "steps": rows}

    def _prepared(self, model: nn.Module, step: int) -> Callable[[], Prepared]:
        """When it is needed: the model of a step, whose limits are shares of what the first step had."""
        if step == 1:
            return lambda: self.first

        def prepare() -> Prepared:
            origin = {group.name: group.channels for group in self.first.found.groups}
            return build.prepare(model, self.example, seed=self.context.seed, origin=origin, tell=self._tell)

        return prepare

    def _described(self, plan: Plan, small: nn.Module, last: dict[str, Any]) -> dict[str, Any]:
        """All cuts together, with what the last of them says about the rest."""
        built = Built(plan, self.before, macs.count(small, self.example), ())
        more = ("kept_whole", "ranked_by_magnitude", "importance", "scope")
        return {**built.describe(), **{key: last[key] for key in more if key in last}}

    # --- a plan that is given ----------------------------------------------------------------------------

    def _replayed(self, path: str) -> tuple[nn.Module, dict[str, Any]]:
        """The stage's folder has a copy: a stage that goes on needs the file no more, if it didn't change."""
        begun = stage_files.begun(self.context.folder, self.start, self.settings)
        if begun is not None and not Path(path).exists():
            return self._cut(self.start, begun[0]), begun[1]
        plan, text = read_plan(path, self.start)
        small = self._cut(self.start, plan)
        built = Built(plan, self.before, macs.count(small, self.example), ())
        digest = hashlib.sha256(text.encode()).hexdigest()
        described = {**built.describe(), "plan": path, "plan_sha256": digest}
        settings = {**self.settings, "result": described}
        stage_files.write_plan(dataclasses.replace(plan, settings=settings), self.context.folder)
        return small, described

    @property
    def part_settings(self) -> dict[str, Any]:
        """What pieces of work depend on; a trial trains as the last training does."""
        return {**self.settings, "training": self.config.training.model_dump(mode="json")}

    def _part(self, name: str) -> Part:
        return Part(self.context.folder, name, self.part_settings)

    def _tell(self, message: str) -> None:
        self.context.progress(Event("note", "prune", message))


_ANOTHER_PLAN = "name another plan, or leave it out to have one made"


def read_plan(path: str | Path, model: nn.Module) -> tuple[Plan, str]:
    """A plan that the user named, and the text that it was read from.

    Raises PlanError: there is none, it is no plan, or it isn't one for ``model``.
    """
    try:
        text = read_text(Path(path))
    except (OSError, UnicodeDecodeError) as error:
        raise PlanError(
            "the pruning plan can't be read",
            where=str(path),
            got=getattr(error, "strerror", None) or str(error),
            expected="a plan.json of `edgekit prune`, or of a run's prune stage",
            next=_ANOTHER_PLAN,
        ) from error
    try:
        plan = Plan.from_json(text, where=str(path))
        plan.check(model)
    except PruneError as error:
        raise PlanError(
            error.what,
            where=error.where or str(path),
            got=error.got,
            expected=error.expected,
            next=error.next or _ANOTHER_PLAN,
        ) from error
    return plan, text
