"""int8 files of edgekit against those of two common roads, and against fp32, on five small networks.

    python benchmarks/int8_vs_default.py [--networks resnet8 mobilenetv2] [--seconds 0.5] [--out FILE.json]

Each network is exported by edgekit (fp32 and int8, ONNX and LiteRT), quantised by onnxruntime.quantization
(with its defaults, and once more after the preprocessing that its documentation recommends), and by NNCF on
the torch module. All files of a network are timed in turns on one thread. Weights are random (networks.py):
accuracy is not judged. Instead each int8 file's answers are compared with the fp32 file's on inputs that no
calibration saw, and edgekit's count only at 20 dB or better: a file that is fast but wrong is no win.

The file that stands for edgekit is the one that ``edgekit compress`` would recommend by latency: the fastest
of its four. That it isn't slower than edgekit's own fp32 files follows from that; therefore the fp32 file of
torch's own exporter takes part, too.

A peer that fails on a network keeps its row, with the error. Whatever was measured is written; the exit code
is 1 only if nothing could be measured.
"""

from __future__ import annotations

import argparse
import contextlib
import copy
import io
import json
import logging
import math
import os
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

import networks
import numpy as np
import torch
from int8_comparison import (
    BATCH,
    CALIBRATION,
    HELD_OUT,
    REFERENCE,
    VARIANTS,
    File,
    Files,
    raw,
    rows,
    table,
    verdicts,
)
from networks import NETWORKS, Network
from provenance import surroundings
from torch import Tensor, nn

from edgekit.bench.measure import Candidate, Failure, evaluate, measure
from edgekit.devices.device import Device
from edgekit.formats import FORMATS
from edgekit.formats.exporting import export
from edgekit.graph.capture import capture
from edgekit.int8.calibration import calibrate

PACKAGES = ("torch", "onnxruntime", "nncf", "ai-edge-litert", "numpy")
OUT = Path(__file__).resolve().parent / "results" / "int8_vs_default.json"
STARTED = time.monotonic()
LOCAL = Device(name="local", transport="local")


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument(
        "--networks", nargs="+", choices=list(NETWORKS), default=list(NETWORKS), metavar="NAME"
    )
    parser.add_argument("--seconds", type=float, default=0.5, help="each file is timed for at least so long")
    parser.add_argument("--out", type=Path, default=OUT, help="the results; raw timings go beside them")
    options = parser.parse_args(arguments)
    os.environ.setdefault("NNCF_EXTENSION_LOAD_TIMEOUT", "600")  # its first use compiles for a minute
    torch.set_num_threads(1)  # building is mostly Python; more threads only fight for the cores
    about = surroundings(PACKAGES)
    results = {name: measured(NETWORKS[name], options.seconds) for name in options.networks}
    written = [{**row, **about} for row in rows(results)]
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(written, indent=2, ensure_ascii=False, allow_nan=False) + "\n")
    options.out.with_suffix(".raw.json").write_text(json.dumps(raw(results), separators=(",", ":")) + "\n")
    print(table(results))
    print("\n".join(verdicts(results)))
    return 0 if any(one.raw_ns for files in results.values() for one in files.values()) else 1


def tell(text: str) -> None:
    print(f"[{time.monotonic() - STARTED:4.0f} s] {text}", file=sys.stderr, flush=True)


# --- from a network to measured files


def measured(network: Network, seconds: float) -> Files:
    """Build all files of a network, time them in turns, and compare their answers."""
    with tempfile.TemporaryDirectory(prefix="edgekit-benchmark-") as name:
        folder = Path(name)
        files = build(network, folder)
        tell(f"{network.name}: timing")
        sample = folder / "held-out.npy"
        np.save(sample, networks.images(HELD_OUT, network.size, torch.Generator().manual_seed(2)).numpy())
        time_in_turns(list(files.values()), sample, seconds)
        tell(f"{network.name}: comparing answers")
        inspect(files, sample)
    return files


def build(network: Network, folder: Path) -> Files:
    model = networks.make(network)
    inputs = networks.images(CALIBRATION, network.size, torch.Generator().manual_seed(1))
    files = {}
    for key, make in builders(model, inputs, folder).items():
        tell(f"{network.name}: {VARIANTS[key].title}")
        suffix = ".onnx" if VARIANTS[key].runtime == "onnxruntime" else ".tflite"
        files[key] = File(VARIANTS[key], folder / f"{key}{suffix}")
        try:
            with quiet():
                make(files[key].path)
            files[key].size_bytes = files[key].path.stat().st_size
        except Exception as error:  # whatever a road fails with is its result
            files[key].error = explained(error)
            tell(f"{network.name}: {VARIANTS[key].title} failed: {files[key].error}")
    return files


def builders(model: nn.Module, inputs: Tensor, folder: Path) -> dict[str, Callable[[Path], None]]:
    """Variant -> what writes its file, in the order in which they are to run."""
    example, batches = inputs[:1], list(inputs.split(BATCH))
    graphs: list[Any] = []

    def ours(path: Path, format: Literal["onnx", "litert"], precision: Literal["fp32", "int8"]) -> None:
        if precision == "int8" and not graphs:
            graphs.append(calibrate(capture(model, example), batches))
        source = graphs[0] if precision == "int8" else model
        export(source, example, path, format=format, precision=precision, metadata={})

    plain = folder / "torch_fp32.onnx"
    return {
        "fp32_onnx": lambda path: ours(path, "onnx", "fp32"),
        "fp32_litert": lambda path: ours(path, "litert", "fp32"),
        "int8_onnx": lambda path: ours(path, "onnx", "int8"),
        "int8_litert": lambda path: ours(path, "litert", "int8"),
        "torch_fp32": lambda path: torch_fp32(model, example, path),
        "quantize_static": lambda path: quantize_static(plain, inputs, path),
        "quantize_static_pre": lambda path: quantize_static_preprocessed(plain, inputs, path),
        "nncf": lambda path: nncf_road(model, batches, path),
    }


def torch_fp32(model: nn.Module, example: Tensor, path: Path) -> None:
    torch.onnx.export(
        model, (example,), path, dynamo=True, external_data=False, verbose=False, input_names=["input"]
    )


def quantize_static(source: Path, inputs: Tensor, path: Path, **settings: Any) -> None:
    """Everything as it comes but for ``settings``, and the calibration inputs, which have no default."""
    from onnxruntime.quantization import CalibrationDataReader
    from onnxruntime.quantization import quantize_static as quantize

    class Reader(CalibrationDataReader):  # type: ignore[misc]  # onnxruntime is untyped
        def __init__(self) -> None:
            self.rows = iter(inputs.split(1))  # the file takes one at a time

        def get_next(self) -> dict[str, Any] | None:
            row = next(self.rows, None)
            return None if row is None else {"input": row.numpy()}

    quantize(source, path, Reader(), **settings)


def quantize_static_preprocessed(source: Path, inputs: Tensor, path: Path, **settings: Any) -> None:
    from onnxruntime.quantization.shape_inference import quant_pre_process

    prepared = path.with_suffix(".prepared.onnx")
    quant_pre_process(source, prepared)
    quantize_static(prepared, inputs, path, **settings)


def nncf_road(model: nn.Module, batches: list[Tensor], path: Path) -> None:
    import nncf

    quantized = nncf.quantize(copy.deepcopy(model), nncf.Dataset(batches))
    example = batches[0][:1]
    stripped = nncf.strip(quantized, example_input=example)
    torch.onnx.export(stripped, (example,), path, dynamo=False, input_names=["input"])


def time_in_turns(files: Sequence[File], sample: Path, seconds: float) -> None:
    built = [one for one in files if not one.error]
    candidates = [Candidate(one.path, one.variant.runtime, threads=1) for one in built]
    found = measure(candidates, LOCAL, sample=sample, min_seconds=seconds) if candidates else []
    for one, result in zip(built, found, strict=True):
        if isinstance(result, Failure):
            one.error = explained(result.error)
        else:
            one.raw_ns, one.unstable = result.raw_ns, result.result.unstable or ""


def inspect(files: Files, sample: Path) -> None:
    """SNR of the answers against the fp32 ONNX file's, and the share of MACs in integer kernels."""
    answers = {}
    for key, one in files.items():
        if one.error:
            continue
        try:
            answers[key] = evaluate(one.path, one.variant.runtime, LOCAL, sample, batch=8)
            if one.variant.precision == "int8":
                kind = "onnx" if one.variant.runtime == "onnxruntime" else "litert"
                one.coverage = FORMATS[kind].coverage(one.path).share
            if key != REFERENCE and REFERENCE in answers:
                one.snr_db = snr_db(answers[REFERENCE], answers[key])
        except Exception as error:
            one.error = explained(error)


def snr_db(reference: np.ndarray[Any, Any], answers: np.ndarray[Any, Any]) -> float:
    """Power of the reference over the power of what is different, over all samples; 200 at most."""
    signal = float(np.square(reference, dtype=np.float64).sum())
    noise = float(np.square(answers - reference, dtype=np.float64).sum())
    return 200.0 if noise <= signal * 1e-20 else 10 * math.log10(signal / noise) if signal else -math.inf


def explained(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0] if lines else 'no message'}"[:300]


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """The tools without their notices and progress bars."""
    level = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(level)


if __name__ == "__main__":
    sys.exit(main())
