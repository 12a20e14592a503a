"""Which channels of a model can leave: the checks that the prune stage does first, without its search."""

from __future__ import annotations

from typing import Any

from torch import nn
from torch.nn.modules.conv import _ConvNd

from edgekit import macs
from edgekit.errors import PruneError
from edgekit.pruning.coupling import groups
from edgekit.pruning.goals.search import Limits
from edgekit.stages.prune_config import PruneConfig
from edgekit.tensors import Tensors

__all__ = ["cuttable", "find_channels"]


def find_channels(model: nn.Module, example: Tensors) -> dict[str, Any]:
    """Groups of channels that can leave, what stays whole and why, and how far the stage's defaults let go.

    As JSON: ``groups``, ``kept_whole``, ``furthest`` (None if the model can't be traced: ``error`` says why)
    and ``limits``. ``example``: (N, …) inputs as the model takes them.
    """
    defaults = PruneConfig()
    multiple = PruneConfig.model_fields["channel_multiple"].default
    limits = Limits(multiple, defaults.max_ratio)
    described: dict[str, Any] = {
        "groups": [],
        "kept_whole": [],
        "furthest": None,
        "limits": {"channel_multiple": limits.channel_multiple, "max_ratio": limits.max_ratio},
        "error": "",
    }
    try:
        found = groups.find(model, example)
    except PruneError as error:
        return {**described, "error": f"{error.what} ({error.got})" if error.got else error.what}
    modules = dict(found.traced.named_modules())
    for group in found.groups:
        makers = dict.fromkeys(member.layer for member in group.members if member.dim == "out")
        described["groups"].append(
            {
                "name": group.name,
                "channels": group.channels,
                "least": limits.counts(group.channels)[-1],
                "layers": [layer for layer in makers if isinstance(modules[layer], (_ConvNd, nn.Linear))],
            }
        )
    described["kept_whole"] = [
        {"name": whole.name, "layers": list(whole.layers), "reason": whole.reason} for whole in found.whole
    ]
    return {**described, "furthest": _furthest(model, example, found, limits)}


def _furthest(model: nn.Module, example: Tensors, found: groups.Found, limits: Limits) -> dict[str, float]:
    """MACs and parameters before over after, when every group is cut as far as the limits allow."""
    removed = {g.name: list(range(limits.counts(g.channels)[-1], g.channels)) for g in found.groups}
    small = found.plan(removed).applied_to(model)
    before, after = macs.count(model, example), macs.count(small, example)
    return {
        "speedup": round(before.macs / max(after.macs, 1), 4),
        "shrink": round(before.parameters / max(after.parameters, 1), 4),
    }


def cuttable(described: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """By layer, from what ``find_channels`` gave: whether its channels can leave, with whose, or why not."""
    rows: dict[str, dict[str, Any]] = {}
    for whole in described["kept_whole"]:
        for layer in whole["layers"]:
            rows[layer] = {"cut": False, "channels": None, "with": [], "reason": whole["reason"]}
    for group in described["groups"]:
        for layer in group["layers"]:
            others = [other for other in group["layers"] if other != layer]
            rows[layer] = {"cut": True, "channels": group["channels"], "with": others, "reason": ""}
    return rows
