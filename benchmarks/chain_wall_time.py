"""Wall time of KD + prune + QAT on a ResNet-20: edgekit against the three libraries chained by hand.

    EDGEKIT_DATA=… python benchmarks/chain_wall_time.py [--factor 2.5]

edgekit: one call of ``edgekit.compress`` (prune to 2x fewer MACs with distillation, QAT, export to ONNX,
checks and all). Its seconds are those of the call, evaluation included. The prune stage is that of
prune_accuracy.py: the mobile recipe's, with channels in twos, as the peer knows no steps either.

The peer (tutorial.py) is what a tutorial on each library adds up to: torch-pruning to the same MACs, a plain
float32 loop with Hinton's distillation, ``nncf.quantize``, a plain loop with Adam, ``nncf.strip``, ONNX. Its
schedule is planned, from the speed of both loops measured before, to end at ``--factor`` times edgekit's wall
time, with edgekit's proportion of epochs. If its accuracy then is still below edgekit's (by more than 0.1
points), it needs more than that, and ``ratio`` is a lower bound (``bound`` "at least"). If it gets there, it
may have got there with less, and ``ratio`` is an upper bound ("at most"). Measuring its speed isn't counted,
nor is the compilation of NNCF's extension, nor what a kill made necessary twice.

Accuracies are those of the exported int8 ONNX files in ONNX Runtime, on all 10,000 test images; if the peer's
doesn't export, that of its fake-quantised torch model, and the row says so.
"""

from __future__ import annotations

import copy
import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import prune_accuracy
import rows
import tutorial
import work
from provenance import PACKAGES, surroundings

import edgekit
from edgekit.files import write_json
from edgekit.macs import count
from edgekit.opening import load_workload
from edgekit.recipe import BenchmarkConfig, ExportConfig, Recipe
from edgekit.stages.base import TrainingConfig
from edgekit.stages.qat import QatConfig
from edgekit.training import evaluate
from edgekit.workload import Workload

SPEEDUP = 2.0
REQUIRED = 2.0
TOLERANCE = 0.001  # of accuracy: 10 of 10,000 images
KD_LR, QAT_LR = 0.05, 1e-5  # the peer's: SGD after the cut; Adam, as in NNCF's example
FILES = ("tutorial.py", "prune_accuracy.py", "chain_wall_time.py", "workloads/cifar10.py")


def main(arguments: Sequence[str] | None = None) -> int:
    parser = work.parser(__doc__, "chain_wall_time")
    parser.add_argument("--prune-epochs", type=int, default=6)
    parser.add_argument("--qat-epochs", type=int, default=1)
    parser.add_argument("--factor", type=float, default=2.5, help="the peer's time, in edgekit's")
    options = parser.parse_args(arguments)
    with work.workplace(options) as place:
        about = surroundings((*PACKAGES, "torch-pruning"))
        workload = load_workload(f"{work.HERE}/workloads/cifar10.py:resnet20")
        if options.smoke:
            workload = work.smaller(workload, 512, 100)
            options.prune_epochs, options.qat_epochs, options.factor = 1, 1, 1.0
        ours, theirs = measured(place, workload, options)
        made = rows_of(ours, theirs, options, about, samples=len(workload.validation))
    print(rows.table(made))
    if not options.smoke:
        rows.write(options.out, made)
    return 0


def measured(place: work.Work, workload: Workload, options: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    """The records of both sides."""
    chosen = recipe(options)
    common = {"train": len(workload.train), "validation": len(workload.validation)}
    common |= {"threads": options.threads, "seed": options.seed}
    ours = place.part(
        "edgekit",
        {**common, "recipe": chosen.model_dump(mode="json")},
        lambda folder: by_edgekit(workload, chosen, folder),
        files=FILES,
        code=("stages", "export", "bench"),
    )
    budget = options.factor * ours["seconds"]
    theirs = place.part(
        "peer",
        {**common, "budget": budget, "epochs": [options.prune_epochs, options.qat_epochs]},
        lambda folder: by_peer(workload, budget, options, folder),
        files=FILES,
    )
    return ours, theirs


def recipe(options: Any) -> Recipe:
    """Two stages, one int8 ONNX file, and as little timing as there can be."""
    return Recipe(
        name="chain",
        seed=options.seed,
        stages=(
            prune_accuracy.of_the_recipe(SPEEDUP, options.prune_epochs).model_copy(
                update={"channel_multiple": prune_accuracy.CHANNEL_MULTIPLE}
            ),
            QatConfig(
                training=TrainingConfig(
                    epochs=options.qat_epochs, lr=5e-4, weight_decay=1e-4, warmup_epochs=0.2
                )
            ),
        ),
        exports=ExportConfig(formats=("onnx",), precisions=("int8",)),
        benchmark=BenchmarkConfig(threads=(1,), min_seconds=0, min_runs=1, samples=0),
    )


def by_edgekit(workload: Workload, chosen: Recipe, folder: Path) -> dict[str, Any]:
    """One call of ``compress``."""
    clock = work.Clock(folder / "clock.json")
    report = edgekit.compress(
        workload, chosen, out=folder / "run", progress=work.Teller("edgekit", also=[clock.tick])
    )
    clock.tick(at_once=True)
    file = next(one for one in report.artifacts if one.format == "onnx" and one.precision == "int8")
    return {
        "seconds": clock.seconds,
        "starts": clock.starts,
        "accuracy": file.accuracy,
        "macs": file.macs,
        "stages": [
            {"kind": one.kind, "seconds": one.seconds, "accuracy": one.accuracy, "note": one.note}
            for one in report.stages
        ],
        "histories": {
            path.parent.name: json.loads(path.read_text())["details"].get("history", [])
            for path in sorted((folder / "run").rglob("summary.json"))
        },
    }


# --- the peer


def by_peer(workload: Workload, budget: float, options: Any, folder: Path) -> dict[str, Any]:
    """The hand-made chain within ``budget`` seconds; ``seconds`` counts what is kept, probes left out."""
    teacher, example = copy.deepcopy(workload.model).eval(), workload.example(1)
    began = time.monotonic()
    model, share = tutorial.prune_to(
        lambda: copy.deepcopy(workload.model), example, SPEEDUP, ignored=tutorial.residual_stream
    )
    seconds = {"prune": time.monotonic() - began}
    steps = planned(workload, model, teacher, budget, options, folder / "plan.json")
    recovery = kd_loop(model, teacher, workload, steps["kd"], folder, options.seed).run()
    recovered = evaluate(model, workload).score
    began = time.monotonic()
    quantized = tutorial.nncf_quantized(model, workload)
    seconds |= {"kd": recovery.seconds, "quantize": time.monotonic() - began}
    qat = qat_loop(quantized, workload, steps["qat"], folder, options.seed).run()
    simulated = evaluate(quantized, workload).score
    began = time.monotonic()
    exported, error = accuracy_of_export(quantized, workload, folder, options.threads)
    seconds |= {"qat": qat.seconds, "export": time.monotonic() - began}
    return {
        "seconds": sum(seconds.values()),
        "parts": seconds,
        "accuracy": simulated if exported is None else exported,
        "accuracy_of": "the fake-quantised torch model" if exported is None else "the ONNX file",
        "export_error": error,
        "accuracy_recovered": recovered,
        "accuracy_fake_quantized": simulated,
        "macs": count(model, example).macs,
        "pruning_ratio": share,
        "steps": steps,
        "curves": {"kd": recovery.curve, "qat": qat.curve},
    }


def planned(
    workload: Workload, model: Any, teacher: Any, budget: float, options: Any, path: Path
) -> dict[str, Any]:
    """Steps of both loops that fill ``budget`` seconds; what a killed script had planned stays."""
    if path.exists():
        kept: dict[str, Any] = json.loads(path.read_text())
        return kept
    probe = kd_loop(copy.deepcopy(model), teacher, workload, 1, path.parent, 0)
    kd_speed = tutorial.images_per_second(probe)
    quantized = tutorial.nncf_quantized(copy.deepcopy(model), workload, samples=64)
    qat_speed = tutorial.images_per_second(qat_loop(quantized, workload, 1, path.parent, 0))
    epochs = options.prune_epochs, options.qat_epochs
    kd, qat = split(budget, epochs, (kd_speed, qat_speed), len(workload.train), probe.batch_size)
    plan = {"kd": kd, "qat": qat, "kd_images_per_second": kd_speed, "qat_images_per_second": qat_speed}
    write_json(path, plan)
    work.tell(f"peer: plans {kd} + {qat} steps; {kd_speed:,.0f} and {qat_speed:,.0f} images/s")
    return plan


def split(
    seconds: float,
    epochs: tuple[float, float],
    speeds: tuple[float, float],
    images: int,
    batch_size: int,
) -> tuple[int, int]:
    """Steps of two trainings with this proportion of epochs that take ``seconds`` at these images/s.

    At least one step each.
    """
    once = sum(part * images / speed for part, speed in zip(epochs, speeds, strict=True))
    first, second = (max(1, round(seconds / once * part * images / batch_size)) for part in epochs)
    return first, second


def kd_loop(
    model: Any, teacher: Any, workload: Workload, steps: int, folder: Path, seed: int
) -> tutorial.Loop:
    """Recovery after the cut."""
    return tutorial.Loop(
        model,
        workload,
        tutorial.kd_loss(teacher),
        steps=steps,
        lr=KD_LR,
        checkpoint=folder / "kd.pt",
        label="kd",
        progress=work.Teller("peer"),
        seed=seed,
    )


def qat_loop(model: Any, workload: Workload, steps: int, folder: Path, seed: int) -> tutorial.Loop:
    """Training with fake quantisers."""
    return tutorial.Loop(
        model,
        workload,
        tutorial.plain_loss,
        steps=steps,
        lr=QAT_LR,
        checkpoint=folder / "qat.pt",
        label="qat",
        progress=work.Teller("peer"),
        optimizer="adam",
        seed=seed,
    )


def accuracy_of_export(
    quantized: Any, workload: Workload, folder: Path, threads: int
) -> tuple[float | None, str]:
    """The exported file's accuracy in ONNX Runtime, or None and why it doesn't export."""
    try:
        path = tutorial.nncf_onnx(quantized, workload.example(1), folder / "peer.onnx")
        return work.accuracy_of_file(path, "onnxruntime", workload, folder, threads=threads), ""
    except Exception as error:  # whatever the road fails with is its result
        return None, f"{type(error).__name__}: {error}"[:300]


# --- rows


def judged(ours: dict[str, Any], theirs: dict[str, Any]) -> dict[str, Any]:
    """The ratio of wall times, and what kind of bound it is."""
    reached = theirs["accuracy"] >= ours["accuracy"] - TOLERANCE
    return {
        "ratio": theirs["seconds"] / ours["seconds"],
        "reached": reached,
        "bound": "at most" if reached else "at least",
    }


def rows_of(
    ours: dict[str, Any], theirs: dict[str, Any], options: Any, about: dict[str, Any], *, samples: int
) -> list[dict[str, Any]]:
    """One row."""
    found = judged(ours, theirs)
    return [
        rows.row(
            f"resnet20 CIFAR-10: prune {SPEEDUP:g}x + KD + QAT",
            f"wall time to equal accuracy, {options.threads} threads",
            "s",
            edgekit=ours["seconds"],
            peer=theirs["seconds"],
            peer_name="torch-pruning + plain KD loop + NNCF, chained by hand",
            ratio=found["ratio"],
            samples=samples,
            about=about,
            ratio_is="peer / edgekit"
            + ("" if found["reached"] else "; a lower bound: the peer's accuracy is still below edgekit's"),
            bound=found["bound"],
            reached=found["reached"],
            required=REQUIRED,
            edgekit_accuracy=ours["accuracy"],
            peer_accuracy=theirs["accuracy"],
            tolerance=TOLERANCE,
            interruptions=ours["starts"] - 1,
            details={"edgekit": ours, "peer": theirs},
            settings={
                "edgekit": recipe(options).model_dump(mode="json"),
                "peer": {"kd_lr": KD_LR, "qat_lr": QAT_LR, "factor": options.factor, "batch_size": 128},
                "threads": options.threads,
            },
            command=rows.command(),
        )
    ]


if __name__ == "__main__":
    sys.exit(work.guarded(main))
