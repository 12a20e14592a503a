"""int8 by calibration alone, against peers set up as their experts would, on foreign networks.

    python benchmarks/int8_vs_tuned.py                               # the ten networks below
    python benchmarks/int8_vs_tuned.py timm:lcnet_050 --seconds 2    # others of foreign.py, any timm:NAME

Whole networks (nothing pruned, nothing trained), all roads with the same calibration inputs:

- edgekit: `calibrate` with its defaults, one int8 graph exported to ONNX and LiteRT;
- ONNX Runtime, tuned: `quant_pre_process`, then `quantize_static` with QUInt8 activations and QInt8 weights
  by channel, in QDQ form;
- ai-edge-quantizer: litert-torch's float conversion, then its `static_wi8_ai8` recipe.

Each file answers the same held-out inputs in its runtime, and is compared with the torch model: decibels over
everything, of the worst channel of the answers, of the worst sample. ONNX files answer as on a CPU with VNNI.
Then all files of a network are timed in turns on one thread (not with ``--seconds 0``). One process for each
network. Weights are random but for the packaged ones, so roundings grow as in few trained networks: what
counts is which road is nearer.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import foreign
import numpy as np
import torch
from int8_vs_default import LOCAL, explained, quantize_static_preprocessed, quiet, torch_fp32
from provenance import surroundings
from torch import Tensor, nn

from edgekit.bench import stats
from edgekit.bench.measure import Candidate, Failure, evaluate, measure
from edgekit.devices.asking import probe
from edgekit.formats import FORMATS
from edgekit.formats.exporting import export
from edgekit.formats.options import Target
from edgekit.graph.capture import capture
from edgekit.int8.calibration import calibrate
from edgekit.noise import Noise
from edgekit.runtimes.device.runtime_onnxruntime import UNFUSED

NETWORKS = (
    "timm:resnet18",
    "timm:mobilenetv2_100",
    "timm:mobilenetv3_small_100",
    "timm:tf_efficientnet_lite0",
    "timm:efficientnet_b0",
    "timm:regnety_002",
    "timm:convnext_atto",
    "timm:vit_tiny_patch16_224",
    "packaged:onet",
    "packaged:crepe",
)
CALIBRATION, BATCH, HELD_OUT = 64, 16, 128
OURS, PEERS = ("edgekit onnx", "edgekit litert"), ("ort tuned", "aeq")
PACKAGES = ("torch", "onnxruntime", "ai-edge-litert", "ai-edge-quantizer", "litert-torch", "timm", "numpy")
OUT = Path(__file__).resolve().parent / "results" / "int8_vs_tuned.json"


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("names", nargs="*", default=list(NETWORKS), metavar="NAME")
    parser.add_argument("--seconds", type=float, default=1.0, help="each file is timed for at least so long")
    parser.add_argument("--out", type=Path, default=OUT)
    parser.add_argument("--one", help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.one:
        print(json.dumps(compared(options.one, options.seconds)))
        return 0
    rows = []
    for name in options.names:
        rows.append(_in_a_process(name, options.seconds))
        print(told(rows[-1]), flush=True)
        about = {"calibration_samples": CALIBRATION, "held_out": HELD_OUT, **surroundings(PACKAGES)}
        options.out.write_text(json.dumps({**about, "rows": rows}, indent=1, ensure_ascii=False) + "\n")
    finished = [row for row in rows if "files" in row]
    print("\n" + verdict(finished))
    return 0 if len(finished) == len(rows) else 1


def _in_a_process(name: str, seconds: float) -> dict[str, Any]:
    command = [sys.executable, __file__, "--one", name, "--seconds", str(seconds)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        return {"name": name, "error": (done.stderr.strip().splitlines() or ["no message"])[-1][:300]}
    row: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    return row


def compared(name: str, seconds: float) -> dict[str, Any]:
    """One network's files: how near each is to the torch model, and how fast."""
    torch.set_num_threads(1)
    network = foreign.make(name)
    inputs, held_out = network.inputs(CALIBRATION, 1), network.inputs(HELD_OUT, 2)
    with torch.no_grad():
        wanted = torch.cat([network.model(row) for row in held_out.split(4)]).numpy()
    found: dict[str, dict[str, Any]] = {}
    with tempfile.TemporaryDirectory(prefix="edgekit-benchmark-") as place:
        folder = Path(place)
        sample = folder / "held-out.npy"
        np.save(sample, held_out.numpy())
        paths = {}
        for road, (path, write) in roads(network.model, inputs, folder).items():
            try:
                with quiet():
                    write(path)
                found[road] = judged(path, sample, wanted)
                paths[road] = path
            except Exception as error:  # whatever a road fails with is its result
                found[road] = {"error": explained(error)}
        candidates = [Candidate(path, _runtime(path), threads=1) for path in paths.values()]
        timed = measure(candidates, LOCAL, sample=sample, min_seconds=seconds) if seconds else []
        for road, result in zip(paths, timed, strict=bool(seconds)):
            if isinstance(result, Failure):
                found[road]["error"] = explained(result.error)
            else:
                found[road] |= {
                    "p50_us": round(stats.percentile(result.raw_ns, 50) / 1e3, 1),
                    "runs": len(result.raw_ns),
                    "unstable": result.result.unstable or None,
                }
    return {"name": name, "files": found}


def roads(model: nn.Module, inputs: Tensor, folder: Path) -> dict[str, tuple[Path, Callable[[Path], None]]]:
    """Road -> its file, and what writes it; in this order, as the peers start from the float files."""
    example = inputs[:1]
    graphs: list[Any] = []

    def ours(path: Path) -> None:
        if not graphs:
            graphs.append(calibrate(capture(model, example), list(inputs.split(BATCH))))
        kind = "onnx" if path.suffix == ".onnx" else "litert"
        export(graphs[0], example, path, format=kind, precision="int8", metadata={})  # type: ignore[arg-type]

    float_onnx, float_litert = folder / "float.onnx", folder / "float.tflite"
    return {
        "fp32 onnx": (float_onnx, lambda path: torch_fp32(model, example, path)),
        "fp32 litert": (float_litert, lambda path: torch_litert(model, example, path)),
        "edgekit onnx": (folder / "edgekit.onnx", ours),
        "edgekit litert": (folder / "edgekit.tflite", ours),
        "ort tuned": (folder / "ort.onnx", lambda path: ort_tuned(float_onnx, inputs, path)),
        "aeq": (folder / "aeq.tflite", lambda path: aeq(float_litert, inputs, path)),
    }


def torch_litert(model: nn.Module, example: Tensor, path: Path) -> None:
    import litert_torch

    litert_torch.convert(model, (example,)).export(str(path))


def ort_tuned(source: Path, inputs: Tensor, path: Path) -> None:
    from onnxruntime.quantization import QuantFormat, QuantType

    quantize_static_preprocessed(
        source,
        inputs,
        path,
        quant_format=QuantFormat.QDQ,
        activation_type=QuantType.QUInt8,
        weight_type=QuantType.QInt8,
        per_channel=True,
    )


def aeq(source: Path, inputs: Tensor, path: Path) -> None:
    from ai_edge_litert.interpreter import Interpreter
    from ai_edge_quantizer import quantizer, recipe

    signatures = Interpreter(str(source)).get_signature_list()
    key, signature = next(iter(signatures.items()))
    rows = [{signature["inputs"][0]: row.numpy()} for row in inputs.split(1)]
    made = quantizer.Quantizer(str(source), recipe.static_wi8_ai8())
    made.quantize(made.calibrate({key: rows})).export_model(str(path))


def judged(path: Path, sample: Path, wanted: np.ndarray[Any, Any]) -> dict[str, Any]:
    """Decibels of the file's answers against the torch model's."""
    answers = evaluate(path, _runtime(path), LOCAL, sample, batch=1, backend=_backend(path))
    noise = Noise()
    noise.add(wanted, answers)
    about: dict[str, Any] = {
        "snr_db": _rounded(noise.db),
        "worst_channel_db": _rounded(min(noise.by_channel(silent=False))),
        "worst_sample_db": _rounded(min(noise.by_sample(silent=False))),
        "bytes": path.stat().st_size,
    }
    if "float" not in path.name:
        about["int8_coverage"] = _rounded(FORMATS[_kind(path)].coverage(path).share, 4)
    return about


def _runtime(path: Path) -> Any:
    return "onnxruntime" if path.suffix == ".onnx" else "litert"


def _backend(path: Path) -> str:
    """ONNX Runtime doesn't fuse where its kernels saturate with weights of 8 bits (x86 without VNNI)."""
    saturates = Target.of(LOCAL, probe(LOCAL)).weight_bits == 7
    return UNFUSED if saturates and path.suffix == ".onnx" and "float" not in path.name else ""


def _kind(path: Path) -> Any:
    return "onnx" if path.suffix == ".onnx" else "litert"


def _rounded(value: float | None, digits: int = 1) -> float | None:
    return None if value is None or not math.isfinite(value) else round(value, digits)


# --- what is told


def best(row: dict[str, Any], roads: Sequence[str], key: str, better: Callable[..., Any]) -> float | None:
    values = [row["files"][road].get(key) for road in roads]
    known = [value for value in values if value is not None]
    return better(known) if known else None


def told(row: dict[str, Any]) -> str:
    if "error" in row:
        return f"{row['name']}: {row['error']}"
    lines = [row["name"]]
    for road, one in row["files"].items():
        if "snr_db" not in one:
            lines.append(f"  {road:<15} failed: {one['error']}")
            continue
        coverage = one.get("int8_coverage")
        lines.append(
            f"  {road:<15} {one['snr_db']:6.1f} dB, worst channel {one['worst_channel_db']}, worst sample "
            f"{one['worst_sample_db']}; {one.get('p50_us')} µs{'?' if one.get('unstable') else ''}"
            + ("" if coverage is None else f"; {coverage:.0%} int8")
        )
    return "\n".join(lines)


def verdict(rows: Sequence[dict[str, Any]]) -> str:
    """On how many networks edgekit's farther file is at least as near as the nearest peer, and time."""
    nearer = [row["name"] for row in rows if as_near(row)]
    ratios = []
    slower = []
    for row in rows:
        ours, theirs = best(row, OURS, "p50_us", min), best(row, PEERS, "p50_us", min)
        if ours and theirs:
            ratios.append(theirs / ours)
        plain = best(row, ("fp32 onnx", "fp32 litert"), "p50_us", min)
        if ours and plain and ours > plain:
            slower.append(row["name"])
    mean = math.exp(sum(map(math.log, ratios)) / len(ratios)) if ratios else math.nan
    return (
        f"both of edgekit's files at least as near to the torch model as the nearer peer: {len(nearer)} of "
        f"{len(rows)} (not: {', '.join(r['name'] for r in rows if r['name'] not in nearer) or 'none'})\n"
        f"time, fastest peer / fastest of edgekit's: geometric mean {mean:.2f}, least "
        f"{min(ratios, default=0):.2f}\n"
        f"edgekit's fastest int8 file is slower than fp32 on: {', '.join(slower) or 'none'}"
    )


def as_near(row: dict[str, Any]) -> bool:
    ours = [row["files"][road].get("snr_db") for road in OURS]
    theirs = best(row, PEERS, "snr_db", max)
    return None not in ours and (theirs is None or min(ours) >= theirs)


if __name__ == "__main__":
    os.environ.setdefault("NNCF_EXTENSION_LOAD_TIMEOUT", "600")
    sys.exit(main())
