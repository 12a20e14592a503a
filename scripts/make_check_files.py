"""Writes edgekit/bench/reference: the files that `edgekit device check` sends, and what they must answer.

    python scripts/make_check_files.py

One small convolutional network with random weights, as int8 ONNX and int8 LiteRT from one int8 graph. The
answers are each runtime's own: their roundings differ by a step here and there, but not between devices.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
import torch
from torch import nn

from edgekit.bench.evaluating import evaluate
from edgekit.bench.roundtrip import FILES, REFERENCE
from edgekit.devices.device import load_device
from edgekit.formats.exporting import export
from edgekit.formats.options import ExportOptions, Target
from edgekit.graph.capture import capture
from edgekit.int8.calibration import calibrate


def main() -> None:
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1, stride=2),
        nn.ReLU(),
        nn.Conv2d(8, 8, 3, padding=1, groups=8),
        nn.ReLU(),
        nn.Conv2d(8, 16, 1),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(16, 4),
    ).eval()
    samples = torch.randn(32, 3, 16, 16)
    graph = calibrate(capture(net, samples[:1]), [samples])
    # For the oldest runtimes, and for processors whose 8-bit products saturate: every device can be right.
    options = ExportOptions(target=Target("uint8", 7, "1.15.0"))
    REFERENCE.mkdir(exist_ok=True)
    device = load_device("local")
    with tempfile.TemporaryDirectory() as folder:
        inputs = Path(folder) / "samples.npy"
        np.save(inputs, samples[:8].numpy())
        for runtime, format in (("onnxruntime", "onnx"), ("litert", "litert")):
            path = Path(folder) / FILES[runtime]
            export(graph, samples[:1], path, format=format, precision="int8", metadata={}, options=options)
            np.save(REFERENCE / f"{runtime}.npy", evaluate(path, runtime, device, inputs))
        for name in (*FILES.values(), "samples.npy"):
            (REFERENCE / name).write_bytes((Path(folder) / name).read_bytes())


if __name__ == "__main__":
    main()
