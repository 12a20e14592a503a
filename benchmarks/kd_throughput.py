"""Images per second in KD fine-tuning of a ResNet-20: edgekit's engine against a plain PyTorch loop.

    EDGEKIT_DATA=… python benchmarks/kd_throughput.py [--blocks 9] [--images 2560]

Both train the same network on the same CIFAR-10 images against the same teacher (the trained ResNet-20), with
batches of 128, flips and shifts, SGD with momentum, and the same number of threads. They take turns: a block
of edgekit, a block of the peer, the next round the other way round. In every block the first pass warms up
(edgekit: an epoch, in which it compiles, as it chooses by itself in a long training; peer: two batches, so
that its workers are ahead) and isn't counted.

``bound``: what would be left if teacher, data, loss and optimizer cost nothing: the student's own forward and
backward pass, compiled, on one batch again and again. No engine on these cores can be faster than that with
this network in float32.

The peer (tutorial.py) computes in contiguous float32, asks the teacher in every step, and augments image by
image in two DataLoader workers. ``ratio``: median over the rounds of edgekit's speed over the peer's, with
the interval of the sign test at 99 % (edgekit/bench/stats.py).
"""

from __future__ import annotations

import copy
import statistics
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import rows
import tutorial
import work
from provenance import surroundings

from edgekit.bench import stats
from edgekit.execution import Forward
from edgekit.opening import load_workload
from edgekit.progress import silent
from edgekit.stages.base import TrainingConfig
from edgekit.training import train
from edgekit.training.computing.memory import keeping_freed_memory
from edgekit.workload import Workload

BATCH = 128
REQUIRED = 3.0
LR = 0.001
TRAINING = TrainingConfig(epochs=2, batch_size=BATCH, lr=LR, warmup_epochs=0, compile="always")


def main(arguments: Sequence[str] | None = None) -> int:
    parser = work.parser(__doc__, "kd_throughput")
    parser.add_argument("--blocks", type=int, default=9, help="rounds; an interval takes 8 or more")
    parser.add_argument("--images", type=int, default=2560, help="in each block")
    options = parser.parse_args(arguments)
    if options.smoke:
        options.blocks, options.images = 2, 2 * BATCH
    with work.workplace(options) as place:
        about = surroundings()
        workload = load_workload(f"{work.HERE}/workloads/cifar10.py:resnet20")
        found = measured(workload, place.path, options.blocks, options.images, options.seed)
        made = rows_of(found, options, about)
    print(rows.table(made))
    if not options.smoke:
        rows.write(options.out, made)
    return 0


def measured(workload: Workload, folder: Path, blocks: int, images: int, seed: int) -> dict[str, list[float]]:
    """Images per second of both sides, one figure a round."""
    sides = {
        "edgekit": lambda turn: edgekit_block(workload, images, folder, seed + turn),
        "peer": lambda turn: peer_block(workload, images, seed + turn),
        "bound": lambda turn: bound_block(workload, images),
    }
    found: dict[str, list[float]] = {name: [] for name in sides}
    for turn in range(blocks):
        for name in list(sides) if turn % 2 == 0 else reversed(sides):
            found[name].append(sides[name](turn))
        speeds = ", ".join(f"{name} {values[-1]:,.0f} images/s" for name, values in found.items())
        left = (time.monotonic() - work.STARTED) / (turn + 1) * (blocks - turn - 1)
        work.tell(f"round {turn + 1}/{blocks}: {speeds}, ETA {work.minutes(left)}")
    return found


def edgekit_block(workload: Workload, images: int, folder: Path, seed: int) -> float:
    """The second epoch over ``images`` images; what is prepared or compiled once falls into the first."""
    part = work.smaller(workload, images, 2)
    checkpoint = folder / "checkpoint.pt"
    checkpoint.unlink(missing_ok=True)
    history = train(
        copy.deepcopy(workload.model),
        workload.model,
        part,
        TRAINING,
        seed=seed,
        checkpoint=checkpoint,
        stage="kd",
        progress=silent,
    )
    checkpoint.unlink(missing_ok=True)
    return len(part.train) // BATCH * BATCH / history.epochs[-1]["seconds"]


def peer_block(workload: Workload, images: int, seed: int) -> float:
    """The plain loop over ``images`` images, after two batches that aren't counted."""
    model = copy.deepcopy(workload.model)
    loop = tutorial.Loop(
        model,
        workload,
        tutorial.kd_loss(workload.model.eval()),
        steps=images // BATCH,
        lr=LR,
        checkpoint=Path("/dev/null"),
        label="kd",
        progress=silent,
        batch_size=BATCH,
        seed=seed,
    )
    return tutorial.images_per_second(loop, steps=images // BATCH)


def bound_block(workload: Workload, images: int) -> float:
    """The student's passes alone over ``images`` images, after two that aren't counted."""
    model = copy.deepcopy(workload.model).train()
    forward = Forward(model, compiled=True)
    batch = workload.preprocessing(workload.train.inputs[:BATCH])
    forward.prepare(batch)

    def step() -> None:
        forward(batch).square().mean().backward()
        model.zero_grad(set_to_none=True)

    try:
        with keeping_freed_memory():  # as edgekit's engine does
            for _ in range(2):
                step()
            began = time.perf_counter()
            for _ in range(images // BATCH):
                step()
            return images // BATCH * BATCH / (time.perf_counter() - began)
    finally:
        forward.release()


def rows_of(found: dict[str, list[float]], options: Any, about: dict[str, Any]) -> list[dict[str, Any]]:
    """One row: speeds are medians over the rounds."""
    ours, theirs = found["edgekit"], found["peer"]
    interval: dict[str, Any] = {}
    ratio = statistics.median(a / b for a, b in zip(ours, theirs, strict=True))
    if len(ours) >= stats.rounds_needed():
        estimate = stats.ratio_of_rounds([[a] for a in ours], [[b] for b in theirs])
        ratio = estimate.value
        interval = {"ratio_low": estimate.low, "ratio_high": estimate.high, "level": estimate.level}
    return [
        rows.row(
            "resnet20 CIFAR-10: KD fine-tuning",
            f"throughput in training, batch {BATCH}, {options.threads} threads",
            "images/s",
            edgekit=statistics.median(ours),
            peer=statistics.median(theirs),
            peer_name="plain PyTorch loop (float32, teacher in every step, DataLoader)",
            ratio=ratio,
            samples=len(ours) + len(theirs),
            about=about,
            ratio_is="edgekit / peer, median over rounds",
            required=REQUIRED,
            **interval,
            bound=statistics.median(found["bound"]),
            bound_ratio=statistics.median(a / b for a, b in zip(found["bound"], theirs, strict=True)),
            bound_is="forward and backward pass of the student alone, compiled, and that over the peer",
            rounds=[dict(zip(found, turn, strict=True)) for turn in zip(*found.values(), strict=True)],
            settings={
                "training": TRAINING.model_dump(mode="json"),
                "images_per_block": options.images,
                "threads": options.threads,
                "peer_workers": tutorial.WORKERS,
            },
            command=rows.command(),
        )
    ]


if __name__ == "__main__":
    sys.exit(work.guarded(main))
