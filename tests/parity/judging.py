"""Files of the networks, with and without a fault, before the pipeline's gate."""

from __future__ import annotations

import functools
import re
import tempfile
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from torch import Tensor, fx

from edgekit.errors import ExportError
from edgekit.formats.exporting import export
from edgekit.pipeline.artifacts import Planned
from edgekit.pipeline.chain import Rung
from edgekit.pipeline.ladder import check_gate, parity_of, telling_samples
from edgekit.report import Figures
from edgekit.runtimes.device import runtimes
from edgekit.stages.base import Form
from tests.parity.faults import FAULTS
from tests.parity.networks import network, samples
from tests.spelling import backend_for, spelled


@dataclass(frozen=True)
class Verdict:
    """``refused``: whether the gate did; ``blamed``: the layer that it named; ``snr_db``: of all answers."""

    refused: bool
    blamed: str
    snr_db: float
    said: str = ""


@functools.cache
def right_file(kind: str, depth: str, format: str) -> bytes:
    """What the exporter makes of the network."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "right"
        example = samples(kind, depth, 1)
        export(network(kind, depth), example, path, format=format, precision="int8", metadata={})
        return path.read_bytes()


def planted(name: str, depth: str, format: str, folder: Path) -> tuple[str, Verdict]:
    """The layer that the fault is in, and what the gate says of the file."""
    fault = FAULTS[name]
    path = folder / f"planted.{format}"
    path.write_bytes(right_file(fault.kind, depth, format))
    layer = fault.plant(path, format, network(fault.kind, depth), samples(fault.kind, depth))
    return layer, judged(path, fault.kind, depth, format)


def judged(path: Path, kind: str, depth: str, format: str) -> Verdict:
    """Evaluate a file as the pipeline does, and ask the gate."""
    graph, inputs = network(kind, depth), samples(kind, depth)
    with torch.no_grad():
        source = graph(inputs)
    answers = answers_of(path, format, inputs).reshape(source.shape)
    one = _planned(graph, format)
    found: dict[str, Any] = parity_of(one, answers, source)
    workload = SimpleNamespace(
        validation=inputs,
        example=lambda n: inputs[:n],
        whole=lambda n: inputs[:n],
        samples=lambda indices: inputs[list(indices)],
    )
    job: Any = SimpleNamespace(workload=workload, tell=lambda *_, **__: None)
    telling = telling_samples(source, answers, inputs)
    try:
        check_gate(job, one, found, path.name, fused=not spelled(), path=path, telling=telling)
    except ExportError as error:
        layer = re.search(r"layer '(.*?)' is wrong", error.got)
        return Verdict(True, layer[1] if layer else "", found["snr_db"], error.got)
    return Verdict(False, "", found["snr_db"])


def answers_of(path: Path, format: str, inputs: Tensor) -> Tensor:
    """A file's answers, row by row, in its runtime."""
    kind = runtimes.find({"onnx": "onnxruntime", "litert": "litert"}[format])
    kind.prepare()
    model = kind(str(path), 1, backend_for(path)) if format == "onnx" else kind(str(path), 1)
    rows = []
    for row in inputs.split(1):
        model.bind(model.arrange(row.numpy(), "NHWC" if format == "litert" and row.dim() == 4 else "NCHW"))
        model.invoke()
        rows.append(np.array(model.output()))
    return torch.from_numpy(np.concatenate(rows))


def _planned(graph: fx.GraphModule, format: str) -> Planned:
    rung = Rung("qat", graph, "", Figures(accuracy=1, parameters=1, macs=1), "", Form.INT8)
    return Planned("artifacts/n_int8", format, "int8", rung)
