"""What is kept of a training while it goes on: in memory, to go back to; on disk, to go on from."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import nn

from edgekit import checkpoint as checkpoints
from edgekit.monitor.meter import Meter
from edgekit.training.computing.parallel import Group
from edgekit.training.logs import csv_beside, write_csv

__all__ = ["Keeper"]


class Keeper:
    """The state after the last good epoch. Of several processes the first one alone reads and writes.

    Args:
        path: of the checkpoint; training.csv stands beside it.
        identity: JSON, which training a checkpoint belongs to.
        model, optimizer, parts: what has a state. ``parts`` may still grow until the first call.
        facts: JSON that is kept along, see ``TrainingHistory``; changed in place.
        group: the processes that train together.
        meter: is told what was found.
    """

    def __init__(
        self,
        path: Path,
        identity: Mapping[str, Any],
        model: nn.Module,
        optimizer: Any,
        parts: Mapping[str, checkpoints.Part],
        facts: dict[str, Any],
        group: Group,
        meter: Meter,
    ) -> None:
        self.path, self.model, self.optimizer, self.parts = path, model, optimizer, parts
        self.identity = hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()
        self.facts, self.group, self.meter = facts, group, meter
        self.history: list[dict[str, float]] = []
        self.good: checkpoints.Checkpoint | None = None

    def resume(self) -> None:
        """Take up what the checkpoint holds, if there is a good one."""
        found, reason = self.group.first(lambda: checkpoints.read(self.path, self.identity))
        if found is not None and not (reason := self._restore(found)):
            self.history[:] = found.history
            self.facts.clear()
            self.facts.update(found.facts)
            self._write_log()
            self.meter.tell("note", f"continuing after epoch {found.epoch} of {self.meter.epochs}")
        if reason:
            self.meter.tell("warning", f"checkpoint {self.path.name} ignored: {reason}; starting over")

    def remember(self) -> None:
        """The state as it is now is the one to go back to."""
        state = checkpoints.Checkpoint(
            self.identity,
            len(self.history),
            self.model.state_dict(),
            self.optimizer.state_dict(),
            self.history,
            self.facts,
            {name: part.state_dict() for name, part in self.parts.items()},
        )
        self.good = checkpoints.Checkpoint(**checkpoints.copied(vars(state)))

    def keep(self) -> None:
        """Remember, and write checkpoint and log. Raises DiskFullError."""
        self.remember()
        assert self.good is not None
        if self.group.is_first:
            checkpoints.write(self.path, self.good)
        self._write_log()

    def go_back(self) -> None:
        """The remembered state again; history and facts stay, as they tell what has happened."""
        assert self.good is not None
        reason = self._restore(self.good)
        assert not reason, reason

    def _restore(self, found: checkpoints.Checkpoint) -> str:
        return checkpoints.restore(found, self.model, self.optimizer, self.parts)

    def _write_log(self) -> None:
        if self.group.is_first:
            write_csv(csv_beside(self.path), self.history)
