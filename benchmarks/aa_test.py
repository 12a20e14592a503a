"""Whether the benchmark's verdict can be trusted: a file against itself, and against itself made 5 % slower.

    python benchmarks/aa_test.py [--repeats 100] [--seconds 0.5] [--busy 1] [--out FILE]

A network of about 150 µs in ONNX Runtime, one thread, while ``--busy`` other processes keep cores busy. Each
repeat is a measurement of its own, in new processes. "equal": the file twice; the interval of the ratio has
to contain 1. "slower": one of the two is slowed down by 5 % inside of the timed call (``EDGEKIT_PLANT``); the
interval has to lie above 1. "apart": each file against the one of the next repeat, as ``edgekit compare OLD
NEW`` would: it has to contain 1. "single runs": what an interval that takes all runs as independent would
have said of "equal".

Written are the medians of all rounds, in ns, from which the first two can be judged anew. The limits are
those that edgekit sets itself.
"""

from __future__ import annotations

import argparse
import json
import shlex
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from provenance import surroundings

from edgekit.bench import Candidate, Failure, measure, stats
from edgekit.bench.record import Result
from edgekit.devices.device import Device

HERE = Path(__file__).resolve().parent
FACTOR = 1.05
LIMITS = {"equal": 0.95, "slower": 0.90}  # of all repeats


def main() -> int:
    """Measure, print, and write all medians."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--repeats", type=int, default=100)
    parser.add_argument("--seconds", type=float, default=0.5, help="of timing, for each of the two")
    parser.add_argument("--busy", type=int, default=1, help="other processes that compute meanwhile")
    parser.add_argument("--out", type=Path, default=HERE / "results" / "aa_test.json")
    arguments = parser.parse_args()
    started = time.monotonic()
    busy = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(arguments.busy)]
    try:
        with tempfile.TemporaryDirectory(prefix="edgekit-") as folder:
            equal, slower = repeated(Path(folder), arguments.repeats, arguments.seconds)
    finally:
        for process in busy:
            process.kill()
            process.wait()
    shares = judge(equal, slower)
    result = {
        "command": shlex.join(["python", "benchmarks/aa_test.py", *sys.argv[1:]]),
        "shares": shares,
        "limits": LIMITS,
        "level": stats.LEVEL,
        "floor": {"processes": stats.BETWEEN_PROCESSES, "records": stats.BETWEEN_RECORDS},
        "factor": FACTOR,
        "seconds": round(time.monotonic() - started, 1),
        **surroundings(("onnxruntime", "numpy")),
        "equal": [described(*pair) for pair in equal],
        "slower": [described(*pair) for pair in slower],
    }
    arguments.out.write_text(json.dumps(result) + "\n")
    for name, share in shares.items():
        print(f"{name:<12}{share:>7.1%} of {arguments.repeats}, at least {LIMITS.get(name, 0):.0%}")
    return int(any(shares[name] < limit for name, limit in LIMITS.items()))


def repeated(
    folder: Path, repeats: int, seconds: float
) -> tuple[list[tuple[Result, Result]], list[tuple[Result, Result]]]:
    """Pairs of the file and itself, and of the slowed file and itself; the two kinds take turns."""
    file, slow = network(folder / "network.onnx"), network(folder / "slowed.onnx")
    plain = Device(name="local", transport="local")
    planted = plain.model_copy(update={"setup": (f"EDGEKIT_PLANT={slow.name}:{FACTOR}",)})
    equal, slower = [], []
    for repeat in range(repeats):
        equal.append(pair(file, file, plain, seconds))
        slower.append(pair(slow, file, planted, seconds))
        if (repeat + 1) % 10 == 0:
            print(f"{repeat + 1} of {repeats}", judge(equal, slower), file=sys.stderr, flush=True)
    return equal, slower


def pair(one: Path, other: Path, device: Device, seconds: float) -> tuple[Result, Result]:
    """Both, measured in turns."""
    candidates = [Candidate(path, "onnxruntime", 1) for path in (one, other)]
    found = []
    for outcome in measure(candidates, device, sample=None, min_seconds=seconds):
        if isinstance(outcome, Failure):
            raise outcome.error
        found.append(outcome.result)
    return found[0], found[1]


def judge(
    equal: Sequence[tuple[Result, Result]], slower: Sequence[tuple[Result, Result]]
) -> dict[str, float]:
    """The share of repeats in which the interval was right."""

    def share(intervals: Sequence[stats.Interval]) -> float:
        return float(np.mean([one.low <= 1 <= one.high for one in intervals]))

    following = [*equal[1:], equal[0]]
    return {
        "equal": share([stats.ratio_of_rounds(a.rounds, b.rounds) for a, b in equal]),
        "slower": float(np.mean([stats.ratio_of_rounds(a.rounds, b.rounds).low > 1 for a, b in slower])),
        "apart": share(
            [
                stats.ratio_of_records(a.rounds, b.rounds)
                for (a, _), (_, b) in zip(equal, following, strict=True)
            ]
        ),
        "single runs": share([stats.ratio_interval(a.samples, b.samples) for a, b in equal]),
    }


def described(one: Result, other: Result) -> dict[str, Any]:
    ratio = stats.ratio_of_rounds(one.rounds, other.rounds)
    return {
        "ratio": [round(value, 5) for value in (ratio.low, ratio.value, ratio.high)],
        "medians_ns": [[round(float(np.median(runs))) for runs in side.rounds] for side in (one, other)],
        "runs": [len(side.samples) for side in (one, other)],
    }


def network(path: Path) -> Path:
    """Three convolutions with ReLUs on 24 × 24 pixels, the same weights each time."""
    rng = np.random.default_rng(0)
    nodes, weights, last, channels = [], [], "x", 3
    for index in range(3):
        weight = rng.standard_normal((24, channels, 3, 3)).astype(np.float32) * np.float32(0.1)
        weights.append(numpy_helper.from_array(weight, f"w{index}"))
        nodes.append(helper.make_node("Conv", [last, f"w{index}"], [f"c{index}"], pads=[1, 1, 1, 1]))
        nodes.append(helper.make_node("Relu", [f"c{index}"], [f"r{index}"]))
        last, channels = f"r{index}", 24
    nodes.append(helper.make_node("ReduceMean", [last], ["y"], axes=[2, 3], keepdims=0))
    graph = helper.make_graph(
        nodes,
        "network",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 3, 24, 24])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 24])],
        weights,
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), path)
    return path


if __name__ == "__main__":
    sys.exit(main())
