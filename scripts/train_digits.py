"""Train the embedded demo from nothing and write edgekit/zoo/digits.safetensors.

    python scripts/train_digits.py

About two minutes. The same machine and versions give the same file; the last line says what it scores.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import torch
from safetensors.torch import save

from edgekit.files import atomic_write
from edgekit.macs import count
from edgekit.progress import Event
from edgekit.stages.base import DistillationConfig, TrainingConfig
from edgekit.training import evaluate, train
from edgekit.zoo import digits

SEED = 0
CONFIG = TrainingConfig(
    epochs=60,
    batch_size=64,
    lr=0.05,
    warmup_epochs=2,
    label_smoothing=0.05,
    distillation=DistillationConfig(loss="none"),
)


def show(event: Event) -> None:
    if event.kind == "epoch":
        print(
            f"epoch {event.epoch:2d}/{event.epochs}  loss {event.loss:.4f}  top-1 {event.accuracy:.4f}",
            flush=True,
        )


def main() -> None:
    torch.set_num_threads(1)  # sums in another order would give another file
    torch.manual_seed(SEED)
    demo = digits.untrained()
    with tempfile.TemporaryDirectory() as folder:
        # float32 throughout, so that the result doesn't depend on what the CPU can do in bfloat16.
        train(
            demo.model,
            None,
            demo,
            CONFIG,
            seed=SEED,
            checkpoint=Path(folder) / "checkpoint.pt",
            stage="digits",
            progress=show,
            autocast=False,
        )
    tensors = {name: value.contiguous() for name, value in demo.model.state_dict().items()}
    atomic_write(digits.WEIGHTS, save(tensors, metadata={"trained_by": "scripts/train_digits.py"}))
    complexity, score = count(demo.model, demo.example()), evaluate(demo.model, demo).score
    print(
        f"{digits.WEIGHTS.name}: top-1 {score:.4f} on {len(demo.validation)} scans, "
        f"{complexity.parameters:,} parameters, {complexity.macs:,} MACs"
    )


if __name__ == "__main__":
    main()
