"""Recipes: how a model is compressed. An ordered list of stages with their settings, exports and budgets.

A recipe is one YAML file of plain data. It is checked whole before anything starts: unknown keys, values out
of range and stages in an impossible order are all reported together.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from pydantic import Field, SerializeAsAny, ValidationError, model_validator

from edgekit.config import configfile
from edgekit.config.settings import over_defaults
from edgekit.errors import RecipeError, did_you_mean, printable
from edgekit.formats import (
    FORMATS,
    INT8_GRAPH,
    FormatName,
    Precision,
    has,
    suppressing,
    usual,
    with_precision,
)
from edgekit.formats.options import Head, Io
from edgekit.stages import STAGES
from edgekit.stages.base import Config, Form, StageConfig
from edgekit.stages.targets import MAIN

C = TypeVar("C", bound=Config)
Threads = Annotated[int, Field(ge=1, le=1024)] | Literal["all"]


class ExportConfig(Config):
    """Which files are written: every format in every precision that it has."""

    formats: tuple[FormatName, ...] = Field(usual(), min_length=1)
    precisions: tuple[Precision, ...] = Field(("fp32", "int8"), min_length=1)
    batch: int | None = Field(None, ge=1, le=4096)  # none: free in ONNX, 1 in LiteRT
    io: Io | None = None  # type of input and output of quantised LiteRT files; none: their activations'
    embed_preprocessing: bool = False  # files that take raw uint8 pixels, (N, H, W, C)
    head: Head = (
        "raw"  # of a detector: its own outputs, decoded (boxes and scores), or suppressed as well (nms)
    )
    microcontroller: bool = False  # int8 LiteRT files must be such that LiteRT for Microcontrollers takes

    @model_validator(mode="after")
    def _formats_have_precisions(self) -> ExportConfig:
        for precision in self.precisions:
            if not any(has(format, precision) for format in self.formats):
                wanted = " or ".join(with_precision(precision))
                raise ValueError(f"{precision} needs {wanted} among the formats")
        if "int16x8" in self.precisions and self.io in ("int8", "uint8"):
            raise ValueError(f"int16x8 takes no {self.io}; io: float32 serves all quantised files")
        if self.head == "nms" and (others := [name for name in self.formats if not FORMATS[name].suppresses]):
            raise ValueError(f"head: nms is for {suppressing()}; {', '.join(others)} has no such op")
        if self.microcontroller and not ("litert" in self.formats and "int8" in self.precisions):
            raise ValueError("microcontroller needs litert among the formats and int8 among the precisions")
        return self


class BenchmarkConfig(Config):
    """How latency is measured; a measurement ends when both minima are reached."""

    devices: tuple[str, ...] = Field(("local",), min_length=1)
    threads: tuple[Threads, ...] = Field((1, "all"), min_length=1)
    min_seconds: float = Field(1.0, ge=0, le=600)  # for each candidate
    min_runs: int = Field(50, ge=1, le=1_000_000)  # for each candidate
    samples: int = Field(256, ge=0, le=1_000_000)  # asked on a device; this machine is asked all


class RecommendConfig(Config):
    """Which file is recommended: the best in ``objective`` among those that lose little enough accuracy."""

    objective: Literal["latency", "size"] = "latency"
    max_accuracy_drop: float = Field(1.0, ge=0, le=100)  # points: 1.0 lets 91.7 % fall to 90.7 %
    # Every int8 file keeps it: as many layers as that takes stay float (docs/budget.md); else the run fails.
    contract: bool = False
    confidence: float | None = Field(None, gt=0.5, lt=1)  # that no more is lost; none: the drop as measured

    @model_validator(mode="after")
    def _confidence_of_a_contract(self) -> RecommendConfig:
        if self.confidence is not None and not self.contract:
            raise ValueError("confidence is that of a contract; set recommend.contract: true as well")
        return self


class DiagnoseConfig(Config):
    """How the recommended file is probed on corrupted inputs, beside the original. Its answers to the whole
    validation set are compared in any case.
    """

    samples: int = Field(1000, ge=0, le=1_000_000)  # of the validation set; 0: no probes
    corruptions: bool = True  # noise, blur, …: what is known for the kind of data, five severities each
    adversarial: bool = True  # one gradient step on the trained model, transferred to the files


class GuardConfig(Config):
    """What the recommended file must not have lost against the original; none: isn't looked at."""

    worst_class_drop: float | None = Field(None, ge=0, le=100)  # points, of the class that lost most
    group_gap_increase: float | None = Field(None, ge=0, le=100)  # points, between best and worst group
    ece_increase: float | None = Field(None, ge=0, le=1)  # of the expected calibration error
    corruption_drop: float | None = Field(None, ge=0, le=100)  # points, mean over all corruptions
    # fail: the run ends with an error, all is kept; fall_back: as if the recipe had ended a stage earlier
    otherwise: Literal["fail", "fall_back"] = "fail"

    @property
    def limits(self) -> dict[str, float]:
        """The limits that are set, by name."""
        values = self.model_dump(exclude={"otherwise"})
        return {name: value for name, value in values.items() if value is not None}


class _Frame(Config):
    """A recipe without its stages, whose schemas depend on their kind."""

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")
    description: str = ""
    seed: int = Field(0, ge=0, lt=2**32)
    exports: ExportConfig = ExportConfig()
    benchmark: BenchmarkConfig = BenchmarkConfig()
    recommend: RecommendConfig = RecommendConfig()
    diagnose: DiagnoseConfig = DiagnoseConfig()
    guard: GuardConfig = GuardConfig()

    @model_validator(mode="after")
    def _guard_is_looked_at(self) -> _Frame:
        if self.guard.corruption_drop is not None and not (
            self.diagnose.corruptions and self.diagnose.samples
        ):
            raise ValueError("guard.corruption_drop needs diagnose.corruptions, and diagnose.samples above 0")
        return self


class Recipe(_Frame):
    """A whole recipe. ``stages`` are run in order; an empty list exports and measures the model as it is."""

    stages: tuple[SerializeAsAny[StageConfig], ...] = ()

    @model_validator(mode="after")
    def _stages_fit(self) -> Recipe:
        kinds = [stage.kind for stage in self.stages]
        faults = _contract_faults(kinds, self.exports.precisions)
        faults += _budget_faults(kinds, self.exports.precisions, self.recommend.contract)
        if faults:
            raise ValueError("; ".join(faults))
        return self


@dataclass(frozen=True)
class RecipeInfo:
    """One line of ``edgekit recipe ls``. ``fault`` says why the file can't be used, else it is empty."""

    name: str
    description: str
    path: Path
    fault: str = ""


def load_recipe(recipe: str | Path | Recipe, overrides: Sequence[str] = ()) -> Recipe:
    """Find, read, override and check a recipe.

    Args:
        recipe: a name (looked up in the user's configuration folder, the package, ``./recipes``), the path of
            a YAML file, or a Recipe.
        overrides: ``path=value`` each, the value in YAML: ``stages.prune.speedup=3``, ``seed=7``,
            ``stages[0].training.epochs=2``. A stage is named by its kind or by its index, all of them by
            ``*``. A target takes the place of the one that the recipe has: ``stages.prune.latency_ms=5``.

    Raises:
        RecipeError: unknown name, unreadable file, or faults; all of them at once in ``faults``.
    """
    if isinstance(recipe, Recipe):
        data, where = _data(recipe), f"recipe {recipe.name}"
    else:
        path = find_recipe(recipe)
        data, where = _read(path), str(path)
        if isinstance(data, dict) and "name" not in data:
            data = {"name": path.stem, **data}
    if not isinstance(data, dict):
        raise RecipeError(
            "this is no recipe",
            where=where,
            got="an empty file" if data is None else f"a {type(data).__name__}",
            expected="a mapping with `stages`",
            next="`edgekit recipe cp mobile FILE` writes one to start from",
        )
    aims: set[tuple[int, str]] = set()
    faults = [fault for text in overrides for fault in _override(data, text, aims)]
    checked, more = _check(data)
    if checked is None or faults:
        raise RecipeError(
            "the recipe can't be used",
            where=where,
            faults=[*faults, *more],
            next=f"edit the file, or see `edgekit recipe show {_name_of(recipe)}`",
        )
    return checked


def find_recipe(recipe: str | Path) -> Path:
    """The file of a recipe. Raises RecipeError, with the nearest name, if there is none."""
    path = configfile.find("recipes", recipe)
    if path is not None:
        return path
    if configfile.is_path(recipe):
        raise RecipeError(
            "no such recipe file", where=str(recipe), next="`edgekit recipe ls` lists the recipes with a name"
        )
    raise RecipeError(
        f"unknown recipe {str(recipe)!r}, {did_you_mean(str(recipe), configfile.listing('recipes'))}",
        next="`edgekit recipe ls` lists them; a file of your own is given by its path",
    )


def list_recipes() -> list[RecipeInfo]:
    """All recipes that have a name, those that can't be used included, sorted by name."""
    infos = []
    for name, path in configfile.listing("recipes").items():
        try:
            infos.append(RecipeInfo(name, load_recipe(path).description, path))
        except RecipeError as error:
            infos.append(
                RecipeInfo(name, "", path, fault=printable("; ".join(error.faults) or error.what, 500))
            )
    return infos


def dump(recipe: Recipe) -> str:
    """The recipe with every default written out, as YAML that ``load_recipe`` reads back as its equal."""
    return configfile.dump_yaml(_data(recipe))


def _data(recipe: Recipe) -> dict[str, Any]:
    data = recipe.model_dump(mode="json")
    order = ("name", "description", "seed", "stages")
    return {key: data[key] for key in (*order, *(key for key in data if key not in order))}


def _read(path: Path) -> Any:
    try:
        return configfile.read_yaml(path)
    except configfile.YamlError as error:
        raise RecipeError("this is no YAML of a recipe", where=str(path), got=str(error)) from None
    except OSError as error:
        raise RecipeError(
            "the recipe can't be read", where=str(path), got=error.strerror or str(error)
        ) from None


def _name_of(recipe: str | Path | Recipe) -> str:
    return recipe.name if isinstance(recipe, Recipe) else str(recipe)


# --- checking --------------------------------------------------------------------------------------------


def _check(data: dict[str, Any]) -> tuple[Recipe | None, list[str]]:
    """The recipe, or None and every fault in it."""
    frame_data = {key: value for key, value in data.items() if key != "stages"}
    frame, faults = _validate(_Frame, frame_data, "", known=Recipe.model_fields)
    items = data.get("stages")
    stages, stage_faults = _check_stages(items)
    faults += stage_faults
    if isinstance(items, list):
        exports = data.get("exports")
        wanted = exports.get("precisions") if isinstance(exports, dict) else None
        precisions = wanted if isinstance(wanted, list) else ExportConfig().precisions
        kinds = [_kind(item) for item in items]
        faults += _contract_faults(kinds, precisions)
        recommend = data.get("recommend")
        contract = isinstance(recommend, dict) and recommend.get("contract") is True
        faults += _budget_faults(kinds, precisions, contract)
    if frame is None or stages is None or faults:
        return None, faults
    return Recipe(**{key: getattr(frame, key) for key in _Frame.model_fields}, stages=stages), []


def _check_stages(items: Any) -> tuple[tuple[StageConfig, ...] | None, list[str]]:
    if items is None:
        return None, ["stages: missing; a list, which may be empty: []"]
    if not isinstance(items, list):
        return None, [f"stages: must be a list, got {items!r}"]
    stages: list[StageConfig] = []
    faults: list[str] = []
    for index, item in enumerate(items):
        where, kind = f"stages[{index}]", _kind(item)
        if not isinstance(item, dict) or "kind" not in item:
            faults.append(f"{where}: must be a mapping with `kind`: one of {', '.join(STAGES)}")
        elif kind not in STAGES:
            faults.append(f"{where}.kind: unknown stage {item['kind']!r}, {did_you_mean(kind, STAGES)}")
        else:
            stage, more = _validate(STAGES[kind].config, item, where)
            faults += more
            stages += [stage] if stage else []
    return tuple(stages), faults


def _validate(
    model: type[C], data: dict[Any, Any], prefix: str, known: Collection[str] = ()
) -> tuple[C | None, list[str]]:
    """Checked as JSON and strictly: "3" is no number and 3.5 no count, but a list may stand for a tuple."""
    try:
        whole = over_defaults(model, data)
        return model.model_validate_json(json.dumps(whole, default=str), strict=True), []
    except ValidationError as error:
        return None, configfile.faults_of(error, model, data, prefix, known)
    except (TypeError, ValueError) as error:  # keys that JSON doesn't have, text that is no Unicode
        return None, [f"{prefix or 'the file'}: {error}"]


def _kind(item: Any) -> str:
    return str(item.get("kind", "")) if isinstance(item, dict) else ""


def _contract_faults(kinds: Sequence[str], precisions: Sequence[Any]) -> list[str]:
    """Stages that can't follow each other, and exports that no stage prepares."""
    faults: list[str] = []
    form, maker = Form.FLOAT, ""
    for index, kind in enumerate(kinds):
        stage = STAGES.get(kind)
        if stage is None:
            return faults  # told already, and what it would have made isn't known
        if stage.requires is not form:
            faults.append(
                f"stages[{index}]: {kind!r} works on a {stage.requires.value} model, but stands after "
                f"{maker!r}, which makes {form.value} of it: "
                + ("use it once" if kind == maker else f"put it before {maker!r}")
            )
            continue
        if stage.ensures is not form:
            form, maker = stage.ensures, kind
    missing = [name for name in precisions if isinstance(name, str) and name in INT8_GRAPH]
    if missing and form is not Form.INT8:
        needs = " and ".join(missing) + (" needs" if len(missing) == 1 else " need")
        faults.append(
            f"exports.precisions: {needs} a 'qat' stage (with training.epochs: 0 it only calibrates); "
            "add one, or export fp32 alone"
        )
    return faults


def _budget_faults(kinds: Sequence[str], precisions: Sequence[Any], contract: bool) -> list[str]:
    """A contract about int8 files where there will be none."""
    int8 = "int8" in precisions and any(
        kind in STAGES and STAGES[kind].ensures is Form.INT8 for kind in kinds
    )
    if not contract or int8:
        return []
    return [
        "recommend.contract: a budget is kept by layers of int8 files, and this recipe writes none; it needs "
        "a 'qat' stage, and int8 in exports.precisions"
    ]


# --- overrides -------------------------------------------------------------------------------------------


def _override(data: dict[str, Any], text: str, aims: set[tuple[int, str]]) -> list[str]:
    """Change ``data`` in place. Returns why it couldn't be done, if so; keys are checked with the rest.

    ``aims``: identities of stages, with the targets that were set in them; grows.
    """
    path, equals, value_text = text.partition("=")
    keys = [key for key in re.split(r"\.|\[(\d+)\]", path.strip()) if key]
    if not equals or not 0 < len(keys) <= configfile.MOST_LEVELS:
        return [f"--set {text}: must look like stages.prune.speedup=3"]
    if keys[:2] == ["stages", "*"] and isinstance(data.get("stages"), list) and data["stages"]:
        rest = ".".join(["", *keys[2:]])
        each = [_override(data, f"stages[{i}]{rest}={value_text}", aims) for i in range(len(data["stages"]))]
        return next(filter(None, each), [])
    try:
        value = configfile.parse_yaml(value_text)
    except configfile.YamlError as error:
        return [f"--set {text}: the value is no YAML ({error})"]
    target: Any = data
    for depth, key in enumerate(keys):
        last = depth == len(keys) - 1
        if isinstance(target, list):
            index, fault = _index(target, key)
            if fault:
                return [f"--set {text}: {fault}"]
            if last:
                target[index] = value
            else:
                target = target[index]
        elif isinstance(target, dict):
            if last:
                target[key] = value
                if keys[0] == "stages" and len(keys) == 3 and value is not None:
                    _aim(target, key, aims)
            else:
                target = target.setdefault(key, {})
        else:
            return [f"--set {text}: {'.'.join(keys[:depth])} has no keys, it is {target!r}"]
    return []


def _aim(stage: dict[str, Any], key: str, aims: set[tuple[int, str]]) -> None:
    """A target that is set takes the recipe's place; of two that are set the check will tell."""
    if key not in MAIN:
        return
    aims.add((id(stage), key))
    for other in MAIN:
        if (id(stage), other) not in aims:
            stage.pop(other, None)


def _index(items: list[Any], key: str) -> tuple[int, str]:
    """Where ``key``, an index or a stage's kind, stands in a list; or what is wrong with it."""
    if key.isdecimal():
        index = int(key) if len(key) < 10 else len(items)
        return (index, "") if index < len(items) else (0, f"there is no [{key}], only {len(items)}")
    kinds = [_kind(item) for item in items]
    if kinds.count(key) == 1:
        return kinds.index(key), ""
    if key in kinds:
        return 0, f"{key!r} stands {kinds.count(key)} times; use the index: stages[{kinds.index(key)}]"
    return 0, f"no {key!r} here, {did_you_mean(key, [kind for kind in kinds if kind])}"
