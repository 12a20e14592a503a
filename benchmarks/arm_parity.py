"""Which op of an int8 ONNX file gives other bits on ARM than here: the demo's network, op by op.

    python benchmarks/arm_parity.py [--out FILE]

The file is optimised by ONNX Runtime once, on this machine; then every tensor of that graph is made an
output, and 64 validation samples are asked here and on the emulated boards, with optimisation off. "new"
counts values that differ although all inputs of their op are the same: there a kernel rounds otherwise.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
from provenance import surroundings

from edgekit.devices import connect
from edgekit.devices.device import load_device
from edgekit.formats.exporting import export
from edgekit.formats.options import ExportOptions, Target
from edgekit.graph.capture import capture
from edgekit.int8.calibration import calibrate
from edgekit.zoo.digits import workload

HERE = Path(__file__).resolve().parent
CPUS = ("cortex-a53", "cortex-a72", "cortex-a76")
ASK = """import sys, numpy as np, onnxruntime as ort
o = ort.SessionOptions(); o.log_severity_level = 3
o.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
s = ort.InferenceSession(sys.argv[1], o, providers=["CPUExecutionProvider"])
answers = s.run(None, {s.get_inputs()[0].name: np.load(sys.argv[2])})
np.savez(sys.argv[3], **{str(index): value for index, value in enumerate(answers)})
"""


def main() -> int:
    """Make the files, ask everywhere, count."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--out", type=Path, default=HERE / "results" / "arm_parity.json")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="edgekit-") as name:
        folder = Path(name)
        model, samples = opened(folder)
        script = folder / "ask.py"
        script.write_text(ASK)
        here = ask(load_device("local"), script, model, samples, folder)
        graph = onnx.load(model).graph
        result: dict[str, Any] = {"samples": 64, "boards": {}}
        for cpu in CPUS:
            there = ask(load_device(f"emulated-{cpu}"), script, model, samples, folder)
            result["boards"][cpu] = compared(graph, here, there)
            print(cpu, [row for row in result["boards"][cpu] if row["new"]])
    arguments.out.write_text(
        json.dumps({**result, **surroundings(("onnxruntime", "numpy"))}, indent=1) + "\n"
    )
    return 0


def opened(folder: Path) -> tuple[Path, Path]:
    """The demo as an int8 file, as ONNX Runtime executes it, with every tensor an output; its samples."""
    demo = workload()
    batches = demo.preprocessing(demo.train.inputs[:256]).split(64)
    int8 = calibrate(capture(demo.model, demo.example(1)), batches)
    target = ExportOptions(target=Target("uint8", 7))  # 7 bits: sums that no processor saturates
    path, optimised, whole = (folder / f"{name}.onnx" for name in ("digits", "optimised", "whole"))
    export(int8, demo.example(1), path, format="onnx", precision="int8", metadata={}, options=target)
    options = ort.SessionOptions()
    options.optimized_model_filepath = str(optimised)
    options.log_severity_level = 4
    ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    model = onnx.load(optimised)
    tensors = [output for node in model.graph.node for output in node.output if output]
    del model.graph.output[:]
    model.graph.output.extend(onnx.ValueInfoProto(name=tensor) for tensor in tensors)
    onnx.save(model, whole)
    samples = folder / "samples.npy"
    np.save(samples, demo.preprocessing(demo.validation.inputs[:64]).numpy())
    return whole, samples


def ask(device: Any, script: Path, model: Path, samples: Path, folder: Path) -> list[Any]:
    """All tensors, in the order of the graph's outputs."""
    with connect(device) as link:
        files = [link.push(path) for path in (script, model, samples)]
        target = f"{link.folder}/answers.npz"
        done = link.run([device.interpreter, *files, target], timeout_seconds=device.timeout_seconds)
        if done.returncode:
            raise SystemExit(done.stderr)
        link.pull(target, folder / "answers.npz")
    with np.load(folder / "answers.npz") as archive:
        return [archive[str(index)] for index in range(len(archive.files))]


def compared(graph: Any, here: list[Any], there: list[Any]) -> list[dict[str, Any]]:
    """A row for each op: values, those that differ, and those that differ from equal inputs."""
    order = {output.name: index for index, output in enumerate(graph.output)}
    equal = {name: np.array_equal(here[index], there[index]) for name, index in order.items()}
    rows = []
    for node in graph.node:
        index = order[node.output[0]]
        one, other = here[index].astype(np.float64), there[index].astype(np.float64)
        differ = int((one != other).sum())
        new = differ if all(equal.get(name, True) for name in node.input) else 0
        row = {"op": node.op_type, "name": node.output[0], "values": one.size, "differ": differ, "new": new}
        rows.append({**row, "largest": float(np.abs(one - other).max())})
    return rows


if __name__ == "__main__":
    raise SystemExit(main())
