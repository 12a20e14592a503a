"""What each op costs in each runtime, in fp32 and in int8, between two convolutions (or linear layers).

    python benchmarks/op_costs.py [NAMES] [--seconds 0.3] [--out FILE.json]

Every network is written by edgekit in both precisions, for ONNX Runtime and LiteRT. All of its files and
those of the same network without the op are timed in turns on one thread; an op's cost is the difference of
the medians. Beside it stands what LiteRT's delegate left to TFLite's own kernels in the int8 file, and in how
many partitions it was taken. Differences of a few microseconds are noise.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from int8_vs_default import LOCAL, explained
from provenance import surroundings
from torch import Tensor, nn

from edgekit.bench import stats
from edgekit.bench.measure import Candidate, Failure, measure
from edgekit.formats.exporting import export
from edgekit.formats.litert.delegated import delegated
from edgekit.formats.litert.reading import load
from edgekit.graph.capture import capture
from edgekit.int8.calibration import calibrate

OUT = Path(__file__).resolve().parent / "results" / "op_costs.json"
PACKAGES = ("torch", "onnxruntime", "ai-edge-litert", "litert-torch", "numpy")
CHANNELS, SIDE, TOKENS, WIDTH = 64, 28, 196, 192
FORMATS = {"onnx": ("onnxruntime", ".onnx"), "litert": ("litert", ".tflite")}


class Between(nn.Module):
    """An op between two layers: pictures (N, 8, 28, 28), 64 channels inside, or tokens (N, 196, 192)."""

    def __init__(self, op: Callable[[Tensor], Tensor] | nn.Module, channels: int, tokens: bool) -> None:
        super().__init__()
        self.first: nn.Module = nn.Linear(WIDTH, WIDTH) if tokens else nn.Conv2d(8, CHANNELS, 1)
        self.last: nn.Module = nn.Linear(channels, WIDTH) if tokens else nn.Conv2d(channels, 8, 1)
        self.op = op if isinstance(op, nn.Module) else Function(op)

    def forward(self, x: Tensor) -> Tensor:
        answers: Tensor = self.last(self.op(self.first(x)))
        return answers


class Function(nn.Module):
    """A function as a module."""

    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x)


class Constant(nn.Module):
    """A sum or product with numbers that were learnt."""

    def __init__(self, *shape: int, product: bool = False) -> None:
        super().__init__()
        self.numbers, self.product = nn.Parameter(torch.rand(*shape) + 0.5), product

    def forward(self, x: Tensor) -> Tensor:
        return x * self.numbers if self.product else x + self.numbers


class Gate(nn.Module):
    """Squeeze and excitation."""

    def __init__(self) -> None:
        super().__init__()
        self.down, self.up = nn.Conv2d(CHANNELS, 16, 1), nn.Conv2d(16, CHANNELS, 1)

    def forward(self, x: Tensor) -> Tensor:
        return x * torch.sigmoid(self.up(F.relu(self.down(x.mean((2, 3), keepdim=True)))))


class Attention(nn.Module):
    """Heads of 64 channels, without what projects."""

    def forward(self, x: Tensor) -> Tensor:
        heads = x.unflatten(2, (-1, 64)).transpose(1, 2)
        found = F.scaled_dot_product_attention(heads, heads, heads)
        return found.transpose(1, 2).flatten(2)


def _shuffle(x: Tensor) -> Tensor:
    return x.unflatten(1, (2, -1)).transpose(1, 2).flatten(1, 2)


def _conv(kernel: int, **settings: Any) -> nn.Module:
    return nn.Conv2d(CHANNELS, CHANNELS, kernel, padding=settings.pop("padding", kernel // 2), **settings)


# Name -> (the op, channels behind it, on tokens)
OPS: dict[str, tuple[Any, int, bool]] = {
    "relu": (nn.ReLU(), CHANNELS, False),
    "relu6": (nn.ReLU6(), CHANNELS, False),
    "hard-swish": (nn.Hardswish(), CHANNELS, False),
    "hard-sigmoid": (nn.Hardsigmoid(), CHANNELS, False),
    "sigmoid": (nn.Sigmoid(), CHANNELS, False),
    "tanh": (nn.Tanh(), CHANNELS, False),
    "silu": (nn.SiLU(), CHANNELS, False),
    "gelu": (nn.GELU(), CHANNELS, False),
    "gelu, tanh": (nn.GELU(approximate="tanh"), CHANNELS, False),
    "elu": (nn.ELU(), CHANNELS, False),
    "leaky relu": (nn.LeakyReLU(0.1), CHANNELS, False),
    "prelu": (nn.PReLU(CHANNELS), CHANNELS, False),
    "mish": (nn.Mish(), CHANNELS, False),
    "softplus": (nn.Softplus(), CHANNELS, False),
    "addition of itself, by a layer": (lambda x: x + F.relu(x * 0.5 - 0.1), CHANNELS, False),
    "addition of a constant": (Constant(1, CHANNELS, 1, 1), CHANNELS, False),
    "addition of a map": (Constant(1, CHANNELS, SIDE, SIDE), CHANNELS, False),
    "squeeze and excitation": (Gate(), CHANNELS, False),
    "concatenation": (lambda x: torch.cat([x, F.relu(x)], 1), 2 * CHANNELS, False),
    "split and joined": (lambda x: torch.cat(x.chunk(2, 1)[::-1], 1), CHANNELS, False),
    "channel shuffle": (_shuffle, CHANNELS, False),
    "pixel shuffle": (nn.PixelShuffle(2), CHANNELS // 4, False),
    "maximum, 3 x 3, stride 2": (nn.MaxPool2d(3, 2, 1), CHANNELS, False),
    "average, 2 x 2, stride 2": (nn.AvgPool2d(2), CHANNELS, False),
    "average, 3 x 3": (nn.AvgPool2d(3, 1, 1), CHANNELS, False),
    "average, 3 x 3, border not counted": (nn.AvgPool2d(3, 1, 1, count_include_pad=False), CHANNELS, False),
    "global average": (lambda x: x * x.mean((2, 3), keepdim=True), CHANNELS, False),
    "nearest, twice as large": (nn.Upsample(scale_factor=2), CHANNELS, False),
    "bilinear, twice as large": (nn.Upsample(scale_factor=2, mode="bilinear"), CHANNELS, False),
    "padding": (lambda x: F.pad(x, (1, 1, 1, 1)), CHANNELS, False),
    "every second row and column": (lambda x: x[:, :, ::2, ::2], CHANNELS, False),
    "convolution, 3 x 3": (_conv(3), CHANNELS, False),
    "convolution in 4 groups": (_conv(3, groups=4), CHANNELS, False),
    "convolution in 16 groups": (_conv(3, groups=16), CHANNELS, False),
    "dilated convolution": (_conv(3, dilation=2, padding=2), CHANNELS, False),
    "transposed convolution": (nn.ConvTranspose2d(CHANNELS, CHANNELS, 2, 2), CHANNELS, False),
    "depthwise, 3 x 3": (_conv(3, groups=CHANNELS), CHANNELS, False),
    "depthwise, 7 x 7": (_conv(7, groups=CHANNELS), CHANNELS, False),
    "depthwise, two for each": (
        nn.Conv2d(CHANNELS, 2 * CHANNELS, 3, padding=1, groups=CHANNELS),
        2 * CHANNELS,
        False,
    ),
    "batch norm": (nn.BatchNorm2d(CHANNELS), CHANNELS, False),
    "group norm, one group": (nn.GroupNorm(1, CHANNELS), CHANNELS, False),
    "group norm, 8 groups": (nn.GroupNorm(8, CHANNELS), CHANNELS, False),
    "layer norm": (nn.LayerNorm(WIDTH), WIDTH, True),
    "RMS norm": (nn.RMSNorm(WIDTH), WIDTH, True),
    "gelu of tokens": (nn.GELU(), WIDTH, True),
    "softmax": (lambda x: F.softmax(x, -1), WIDTH, True),
    "attention over 196 tokens": (Attention(), WIDTH, True),
    "positions": (Constant(1, TOKENS, WIDTH), WIDTH, True),
}


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("names", nargs="*", metavar="NAME", help="parts of the names of ops; none: all")
    parser.add_argument("--seconds", type=float, default=0.3, help="each file is timed for at least so long")
    parser.add_argument("--out", type=Path, default=OUT)
    options = parser.parse_args(arguments)
    chosen = [name for name in OPS if not options.names or any(one in name for one in options.names)]
    rows = []
    for name in chosen:
        try:
            rows.append({"op": name, **costs(name, options.seconds)})
        except Exception as error:  # whatever an op fails with is its result
            rows.append({"op": name, "error": explained(error)})
        print(told(rows[-1]), flush=True)
        about = {"seconds": options.seconds, **surroundings(PACKAGES)}
        options.out.write_text(json.dumps({**about, "rows": rows}, indent=1, ensure_ascii=False) + "\n")
    return 0


def costs(name: str, seconds: float) -> dict[str, Any]:
    """Microseconds of both files with and without the op, in both precisions, and what was delegated."""
    torch.set_num_threads(1)
    op, channels, tokens = OPS[name]
    with tempfile.TemporaryDirectory(prefix="edgekit-benchmark-") as place:
        folder = Path(place)
        files = {}
        without = nn.Identity(), WIDTH if tokens else CHANNELS, tokens
        for kind, (one, width, on) in (("with", (op, channels, tokens)), ("without", without)):
            torch.manual_seed(0)
            model = Between(one, width, on).eval()
            inputs = torch.randn(32, TOKENS, WIDTH) if on else torch.randn(32, 8, SIDE, SIDE)
            graph = capture(model, inputs[:1])
            sources = {"fp32": graph, "int8": calibrate(graph, list(inputs.split(8)))}
            for precision, source in sources.items():
                for format, (_, suffix) in FORMATS.items():
                    path = folder / f"{kind}-{precision}{suffix}"
                    how: Any = {"format": format, "precision": precision, "metadata": {}}
                    export(source, inputs[:1], path, **how)
                    files[kind, precision, format] = path
        sample = folder / "sample.npy"
        np.save(sample, inputs[:1].numpy())
        candidates = [
            Candidate(path, FORMATS[format][0], threads=1) for (_, _, format), path in files.items()
        ]
        timed = measure(candidates, LOCAL, sample=sample, min_seconds=seconds)
        found: dict[tuple[str, str, str], float] = {}
        for key, result in zip(files, timed, strict=True):
            if isinstance(result, Failure):
                raise result.error
            found[key] = round(stats.percentile(result.raw_ns, 50) / 1e3, 1)
        taken = delegated(load(files["with", "int8", "litert"]))
    row: dict[str, Any] = {}
    for format in FORMATS:
        row[format] = {
            precision: {
                "p50_us": found["with", precision, format],
                "cost_us": round(found["with", precision, format] - found["without", precision, format], 1),
            }
            for precision in ("fp32", "int8")
        }
        row[format]["int8_over_fp32"] = round(
            found["with", "int8", format] / found["with", "fp32", format], 2
        )
    row["litert"]["partitions"], row["litert"]["outside"] = taken.partitions, taken.outside
    return row


def told(row: dict[str, Any]) -> str:
    if "error" in row:
        return f"{row['op']}: {row['error']}"
    cells = []
    for format in FORMATS:
        one = row[format]
        cells.append(
            f"{format} {one['fp32']['cost_us']:7.1f} / {one['int8']['cost_us']:7.1f} µs (network x "
            f"{one['int8_over_fp32']:.2f})"
        )
    left = ", ".join(f"{count} {kind}" for kind, count in row["litert"]["outside"].items())
    return f"{row['op']:<36} {'; '.join(cells)}; {row['litert']['partitions']} partitions {left}"


if __name__ == "__main__":
    sys.exit(main())
