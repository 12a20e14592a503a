"""Where edgekit's cache is."""

from __future__ import annotations

import os
from pathlib import Path

__all__ = ["cache_folder"]


def cache_folder() -> Path:
    """$EDGEKIT_CACHE, $XDG_CACHE_HOME/edgekit or ~/.cache/edgekit; it may not exist yet."""
    if named := os.environ.get("EDGEKIT_CACHE"):
        return Path(named).absolute()
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache").absolute() / "edgekit"
