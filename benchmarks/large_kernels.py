"""Depthwise kernels of more than 25 taps in LiteRT files: whole, and as edgekit writes them.

    python benchmarks/large_kernels.py                                  # single layers and three networks
    python benchmarks/large_kernels.py timm:convnext_atto --seconds 3   # some networks of foreign.py

Of each network four files, fp32 and int8 (calibrated, not trained), with whole kernels and with parts, are
timed in turns on one thread; ratios above 1 mean that the parts are faster. The int8 files' answers on
held-out inputs are compared with the int8 graph's (decibels). A single layer is a depthwise convolution of
96 channels at 24 x 24 between two 1 x 1 ones.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import foreign
import numpy as np
import torch
from int8_vs_default import LOCAL
from provenance import surroundings
from torch import Tensor, nn

from edgekit.bench import stats
from edgekit.bench.measure import Candidate, Failure, evaluate, measure
from edgekit.formats.exporting import export
from edgekit.formats.options import ExportOptions
from edgekit.graph.capture import capture
from edgekit.int8.calibration import calibrate
from edgekit.noise import Noise

LAYERS = {"3x3": (3, 1), "7x7": (7, 1), "7x7, stride 2": (7, 2), "9x9": (9, 1), "11x11": (11, 1)}
NETWORKS = ("timm:convnext_atto", "timm:edgenext_xx_small", "timm:mixnet_s")
OUT = Path(__file__).resolve().parent / "results" / "large_kernels.json"


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("names", nargs="*", metavar="NAME", help="networks instead of layers and the three")
    parser.add_argument("--seconds", type=float, default=0.5, help="each file is timed for at least so long")
    parser.add_argument("--out", type=Path, default=OUT)
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    rows = []
    for name in options.names or (*LAYERS, *NETWORKS):
        rows.append({"name": name, **compared(*made(name), options.seconds)})
        print(json.dumps(rows[-1]), flush=True)
        about = surroundings(("torch", "ai-edge-litert", "litert-torch", "timm"))
        options.out.write_text(json.dumps({**about, "rows": rows}, indent=1) + "\n")
    return 0


def made(name: str) -> tuple[nn.Module, Tensor]:
    """A model and 48 inputs, of which the last 16 are held out."""
    torch.manual_seed(0)
    if name in LAYERS:
        kernel, stride = LAYERS[name]
        large = nn.Conv2d(96, 96, kernel, stride=stride, padding=kernel // 2, groups=96)
        layers = [nn.Conv2d(8, 96, 1), nn.ReLU(), large, nn.ReLU(), nn.Conv2d(96, 8, 1)]
        return nn.Sequential(*layers).eval(), torch.randn(48, 8, 24, 24)
    network = foreign.make(name)
    return network.model, network.inputs(48, 1)


def compared(model: nn.Module, inputs: Tensor, seconds: float) -> dict[str, Any]:
    """Microseconds of each file, their ratios, and how near the int8 files are to the graph."""
    example, held_out = inputs[:1], inputs[32:]
    graph = capture(model, example)
    graphs = {"fp32": graph, "int8": calibrate(graph, list(inputs[:32].split(16)))}
    with tempfile.TemporaryDirectory(prefix="edgekit-benchmark-") as place, torch.no_grad():
        folder = Path(place)
        sample = folder / "held-out.npy"
        np.save(sample, held_out.numpy())
        files: dict[str, Path] = {}
        for precision, source in graphs.items():
            for form in ("whole", "parts"):
                path = files[f"{precision} {form}"] = folder / f"{precision}-{form}.tflite"
                whole = ExportOptions(whole_kernels=form == "whole")
                how: Any = {"format": "litert", "precision": precision, "options": whole}
                export(source, example, path, metadata={}, **how)
        wanted = graphs["int8"](held_out).numpy()
        decibels = {}
        for form in ("whole", "parts"):
            noise = Noise(axis=None)
            noise.add(wanted, evaluate(files[f"int8 {form}"], "litert", LOCAL, sample, batch=1))
            decibels[form] = round(noise.db, 1)
        timed = measure(
            [Candidate(path, "litert", threads=1) for path in files.values()],
            LOCAL,
            sample=sample,
            min_seconds=seconds,
        )
    found: dict[str, float] = {}
    for name, result in zip(files, timed, strict=True):
        if isinstance(result, Failure):
            raise result.error
        found[name] = round(stats.percentile(result.raw_ns, 50) / 1e3, 1)
    return {
        "p50_us": found,
        "times_as_fast": {one: round(found[f"{one} whole"] / found[f"{one} parts"], 2) for one in graphs},
        "int8_against_fp32": round(found["fp32 parts"] / found["int8 parts"], 2),
        "int8_file_against_graph_db": decibels,
    }


if __name__ == "__main__":
    raise SystemExit(main())
