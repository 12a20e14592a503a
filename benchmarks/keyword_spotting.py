"""Keyword spotting: a DS-CNN on spoken digits, int8 files of edgekit against the fp32 model.

    EDGEKIT_DATA=… python benchmarks/keyword_spotting.py [--epochs 3]

The float network (workloads/spoken_digits.py) is trained first, if the user's cache doesn't hold it: some
minutes. edgekit's qat stage makes an int8 graph of it, once by calibration alone (PTQ) and once with training
(QAT). Accuracies are those of the exported files in their runtimes, ONNX Runtime and LiteRT, on all 300 test
clips, of which the training saw none. One clip is 0.33 points: within 0.5 points is at most one clip.

``ratio``: accuracy of the int8 file over that of the fp32 file in the same runtime; ``points`` is what lies
between them.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import rows
import work
from provenance import surroundings

from edgekit.formats import FORMATS
from edgekit.formats.exporting import export
from edgekit.runs.keys import Part, model_digest
from edgekit.stages.base import StageContext, TrainingConfig
from edgekit.stages.qat import QatConfig
from edgekit.training import evaluate
from edgekit.workload import Workload

REQUIRED_POINTS = -0.5
CALIBRATION = 1024
RUNTIMES = {"onnx": "onnxruntime", "litert": "litert"}
FILES = ("keyword_spotting.py", "workloads/spoken_digits.py", "workloads/own_weights.py")
CODE: tuple[Part, ...] = ("stages", "export", "bench")


def main(arguments: Sequence[str] | None = None) -> int:
    parser = work.parser(__doc__, "keyword_spotting")
    parser.add_argument("--epochs", type=int, default=3, help="of QAT")
    parser.add_argument("--lr", type=float, default=1e-3, help="of QAT")
    options = parser.parse_args(arguments)
    with work.workplace(options) as place:
        about = surroundings()
        workload = trained(options)
        found = measured(place, workload, options)
        made = rows_of(found, options, about)
    print(rows.table(made))
    if not options.smoke:
        rows.write(options.out, made)
    return 0


def trained(options: Any) -> Workload:
    """The float network; in a smoke test one that was hardly trained."""
    network, own_weights = map(work.workload_module, ("spoken_digits", "own_weights"))
    made: Workload = network.untrained()
    if not options.smoke:
        ready: Workload = own_weights.trained(made, network.TRAINING, work.Teller("float"))
        return ready
    made, options.epochs = work.smaller(made, 512, 100), 1
    with tempfile.TemporaryDirectory(prefix="edgekit-") as folder:
        short = network.TRAINING.model_copy(update={"epochs": 1})
        own_weights.train(made, short, Path(folder) / "weights.safetensors", work.Teller("float"))
    return made


def measured(place: work.Work, workload: Workload, options: Any) -> dict[str, dict[str, Any]]:
    """Part -> its record: "float", "ptq", "qat"."""
    common: dict[str, Any] = {"weights": model_digest(workload.model), "threads": options.threads}
    common |= {"train": len(workload.train), "validation": len(workload.validation), "seed": options.seed}
    found = {
        "float": place.part(
            "float", common, lambda folder: as_it_is(workload, folder, options), files=FILES, code=CODE
        )
    }
    for name, epochs in (("qat", options.epochs), ("ptq", 0)):
        chosen = config(epochs, options.lr)
        found[name] = place.part(
            name,
            {**common, "config": chosen.model_dump(mode="json")},
            partial(quantized, workload, chosen, options),
            files=FILES,
            code=CODE,
        )
    return found


def config(epochs: int, lr: float) -> QatConfig:
    """The stage's defaults but for the budget."""
    return QatConfig(
        calibration_samples=CALIBRATION, training=TrainingConfig(epochs=epochs, lr=lr, weight_decay=0.0)
    )


def as_it_is(workload: Workload, folder: Path, options: Any) -> dict[str, Any]:
    """The fp32 files."""
    return {
        "files": files_of(workload.model, "fp32", workload, folder, options),
        "accuracy_torch": evaluate(workload.model, workload).score,
        "samples": len(workload.validation),
    }


def quantized(workload: Workload, chosen: QatConfig, options: Any, folder: Path) -> dict[str, Any]:
    """The int8 files after the qat stage; a killed training goes on in ``folder``."""
    teller = work.Teller("qat" if chosen.training.epochs else "ptq")
    context = StageContext(workload, workload.model, folder / "stage", options.seed, teller)
    result = work.run_stage("qat", workload.model, chosen, context)
    return {
        "files": files_of(result.model, "int8", workload, folder, options),
        "accuracy_torch": evaluate(result.model, workload).score,
        "history": result.details.get("history", []),
        "note": result.note,
    }


def files_of(model: Any, precision: str, workload: Workload, folder: Path, options: Any) -> dict[str, Any]:
    """Runtime -> accuracy and size of the exported file."""
    found = {}
    for format, runtime in RUNTIMES.items():
        path = folder / f"{precision}{FORMATS[format].suffix}"
        settings: dict[str, Any] = {"format": format, "precision": precision, "options": work.options_here()}
        export(model, workload.example(1), path, metadata={}, **settings)
        accuracy = work.accuracy_of_file(path, runtime, workload, folder, threads=options.threads)
        found[runtime] = {"accuracy": accuracy, "size_bytes": path.stat().st_size}
        work.tell(f"{path.name}: {accuracy:.2%}")
    return found


def rows_of(found: dict[str, dict[str, Any]], options: Any, about: dict[str, Any]) -> list[dict[str, Any]]:
    """A row for each runtime with QAT, which is what must be reached, then with PTQ."""
    start = found["float"]
    made = []
    for part, epochs in (("qat", options.epochs), ("ptq", 0)):
        for runtime, ours in found[part]["files"].items():
            theirs = start["files"][runtime]
            made.append(
                rows.row(
                    f"DS-CNN spoken digits: int8 {part.upper()} in {runtime}",
                    "top-1 on the test clips",
                    "share",
                    edgekit=ours["accuracy"],
                    peer=theirs["accuracy"],
                    peer_name="the fp32 file in the same runtime",
                    ratio=ours["accuracy"] / theirs["accuracy"],
                    samples=start["samples"],
                    about=about,
                    ratio_is="edgekit / peer",
                    points=100 * (ours["accuracy"] - theirs["accuracy"]),
                    points_of_one_clip=100 / start["samples"],
                    **({"required_points": REQUIRED_POINTS} if part == "qat" else {}),
                    size_bytes=ours["size_bytes"],
                    peer_size_bytes=theirs["size_bytes"],
                    details={"float": start, "edgekit": found[part]},
                    settings={
                        "edgekit": config(epochs, options.lr).model_dump(mode="json"),
                        "seed": options.seed,
                        "threads": options.threads,
                    },
                    command=rows.command(),
                )
            )
    return made


if __name__ == "__main__":
    sys.exit(work.guarded(main))
