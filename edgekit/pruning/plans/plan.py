"""The pruning plan: which channels of which layer stay, as JSON that a person can read.

It replays on a fresh model of the same architecture by cutting layer after layer; nothing is traced, and
torch-pruning isn't needed. Together with the weights (safetensors) it is the whole pruned model.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import nn

from edgekit.errors import PruneError
from edgekit.files import parse_json
from edgekit.pruning.plans import surgery
from edgekit.pruning.plans.rewrites import IDENTITY, Attribute, Replaced, Replacement
from edgekit.pruning.plans.surgery import Dim

__all__ = ["Cut", "Plan"]

FORMAT = "edgekit-pruning-plan"
VERSIONS = (1, 2)  # 1 has layers alone


@dataclass(frozen=True)
class Cut:
    """One side of one layer: of ``before`` channels those in ``kept`` stay (sorted).

    ``axis``: set where ``layer`` is not a layer but the name of a parameter or buffer; the axis that is cut.
    """

    layer: str
    dim: Dim
    before: int
    kept: tuple[int, ...]
    axis: int | None = None

    @property
    def removed(self) -> list[int]:
        """The indices that leave."""
        return sorted(set(range(self.before)) - set(self.kept))


@dataclass(frozen=True)
class Plan:
    """All cuts of a model. ``settings``: what it was made with; replaying doesn't need them.

    ``attributes`` (numbers that modules hold) follow the cuts, ``replacements`` of modules come before them.
    """

    cuts: tuple[Cut, ...] = ()
    settings: Mapping[str, Any] = field(default_factory=dict)
    attributes: tuple[Attribute, ...] = ()
    replacements: tuple[Replacement, ...] = ()

    @property
    def touched(self) -> set[str]:
        """The modules that are cut, or replaced."""
        return {cut.layer for cut in self.cuts} | {each.layer for each in self.replacements}

    @property
    def gone(self) -> tuple[str, ...]:
        """The blocks that give way to nothing."""
        return tuple(each.layer for each in self.replacements if each.by == IDENTITY)

    def without_the_gone(self) -> Plan:
        """The same, but for what it says of modules inside of blocks that are gone."""
        inside = tuple(f"{name}." for name in self.gone)
        if not inside:
            return self

        def stays(name: str) -> bool:
            return not f"{name}.".startswith(inside)

        return replace(
            self,
            cuts=tuple(cut for cut in self.cuts if stays(cut.layer)),
            attributes=tuple(each for each in self.attributes if stays(each.module)),
            replacements=tuple(
                each for each in self.replacements if each.by == IDENTITY or stays(each.layer)
            ),
        )

    def applied_to(self, model: nn.Module) -> nn.Module:
        """A smaller copy; ``model`` itself is left as it is. Raises PruneError as ``apply`` does."""
        small = copy.deepcopy(model)
        self.apply(small)
        return small

    def apply(self, model: nn.Module) -> None:
        """Shrink ``model`` in place. It is unchanged if an error is raised.

        Raises:
            PruneError: the plan doesn't fit: a layer is missing, or has other channels than the plan says.
        """
        self.check(model).install()
        # Outputs first: a grouped layer that is left with one input for each group would then look depthwise.
        for cut in sorted(self.cuts, key=lambda cut: cut.dim == "in"):
            if cut.axis is not None:
                _keep_tensor(model, cut)
            else:
                surgery.keep(model.get_submodule(cut.layer), cut.dim, list(cut.kept))
        for each in self.attributes:
            each.apply(model.get_submodule(each.module))

    def check(self, model: nn.Module) -> Replaced:
        """What ``apply`` would put in the place of modules. Raises PruneError as it does."""
        modules = Replaced(model, self.replacements)
        faults = modules.faults + [fault for cut in self.cuts if (fault := _misfit(modules, cut))]
        faults += [fault for each in self.attributes if (fault := each.misfit(modules.get(each.module)))]
        if faults:
            raise PruneError(
                "the pruning plan doesn't fit the model",
                got="; ".join(faults[:5]) + (f" and {len(faults) - 5} more" if len(faults) > 5 else ""),
                expected="the model that the plan was made for",
                next="build the model with the same settings as then",
            )
        return modules

    def silence(self, model: nn.Module) -> None:
        """Let ``model`` ignore, in place, the channels that the plan would remove; its shapes stay.

        Its answers are then those of the pruned model: the check that a plan is right.
        """
        Replaced(model, self.replacements).install()
        for cut in self.cuts:
            if cut.axis is None:
                surgery.silence(model.get_submodule(cut.layer), cut.dim, cut.removed)

    def to_json(self) -> str:
        """One line per cut, so that a person can read and compare plans."""
        settings = json.dumps(dict(self.settings), sort_keys=True, indent=2).replace("\n", "\n  ")
        parts = {"layers": [_row(cut) for cut in self.cuts]}
        version = 1
        if self.attributes or self.replacements or any(cut.axis is not None for cut in self.cuts):
            version = 2
            parts["attributes"] = [vars(each) for each in self.attributes]
            parts["replacements"] = [vars(each) for each in self.replacements]
        head = f'{{\n  "format": "{FORMAT}",\n  "version": {version},\n  "settings": {settings},\n'
        return head + ",\n".join(f'  "{name}": {_lines(rows)}' for name, rows in parts.items()) + "\n}\n"

    @classmethod
    def from_json(cls, text: str, *, where: str = "") -> Plan:
        """Read what ``to_json`` wrote. Raises PruneError for anything else; ``where`` goes into it."""
        try:
            data = parse_json(text)
            if data["format"] != FORMAT or data["version"] not in VERSIONS:
                raise ValueError(f"format {data['format']!r}, version {data['version']!r}")
            return cls(
                tuple(_cut(row) for row in data["layers"]),
                dict(data["settings"]),
                tuple(_attribute(row) for row in data.get("attributes", ())),
                tuple(Replacement(str(row["layer"]), str(row["by"])) for row in data.get("replacements", ())),
            )
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise PruneError(
                "not a pruning plan",
                where=where,
                got=f"{type(error).__name__}: {error}",
                expected=f"JSON of format {FORMAT!r}, version {' or '.join(map(str, VERSIONS))}",
            ) from error


def _lines(rows: list[dict[str, Any]]) -> str:
    lines = ",\n".join(f"    {json.dumps(row)}" for row in rows)
    return f"[\n{lines}\n  ]" if rows else "[]"


def _row(cut: Cut) -> dict[str, Any]:
    return {
        "layer": cut.layer,
        "dim": cut.dim,
        **({} if cut.axis is None else {"axis": cut.axis}),
        "channels_before": cut.before,
        "channels_after": len(cut.kept),
        "kept": list(cut.kept),
    }


def _cut(row: Any) -> Cut:
    kept, before, axis = tuple(row["kept"]), row["channels_before"], row.get("axis")
    if not all(type(index) is int for index in (before, *kept)) or row["dim"] not in ("in", "out"):
        raise ValueError(f"layer {row['layer']!r}: indices must be whole numbers, and dim 'in' or 'out'")
    if not kept or list(kept) != sorted(set(kept)) or kept[0] < 0 or kept[-1] >= before:
        raise ValueError(f"layer {row['layer']!r}: kept must be increasing indices from 0 to {before - 1}")
    if len(kept) != row["channels_after"]:
        raise ValueError(f"layer {row['layer']!r}: channels_after is not the number of kept channels")
    if axis is not None and (type(axis) is not int or axis < 0):
        raise ValueError(f"layer {row['layer']!r}: axis must be a whole number from 0")
    return Cut(str(row["layer"]), row["dim"], before, kept, axis)


def _attribute(row: Any) -> Attribute:
    item, before, after = row["item"], row["before"], row["after"]
    if not all(type(value) is int for value in (before, after, 0 if item is None else item)):
        raise ValueError(f"attribute {row['name']!r}: before, after and item must be whole numbers")
    return Attribute(str(row["module"]), str(row["name"]), item, before, after)


def _misfit(modules: Replaced, cut: Cut) -> str:
    if cut.axis is not None:
        return _tensor_misfit(modules, cut)
    layer = modules.get(cut.layer)
    if layer is None:
        return f"no layer {cut.layer!r}"
    reason = surgery.unsupported(layer)
    if reason:
        return f"{cut.layer} is {reason}"
    found = surgery.channels(layer, cut.dim)
    if found != cut.before:
        return f"{cut.layer} has {found} {cut.dim} channels, the plan says {cut.before}"
    reason = surgery.uneven(layer, cut.dim, cut.kept)
    return f"{cut.layer}: {reason}" if reason else ""


def _tensor_misfit(modules: Replaced, cut: Cut) -> str:
    owner, _, name = cut.layer.rpartition(".")
    tensor = getattr(modules.get(owner), name, None)
    if not isinstance(tensor, torch.Tensor) or cut.axis is None or tensor.dim() <= cut.axis:
        return f"no parameter or buffer {cut.layer!r} with an axis {cut.axis}"
    found = tensor.shape[cut.axis]
    return "" if found == cut.before else f"{cut.layer} has {found} channels, the plan says {cut.before}"


def _keep_tensor(model: nn.Module, cut: Cut) -> None:
    owner, _, name = cut.layer.rpartition(".")
    module = model.get_submodule(owner)
    old = getattr(module, name)
    index = torch.tensor(cut.kept, dtype=torch.long, device=old.device)
    new = old.detach().index_select(cut.axis, index).contiguous().clone()
    setattr(module, name, nn.Parameter(new, old.requires_grad) if isinstance(old, nn.Parameter) else new)
