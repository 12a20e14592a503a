"""How much of the saved MACs becomes saved time: ResNet-8 and ResNet-20 with 2x fewer MACs, on one thread.

    EDGEKIT_DATA=… python benchmarks/pruning_realised.py [--rounds 15]

The figure of a cut network is (latency before / latency after) / (MACs before / MACs after), from exported
files in their runtime: 1 where time falls as MACs do. edgekit is its prune stage told to aim at MACs, in
channel counts that this machine's kernels like, where most time is (``channel_multiple: auto``,
``steps_by: latency``, with which whole blocks may leave as well), separately for each runtime and precision,
as a file has to be told. The peer is torch-pruning's GroupNormPruner without ``round_to``, all layers alike,
as in its README; of ResNet-20, whose zero-padded shortcuts it can't follow, only the inner channels of the
blocks. All files come from the same exporter. The uncut network and the two cut ones take turns.

Accuracy is not looked at here (prune_accuracy.py does). ResNet-8 has random weights, ResNet-20 trained ones.
"""

from __future__ import annotations

import copy
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import networks
import rows
import torch
import tutorial
import work
from provenance import PACKAGES, surroundings
from torch import nn

from edgekit.bench import stats
from edgekit.bench.measure import Candidate, Failure, measure
from edgekit.devices.device import Device
from edgekit.macs import count
from edgekit.opening import load_workload
from edgekit.pruning.goals.shipped import Precision, Shipped
from edgekit.stages.base import StageContext, TrainingConfig
from edgekit.stages.prune_config import PruneConfig
from edgekit.tasks import Classification
from edgekit.workload import Preprocessing, Samples, Workload

SPEEDUP = 2.0
REQUIRED = 0.8
LOCAL = Device(name="local", transport="local")
RUNTIMES: tuple[str, ...] = ("onnxruntime", "litert")
PRECISIONS: tuple[Precision, ...] = ("fp32", "int8")
Ignored = Callable[[nn.Module], Sequence[nn.Module]]


def main(arguments: Sequence[str] | None = None) -> int:
    parser = work.parser(__doc__, "pruning_realised")
    parser.add_argument("--rounds", type=int, default=15, help="an interval takes 8 or more")
    parser.add_argument("--seconds", type=float, default=1.5, help="for each file, over all rounds")
    options = parser.parse_args(arguments)
    if options.smoke:
        options.rounds, options.seconds = 8, 0.05
    made: list[dict[str, Any]] = []
    with work.workplace(options) as place:
        about = surroundings((*PACKAGES, "torch-pruning"))
        for name, workload, ignored in cases(options.smoke):
            theirs = peer(workload, ignored)
            for runtime in RUNTIMES[: 1 if options.smoke else None]:
                for precision in PRECISIONS[: 1 if options.smoke else None]:
                    work.tell(f"{name}, {runtime} {precision}: looking for a plan")
                    ours, details = by_edgekit(workload, runtime, precision, place.path, options.seed)
                    models = {"original": workload.model, "edgekit": ours, "peer": theirs}
                    work.tell(f"{name}, {runtime} {precision}: timing")
                    timed = times(models, workload, Shipped(LOCAL, runtime, precision), options)
                    title = f"{name} {runtime} {precision}"
                    made.append(row_of(title, models, timed, workload, about, details, options))
                    print(rows.table(made[-1:]), flush=True)
    print(rows.table(made))
    if not options.smoke:
        rows.write(options.out, made)
    return 0


def cases(smoke: bool) -> list[tuple[str, Workload, Ignored]]:
    """Name, workload, and what torch-pruning has to leave alone."""
    found: list[tuple[str, Workload, Ignored]] = [("resnet8", resnet8(), classifier)]
    if not smoke:
        trained = load_workload(f"{work.HERE}/workloads/cifar10.py:resnet20")
        found.append(("resnet20", trained, tutorial.residual_stream))
    return found


def resnet8() -> Workload:
    """MLPerf Tiny's network with random weights; data that nothing is learned from."""
    model = networks.make(networks.NETWORKS["resnet8"])
    inputs = networks.images(64, 32, torch.Generator().manual_seed(1))
    data = Samples(inputs, torch.arange(64) % 10)
    return Workload("resnet8", model, Classification(10), data, data, Preprocessing())


def classifier(model: nn.Module) -> list[nn.Module]:
    """The last layer, whose outputs are the classes."""
    return [module for module in model.modules() if isinstance(module, nn.Linear)]


def by_edgekit(
    workload: Workload, runtime: str, precision: Precision, folder: Path, seed: int
) -> tuple[nn.Module, dict[str, Any]]:
    """The prune stage's cut, and what the stage says about it."""
    config = PruneConfig(
        speedup=SPEEDUP,
        channel_multiple="auto",
        steps_by="latency",
        runtime=runtime,
        precision=precision,
        training=TrainingConfig(epochs=0),
    )
    with tempfile.TemporaryDirectory(dir=folder) as name:
        context = StageContext(workload, workload.model, Path(name) / "stage", seed, work.Teller("edgekit"))
        result = work.run_stage("prune", workload.model, config, context)
    return result.model, {key: value for key, value in result.details.items() if key != "history"}


def peer(workload: Workload, ignored: Ignored) -> nn.Module:
    """torch-pruning's cut."""
    build = lambda: copy.deepcopy(workload.model)  # noqa: E731
    return tutorial.prune_to(build, workload.example(1), SPEEDUP, ignored=ignored)[0].eval()


def times(
    models: dict[str, nn.Module], workload: Workload, shipped: Shipped, options: Any
) -> dict[str, tuple[tuple[int, ...], ...]]:
    """By name, the runs in ns, round by round. Raises MeasurementError."""
    with tempfile.TemporaryDirectory(prefix="edgekit-benchmark-") as folder:
        candidates = []
        for name, model in models.items():
            path = Path(folder) / (name + (".onnx" if shipped.runtime == "onnxruntime" else ".tflite"))
            shipped.write(model, workload.example(2), path)
            candidates.append(Candidate(path, shipped.runtime, threads=1))
        found = measure(
            candidates, LOCAL, sample=None, min_seconds=options.seconds, rounds=options.rounds, min_runs=100
        )
    timed = {}
    for name, one in zip(models, found, strict=True):
        if isinstance(one, Failure):
            raise one.error
        timed[name] = one.result.rounds
    return timed


def row_of(
    title: str,
    models: dict[str, nn.Module],
    timed: dict[str, Any],
    workload: Workload,
    about: dict[str, Any],
    details: dict[str, Any],
    options: Any,
) -> dict[str, Any]:
    """One runtime and precision of one network."""
    macs = {name: count(model, workload.example(1)).macs for name, model in models.items()}
    saved = {name: macs["original"] / macs[name] for name in ("edgekit", "peer")}
    gained = {name: stats.ratio_of_rounds(timed["original"], timed[name]) for name in saved}
    realised = {name: gained[name].value / saved[name] for name in saved}
    return rows.row(
        title,
        "speed gained / MACs saved, p50 of one sample on one thread",
        "share",
        edgekit=realised["edgekit"],
        peer=realised["peer"],
        peer_name="torch-pruning GroupNorm, without round_to",
        ratio=realised["edgekit"] / realised["peer"],
        samples=sum(len(part) for name in timed for part in timed[name]),
        about=about,
        ratio_is="edgekit / peer",
        required=REQUIRED,
        edgekit_interval=[
            gained["edgekit"].low / saved["edgekit"],
            gained["edgekit"].high / saved["edgekit"],
        ],
        peer_interval=[gained["peer"].low / saved["peer"], gained["peer"].high / saved["peer"]],
        level=gained["edgekit"].level,
        macs=macs,
        p50_us={
            name: stats.percentile([run for part in parts for run in part], 50) / 1e3
            for name, parts in timed.items()
        },
        rounds=options.rounds,
        cut={
            "edgekit": details,
            "peer": {
                name: tuple(value.shape)
                for name, value in models["peer"].named_parameters()
                if value.dim() == 4
            },
        },
        command=rows.command(),
    )


if __name__ == "__main__":
    sys.exit(work.guarded(main))
