"""QAT against post-training quantisation on a MobileNetV3 (squeeze-excite, hard-swish) trained on CIFAR-10.

    EDGEKIT_DATA=… python benchmarks/qat_recovers.py [--epochs 3]

The float network (workloads/cifar10_mobilenet.py) is trained first, if the user's cache doesn't hold it:
about half an hour on two cores. edgekit quantises it with its qat stage and exports ONNX and LiteRT; its
accuracy is that of the worse of the two files, each in its runtime; the ONNX file is the one that suits this
machine's instructions, as ``compress`` writes it. Beside it stands edgekit's calibration without training.

The peer is NNCF's post-training quantisation of the torch module with its defaults, fast bias correction
among them, on the same number of training images. It is given the better of its two executable forms: the
fake-quantised torch model, and its ONNX export in ONNX Runtime.

``ratio``: share of the accuracy that the peer lost which edgekit has back,
(edgekit - peer) / (float - peer), on all 10,000 test images. Nothing is chosen on them here.
"""

from __future__ import annotations

import copy
import sys
import tempfile
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import rows
import tutorial
import work
from provenance import surroundings
from prune_accuracy import original, won_back

from edgekit.formats import FORMATS
from edgekit.formats.exporting import export
from edgekit.runs.keys import Part, model_digest
from edgekit.stages.base import StageContext, TrainingConfig
from edgekit.stages.qat import QatConfig
from edgekit.training import evaluate
from edgekit.workload import Workload

REQUIRED = 0.8
CALIBRATION = 1024
RUNTIMES = {"onnx": "onnxruntime", "litert": "litert"}
FILES = ("tutorial.py", "qat_recovers.py", "workloads/cifar10_mobilenet.py", "workloads/cifar10.py")
CODE: tuple[Part, ...] = ("stages", "export", "bench")


def main(arguments: Sequence[str] | None = None) -> int:
    parser = work.parser(__doc__, "qat_recovers")
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
    """The float network; in a smoke test its random weights, hardly trained."""
    network, own_weights = map(work.workload_module, ("cifar10_mobilenet", "own_weights"))
    made: Workload = network.untrained()
    if not options.smoke:
        ready: Workload = own_weights.trained(made, network.TRAINING, work.Teller("float"))
        return ready
    made, options.epochs = work.smaller(made, 256, 100), 1
    with tempfile.TemporaryDirectory(prefix="edgekit-") as folder:
        short = network.TRAINING.model_copy(update={"epochs": 1})
        own_weights.train(made, short, Path(folder) / "weights.safetensors", work.Teller("float"))
    return made


def measured(place: work.Work, workload: Workload, options: Any) -> dict[str, dict[str, Any]]:
    """Part -> its record: "float", "ptq" and "qat" of edgekit, "peer"."""
    common: dict[str, Any] = {"weights": model_digest(workload.model), "threads": options.threads}
    common |= {"train": len(workload.train), "validation": len(workload.validation), "seed": options.seed}
    found = {"float": place.part("float", common, lambda _: original(workload), files=FILES)}
    for name, epochs in (("ptq", 0), ("qat", options.epochs)):
        chosen = config(epochs, options.lr)
        found[name] = place.part(
            name,
            {**common, "config": chosen.model_dump(mode="json")},
            partial(by_edgekit, workload, chosen, options),
            files=FILES,
            code=CODE,
        )
    found["peer"] = place.part(
        "peer", common, lambda folder: by_peer(workload, folder, options), files=FILES, code=CODE
    )
    return found


def config(epochs: int, lr: float) -> QatConfig:
    """The stage's defaults but for the budget."""
    return QatConfig(
        calibration_samples=CALIBRATION, training=TrainingConfig(epochs=epochs, lr=lr, weight_decay=0.0)
    )


def by_edgekit(workload: Workload, chosen: QatConfig, options: Any, folder: Path) -> dict[str, Any]:
    """The qat stage, and the accuracy of the exported files; a killed training goes on in ``folder``."""
    teller = work.Teller("qat" if chosen.training.epochs else "ptq")
    context = StageContext(workload, workload.model, folder / "stage", options.seed, teller)
    result = work.run_stage("qat", workload.model, chosen, context)
    files: dict[str, float] = {}
    for format, runtime in RUNTIMES.items():
        path = folder / f"model{FORMATS[format].suffix}"
        settings: dict[str, Any] = {"format": format, "precision": "int8", "options": work.options_here()}
        export(result.model, workload.example(1), path, metadata={}, **settings)
        files[runtime] = work.accuracy_of_file(path, runtime, workload, folder, threads=options.threads)
        work.tell(f"{path.name}: {files[runtime]:.2%}")
    return {
        "accuracy": min(files.values()),
        "files": files,
        "accuracy_torch": evaluate(result.model, workload).score,
        "history": result.details.get("history", []),
        "note": result.note,
    }


def by_peer(workload: Workload, folder: Path, options: Any) -> dict[str, Any]:
    """NNCF with its defaults (fast bias correction), and its two executable forms."""
    quantized = tutorial.nncf_quantized(copy.deepcopy(workload.model), workload, samples=CALIBRATION)
    forms = {"fake-quantised torch model": evaluate(quantized, workload).score}
    error = ""
    try:
        path = tutorial.nncf_onnx(quantized, workload.example(1), folder / "peer.onnx")
        name = "ONNX export in ONNX Runtime"
        forms[name] = work.accuracy_of_file(path, "onnxruntime", workload, folder, threads=options.threads)
    except Exception as failed:  # whatever the road fails with is its result
        error = f"{type(failed).__name__}: {failed}"[:300]
    return {"accuracy": max(forms.values()), "forms": forms, "export_error": error}


def rows_of(found: dict[str, dict[str, Any]], options: Any, about: dict[str, Any]) -> list[dict[str, Any]]:
    """QAT against the peer's PTQ, which is what must be reached; and edgekit's PTQ against it."""
    start, theirs = found["float"], found["peer"]
    made = []
    for part, title in (("qat", f"QAT, {options.epochs} epochs"), ("ptq", "PTQ")):
        ours = found[part]
        share = won_back(start["accuracy"], ours["accuracy"], theirs["accuracy"])
        made.append(
            rows.row(
                f"MobileNetV3 CIFAR-10 int8: edgekit {title}",
                "top-1 on the test images; ratio: share of the peer's drop recovered",
                "share",
                edgekit=ours["accuracy"],
                peer=theirs["accuracy"],
                peer_name="NNCF post-training quantisation, fast bias correction",
                ratio=share,
                samples=start["samples"],
                about=about,
                ratio_is="(edgekit - peer) / (float - peer)",
                **({"required": REQUIRED} if part == "qat" else {}),
                **({} if share is not None else {"error": "the peer lost nothing"}),
                float=start["accuracy"],
                details={"float": start, "edgekit": ours, "peer": theirs},
                settings={
                    "edgekit": config(options.epochs if part == "qat" else 0, options.lr).model_dump(
                        mode="json"
                    ),
                    "peer": {"calibration_samples": CALIBRATION},
                    "seed": options.seed,
                    "threads": options.threads,
                },
                command=rows.command(),
            )
        )
    return made


if __name__ == "__main__":
    sys.exit(work.guarded(main))
