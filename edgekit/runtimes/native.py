"""Files that are compiled code (AOTInductor's packages): which of them this user's edgekit compiled itself.

Loading one executes it.
"""

from __future__ import annotations

from pathlib import Path

from edgekit.files import require_file, sha256
from edgekit.made import made_here, remember_made
from edgekit.runtimes.device.runtime_torch import compiled

__all__ = ["is_native", "is_ours", "remember"]

_KIND = "compiled"


def remember(digest: str) -> None:
    """Note that the file with this sha256 was compiled here."""
    remember_made(_KIND, digest)


def is_native(path: Path) -> bool:
    """Whether loading a file would execute it; told by its list of contents, of which nothing is loaded."""
    try:
        if path.suffix != ".pt2":
            return False
        require_file(path)
        return compiled(str(path))
    except (OSError, ValueError):
        return False


def is_ours(path: Path) -> bool:
    """Whether a file was compiled by this user's edgekit."""
    return is_native(path) and made_here(_KIND, sha256(path))
