"""Where the random numbers of a training come from."""

from __future__ import annotations

import hashlib

__all__ = ["seed_of"]


def seed_of(seed: int, stage: str, epoch: int, purpose: str) -> int:
    """A seed of its own for every purpose in every epoch: nothing depends on what was drawn before."""
    digest = hashlib.sha256(f"{seed}/{stage}/{epoch}/{purpose}".encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1
