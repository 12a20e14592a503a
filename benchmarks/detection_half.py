"""A detector with half of its multiplications, in int8; and its files that suppress by themselves.

    EDGEKIT_DATA=… edgekit compress benchmarks/workloads/bccd.py \
        --recipe benchmarks/workloads/bccd_half.yaml --out HALF
    EDGEKIT_DATA=… python benchmarks/detection_half.py HALF

Of the run its stages are taken: the cut network, trained again, and the int8 graph that was trained. Beside
that graph stands one by calibration alone, on all training pictures, with the qat stage's own settings; of
both the one that is better on val is written. Told are, on the test pictures of workloads/bccd.py: average
precision of the networks; average precision, bytes and times of the files and of the original's fp32 ONNX;
of the int8 files with `--head nms` how many of their boxes are those of the raw file of the same format,
decoded and suppressed by edgekit. All files are timed in turns on one thread.

With `--peer` ai-edge-quantizer stands beside it (`static_wi8_ai8`, 64 training pictures, as
`int8_against_peers.py` has it) on the original network, decoded, with boxes and scores as two tensors.
"""

from __future__ import annotations

import argparse
import copy
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import detection
import numpy as np
import torch
from int8_against_peers import aeq, torch_litert
from provenance import surroundings
from torch import nn
from work import workload_module

from edgekit import Detection, Workload
from edgekit.bench.measure import evaluate
from edgekit.devices.asking import probe
from edgekit.execution import call
from edgekit.files import sha256, write_json
from edgekit.formats import FORMATS
from edgekit.formats.exporting import export
from edgekit.formats.options import ExportOptions, Target
from edgekit.int8.storage import load
from edgekit.pipeline.benchmarking import bench
from edgekit.progress import silent
from edgekit.recipe import load_recipe
from edgekit.stages import STAGES
from edgekit.stages.base import StageContext
from edgekit.tensors import NamedTensors, Tensors, from_numpy

OUT = Path(__file__).parent / "results" / "detection_half.json"
REFERENCE = "original_fp32.onnx"


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("run", type=Path, help="run folder of edgekit compress")
    parser.add_argument("--seconds", type=float, default=2.0, help="for each file")
    parser.add_argument("--peer", action="store_true")
    parser.add_argument("--out", type=Path, default=OUT)
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    module = workload_module("bccd")
    workload = module.workload()
    found: dict[str, Any] = {
        **surroundings(),
        "command": "EDGEKIT_DATA=… python benchmarks/detection_half.py HALF",
        "weights_sha256": sha256(module.weights_path()),
    }
    with tempfile.TemporaryDirectory(prefix="edgekit-benchmark-") as made:
        folder = Path(made)
        test = workload.whole(len(workload.validation)).contiguous()
        np.save(folder / "inputs.npy", test.numpy())
        networks = forms(options.run, workload, folder)
        shown, wanted = module.pictures("val").arrays()
        val = workload.preprocessing(torch.from_numpy(shown)).contiguous()
        found["networks"] = {}
        for name, network in networks.items():
            row = {"val": score(workload.task, network, val, wanted)["mAP"]}
            row |= score(workload.task, network, test, workload.validation.targets)
            found["networks"][name] = row
            print(name, row, flush=True)
        graphs = [name for name in networks if name.startswith("int8")]
        best = max(graphs, key=lambda name: found["networks"][name]["val"])
        found["written"] = best
        write_json(options.out, found)
        paths = {REFERENCE: options.run / "artifacts" / REFERENCE}
        paths |= written(networks[best], workload, folder)
        found["files"] = rows = judged(paths, workload, folder / "inputs.npy")
        times = timed(paths, options.seconds, folder)
        for name, row in rows.items():
            row["p50_ms"] = times[name]
            row["times_as_fast"] = round(times[REFERENCE] / times[name], 2)
            row["times_as_small"] = round(rows[REFERENCE]["bytes"] / row["bytes"], 2)
            print(name, {key: value for key, value in row.items() if not key.startswith("AP")}, flush=True)
        write_json(options.out, found)
        if options.peer:
            found["ai_edge_quantizer"] = quantized(workload, folder / "inputs.npy", folder)
            write_json(options.out, found)
    return 0


def forms(run: Path, workload: Workload, folder: Path) -> dict[str, nn.Module]:
    """The network, cut, and in int8 with and without training."""
    prune, stage = load_recipe(run / "recipe.yaml").stages
    given = StageContext(workload, workload.model, run / "stages" / "1-prune")
    cut = STAGES["prune"].load(copy.deepcopy(workload.model), prune, given).model.eval()
    training = stage.training.model_copy(update={"epochs": 0})  # type: ignore[attr-defined]
    context = StageContext(workload, workload.model, folder, 0, silent)
    plain = STAGES["qat"].run(copy.deepcopy(cut), stage.model_copy(update={"training": training}), context)
    return {
        "trained": workload.model,
        "cut": cut,
        "int8, calibrated": plain.model,
        "int8, trained": load(next(run.rglob("int8_graph.pt2"))),
    }


def score(task: Detection, network: nn.Module, inputs: torch.Tensor, wanted: Any) -> dict[str, Any]:
    with torch.inference_mode():
        told = detection.cat([call(network, part) for part in inputs.split(8)])
    return detection.precision(task, task.detections(told, 0.001), wanted)


def written(graph: nn.Module, workload: Workload, folder: Path) -> dict[str, Path]:
    """int8 files, raw and suppressing, by name."""
    target = Target.of(detection.LOCAL, probe(detection.LOCAL))
    found = {}
    for format in ("onnx", "litert"):
        for kind in ("raw", "nms"):
            options = ExportOptions(ending=workload.task.ending(kind), target=target)
            name = FORMATS[format].file_name(workload.name, options, "int8")
            found[name] = folder / name
            settings: dict[str, Any] = {"format": format, "precision": "int8", "options": options}
            export(graph, workload.example(1), found[name], metadata={}, **settings)
            print("written:", name, flush=True)
    return found


def judged(paths: dict[str, Path], workload: Workload, inputs: Path) -> dict[str, dict[str, Any]]:
    """Average precision, bytes, and of what ends otherwise how many boxes are the raw file's."""
    task = workload.task
    assert isinstance(task, Detection)
    told, found = {name: answers(path, inputs) for name, path in paths.items()}, {}
    shapes = {name: one.shape[1:] for name, one in NamedTensors(workload.model(workload.example(1))).items()}
    for name, one in told.items():
        if not task.ends_with(one.names):
            one = told[name] = fitted(one, shapes)
        own = task.detections(one, 0.001)
        found[name] = {"bytes": paths[name].stat().st_size}
        found[name] |= detection.precision(task, own, workload.validation.targets)
        if "int8" in name:
            found[name]["int8_coverage"] = round(FORMATS[kind_of(name)].coverage(paths[name]).share, 4)
    for name, one in told.items():
        if task.ends_with(one.names):
            raw = next(other for other in told if "int8" in other and kind_of(other) == kind_of(name))
            found[name]["same_boxes_as_raw"] = same(task, told[raw], one)
    return found


def kind_of(name: str) -> str:
    return "onnx" if name.endswith(".onnx") else "litert"


def answers(path: Path, inputs: Path) -> NamedTensors:
    runtime = FORMATS[kind_of(path.name)].runtime
    found = from_numpy(np.ascontiguousarray(evaluate(path, runtime, detection.LOCAL, inputs, batch=1)))
    assert isinstance(found, NamedTensors)
    return found.float()


def fitted(one: NamedTensors, shapes: dict[str, Any]) -> NamedTensors:
    """Maps with their channels first, in the order of the network."""
    return NamedTensors(
        {
            name: one[name] if one[name].shape[1:] == shape else one[name].movedim(-1, 1)
            for name, shape in shapes.items()
        }
    )


def same(task: Detection, raw: Tensors, other: Tensors) -> str:
    """Of the boxes of all pictures those that both say: the same class, IoU >= 0.99, scores within 1/255."""
    count = total = 0
    for one, two in zip(task.detections(raw), task.detections(other), strict=True):
        assert isinstance(one, dict)
        assert isinstance(two, dict)
        total += max(len(one["labels"]), len(two["labels"]))
        overlap = detection.iou(one["boxes"][:, None], two["boxes"][None])
        alike = (overlap >= 0.99) & (one["labels"][:, None] == two["labels"][None])
        alike &= (one["scores"][:, None] - two["scores"][None]).abs() <= 1 / 255
        count += min(int(alike.any(0).sum()), int(alike.any(1).sum())) if alike.numel() else 0
    return f"{count} of {total}"


def timed(paths: dict[str, Path], seconds: float, folder: Path) -> dict[str, float]:
    """Milliseconds (p50) of each file, in turns, on one thread."""
    settings: dict[str, Any] = {"threads": [1], "min_seconds": seconds, "samples": 0}
    files, runtimes = list(paths.values()), ("onnxruntime", "litert")
    record, _ = bench(files, out=folder / "times.json", runtimes=runtimes, **settings)
    runs = {Path(one.artifact).name: np.concatenate(one.rounds) for one in record.results}
    return {name: round(float(np.percentile(runs[name], 50)) / 1e6, 2) for name in paths}


def quantized(workload: Workload, inputs: Path, folder: Path) -> dict[str, Any]:
    """ai-edge-quantizer on the decoded original."""
    task = workload.task
    assert isinstance(task, Detection)
    rows = np.linspace(0, len(workload.train) - 1, detection.CALIBRATED).astype(int)
    calibrating = workload.preprocessing(workload.train.inputs[torch.from_numpy(rows)]).contiguous()
    source, path = folder / "float.tflite", folder / "aeq.tflite"
    torch_litert(detection.Decoded(workload.model, task, one=False).eval(), workload.example(1), source)
    aeq(source, calibrating, path)
    made = evaluate(path, "litert", detection.LOCAL, inputs, batch=1)
    told = detection.boxes_of(detection.parts_of(made), task, ())
    covered = round(FORMATS["litert"].coverage(path).share, 4)
    found = detection.precision(task, told, workload.validation.targets)
    found |= {"bytes": path.stat().st_size, "int8_coverage": covered}
    print("ai-edge-quantizer:", found, flush=True)
    return found


if __name__ == "__main__":
    sys.exit(main())
