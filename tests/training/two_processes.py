"""What test_parallel.py starts under torchrun: trainings whose results the first process writes."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from edgekit.errors import EdgekitError
from edgekit.stages.base import DistillationConfig
from edgekit.training.computing import parallel
from tests.training.nets import Normed, Plain, config, fit, seeded

TEACHER = DistillationConfig(loss="standardized", weight=0.5)
HINTS = {"kind": "hint", "weight": 3.0, "layers": (("first", "first"),)}


class BrokenOnce:
    """A penalty that is NaN in one step."""

    def __init__(self, at: int) -> None:
        self.left = at

    def __call__(self, model: nn.Module) -> Tensor:
        self.left -= 1
        return torch.tensor(float("nan") if self.left == 0 else 0.0)


# name: settings of the training, and further arguments
CASES: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "plain": ({}, {}),
    "uneven-parts": ({"batch_size": 15}, {}),
    "taught": ({"distillation": TEACHER, "optimizer": "adamw", "lr": 0.01}, {"teacher": seeded(seed=5)}),
    "hints": ({"distillation": {"features": HINTS}}, {"teacher": seeded(seed=5)}),
    "weights-and-penalty": (
        {"class_weights": "balanced", "label_smoothing": 0.1},
        {"penalty": lambda model: 0.01 * model.first.weight.square().sum()},
    ),
    "sized": ({"batch_size": "auto", "min_steps": 60}, {}),
    "floor": ({}, {"floor": True}),
    "frozen-as-a-whole": ({}, {"floor": True}),
    "diverging": ({}, {"penalty": BrokenOnce(9)}),
    "everything": (
        {"lr": "auto", "ema_decay": 0.9, "schedule": "one_cycle", "early_stopping": {"held_out": 0.2}},
        {},
    ),
}


def trained(name: str, folder: Path) -> dict[str, Any]:
    changes, arguments = CASES[name]
    model = seeded(Plain).requires_grad_(name != "frozen-as-a-whole")
    history = fit(model, folder / name, config(**changes), **arguments)
    losses = [entry["loss"] for entry in history.epochs]
    return {"state": model.state_dict(), "loss": losses, "note": history.note}


def main(folder: Path) -> None:
    with parallel.joined() as group:
        own = folder / f"process-{group.rank}"
        own.mkdir()
        results: dict[str, Any] = {name: trained(name, own) for name in CASES}
        normed = seeded(Normed)
        fit(normed, own / "normed")
        results["normed"] = {"state": normed.state_dict()}
        results["files"] = sorted(path.relative_to(own).as_posix() for path in own.rglob("*.*"))
        try:
            fit(seeded(), own / "small", config(batch_size=3))
        except EdgekitError as error:
            results["small"] = str(error)
        try:
            group.first(lambda: 1 / 0)
        except Exception as error:
            results["first"] = f"{type(error).__name__}: {error}"
        torch.save(results, own / "results.pt")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
