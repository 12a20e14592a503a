"""What the passes on a finished LiteRT file bring: int8 files of foreign networks with and without them.

    python benchmarks/litert_passes.py                     # needs timm: make reach installs it
    python benchmarks/litert_passes.py timm:mixnet_s --seconds 2
    python benchmarks/litert_passes.py --device emulated-cortex-a76    # into litert_passes-emulated-….json

Each network is captured, calibrated and converted once; the converter's file is then finished twice, with
the passes (transposes.py, rows.py, shuffles.py: the order of axes; taken.py, picked.py: ops as XNNPACK
takes them; in_float.py: what XNNPACK has in float alone; folded.py: what reads no input) and without. Told of
each file: transposes, partitions of XNNPACK, ops outside of them, bytes, and the median of its times on one
thread, both files in turns; on an emulated board instructions. ``apart``: the largest difference of their
answers, in steps of the output's grid (floats: relative to the largest answer). Floats are added up in
another order, so that a rounding may differ.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import foreign
import numpy as np
import torch
from int8_vs_default import LOCAL
from numpy.typing import NDArray
from provenance import surroundings

from edgekit.bench import stats
from edgekit.bench.measure import Candidate, Failure, evaluate, measure
from edgekit.devices.device import Device, load_device
from edgekit.formats.exporting import export
from edgekit.formats.litert import finishing
from edgekit.formats.litert.delegated import delegated
from edgekit.formats.litert.reading import load
from edgekit.graph.capture import capture
from edgekit.int8.calibration import calibrate

NETWORKS = (
    "timm:mixnet_s",
    "timm:fastvit_t8",
    "timm:convnext_atto",
    "timm:poolformer_s12",
    "timm:edgenext_xx_small",
    "timm:ghostnetv2_100",
    "timm:ghostnet_100",
    "timm:res2net50_14w_8s",
    "timm:levit_128s",
    "timm:vit_tiny_patch16_224",
    "timm:mobilenetv3_small_100",
    "timm:mobilevit_xxs",
    "transformers:bert",
    "torchvision:shufflenet_v2_x0_5",
    "timm:skresnet18",
    "timm:resnest14d",
    "timm:efficientvit_b0",
    "timm:efficientvit_m0",
    "timm:shvit_s1",
    "timm:mobilevitv2_050",
    "transformers:albert",
)
OUT = Path(__file__).resolve().parent / "results" / "litert_passes.json"
HELD_OUT = 8


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("names", nargs="*", metavar="NAME", help="networks, instead of the usual ones")
    parser.add_argument("--seconds", type=float, default=1.0, help="each file is timed for at least so long")
    parser.add_argument("--device", default="local", help="a profile's name")
    parser.add_argument("--out", type=Path, help="a JSON file, instead of that in results/")
    options = parser.parse_args(arguments)
    suffix = "" if options.device == "local" else f"-{options.device}"
    out = options.out or OUT.with_name(f"{OUT.stem}{suffix}.json")
    torch.set_num_threads(1)
    rows = []
    for name in options.names or NETWORKS:
        rows.append({"name": name, **compared(name, load_device(options.device), options.seconds)})
        print(json.dumps(rows[-1]), flush=True)
        about = surroundings(("torch", "ai-edge-litert", "litert-torch", "timm"))
        about |= {"device": options.device, "rows": rows}
        out.write_text(json.dumps(about, indent=1) + "\n")
    return 0


def compared(name: str, device: Device, seconds: float) -> dict[str, Any]:
    """Both files of one network. Right answers are asked for here, costs on the device."""
    network = foreign.make(name)
    inputs = network.inputs(16 + HELD_OUT, 1)
    graph = calibrate(capture(network.model, inputs[:1]), list(inputs[:16].split(8)))
    with tempfile.TemporaryDirectory(prefix="edgekit-benchmark-") as place:
        folder = Path(place)
        np.save(folder / "held-out.npy", inputs[16:].numpy())
        files = both(graph, inputs[:1], folder)
        answers = [
            evaluate(file, "litert", LOCAL, folder / "held-out.npy", batch=1) for file in files.values()
        ]
        timed = measure(
            [Candidate(file, "litert", threads=1) for file in files.values()],
            device,
            sample=folder / "held-out.npy",
            min_seconds=seconds,
        )
        found = {way: _seen(file) for way, file in files.items()}
        step = _step(files["with"])
    for way, result in zip(found, timed, strict=True):
        if isinstance(result, Failure):
            raise result.error
        median = stats.percentile(result.result.samples, 50)
        found[way] |= (
            {"instructions": round(median)} if device.emulated else {"p50_us": round(median / 1e3, 1)}
        )
    cost = "instructions" if device.emulated else "p50_us"
    ratio = round(found["without"][cost] / found["with"][cost], 2)
    return {**found, f"{cost}_without_over_with": ratio, "apart": _apart(*answers, step)}


def both(graph: Any, example: Any, folder: Path) -> dict[str, Path]:
    """Files of one conversion, by whether passes went over them: "with", "without"."""
    files = {way: folder / f"{way}.tflite" for way in ("with", "without")}
    finish = finishing.finish

    def twice(*arguments: Any) -> bytes:
        with (
            _nothing(finishing.transposes, "remove_transposes"),
            _nothing(finishing.taken, "as_xnnpack_takes_them"),
            _nothing(finishing.in_float, "compute_in_float"),
            _nothing(finishing.in_float, "multiply_matrices"),
            _nothing(finishing.folded, "fold_constants"),
            _nothing(finishing.shuffles, "spread_shuffles"),
        ):
            files["without"].write_bytes(finish(*arguments))
        return finish(*arguments)

    try:
        finishing.finish = twice
        export(graph, example, files["with"], format="litert", precision="int8", metadata={})
    finally:
        finishing.finish = finish
    return files


@contextlib.contextmanager
def _nothing(module: Any, name: str) -> Iterator[None]:
    """For a while a pass does nothing."""
    done = getattr(module, name)
    setattr(module, name, lambda _: 0)
    try:
        yield
    finally:
        setattr(module, name, done)


def _seen(file: Path) -> dict[str, Any]:
    found = delegated(load(file))
    return {
        "transposes": found.transposes,
        "partitions": found.partitions,
        "outside": found.outside,
        "bytes": file.stat().st_size,
    }


def _step(file: Path) -> float:
    """Of the output's grid; 0 for floats."""
    return float(load(file).get_output_details()[0]["quantization"][0])


def _apart(one: NDArray[Any], other: NDArray[Any], step: float) -> float:
    apart = float(np.abs(one.astype(np.float64) - other.astype(np.float64)).max())
    return round(apart / (step or float(np.abs(other).max()) or 1.0), 6)


if __name__ == "__main__":
    raise SystemExit(main())
