"""ResNet-56 on CIFAR-10 with 2.1x fewer MACs: edgekit's prune stage against torch-pruning's own figures.

    EDGEKIT_DATA=… python benchmarks/resnet56.py [--epochs 20]
    EDGEKIT_DATA=… python benchmarks/resnet56.py --device cuda --epochs 250 …   (all of it in README.md)

From 93.39 % of the 10,000 test images. The peers' figures aren't measured here: they stand in torch-pruning's
table for CIFAR-10 (DepGraph; Fang et al. 2023), from a network with 93.53 % that was trained 100 epochs after
the cut on a GPU, and with sparse learning another 100 before it. Channels leave in twos, as in
prune_accuracy.py. An hour or more on CPU cores; a killed script goes on after its last epoch. With ``--plan``
the cut is that of a plan, and the result doesn't depend on which machine ranked the channels.

``ratio``: accuracy of edgekit over that of the peer.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import prune_accuracy
import rows
import work
from provenance import PACKAGES, surroundings

from edgekit.opening import load_workload
from edgekit.stages.base import DistillationConfig
from edgekit.stages.prune_config import PruneConfig
from edgekit.workload import Workload

SPEEDUP = 2.1
REQUIRED = {"cpu": 0.930, "cuda": 0.938}
PUBLISHED = {  # top-1, by torch-pruning's own table
    "torch-pruning DepGraph without sparse learning, published: 100 epochs on a GPU": 0.9346,
    "torch-pruning DepGraph with sparse learning, published: 200 epochs on a GPU": 0.9377,
}
FILES = ("resnet56.py", "prune_accuracy.py", "workloads/cifar10.py")


def main(arguments: Sequence[str] | None = None) -> int:
    parser = work.parser(__doc__, "resnet56")
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument(
        "--plan", type=Path, help="the cut, from a plan.json that edgekit wrote; else made here"
    )
    parser.add_argument(
        "--device", choices=["cpu", "cuda"], default="cpu", help="where the training computes"
    )
    parser.add_argument("--batch-size", type=int, help="else the recipe's, as for the next two")
    parser.add_argument("--lr", type=float)
    parser.add_argument("--weight", type=float, help="of what the original model says; 0: the labels alone")
    parser.add_argument("--cutmix", type=float, default=0.0, help="Beta(a, a) of the mixed images' shares")
    options = parser.parse_args(arguments)
    with work.workplace(options) as place:
        about = surroundings((*PACKAGES, "torch-pruning"))
        workload = load_workload(f"{work.HERE}/workloads/cifar10.py:resnet56")
        if options.smoke:
            workload, options.epochs = work.smaller(workload, 256, 100), 1
        found = measured(place, workload, options)
        made = rows_of(found, options, about)
    print(rows.table(made))
    if not options.smoke:
        rows.write(options.out, made)
    return 0


def measured(place: work.Work, workload: Workload, options: Any) -> dict[str, dict[str, Any]]:
    """Part -> its record."""
    common = {"seed": options.seed, "train": len(workload.train), "validation": len(workload.validation)}
    chosen = config(options)
    return {
        "original": place.part("original", common, lambda _: prune_accuracy.original(workload), files=FILES),
        "edgekit": place.part(
            "edgekit",
            {**common, "threads": options.threads, "config": chosen.model_dump(mode="json")},
            lambda folder: prune_accuracy.by_edgekit(workload, chosen, folder, options.seed),
            files=FILES,
        ),
    }


def config(options: Any) -> PruneConfig:
    """The prune stage of the mobile recipe but for the budget, channels in twos, and what options say."""
    stage = prune_accuracy.of_the_recipe(SPEEDUP, options.epochs)
    given = {"batch_size": options.batch_size, "lr": options.lr, "distillation": distillation(stage, options)}
    training = stage.training.model_copy(
        update={name: value for name, value in given.items() if value is not None}
        | {"device": options.device, "cutmix": options.cutmix}
    )
    if options.plan is not None:
        return PruneConfig(plan=str(options.plan), training=training)
    return stage.model_copy(
        update={"channel_multiple": prune_accuracy.CHANNEL_MULTIPLE, "training": training}
    )


def distillation(stage: PruneConfig, options: Any) -> DistillationConfig:
    """The recipe's, with the weight that options say."""
    if options.weight == 0:
        return DistillationConfig(loss="none")
    chosen = stage.training.distillation
    return chosen if options.weight is None else chosen.model_copy(update={"weight": options.weight})


def rows_of(found: dict[str, dict[str, Any]], options: Any, about: dict[str, Any]) -> list[dict[str, Any]]:
    """A row for each published figure."""
    start, ours = found["original"], found["edgekit"]
    return [
        rows.row(
            f"resnet56 CIFAR-10: {SPEEDUP:g}x fewer MACs",
            "top-1 on the test images",
            "share",
            edgekit=ours["accuracy"],
            peer=published,
            peer_name=name,
            ratio=ours["accuracy"] / published,
            samples=start["samples"],
            about=about,
            ratio_is="edgekit / peer",
            required_accuracy=REQUIRED[options.device],
            original=start["accuracy"],
            edgekit_speedup=start["macs"] / ours["macs"],
            details={"original": start, "edgekit": ours},
            settings={
                "edgekit": config(options).model_dump(mode="json"),
                "seed": options.seed,
                "threads": options.threads,
            },
            command=rows.command(),
        )
        for name, published in PUBLISHED.items()
    ]


if __name__ == "__main__":
    sys.exit(work.guarded(main))
