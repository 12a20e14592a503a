"""The languages that bundles are made for: one folder each, with its templates beside it."""

from __future__ import annotations

import functools
import importlib

from edgekit.bundle.targets.base import Target
from edgekit.errors import InputError, did_you_mean

__all__ = ["NAMES", "load"]

NAMES = ("python", "cpp", "android", "ios", "arduino")


@functools.cache
def load(name: str) -> Target:
    """The target of this name. Raises InputError: there is none."""
    if name not in NAMES:
        raise InputError(
            "unknown target",
            got=repr(name),
            expected=f"one of {', '.join(NAMES)}",
            next=did_you_mean(name, NAMES) or "",
        )
    target: Target = importlib.import_module(f"edgekit.bundle.targets.{name}").TARGET
    return target
