"""The emulated board: built from nothing, booted, asked over ssh and adb, and how exactly it counts.

    python benchmarks/emulated_board.py [--out FILE]

Builds into a cache folder of its own, so that nothing is there yet. On each CPU: the time to boot, the round
trip of ``edgekit device check`` over ssh and over adb, whether the int8 files give the same bits as on this
machine, and three repeats of counting instructions, each in processes of its own. The limits are those that
edgekit sets itself: built in 180 s, booted in 10 s, a spread of at most 1 %.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from provenance import surroundings

from edgekit.bench import Candidate, Measurement, evaluate, measure
from edgekit.bench.roundtrip import FILES, REFERENCE, check_device
from edgekit.devices import board, connect
from edgekit.devices.device import load_device

HERE = Path(__file__).resolve().parent
CPUS = ("cortex-a53", "cortex-a72", "cortex-a76")
SAMPLES = REFERENCE / "samples.npy"
REPEATS = 3
LIMITS = {"build_seconds": 180.0, "boot_seconds": 10.0, "spread": 0.01}


def main() -> int:
    """Build, boot, ask, count, and write it down."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--out", type=Path, default=HERE / "results" / "emulated_board.json")
    arguments = parser.parse_args()
    cache = tempfile.mkdtemp(prefix="edgekit-board-")
    os.environ["EDGEKIT_CACHE"] = cache
    try:
        started = time.monotonic()
        board.ensure_built()
        result: dict[str, Any] = {"build_seconds": round(time.monotonic() - started, 1), "boards": {}}
        print(f"built from nothing in {result['build_seconds']} s")
        for cpu in CPUS:
            result["boards"][cpu] = on(cpu)
    finally:
        for one in board.running():
            board.stop(one.cpu)
        shutil.rmtree(cache, ignore_errors=True)
    boards = result["boards"].values()
    result["worst"] = {
        "build_seconds": result["build_seconds"],
        "boot_seconds": max(one["boot_seconds"] for one in boards),
        "spread": max(spread for one in boards for spread in one["spread"].values()),
    }
    result |= {"limits": LIMITS, **surroundings(("onnxruntime", "ai-edge-litert", "numpy"))}
    arguments.out.write_text(json.dumps(result, indent=2) + "\n")
    right = all(all(one["bit_equal"].values()) and not one["failed"] for one in boards)
    return int(not right or any(result["worst"][key] > limit for key, limit in LIMITS.items()))


def on(cpu: str) -> dict[str, Any]:
    """Everything about one CPU."""
    running = board.start(cpu)
    device = load_device(f"emulated-{cpu}")
    found: dict[str, Any] = {"boot_seconds": round(running.boot_seconds, 2), "failed": []}
    for via in ("ssh", "adb"):
        steps = check_device(device.model_copy(update={"via": via}))
        found["failed"] += [f"{via}: {step.name}: {step.detail}" for step in steps if not step.passed]
    with connect(device) as link:
        local = load_device("local")
        found["bit_equal"] = {
            runtime: bool(
                np.array_equal(
                    evaluate(REFERENCE / name, runtime, device, SAMPLES, transport=link),  # type: ignore[arg-type]
                    evaluate(REFERENCE / name, runtime, local, SAMPLES),  # type: ignore[arg-type]
                )
            )
            for runtime, name in FILES.items()
        }
        candidates = [Candidate(REFERENCE / name, runtime, 1) for runtime, name in FILES.items()]  # type: ignore[arg-type]
        counts: dict[str, list[float]] = {runtime: [] for runtime in FILES}
        for _ in range(REPEATS):
            for one in measure(candidates, device, sample=SAMPLES, transport=link):
                assert isinstance(one, Measurement), one
                counts[one.candidate.runtime].append(float(np.median(one.result.samples)))
    board.stop(cpu)
    found["instructions"] = counts
    found["spread"] = {name: (max(own) - min(own)) / min(own) for name, own in counts.items()}
    print(cpu, json.dumps(found))
    return found


if __name__ == "__main__":
    raise SystemExit(main())
