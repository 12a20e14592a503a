"""What exporting costs: time and memory of making int8 files of a MobileNetV2, in both formats.

python benchmarks/export_cost.py [--network mobilenetv2] [--out FILE]

Each step runs in a fresh process, whose peak resident memory is the operating system's own figure.
There is no peer: the figures stand against the limits that edgekit sets itself, 60 s and 4 GB for both
exports together.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
LIMITS = {"seconds": 60.0, "bytes": 4e9}


def main() -> int:
    """Run the steps one after the other, and write the rows."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--network", default="mobilenetv2")
    parser.add_argument("--out", type=Path, default=HERE / "results" / "export_cost.json")
    parser.add_argument("--step", choices=["calibrate", "onnx", "litert"], help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.step:
        print(json.dumps(run(arguments.step, arguments.network, arguments.folder)))
        return 0
    with tempfile.TemporaryDirectory(prefix="edgekit-") as folder:
        found = {step: spawn(step, arguments.network, folder) for step in ("calibrate", "onnx", "litert")}
    rows = rows_of(arguments.network, found)
    arguments.out.write_text(json.dumps(rows, indent=1) + "\n")
    for row in rows:
        print(f"{row['name']:<28}{row['metric']:<18}{row['edgekit']:>14,.1f} {row['unit']}")
    return 0


def spawn(step: str, network: str, folder: str) -> dict[str, float]:
    """One step in a process of its own: its seconds without imports, and its peak memory in bytes."""
    command = [sys.executable, __file__, "--step", step, "--network", network, "--folder", folder]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    found: dict[str, float] = json.loads(done.stdout.strip().splitlines()[-1])
    return found


def run(step: str, name: str, folder: Path) -> dict[str, float]:
    sys.path.insert(0, str(HERE))
    import torch
    from networks import NETWORKS, images, make

    from edgekit.bench.sensors import peak_rss_bytes
    from edgekit.int8 import storage

    network = NETWORKS[name]
    generator = torch.Generator().manual_seed(1)
    example = images(1, network.size, generator)
    path = folder / "graph.pt2"
    if step == "calibrate":
        from edgekit.graph.capture import capture
        from edgekit.int8.calibration import calibrate

        model = make(network)
        batches = [images(8, network.size, generator) for _ in range(4)]
        started = time.monotonic()
        graph = calibrate(capture(model, example), batches)
        seconds = time.monotonic() - started
        storage.save(graph, example, path)
    else:
        from edgekit.formats.exporting import export

        graph = storage.load(path)
        started = time.monotonic()
        export(graph, example, folder / f"model.{step}", format=step, precision="int8", metadata={})  # type: ignore[arg-type]
        seconds = time.monotonic() - started
    return {"seconds": seconds, "bytes": float(peak_rss_bytes())}


def rows_of(network: str, found: dict[str, dict[str, float]]) -> list[dict[str, Any]]:
    """Rows in the schema of all benchmarks; ``peer`` is the limit, ``ratio`` limit over figure."""
    from provenance import surroundings

    exports = [found[step] for step in ("onnx", "litert")]
    total = {
        "seconds": sum(one["seconds"] for one in exports),
        "bytes": max(one["bytes"] for one in exports),
    }
    rows = []
    for name, values, limited in (
        (f"{network}: both exports", total, True),
        *((f"{network}: {step}", values, False) for step, values in found.items()),
    ):
        for unit, metric in (("seconds", "export time"), ("bytes", "peak memory")):
            peer = LIMITS[unit] if limited else None
            rows.append(
                {
                    "name": name,
                    "metric": metric,
                    "unit": unit,
                    "edgekit": values[unit],
                    "peer": peer,
                    "peer_name": "limit" if limited else None,
                    "ratio": peer / values[unit] if peer else None,
                    "samples": 1,
                    **surroundings(),
                }
            )
    return rows


if __name__ == "__main__":
    sys.exit(main())
