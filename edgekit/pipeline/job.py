"""What all parts of one run share, and how they find what is finished already."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from edgekit.devices.device import Device
from edgekit.pipeline.connections import Connections
from edgekit.progress import Event, Progress
from edgekit.recipe import Recipe
from edgekit.runs.folder import Damaged, RunFolder, finished, holds
from edgekit.workload import Workload

if TYPE_CHECKING:
    from edgekit.pruning.build import Prepared


@dataclass(frozen=True)
class Job:
    """One run. ``fingerprint`` is the workload's, which takes a while to compute. ``prepared``: by a model's
    digest, what the preflight has found out about it for the prune stage, which takes it out. ``rounds``: of
    the contract about accuracy, those that are over (``contract.py``).
    """

    recipe: Recipe
    workload: Workload
    fingerprint: str
    devices: tuple[Device, ...]
    run: RunFolder
    progress: Progress
    connections: Connections = field(default_factory=Connections)
    prepared: dict[str, Prepared] = field(default_factory=dict)
    rounds: list[Any] = field(default_factory=list)

    def tell(
        self,
        kind: Literal["stage-start", "step", "stage-end", "stage-skipped", "note", "warning"],
        part: str,
        message: str = "",
        *,
        done: int = 0,
        total: int = 0,
    ) -> None:
        """Emit an event."""
        self.progress(Event(kind, part, message, done=done, total=total))

    def finished(
        self, path: Path, key: str, part: str, check: Callable[[dict[str, Any]], object] = bool
    ) -> dict[str, Any] | None:
        """The record of what is finished with this key; None, with a warning, if it is damaged.

        ``check`` raises ValueError, KeyError or TypeError if the record doesn't hold what it should.
        """
        try:
            record = finished(path, key)
            if record is not None:
                holds(path, record, check)
            return record
        except Damaged as damage:
            self.tell("warning", part, f"{damage}; made anew")
            return None
