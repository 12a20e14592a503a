"""A trained detector in int8 by calibration alone: the files of a run, and the usual road beside them.

    EDGEKIT_DATA=… edgekit compress benchmarks/workloads/bccd.py --recipe quick --out RUN
    EDGEKIT_DATA=… python benchmarks/detection.py RUN

The network is that of workloads/bccd.py. Told are, on its test pictures: average precision of the trained
network and of each file of the run; of each int8 file the decibels of every channel of every output against
the run's int8 graph, and the share of its multiplications in integer kernels. Beside it ONNX Runtime's
`quant_pre_process` and `quantize_static` as `int8_against_peers.py` tunes them (unsigned activations, signed
weights by channel, QDQ), on 64 of the training pictures, of

- the decoded network as tools export it, boxes in pixels and scores in one tensor (N, 4 + C, A);
- the same with boxes and scores as two tensors;
- the network's own six outputs, as edgekit takes them.

Of the int8 LiteRT file's answers to all test pictures, decoding and suppression of Python and C99 bundles are
compared with edgekit's own, and timed in C on one thread.

Same pictures, same suppression (`Detection`) everywhere.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from int8_against_peers import ort_tuned
from int8_vs_default import torch_fp32
from provenance import surroundings
from torch import nn
from work import workload_module

from edgekit import Detection, Ragged, Workload
from edgekit.bench.measure import evaluate
from edgekit.bundle import c_detection
from edgekit.bundle.contents import Tensor
from edgekit.bundle.targets.python.package.detecting import decoded
from edgekit.devices.device import Device
from edgekit.execution import Forward
from edgekit.files import sha256, write_json
from edgekit.formats import FORMATS
from edgekit.int8.integers import OnIntegers
from edgekit.int8.storage import load
from edgekit.noise import Noise
from edgekit.report import Report
from edgekit.tasks.detection.average_precision import SIZES, average_precision
from edgekit.tasks.detection.boxes import iou
from edgekit.tasks.detection.heads import Candidates
from edgekit.tasks.detection.suppression import Limits, detections
from edgekit.tensors import NamedTensors, Tensors, cat, from_numpy

LOCAL = Device(name="local", transport="local", runtimes=("onnxruntime", "litert"))
CALIBRATED = 64
OUT = Path(__file__).parent / "results" / "detection.json"


class Decoded(nn.Module):
    """The network and its decoding: boxes (N, A, 4) in pixels and scores (N, A, C), in one tensor or two."""

    def __init__(self, net: nn.Module, task: Detection, *, one: bool) -> None:
        super().__init__()
        self.net, self.task, self.one = net, task, one

    def forward(self, x: torch.Tensor) -> torch.Tensor | tuple[torch.Tensor, torch.Tensor]:
        found = self.task.head.decode(NamedTensors(self.net(x)), len(self.task.names))
        boxes, scores = found.boxes.transpose(1, 2), found.scores.transpose(1, 2)
        return torch.cat([boxes, scores], 1) if self.one else (boxes, scores)


class Raw(nn.Module):
    """The network's outputs in a tuple, as exporters name them."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, ...]:
        return tuple(self.net(x).values())


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("run", type=Path, help="run folder of edgekit compress")
    parser.add_argument("--out", type=Path, default=OUT)
    options = parser.parse_args(arguments)
    module = workload_module("bccd")
    workload = module.workload()
    task = workload.task
    shown, wanted = module.pictures("val").arrays()
    val = module.answers(workload.model, torch.from_numpy(shown))
    inputs = workload.whole(len(workload.validation)).contiguous()
    float_answers = answered(workload.model, inputs)
    found: dict[str, Any] = {
        **surroundings(),
        "command": "EDGEKIT_DATA=… python benchmarks/detection.py RUN",
        "network": {
            "parameters": sum(one.numel() for one in workload.model.parameters()),
            "weights_sha256": sha256(module.weights_path()),
            "training": repr(module.PLAN),
        },
        "val": precision(task, task.detections(val, 0.001), wanted),
        "trained": precision(task, task.detections(float_answers, 0.001), workload.validation.targets),
        "files": files(options.run, workload, inputs, float_answers),
    }
    tell("trained", found["trained"])
    found["bundles"] = bundles(options.run, workload)
    print(found["bundles"])
    for name, one in found["files"].items():
        tell(name, one)
    with tempfile.TemporaryDirectory(prefix="edgekit-benchmark-") as folder:
        found["quantize_static"] = peers(workload, inputs, Path(folder))
    for name, one in found["quantize_static"].items():
        tell(name, one)
    write_json(options.out, found)
    return 0


def answered(model: nn.Module, inputs: torch.Tensor) -> Tensors:
    """All answers, a few pictures at a time."""
    forward = Forward(model)
    with torch.inference_mode():
        return cat([forward(part).clone() for part in inputs.split(8)])


def precision(task: Detection, told: Ragged, wanted: Any) -> dict[str, Any]:
    """mAP@.5:.95 and what else is told, in percent."""
    found = average_precision(list(told), list(wanted), len(task.names), tuple(SIZES))
    whole = found["all"]
    rows: dict[str, float | None] = {"mAP": whole.mean, "mAP50": whole.at_half}
    for at, name in enumerate(task.names):
        rows |= {f"AP {name}": whole.of_class(at), f"AP50 {name}": whole.of_class_at_half(at)}
    rows |= {f"mAP {size}": found[size].mean for size in SIZES if size != "all"}
    return {name: None if value is None else round(100 * value, 2) for name, value in rows.items()}


def files(run: Path, workload: Workload, inputs: torch.Tensor, trained: Tensors) -> dict[str, Any]:
    """Of each file of the run what it answers to test, and how far it is from the int8 graph."""
    report = Report.load(run)
    graph = answered(OnIntegers(load(next(run.rglob("int8_graph.pt2")))), inputs)
    task, found = workload.task, {}
    assert isinstance(task, Detection)
    for one in report.artifacts:
        path = run / one.file
        kept = np.load(run / "answers" / f"{path.name}.npy", allow_pickle=False)
        answers = shaped(from_numpy(np.ascontiguousarray(kept)), graph)
        times = [row for row in report.measurements if row.artifact == one.file and row.threads == 1]
        found[path.name] = {
            "bytes": one.size_bytes,
            "p50_ms": round(times[0].p50_ns / 1e6, 2) if times else None,
            **precision(task, task.detections(answers, 0.001), workload.validation.targets),
            "agreement": round(task.agreement(answers, trained), 4),
        }
        if "int8" in path.name:
            kind = "onnx" if path.suffix == ".onnx" else "litert"
            found[path.name] |= {
                "int8_coverage": round(FORMATS[kind].coverage(path).share, 4),
                "db_to_int8_graph": decibels(graph, answers),
                "db_of_int8_graph_to_float": decibels(trained, graph),
            }
    return found


TIMED = 20  # rounds over all pictures, of which the quickest counts, in time of the processor
MAIN = r"""
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include "bccd_detection.h"
static bccd_work work;
static bccd_box boxes[BCCD_MOST];
int main(void) {
  static const int sizes[] = {SIZES};
  const float *at[COUNT];
  float *values[COUNT];
  struct timespec from, to;
  FILE *file = fopen("values.bin", "rb");
  for (int k = 0; k < COUNT; ++k) {
    values[k] = malloc(sizeof(float) * PICTURES * sizes[k]);
    const size_t count = (size_t)PICTURES * sizes[k];
    if (fread(values[k], sizeof(float), count, file) != count) return 2;
  }
  double best = 1e18;
  for (int round = 0; round <= TIMED; ++round) {
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &from);
    for (int i = 0; i < PICTURES; ++i) {
      bccd_detection_outputs outputs;
      for (int k = 0; k < COUNT; ++k) at[k] = values[k] + (size_t)i * sizes[k];
      OUTPUTS
      int count = bccd_detect(&outputs, BCCD_CONFIDENCE, &work, boxes);
      for (int b = 0; round == 0 && b < count; ++b)
        printf("%d %.9g %.9g %.9g %.9g %d %.9g\n", i, boxes[b].left, boxes[b].top, boxes[b].right,
               boxes[b].bottom, (int)boxes[b].label, boxes[b].score);
    }
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &to);
    const double taken = ((to.tv_sec - from.tv_sec) * 1e9 + (to.tv_nsec - from.tv_nsec)) / PICTURES;
    if (round && taken < best) best = taken;
  }
  printf("%.1f\n", best);
}
"""


def bundles(run: Path, workload: Workload) -> dict[str, Any]:
    """How many pictures have the same boxes in Python, C99 and here, by the int8 LiteRT file's answers.

    ``c99_microseconds``: of decoding and suppression, for a picture.
    """
    task, name = workload.task, "bccd_int8.tflite"
    assert isinstance(task, Detection)
    answers = from_numpy(np.load(run / "answers" / f"{name}.npy", allow_pickle=False))
    assert isinstance(answers, NamedTensors)
    own = [
        np.concatenate([one["boxes"], one["labels"][:, None], one["scores"][:, None]], 1)
        for one in task.detections(answers)
        if isinstance(one, dict)
    ]
    ends = {name: {"output": {"scale": None, "layout": "NCHW"}} for name in answers.names}
    file: Any = SimpleNamespace(spec={"detection": task.decoding}, outputs=ends)
    python = decoded({name: one.numpy() for name, one in answers.items()}, file)
    c99, nanoseconds = in_c(task, answers)
    return {
        "pictures": len(own),
        "boxes": sum(map(len, own)),
        "same_in_python": sum(map(same_boxes, own, python)),
        "same_in_c99": sum(map(same_boxes, own, c99)),
        "c99_microseconds": round(nanoseconds / 1000, 1),
    }


def in_c(task: Detection, answers: NamedTensors) -> tuple[list[Any], float]:
    """Rows (n, 6) of each picture, and the nanoseconds that one takes."""
    ends = [
        SimpleNamespace(end=Tensor(name, (1, *one.shape[1:]), "float32", layout="NCHW"))
        for name, one in answers.items()
    ]
    contents: Any = SimpleNamespace(detection=task.decoding, outputs=ends, output_ids=answers.names)
    outputs = "".join(f"outputs.{name} = at[{at}]; " for at, name in enumerate(answers.names))
    sizes = ", ".join(str(one[0].numel()) for one in answers.values())
    numbers = {
        "SIZES": sizes,
        "PICTURES": len(answers),
        "COUNT": len(ends),
        "TIMED": TIMED,
        "OUTPUTS": outputs,
    }
    code = MAIN
    for word, value in numbers.items():
        code = re.sub(rf"\b{word}\b", str(value), code)
    with tempfile.TemporaryDirectory(prefix="edgekit-benchmark-") as made:
        folder = Path(made)
        (folder / "bccd_detection.h").write_bytes(c_detection.header(contents, "bccd", real=True))
        (folder / "main.c").write_text(code)
        (folder / "values.bin").write_bytes(b"".join(one.numpy().tobytes() for one in answers.values()))
        command = ["cc", "-std=gnu99", "-O2", "main.c", "-lm", "-o", "decode"]
        subprocess.run(command, cwd=folder, check=True)
        done = subprocess.run(["./decode"], cwd=folder, check=True, capture_output=True, text=True)
    *lines, nanoseconds = done.stdout.splitlines()
    rows = np.array([[float(value) for value in line.split()] for line in lines])
    return [rows[rows[:, 0] == at, 1:] for at in range(len(answers))], float(nanoseconds)


def same_boxes(one: Any, other: Any) -> bool:
    """The same classes in the same order, IoU >= 0.99, scores within 1/255."""
    if len(one) != len(other) or not (one[:, 4] == other[:, 4]).all():
        return False
    overlap = iou(*(torch.from_numpy(np.asarray(rows[:, :4], np.float32)) for rows in (one, other)))
    return bool((overlap >= 0.99).all()) and bool((np.abs(one[:, 5] - other[:, 5]) <= 1 / 255).all())


def shaped(answers: Tensors, like: Tensors) -> NamedTensors:
    """A file's answers in the order and shape of the graph's."""
    assert isinstance(answers, NamedTensors)
    assert isinstance(like, NamedTensors)
    return NamedTensors({name: answers[name].float().reshape(one.shape) for name, one in like.items()})


def decibels(wanted: Tensors, got: Tensors) -> dict[str, Any]:
    """By output: over all, and of its worst channel."""
    assert isinstance(wanted, NamedTensors)
    assert isinstance(got, NamedTensors)
    found = {}
    for name, one in wanted.items():
        noise = Noise()
        noise.add(one, got[name])
        found[name] = {"all": round(noise.db, 1), "worst_channel": round(min(noise.by_channel()), 1)}
    return found


def peers(workload: Workload, inputs: torch.Tensor, folder: Path) -> dict[str, Any]:
    """`quantize_static`, tuned, on three forms of the network."""
    task, example = workload.task, inputs[:1]
    assert isinstance(task, Detection)
    rows = np.linspace(0, len(workload.train) - 1, CALIBRATED).astype(int)
    calibrating = workload.preprocessing(workload.train.inputs[torch.from_numpy(rows)]).contiguous()
    forms = {
        "decoded, one tensor": Decoded(workload.model, task, one=True),
        "decoded, two tensors": Decoded(workload.model, task, one=False),
        "its own outputs": Raw(workload.model),
    }
    np.save(folder / "sample.npy", inputs.numpy())
    found = {}
    for number, (name, form) in enumerate(forms.items()):
        source, path = folder / f"float{number}.onnx", folder / f"int8_{number}.onnx"
        torch_fp32(form.eval(), example, source)
        ort_tuned(source, calibrating, path)
        rows_of = {}
        for precision_of, one in (("fp32", source), ("int8", path)):
            told = parts_of(evaluate(one, "onnxruntime", LOCAL, folder / "sample.npy", batch=1))
            rows_of[precision_of] = precision(
                task, boxes_of(told, task, list(workload.model(example))), workload.validation.targets
            )
        covered = round(FORMATS["onnx"].coverage(path).share, 4)
        lost = {"fp32_mAP": rows_of["fp32"]["mAP"], "int8_coverage": covered, "bytes": path.stat().st_size}
        found[name] = {**rows_of["int8"], **lost}
    return found


def parts_of(answers: Any) -> list[torch.Tensor]:
    """The outputs, in the file's order."""
    names = answers.dtype.names
    return [
        torch.from_numpy(np.ascontiguousarray(answers[name] if name else answers)) for name in names or [""]
    ]


def boxes_of(told: Sequence[torch.Tensor], task: Detection, names: Sequence[str]) -> Ragged:
    """What one of the three forms says."""
    limits = Limits(0.001, task.overlap, task.most, task.candidates)
    if len(told) > 2:
        return task.detections(NamedTensors(dict(zip(names, told, strict=True))), 0.001)
    boxes, scores = told if len(told) == 2 else (told[0][:, :4], told[0][:, 4:])
    return detections(Candidates(boxes.transpose(1, 2), scores.transpose(1, 2)), task.head.size, limits)


def tell(name: str, row: Mapping[str, Any]) -> None:
    """One line."""
    worst = [one["worst_channel"] for one in row.get("db_to_int8_graph", {}).values()]
    more = f", worst channel {min(worst)} dB from the graph" if worst else ""
    covered = f", {row['int8_coverage']:.0%} int8" if "int8_coverage" in row else ""
    print(f"{name}: mAP@.5:.95 {row['mAP']} %, mAP@.5 {row['mAP50']} %{covered}{more}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
