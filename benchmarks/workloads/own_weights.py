"""Networks that are trained here, once: their weights stay in the user's cache folder."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

from edgekit.config.settings import TrainingConfig
from edgekit.errors import WorkloadError
from edgekit.progress import Progress, silent
from edgekit.workload import Workload, load_weights

SEED = 0


def weights_path(made: Workload, training: TrainingConfig) -> Path:
    """Below $XDG_CACHE_HOME or ~/.cache; another name for another network or another training."""
    described = f"{made.model} {training.model_dump_json()} {SEED}"
    digest = hashlib.sha256(described.encode()).hexdigest()[:16]
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return cache / "edgekit" / "benchmarks" / f"{made.name}-{digest}.safetensors"


def load(made: Workload, training: TrainingConfig, script: str) -> Workload:
    """``made`` with its trained weights. Raises WorkloadError, which names ``script``, without them."""
    path = weights_path(made, training)
    if not path.exists():
        raise WorkloadError(
            "the network isn't trained yet",
            where=str(path),
            got="no such file",
            next=f"EDGEKIT_DATA=… python benchmarks/workloads/{script}",
        )
    load_weights(made.model, path)
    return made


def trained(made: Workload, training: TrainingConfig, progress: Progress = silent) -> Workload:
    """``made`` with its trained weights, trained first if they aren't there."""
    path = weights_path(made, training)
    if path.exists():
        load_weights(made.model, path)
    else:
        train(made, training, path, progress)
    return made


def train(made: Workload, training: TrainingConfig, path: Path, progress: Progress = silent) -> None:
    """Train ``made.model`` from the weights that it has, and write them to ``path``.

    No epoch is chosen: the last one counts. A killed training goes on from the checkpoint beside ``path``.
    """
    from safetensors.torch import save

    from edgekit.files import atomic_write
    from edgekit.training import train as fit

    path.parent.mkdir(parents=True, exist_ok=True)
    checkpoint = path.with_suffix(".checkpoint.pt")
    fit(made.model, None, made, training, seed=SEED, checkpoint=checkpoint, stage="train", progress=progress)
    state = {name: value.detach().contiguous() for name, value in made.model.state_dict().items()}
    atomic_write(path, save(state))
    checkpoint.unlink(missing_ok=True)
