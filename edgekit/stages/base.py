"""What every stage shares: its configuration, what it is given, what it gives back.

This file needs no torch, so that a recipe can be read and checked in an instant.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgekit.config.settings import Config, DistillationConfig, TrainingConfig
from edgekit.progress import Progress, silent

if TYPE_CHECKING:
    from torch import nn

    from edgekit.devices.device import Device
    from edgekit.devices.transport import Transport
    from edgekit.pruning.build import Prepared
    from edgekit.workload import Workload

__all__ = [
    "Config",
    "DistillationConfig",
    "Form",
    "Shipping",
    "Stage",
    "StageConfig",
    "StageContext",
    "StageResult",
    "TrainingConfig",
]


class Form(Enum):
    """In which form a model stands between two stages."""

    FLOAT = "float"  # an ordinary nn.Module
    INT8 = "int8"  # an int8 graph: torch.fx.GraphModule with explicit quantise/dequantise ops


class StageConfig(Config):
    """Base of the stages' configurations; ``kind`` names the stage."""

    kind: str


@dataclass(frozen=True)
class Shipping:
    """What will become of the model after the stages: files in formats and precisions, for devices.

    ``link`` and ``about``: the way to a device, and what it says of itself (``devices.device.probe``).
    """

    formats: tuple[str, ...]
    precisions: tuple[str, ...]
    devices: tuple[Device, ...]
    link: Callable[[Device], Transport]
    about: Callable[[Device], dict[str, Any]]


@dataclass(frozen=True)
class StageContext:
    """What a stage may use beside the model.

    ``teacher`` is the original trained model, in eval mode; never changed by a stage.
    ``folder`` exists; the stage writes what it needs to be loaded again there (atomically, see ``run.py``).
    ``shipping`` is None where nothing is known of it. ``prepared``: what pruning has found out already about
    a model with the very weights that the stage gets; None: nothing.
    """

    workload: Workload
    teacher: nn.Module
    folder: Path
    seed: int = 0
    progress: Progress = silent
    shipping: Shipping | None = None
    prepared: Prepared | None = None


@dataclass(frozen=True)
class StageResult:
    """``model`` is the new model; ``note`` one sentence for the table; ``details`` JSON for the report."""

    model: nn.Module
    changed: bool
    note: str = ""
    details: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Stage:
    """A row of the table of stages. ``load`` rebuilds the result from ``context.folder`` without training."""

    config: type[StageConfig]
    run: Callable[[Any, Any, StageContext], StageResult]
    load: Callable[[Any, Any, StageContext], StageResult]
    requires: Form
    ensures: Form
