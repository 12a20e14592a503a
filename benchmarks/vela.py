"""How much of an int8 LiteRT file an Arm Ethos-U takes, by Arm's own compiler: a judge that isn't edgekit's.

    pip install --target DIR ethos-u-vela                # an environment of its own suits it, too
    PYTHONPATH=DIR python benchmarks/vela.py             # or some of its networks, by name

Networks with random weights at their own resolution (networks.py, foreign.py, workloads/spoken_digits.py),
calibrated, as edgekit writes them with integers at both ends (`exports.io: int8`). Vela 5 names each operator
that stays on the CPU, and why; the numbers it estimates (cycles, memory) are no measurements, and not kept.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import foreign
import networks
import torch
from provenance import surroundings
from torch import Tensor, nn

from edgekit.formats.exporting import export
from edgekit.formats.options import ExportOptions
from edgekit.graph.capture import capture
from edgekit.int8.calibration import calibrate

OUT = Path(__file__).resolve().parent / "results" / "vela.json"
NAMES = (
    "resnet8",
    "ds-cnn",
    "mobilenetv2",
    "timm:mobilenetv2_100",
    "timm:mobilenetv3_small_100",
    "timm:efficientnet_lite0",
)
ACCELERATOR = "ethos-u55-128"
ENDS = ExportOptions(io="int8")  # `--set exports.io=int8`: such a chip takes integers alone


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"networks, instead of {', '.join(NAMES)}")
    parser.add_argument("--out", type=Path, default=OUT)
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    rows = []
    for name in options.names or NAMES:
        rows.append({"name": name, **judged(*made(name))})
        print(json.dumps(rows[-1]), flush=True)
        about = surroundings(("torch", "ai-edge-litert", "litert-torch", "timm", "ethos-u-vela"))
        options.out.write_text(
            json.dumps({**about, "accelerator": ACCELERATOR, "rows": rows}, indent=1) + "\n"
        )
    return 0


def made(name: str) -> tuple[nn.Module, Tensor]:
    """A network and inputs (16, …) to calibrate it with."""
    if name in networks.NETWORKS:
        network = networks.NETWORKS[name]
        return networks.make(network), networks.images(16, network.size, torch.Generator().manual_seed(1))
    if name == "ds-cnn":
        sys.path.insert(0, str(Path(__file__).resolve().parent / "workloads"))
        from spoken_digits import DsCnn

        torch.manual_seed(0)
        return DsCnn().eval(), torch.randn(16, 1, 49, 10)
    other = foreign.make(name)
    return other.model, other.inputs(16, 1)


def judged(model: nn.Module, inputs: Tensor) -> dict[str, Any]:
    """``npu``: how many operators it takes; ``cpu``: which it leaves, and ``why``, in Vela's words."""
    graph = calibrate(capture(model, inputs[:1]), list(inputs.split(8)))
    with tempfile.TemporaryDirectory(prefix="edgekit-benchmark-") as place:
        file = Path(place) / "net.tflite"
        export(graph, inputs[:1], file, format="litert", precision="int8", metadata={}, options=ENDS)
        command = [sys.executable, "-m", "ethosu.vela", str(file), "--output-dir", place]
        command += ["--accelerator-config", ACCELERATOR, "--show-cpu-operations"]
        done = subprocess.run(command, capture_output=True, text=True, timeout=600, check=False)
    said = done.stdout + done.stderr
    counts = {kind: re.search(rf"^{kind} operators = (\d+)", said, re.MULTILINE) for kind in ("CPU", "NPU")}
    if done.returncode or None in counts.values():
        raise RuntimeError(f"Vela: {said[-2000:]}")
    left = re.findall(r"^Warning \(supported operators\) operator: (\w+)", said, re.MULTILINE)
    why = re.findall(r"^Reason: (.+)", said, re.MULTILINE)
    cpu, npu = (int(found[1]) for found in counts.values() if found is not None)
    return {"npu": npu, "cpu": cpu, "left": left, "why": why}


if __name__ == "__main__":
    sys.exit(main())
