"""ResNet-20 on CIFAR-10 with 2x fewer MACs after 8 epochs: edgekit's prune stage against torch-pruning.

    EDGEKIT_DATA=… python benchmarks/prune_accuracy.py [--epochs 8]

Both start from the same trained network, cut it once to at least twice fewer MACs (counted by
edgekit/macs.py for both), and train for the same number of epochs with the same seed, batches,
augmentation, optimizer and cosine: those of the mobile recipe's prune stage, but that channels leave in
twos. The recipe's eights are for the kernels of phones; torch-pruning knows no such step unless it is asked
(``round_to``), and what is compared here is accuracy. ``--channel-multiple 8`` measures what the eights
cost (prune_accuracy_eights.json). What differs is the method: edgekit's groups, worths and distillation
against torch-pruning's GroupNormPruner with GroupNorm importance and cross-entropy. The peer's training
runs in edgekit's engine without a teacher, for speed: the same loss, the same optimizer.

torch-pruning can't follow the network's zero-padded shortcuts: with the classifier alone ignored, as in its
README, the pruned network fails on its own shapes. The channels of the residual stream are ignored as well
(tutorial.residual_stream); that the result answers finite numbers of the right shape is checked. It is tried
with channels ranked within layers (its default) and across layers (as in its CIFAR benchmark); a row each.

``ratio``: the share of the accuracy that the peer lost which edgekit wins back,
(edgekit - peer) / (original - peer), on all 10,000 test images. Nothing is chosen on them here; how the
recipe's settings were chosen stands in README.md.
"""

from __future__ import annotations

import copy
import json
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import rows
import tutorial
import work
from provenance import PACKAGES, surroundings

from edgekit.macs import count
from edgekit.opening import load_workload
from edgekit.recipe import load_recipe
from edgekit.stages.base import DistillationConfig, StageContext, TrainingConfig
from edgekit.stages.prune_config import PruneConfig
from edgekit.training import evaluate, train
from edgekit.workload import Workload

SPEEDUP = 2.0
CHANNEL_MULTIPLE = 2
REQUIRED = 0.5
SCOPES = ("local", "global")
FILES = ("prune_accuracy.py", "tutorial.py", "workloads/cifar10.py")


def main(arguments: Sequence[str] | None = None) -> int:
    parser = work.parser(__doc__, "prune_accuracy")
    parser.add_argument("--epochs", type=int, default=8)
    parser.add_argument("--channel-multiple", type=int, default=CHANNEL_MULTIPLE)
    parser.add_argument("--peer-lr", type=float, help="else the recipe's, as for edgekit")
    options = parser.parse_args(arguments)
    with work.workplace(options) as place:
        about = surroundings((*PACKAGES, "torch-pruning"))
        workload = load_workload(f"{work.HERE}/workloads/cifar10.py:resnet20")
        if options.smoke:
            workload, options.epochs = work.smaller(workload, 512, 200), 1
        found = measured(place, workload, options)
        made = rows_of(found, options, about)
    print(rows.table(made))
    if not options.smoke:
        rows.write(options.out, made)
    return 0


def measured(place: work.Work, workload: Workload, options: Any) -> dict[str, dict[str, Any]]:
    """Part -> its record: "original", "edgekit" and one for each scope of the peer."""
    common = {"epochs": options.epochs, "seed": options.seed, "train": len(workload.train)}
    common |= {"threads": options.threads, "validation": len(workload.validation)}
    found = {"original": place.part("original", common, lambda _: original(workload), files=FILES)}
    ours = edgekit_config(options)
    found["edgekit"] = place.part(
        "edgekit",
        {**common, "config": ours.model_dump(mode="json")},
        lambda folder: by_edgekit(workload, ours, folder, options.seed),
        files=FILES,
    )
    theirs = peer_training(options)
    for scope in SCOPES:
        found[f"peer-{scope}"] = place.part(
            f"peer-{scope}",
            {**common, "scope": scope, "speedup": SPEEDUP, "training": theirs.model_dump(mode="json")},
            partial(by_peer, workload, SPEEDUP, scope, theirs, options.seed),
            files=FILES,
        )
    return found


def of_the_recipe(speedup: float, epochs: int) -> PruneConfig:
    """The prune stage of the mobile recipe, but for what is aimed at and for how long it trains."""
    (stage,) = (stage for stage in load_recipe("mobile").stages if isinstance(stage, PruneConfig))
    training = stage.training.model_copy(update={"epochs": epochs})
    return stage.model_copy(update={"speedup": speedup, "shrink": 1.0, "training": training})


def edgekit_config(options: Any) -> PruneConfig:
    """What edgekit does."""
    stage = of_the_recipe(SPEEDUP, options.epochs)
    return stage.model_copy(update={"channel_multiple": options.channel_multiple})


def peer_training(options: Any) -> TrainingConfig:
    """The same training with cross-entropy, and nothing else."""
    ours = edgekit_config(options).training
    return ours.model_copy(
        update={"lr": options.peer_lr or ours.lr, "distillation": DistillationConfig(loss="none")}
    )


def original(workload: Workload) -> dict[str, Any]:
    """The trained network."""
    return {**figures(workload.model, workload), "samples": len(workload.validation)}


def by_edgekit(workload: Workload, config: PruneConfig, folder: Path, seed: int) -> dict[str, Any]:
    """The prune stage; a killed one goes on from its plan and checkpoint in ``folder``."""
    context = StageContext(workload, workload.model, folder / "stage", seed, work.Teller("edgekit"))
    result = work.run_stage("prune", workload.model, config, context)
    details = {key: value for key, value in result.details.items() if key != "history"}
    return {
        **figures(result.model, workload),
        "history": result.details.get("history", []),
        "note": result.note,
        "cut": details,
        "speed": speed(folder / "stage"),
    }


def speed(stage: Path) -> dict[str, Any] | None:
    """How the stage's training computed, as measured before it began; None where that wasn't worth it."""
    kept = next(stage.glob("*.speed.json"), None)
    return None if kept is None else dict(json.loads(kept.read_text())["choice"])


def by_peer(
    workload: Workload, speedup: float, scope: str, training: TrainingConfig, seed: int, folder: Path
) -> dict[str, Any]:
    """torch-pruning and cross-entropy. The cut is made anew in every attempt; the training goes on."""
    small, share = tutorial.prune_to(
        lambda: copy.deepcopy(workload.model),
        workload.example(1),
        speedup,
        ignored=tutorial.residual_stream,
        scope=scope,
    )
    name = f"peer {scope}"
    before = evaluate(small, workload).score
    history = train(
        small,
        None,
        workload,
        training,
        seed=seed,
        checkpoint=folder / "checkpoint.pt",
        stage="peer",
        progress=work.Teller(name),
    )
    widths = {key: tuple(value.shape) for key, value in small.named_parameters() if value.dim() == 4}
    return {
        **figures(small, workload),
        "accuracy_untrained": before,
        "pruning_ratio": share,
        "history": history.epochs,
        "shapes": widths,
    }


def figures(model: Any, workload: Workload) -> dict[str, Any]:
    """Accuracy on the whole validation split, MACs and parameters."""
    size = count(model, workload.example(1))
    return {
        "accuracy": evaluate(model, workload).score,
        "macs": size.macs,
        "parameters": size.parameters,
    }


def won_back(original: float, ours: float, theirs: float) -> float | None:
    """The share of the peer's loss that edgekit avoids: 1 for no loss, 0 for the same, below 0 for more.

    None where the peer lost nothing.
    """
    lost = original - theirs
    return (ours - theirs) / lost if lost > 0 else None


def rows_of(found: dict[str, dict[str, Any]], options: Any, about: dict[str, Any]) -> list[dict[str, Any]]:
    """A row for each scope of the peer, the stronger peer first."""
    start, ours = found["original"], found["edgekit"]
    made = []
    for scope in sorted(SCOPES, key=lambda one: -found[f"peer-{one}"]["accuracy"]):
        theirs = found[f"peer-{scope}"]
        share = won_back(start["accuracy"], ours["accuracy"], theirs["accuracy"])
        made.append(
            rows.row(
                f"resnet20 CIFAR-10: {SPEEDUP:g}x fewer MACs, {options.epochs} epochs",
                "top-1 on the test images; ratio: share of the peer's loss won back",
                "share",
                edgekit=ours["accuracy"],
                peer=theirs["accuracy"],
                peer_name=f"torch-pruning GroupNorm ({scope}) + cross-entropy",
                ratio=share,
                samples=start["samples"],
                about=about,
                ratio_is="(edgekit - peer) / (original - peer)",
                required=REQUIRED,
                **({} if share is not None else {"error": "the peer lost nothing"}),
                original=start["accuracy"],
                edgekit_speedup=start["macs"] / ours["macs"],
                peer_speedup=start["macs"] / theirs["macs"],
                details={"original": start, "edgekit": ours, "peer": theirs},
                settings={
                    "edgekit": edgekit_config(options).model_dump(mode="json"),
                    "peer": peer_training(options).model_dump(mode="json"),
                    "seed": options.seed,
                    "threads": options.threads,
                },
                command=rows.command(),
            )
        )
    return made


if __name__ == "__main__":
    sys.exit(work.guarded(main))
