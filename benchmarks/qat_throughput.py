"""How fast the fake-quantised graph trains, against the float model in the same engine.

python benchmarks/qat_throughput.py [--threads 2] [--smoke]

ResNet-20 and MobileNetV3-small (tests/models, 32 x 32 pixels) on random images, without a teacher, whose
share of the time would make the ratio look better: the engine's own training, one epoch at a time, float and
fake-quantised by turns. The float model trains as the float stages do, in bfloat16 where the engine thinks
that it pays, and once more in float32; the graph in float32. ``ratio`` = edgekit / peer, in images a second.
"""

from __future__ import annotations

import argparse
import copy
import statistics
import sys
import tempfile
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
OUT = ROOT / "benchmarks" / "results" / "qat_throughput.json"
BATCH = 128


def main() -> int:
    """Measure, print and write benchmarks/results/qat_throughput.json."""
    sys.path.insert(0, str(ROOT))
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--steps", type=int, default=8, help="batches in an epoch")
    parser.add_argument("--out", type=Path, default=OUT)
    parser.add_argument("--smoke", action="store_true", help="does it run? Nothing is written")
    options = parser.parse_args()
    if options.smoke:
        options.rounds, options.steps = 2, 1
    import rows as tables
    import torch
    from provenance import surroundings

    torch.set_num_threads(options.threads)
    about, rows = surroundings(), []
    for name in ("resnet20", "mobilenet_v3_small"):
        speeds = measure(name, options.rounds, options.steps)
        medians = {form: statistics.median(values) for form, values in speeds.items()}
        for form in ("fake-quantised", "fake-quantised, scales learn"):
            for peer in ("float, as the engine trains it", "float32"):
                rows.append(
                    tables.row(
                        f"{name}, {form}",
                        f"training speed, batch {BATCH}, {options.threads} threads, no teacher",
                        "images/s",
                        edgekit=round(medians[form], 1),
                        peer=round(medians[peer], 1),
                        peer_name=f"the same network, {peer}",
                        ratio=round(medians[form] / medians[peer], 3),
                        samples=options.rounds * options.steps * BATCH,
                        about=about,
                        edgekit_rounds=[round(value, 1) for value in speeds[form]],
                        peer_rounds=[round(value, 1) for value in speeds[peer]],
                        command=tables.command(),
                    )
                )
    print(tables.table(rows))
    if not options.smoke:
        tables.write(options.out, rows)
    return 0


def measure(name: str, rounds: int, steps: int) -> dict[str, list[float]]:
    """Images a second of each form in each round, the forms by turns; the first round is a warm-up."""
    import torch

    from edgekit.graph.capture import capture
    from edgekit.int8.calibration import calibrate
    from edgekit.int8.scales import LearnedScales
    from edgekit.int8.trainable import trainable
    from edgekit.tasks import Classification
    from edgekit.workload import Samples, Workload

    generator = torch.Generator().manual_seed(0)
    images = torch.randn(BATCH * steps, 3, 32, 32, generator=generator)
    labels = torch.randint(0, 10, (len(images),), generator=generator)
    model = network(name)
    with torch.no_grad():
        model.train()(images[:BATCH])  # batch norm statistics of these images
        model.eval()
    data = Samples(images, labels)
    workload = Workload(name=name, model=model, task=Classification(10), train=data, validation=data)
    graph = calibrate(capture(model, images[:1]), [images[:32], images[32:64]])
    forms: dict[str, tuple[Any, bool]] = {
        "float, as the engine trains it": (copy.deepcopy(model), True),
        "float32": (copy.deepcopy(model), False),
        "fake-quantised": (trainable(graph), False),
        "fake-quantised, scales learn": (trainable(graph, LearnedScales.of(graph)), False),
    }
    speeds: dict[str, list[float]] = {form: [] for form in forms}
    for turn in range(rounds + 1):
        for form, (trained, autocast) in forms.items():
            speed = speed_of(trained, workload, autocast)
            if turn:
                speeds[form].append(speed)
        print(f"{name}: round {turn} of {rounds}", flush=True)
    return speeds


def network(name: str) -> Any:
    """The network of the benchmarks' workloads or of the tests, with random weights."""
    import torch

    torch.manual_seed(0)
    if name == "resnet20":
        sys.path.append(str(ROOT / "benchmarks" / "workloads"))
        import cifar10

        return cifar10.ResNet(3)
    from tests.models import CASES

    return CASES[name].build()


def speed_of(model: Any, workload: Any, autocast: bool) -> float:
    """Images a second of one epoch of the engine."""
    from edgekit.config.settings import DistillationConfig, TrainingConfig
    from edgekit.training import train

    config = TrainingConfig(
        epochs=1, batch_size=BATCH, lr=1e-6, distillation=DistillationConfig(loss="none", weight=0)
    )
    with tempfile.TemporaryDirectory() as folder:
        history = train(
            model,
            None,
            workload,
            config,
            seed=0,
            checkpoint=Path(folder) / "checkpoint.pt",
            stage="qat",
            progress=lambda event: None,
            autocast=autocast,
        )
    return len(workload.train) / history.epochs[0]["seconds"]


if __name__ == "__main__":
    sys.exit(main())
