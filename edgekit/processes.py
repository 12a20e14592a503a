"""Which of several processes this one is, as ``torchrun`` told it. Needs no torch."""

from __future__ import annotations

import os

__all__ = ["count_here", "local_rank_here", "rank_here"]


def count_here() -> int:
    """How many processes were started together; 1 without torchrun."""
    return int(os.environ.get("WORLD_SIZE", "1")) if "MASTER_ADDR" in os.environ else 1


def rank_here() -> int:
    """The number of this process, from 0; 0 without torchrun."""
    return int(os.environ.get("RANK", "0")) if count_here() > 1 else 0


def local_rank_here() -> int:
    """The number of this process among those on the same machine, from 0; 0 without torchrun."""
    return int(os.environ.get("LOCAL_RANK", "0")) if count_here() > 1 else 0
