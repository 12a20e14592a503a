"""A vision transformer with 196 tokens, trained here: what int8 by calibration alone leaves of its accuracy.

    apt-get install dataset-fashion-mnist      # or --data FOLDER with the original four .gz files
    python benchmarks/vit_trained.py [--samples 60000] [--epochs 4]

timm's VisionTransformer (14 x 14 patches of 2 x 2 pixels, averaged at the end) learns Fashion-MNIST (Xiao
et al. 2017), is calibrated on training pictures, and exported. Accuracy is that of each file in its runtime
on all 10,000 test pictures, beside the float model's and that of the fp32 files. Nothing is chosen on them.
The signal-to-noise ratios of both int8 files against the float model are over the same pictures, as a whole
and of the worst class.
"""

from __future__ import annotations

import argparse
import gzip
import json
import math
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import foreign
import numpy as np
import torch
import torch.nn.functional as F
from int8_vs_default import LOCAL, quiet
from provenance import surroundings
from torch import Tensor, nn

from edgekit.bench.measure import evaluate
from edgekit.formats import FORMATS
from edgekit.formats.exporting import export
from edgekit.graph.capture import capture
from edgekit.int8.calibration import calibrate
from edgekit.noise import Noise

OUT = Path(__file__).resolve().parent / "results" / "vit_trained.json"
FOLDER = Path("/usr/share/datasets/fashion-mnist")  # where Debian's package puts it
CALIBRATION, BATCH = 512, 50
LR, WARM_UP, SHIFT = 3e-3, 0.1, 1
PACKAGES = ("torch", "timm", "onnxruntime", "ai-edge-litert", "litert-torch", "numpy")


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--data", type=Path, default=FOLDER)
    parser.add_argument("--samples", type=int, default=60_000, help="of the 60,000 training pictures")
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=OUT)
    options = parser.parse_args(arguments)
    torch.set_num_threads(options.threads)
    started = time.monotonic()
    inputs, targets = (part[: options.samples] for part in pictures(options.data, "train"))
    model = trained(inputs, targets, options)
    result = {
        "samples": options.samples,
        "epochs": options.epochs,
        "training_seconds": round(time.monotonic() - started),
        "parameters": sum(one.numel() for one in model.parameters()),
        "calibration_samples": CALIBRATION,
        **measured(model, inputs[:CALIBRATION], *pictures(options.data, "t10k")),
        **surroundings(PACKAGES),
    }
    options.out.write_text(json.dumps(result, indent=1, ensure_ascii=False) + "\n")
    for name, one in result["files"].items():
        print(f"{name:<12} {one}")
    print(f"float {result['float_accuracy']:.2%}; int8 loses at most {result['most_lost_points']:.2f} points")
    return 0


def pictures(folder: Path, part: str) -> tuple[Tensor, Tensor]:
    """(N, 1, 28, 28) normalised, and (N,) classes, out of the IDX files."""

    def read(kind: str, header: int) -> np.ndarray[Any, Any]:
        with gzip.open(folder / f"{part}-{kind}-ubyte.gz") as stream:
            return np.frombuffer(stream.read(), np.uint8, offset=header)

    raw = torch.from_numpy(read("images-idx3", 16).copy()).reshape(-1, 1, 28, 28)
    return (raw.float() / 255 - 0.286) / 0.353, torch.from_numpy(read("labels-idx1", 8).astype(np.int64))


def network() -> nn.Module:
    foreign.declare_operators()
    from timm.models.vision_transformer import VisionTransformer

    made: nn.Module = VisionTransformer(
        img_size=28,
        patch_size=2,
        in_chans=1,
        num_classes=10,
        embed_dim=48,
        depth=4,
        num_heads=3,
        mlp_ratio=2,
        class_token=False,
        global_pool="avg",
    )
    return made


def trained(inputs: Tensor, targets: Tensor, options: Any) -> nn.Module:
    torch.manual_seed(options.seed)
    model = network().train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=LR, weight_decay=0.05)
    steps = options.epochs * (len(inputs) // BATCH)
    rate = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: _rate(step / steps))
    for epoch in range(options.epochs):
        total = 0.0
        for rows in torch.randperm(len(inputs)).split(BATCH)[: len(inputs) // BATCH]:
            loss = F.cross_entropy(model(_shifted(inputs[rows])), targets[rows])
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            rate.step()
            total += float(loss.detach())
        print(f"epoch {epoch + 1}: loss {total / (len(inputs) // BATCH):.3f}", file=sys.stderr, flush=True)
    return model.eval()


def _rate(done: float) -> float:
    """A warm-up, then half a cosine."""
    return done / WARM_UP if done < WARM_UP else 0.5 * (1 + math.cos(math.pi * min(1.0, done)))


def _shifted(inputs: Tensor) -> Tensor:
    """The whole batch moved by up to a pixel, half of them mirrored."""
    padded = F.pad(inputs, (SHIFT,) * 4, value=float(inputs.min()))
    top, left = (int(one) for one in torch.randint(0, 2 * SHIFT + 1, (2,)))
    moved = padded[..., top : top + 28, left : left + 28]
    mirrored = torch.rand(len(inputs)) < 0.5
    return torch.where(mirrored.reshape(-1, 1, 1, 1), moved.flip(-1), moved)


def measured(model: nn.Module, calibration: Tensor, inputs: Tensor, targets: Tensor) -> dict[str, Any]:
    """Accuracy of the float model and of each file in its runtime, and how near its scores are."""
    with torch.no_grad():
        wanted = torch.cat([model(part) for part in inputs.split(BATCH)])
    correct = float((wanted.argmax(1) == targets).double().mean())
    graph = calibrate(capture(model, calibration[:1]), list(calibration.split(BATCH)))
    files: dict[str, dict[str, Any]] = {}
    with tempfile.TemporaryDirectory(prefix="edgekit-benchmark-") as place:
        sample = Path(place, "test.npy")
        np.save(sample, inputs.numpy())
        for format, suffix, runtime in (("onnx", ".onnx", "onnxruntime"), ("litert", ".tflite", "litert")):
            for precision, source in (("fp32", model), ("int8", graph)):
                path = Path(place, precision + suffix)
                with quiet():
                    export(
                        source,
                        calibration[:1],
                        path,
                        format=format,  # type: ignore[arg-type]
                        precision=precision,  # type: ignore[arg-type]
                        metadata={},
                    )
                answers = torch.from_numpy(evaluate(path, runtime, LOCAL, sample, batch=1))  # type: ignore[arg-type]
                noise = Noise()
                noise.add(wanted, answers)
                files[f"{precision} {format}"] = {
                    "accuracy": float((answers.argmax(1) == targets).double().mean()),
                    "snr_db": round(noise.db, 1),
                    "worst_class_db": round(min(noise.by_channel()), 1),
                    "same_answer": float((answers.argmax(1) == wanted.argmax(1)).double().mean()),
                }
                if precision == "int8":
                    files[f"int8 {format}"]["int8_coverage"] = FORMATS[format].coverage(path).share  # type: ignore[arg-type]
    least = min(one["accuracy"] for name, one in files.items() if name.startswith("int8"))
    return {
        "test_pictures": len(inputs),
        "float_accuracy": correct,
        "most_lost_points": round(100 * (correct - least), 2),
        "files": files,
    }


if __name__ == "__main__":
    sys.exit(main())
