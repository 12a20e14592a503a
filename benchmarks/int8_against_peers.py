"""int8 by calibration alone, against peers set up as their experts would, on foreign networks.

    python benchmarks/int8_against_peers.py                             # the networks below
    python benchmarks/int8_against_peers.py timm:lcnet_050 --seconds 2  # others, any timm:NAME

Whole networks (nothing pruned, nothing trained), all roads with the same calibration inputs:

- edgekit: `calibrate` with ranges by trial, one int8 graph exported to ONNX and LiteRT, and to ONNX as
  OpenVINO wants it; and its fp32 LiteRT file, whose large kernels are spelled otherwise than the converter's;
- ONNX Runtime, tuned: `quant_pre_process`, then `quantize_static` with QUInt8 activations and QInt8 weights
  by channel, in QDQ form;
- ai-edge-quantizer: litert-torch's float conversion, then its `static_wi8_ai8` recipe;
- NNCF for OpenVINO: `nncf.quantize` on OpenVINO's model, `model_type=TRANSFORMER` where attention is;
- the float files of torch's and litert-torch's exporters, in ONNX Runtime, OpenVINO and LiteRT.

Each file answers the same held-out inputs in its runtime, and is compared with the torch model: decibels over
everything, of the worst channel of the answers, of the worst sample. ONNX files answer as on a CPU with VNNI.
Then all files of a network are timed in turns on one thread (not with ``--seconds 0``). One process for each
network; one that is in the result of the same commit is skipped. Weights are random but for the packaged
ones, so roundings grow as in few trained networks: what counts is which road is nearer.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import foreign
import numpy as np
import torch
from int8_vs_default import explained, quantize_static_preprocessed, quiet, torch_fp32
from provenance import surroundings
from torch import Tensor, nn

from edgekit.bench import stats
from edgekit.bench.measure import Candidate, Failure, evaluate, measure
from edgekit.devices.asking import probe
from edgekit.devices.device import Device
from edgekit.formats import FORMATS
from edgekit.formats.exporting import export
from edgekit.formats.options import Target
from edgekit.graph.capture import capture
from edgekit.int8.calibration import CalibrationOptions, calibrate
from edgekit.noise import Noise
from edgekit.runtimes.device.runtime_onnxruntime import UNFUSED

LOCAL = Device(name="local", transport="local", runtimes=("onnxruntime", "litert", "openvino"))
NETWORKS = (
    "timm:resnet18",
    "timm:resnet50",
    "timm:mobilenetv2_100",
    "timm:mobilenetv3_small_100",
    "timm:mobilenetv3_large_100",
    "timm:efficientnet_lite0",
    "timm:tf_efficientnet_lite0",
    "timm:efficientnet_b0",
    "timm:mobilenetv4_conv_small",
    "timm:regnetx_002",
    "timm:regnety_002",
    "timm:convnext_atto",
    "timm:edgenext_xx_small",
    "timm:mobilevit_xxs",
    "timm:levit_128s",
    "timm:vit_tiny_patch16_224",
    "transformers:bert",
    "packaged:onet",
    "packaged:crepe",
)
CALIBRATION, BATCH, HELD_OUT = 64, 16, 128
OURS = ("edgekit onnx", "edgekit litert", "edgekit openvino")
PEERS = ("ort tuned", "aeq", "nncf openvino")
FLOAT = ("fp32 onnx", "fp32 openvino", "fp32 litert", "edgekit fp32 litert")
NEAR = ("edgekit onnx", "edgekit litert"), ("ort tuned", "aeq")  # whose decibels are compared
PACKAGES = (
    "torch",
    "onnxruntime",
    "ai-edge-litert",
    "ai-edge-quantizer",
    "litert-torch",
    "openvino",
    "nncf",
    "timm",
    "numpy",
)
OWN_OPENVINO = "edgekit_openvino.onnx"
OUT = Path(__file__).resolve().parent / "results" / "int8_against_peers.json"


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
    about = {"calibration_samples": CALIBRATION, "held_out": HELD_OUT, **surroundings(PACKAGES)}
    rows = known(options.out)
    for name in options.names:
        if rows.get(name, {}).get("commit") != about["commit"] or "files" not in rows[name]:
            rows[name] = {**_in_a_process(name, options.seconds), "commit": about["commit"]}
        print(told(rows[name]), flush=True)
        text = json.dumps({**about, "rows": list(rows.values())}, indent=1, ensure_ascii=False)
        options.out.write_text(text + "\n")
    finished = [rows[name] for name in options.names if "files" in rows[name]]
    print("\n" + verdict(finished))
    return 0 if len(finished) == len(options.names) else 1


def known(path: Path) -> dict[str, dict[str, Any]]:
    """The rows of a result that is there, by name."""
    return {row["name"]: row for row in json.loads(path.read_text())["rows"]} if path.exists() else {}


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
        candidates: dict[str, Candidate] = {}
        for called, road in roads(network.model, inputs, folder).items():
            try:
                with quiet():
                    road.write(road.path)
                found[called] = judged(road, sample, wanted)
                candidates[called] = Candidate(road.path, road.runtime, threads=1)
            except Exception as error:  # whatever a road fails with is its result
                found[called] = {"error": explained(error)}
        together = list(candidates.values())
        timed = measure(together, LOCAL, sample=sample, min_seconds=seconds) if seconds else []
        for called, result in zip(candidates, timed, strict=bool(seconds)):
            if isinstance(result, Failure):
                found[called]["error"] = explained(result.error)
            else:
                found[called] |= {
                    "p50_us": round(stats.percentile(result.raw_ns, 50) / 1e3, 1),
                    "runs": len(result.raw_ns),
                    "unstable": result.result.unstable or None,
                }
    return {"name": name, "files": found}


@dataclass(frozen=True)
class Road:
    """A file, the runtime that it is measured in, and what writes it."""

    path: Path
    runtime: str
    write: Callable[[Path], None]


def roads(model: nn.Module, inputs: Tensor, folder: Path) -> dict[str, Road]:
    """By name; in this order, as some start from the files of others."""
    example = inputs[:1]
    graphs: list[Any] = []

    def ours(path: Path) -> None:
        if not graphs:
            options = CalibrationOptions(ranges="auto")
            graphs.append(calibrate(capture(model, example), list(inputs.split(BATCH)), options))
        _export(graphs[0], example, path, "int8")

    float_onnx, float_litert = folder / "float.onnx", folder / "float.tflite"
    return {
        "fp32 onnx": Road(float_onnx, "onnxruntime", lambda path: torch_fp32(model, example, path)),
        "fp32 openvino": Road(float_onnx, "openvino", _is_there),
        "fp32 litert": Road(float_litert, "litert", lambda path: torch_litert(model, example, path)),
        "edgekit fp32 litert": Road(
            folder / "edgekit_float.tflite", "litert", lambda path: _export(model, example, path, "fp32")
        ),
        "edgekit onnx": Road(folder / "edgekit.onnx", "onnxruntime", ours),
        "edgekit openvino": Road(folder / OWN_OPENVINO, "openvino", ours),
        "edgekit litert": Road(folder / "edgekit.tflite", "litert", ours),
        "ort tuned": Road(
            folder / "ort.onnx", "onnxruntime", lambda path: ort_tuned(float_onnx, inputs, path)
        ),
        "aeq": Road(folder / "aeq.tflite", "litert", lambda path: aeq(float_litert, inputs, path)),
        "nncf openvino": Road(
            folder / "nncf.xml", "openvino", lambda path: nncf_openvino(float_onnx, inputs, path)
        ),
    }


def _export(model: Any, example: Tensor, path: Path, precision: Any) -> None:
    format = "openvino" if path.name == OWN_OPENVINO else _kind(path)
    export(model, example, path, format=format, precision=precision, metadata={})


def _is_there(path: Path) -> None:
    if not path.exists():
        raise FileNotFoundError(f"{path.name} could not be written")


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

    interpreter = Interpreter(str(source))
    key, signature = next(iter(interpreter.get_signature_list().items()))
    name = signature["inputs"][0]
    dtype = interpreter.get_signature_runner(key).get_input_details()[name]["dtype"]  # tokens: int32 there
    rows = [{name: row.numpy().astype(dtype)} for row in inputs.split(1)]
    made = quantizer.Quantizer(str(source), recipe.static_wi8_ai8())
    made.quantize(made.calibrate({key: rows})).export_model(str(path))


def nncf_openvino(source: Path, inputs: Tensor, path: Path) -> None:
    import nncf
    import openvino

    model = openvino.convert_model(str(source))
    attention = any(op.get_type_name() == "Softmax" for op in model.get_ordered_ops()[:-2])
    more = {"model_type": nncf.ModelType.TRANSFORMER} if attention else {}
    rows = [row.numpy() for row in inputs.split(1)]
    made = nncf.quantize(model, nncf.Dataset(rows), subset_size=len(rows), **more)
    openvino.save_model(made, str(path), compress_to_fp16=False)


def judged(road: Road, sample: Path, wanted: np.ndarray[Any, Any]) -> dict[str, Any]:
    """Decibels of the file's answers against the torch model's."""
    path = road.path
    answers = evaluate(path, road.runtime, LOCAL, sample, batch=1, backend=_backend(road))
    noise = Noise()
    noise.add(wanted, answers)
    about: dict[str, Any] = {
        "snr_db": _rounded(noise.db),
        "worst_channel_db": _rounded(min(noise.by_channel(silent=False))),
        "worst_sample_db": _rounded(min(noise.by_sample(silent=False))),
        "bytes": path.stat().st_size,
    }
    if path.suffix == ".xml":  # weights lie beside
        about["bytes"] += path.with_suffix(".bin").stat().st_size
    elif road.runtime != "openvino" and "float" not in path.name:
        about["int8_coverage"] = _rounded(FORMATS[_kind(path)].coverage(path).share, 4)
    return about


def _backend(road: Road) -> str:
    """ONNX Runtime doesn't fuse where its kernels saturate with weights of 8 bits (x86 without VNNI)."""
    saturates = Target.of(LOCAL, probe(LOCAL)).weight_bits == 7
    quantized = road.runtime == "onnxruntime" and "float" not in road.path.name
    return UNFUSED if saturates and quantized else ""


def _kind(path: Path) -> Any:
    return "onnx" if path.suffix == ".onnx" else "litert"


def _rounded(value: float | None, digits: int = 1) -> float | None:
    return None if value is None or not math.isfinite(value) else round(value, digits)


# --- what is told


def best(row: dict[str, Any], roads: Sequence[str], key: str, better: Callable[..., Any]) -> float | None:
    values = [row["files"].get(road, {}).get(key) for road in roads]
    known = [value for value in values if value is not None]
    return better(known) if known else None


def told(row: dict[str, Any]) -> str:
    if "error" in row:
        return f"{row['name']}: {row['error']}"
    lines = [row["name"]]
    for road, one in row["files"].items():
        if "snr_db" not in one:
            lines.append(f"  {road:<19} failed: {one['error']}")
            continue
        coverage = one.get("int8_coverage")
        lines.append(
            f"  {road:<19} {one['snr_db']:6.1f} dB, worst channel {one['worst_channel_db']}, worst sample "
            f"{one['worst_sample_db']}; {one.get('p50_us')} µs{'?' if one.get('unstable') else ''}"
            + ("" if coverage is None else f"; {coverage:.0%} int8")
        )
    return "\n".join(lines)


def verdict(rows: Sequence[dict[str, Any]]) -> str:
    """On how many networks edgekit's farther file is at least as near as the nearest peer, and time."""
    nearer = [row["name"] for row in rows if as_near(row)]
    lines = [
        f"both of edgekit's files at least as near to the torch model as the nearer peer: {len(nearer)} of "
        f"{len(rows)} (not: {_names(row['name'] for row in rows if row['name'] not in nearer)})"
    ]
    for what, theirs, ours in (
        ("fastest peer / fastest of edgekit's", PEERS, OURS),
        ("fastest float file / fastest of edgekit's", FLOAT, OURS),
        ("ONNX Runtime: tuned / edgekit's", ("ort tuned",), ("edgekit onnx",)),
        ("LiteRT: ai-edge-quantizer's / edgekit's", ("aeq",), ("edgekit litert",)),
        ("OpenVINO: NNCF's / edgekit's", ("nncf openvino",), ("edgekit openvino",)),
        ("LiteRT: float / edgekit's", ("fp32 litert", "edgekit fp32 litert"), ("edgekit litert",)),
        ("ONNX Runtime: float / edgekit's", ("fp32 onnx",), ("edgekit onnx",)),
    ):
        lines.append(f"time, {what}: {_ratios(rows, theirs, ours)}")
    return "\n".join(lines)


def _ratios(rows: Sequence[dict[str, Any]], theirs: Sequence[str], ours: Sequence[str]) -> str:
    found = {row["name"]: ratio for row in rows if (ratio := faster(row, theirs, ours))}
    if not found:
        return "not measured"
    mean = math.exp(sum(map(math.log, found.values())) / len(found))
    slower = (f"{name} {ratio:.2f}" for name, ratio in found.items() if ratio < 1)
    return f"geometric mean {mean:.2f}, least {min(found.values()):.2f}; below 1: {_names(slower)}"


def faster(row: dict[str, Any], theirs: Sequence[str], ours: Sequence[str]) -> float | None:
    """How many times as fast the fastest of ``ours`` is as the fastest of ``theirs``."""
    mine, other = best(row, ours, "p50_us", min), best(row, theirs, "p50_us", min)
    return other / mine if mine and other else None


def _names(names: Iterable[str]) -> str:
    return ", ".join(names) or "none"


def as_near(row: dict[str, Any]) -> bool:
    """Whether both of edgekit's files are at least as near as the nearer peer."""
    mine, peers = NEAR
    ours = [row["files"].get(road, {}).get("snr_db") for road in mine]
    theirs = best(row, peers, "snr_db", max)
    return None not in ours and (theirs is None or min(ours) >= theirs)


if __name__ == "__main__":
    os.environ.setdefault("NNCF_EXTENSION_LOAD_TIMEOUT", "600")
    sys.exit(main())
