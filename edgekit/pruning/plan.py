"""The pruning plan: which channels of which layer stay, as JSON that a person can read.

It replays on a fresh model of the same architecture by cutting layer after layer; nothing is traced, and
torch-pruning isn't needed. Together with the weights (safetensors) it is the whole pruned model.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import nn

from edgekit.errors import PruneError
from edgekit.pruning import surgery
from edgekit.pruning.surgery import Dim

__all__ = ["Cut", "Plan"]

FORMAT = "edgekit-pruning-plan"
VERSION = 1


@dataclass(frozen=True)
class Cut:
    """One side of one layer: of ``before`` channels those in ``kept`` stay (sorted)."""

    layer: str
    dim: Dim
    before: int
    kept: tuple[int, ...]

    @property
    def removed(self) -> list[int]:
        """The indices that leave."""
        return sorted(set(range(self.before)) - set(self.kept))


@dataclass(frozen=True)
class Plan:
    """All cuts of a model. ``settings``: what it was made with; replaying doesn't need them."""

    cuts: tuple[Cut, ...] = ()
    settings: Mapping[str, Any] = field(default_factory=dict)

    def apply(self, model: nn.Module) -> None:
        """Shrink ``model`` in place. It is unchanged if an error is raised.

        Raises:
            PruneError: the plan doesn't fit: a layer is missing, or has other channels than the plan says.
        """
        faults = [fault for cut in self.cuts if (fault := _misfit(model, cut))]
        if faults:
            raise PruneError(
                "the pruning plan doesn't fit the model",
                got="; ".join(faults[:5]) + (f" and {len(faults) - 5} more" if len(faults) > 5 else ""),
                expected="the model that the plan was made for",
                next="build the model with the same settings as then",
            )
        for cut in self.cuts:
            surgery.keep(model.get_submodule(cut.layer), cut.dim, list(cut.kept))

    def silence(self, model: nn.Module) -> None:
        """Let ``model`` ignore, in place, the channels that the plan would remove; its shapes stay.

        Its answers are then those of the pruned model: the check that a plan is right.
        """
        for cut in self.cuts:
            layer = model.get_submodule(cut.layer)
            if cut.dim == "in" and surgery.reads_all(layer):
                surgery.silence(layer, cut.removed)

    def to_json(self) -> str:
        """One line per cut, so that a person can read and compare plans."""
        settings = json.dumps(dict(self.settings), sort_keys=True, indent=2).replace("\n", "\n  ")
        rows = ",\n".join(f"    {json.dumps(_row(cut))}" for cut in self.cuts)
        return (
            f'{{\n  "format": "{FORMAT}",\n  "version": {VERSION},\n  "settings": {settings},\n'
            f'  "layers": [{chr(10) if rows else ""}{rows}{chr(10) + "  " if rows else ""}]\n}}\n'
        )

    @classmethod
    def from_json(cls, text: str, *, where: str = "") -> Plan:
        """Read what ``to_json`` wrote. Raises PruneError for anything else; ``where`` goes into it."""
        try:
            data = json.loads(text)
            if data["format"] != FORMAT or data["version"] != VERSION:
                raise ValueError(f"format {data['format']!r}, version {data['version']!r}")
            cuts = tuple(_cut(row) for row in data["layers"])
            return cls(cuts, dict(data["settings"]))
        except (ValueError, KeyError, TypeError) as error:
            raise PruneError(
                "not a pruning plan",
                where=where,
                got=f"{type(error).__name__}: {error}",
                expected=f"JSON of format {FORMAT!r}, version {VERSION}",
            ) from error


def _row(cut: Cut) -> dict[str, Any]:
    return {
        "layer": cut.layer,
        "dim": cut.dim,
        "channels_before": cut.before,
        "channels_after": len(cut.kept),
        "kept": list(cut.kept),
    }


def _cut(row: Any) -> Cut:
    kept, before = tuple(row["kept"]), row["channels_before"]
    if not all(type(index) is int for index in (before, *kept)) or row["dim"] not in ("in", "out"):
        raise ValueError(f"layer {row['layer']!r}: indices must be whole numbers, and dim 'in' or 'out'")
    if not kept or list(kept) != sorted(set(kept)) or kept[0] < 0 or kept[-1] >= before:
        raise ValueError(f"layer {row['layer']!r}: kept must be increasing indices from 0 to {before - 1}")
    if len(kept) != row["channels_after"]:
        raise ValueError(f"layer {row['layer']!r}: channels_after is not the number of kept channels")
    return Cut(str(row["layer"]), row["dim"], before, kept)


def _misfit(model: nn.Module, cut: Cut) -> str:
    try:
        layer = model.get_submodule(cut.layer)
    except AttributeError:
        return f"no layer {cut.layer!r}"
    reason = surgery.unsupported(layer)
    if reason:
        return f"{cut.layer} is {reason}"
    found = surgery.channels(layer, cut.dim)
    if found == cut.before:
        return ""
    return f"{cut.layer} has {found} {cut.dim} channels, the plan says {cut.before}"
