"""What the harness adds to what it times: its p50 against the tightest loop over the same session.

python benchmarks/harness_overhead.py [--out FILE]

A network of about 100 µs in ONNX Runtime, one thread. In turns, in one process: the worker's own ``time``,
every run timed alone; and groups of runs timed as one by a loop in C (``deque`` over ``starmap``), calling
ONNX Runtime's native session without its Python wrapper. Both figures are medians: of the runs, and of the
groups' means. "nothing" is the worker's loop over a call that does nothing: what its clock and its loop add
to every run. The limits are those that edgekit sets itself.
"""

from __future__ import annotations

import argparse
import io
import json
import statistics
import tempfile
import time
from collections import deque
from itertools import repeat, starmap
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from provenance import surroundings

from edgekit.bench import timing
from edgekit.bench.worker import Worker

HERE = Path(__file__).resolve().parent
ROUNDS = 40
RUNS = 400  # a round
GROUP = 5  # runs that the tight loop times as one: few, for a mean is pulled up by every interruption
LIMITS = {"nothing": 0.02, "p50": 0.05}  # of the tight loop's p50


def main() -> int:
    """Measure in turns, and write every single figure."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=HERE / "results" / "harness_overhead.json")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="edgekit-") as folder:
        found = measure(network(Path(folder) / "network.onnx"))
    flat = {key: [value for round in rounds for value in round] for key, rounds in found.items()}
    p50 = {key: statistics.median(values) for key, values in flat.items()}
    result = {
        "p50_ns": p50,
        "added": {"nothing": p50["nothing"] / p50["tight"], "p50": p50["worker"] / p50["tight"] - 1},
        "limits": LIMITS,
        **surroundings(("onnxruntime", "numpy")),
        "rounds": found,
    }
    arguments.out.write_text(json.dumps(result) + "\n")
    for key, limit in LIMITS.items():
        print(f"{key:<10}{result['added'][key]:>8.2%} of {p50['tight'] / 1000:.1f} µs, limit {limit:.0%}")
    return int(any(abs(result["added"][key]) > limit for key, limit in LIMITS.items()))


def measure(path: Path) -> dict[str, list[list[float]]]:
    """Each round's ns: of single runs ("worker"), of groups on average ("tight"), of no run ("nothing")."""
    worker = Worker(io.StringIO())
    worker.load("onnxruntime", str(path), 1, random=0)
    model: Any = worker._model
    native = model._session._sess.run_with_iobinding
    call = (model._binding._iobinding, None)
    clock = time.perf_counter_ns

    def tight() -> list[float]:
        means = []
        for _ in range(RUNS // GROUP):
            start = clock()
            deque(starmap(native, repeat(call, GROUP)), maxlen=0)
            means.append((clock() - start) / GROUP)
        return means

    def single() -> list[float]:
        samples: list[float] = worker.time(min_ns=0, min_runs=RUNS)["samples_ns"]
        return samples

    def nothing() -> list[float]:
        return list(timing.timed(lambda: None, clock, 0, RUNS))

    takes = {"worker": single, "tight": tight, "nothing": nothing}
    found: dict[str, list[list[float]]] = {name: [] for name in takes}
    tight()
    for turn in range(ROUNDS):
        for name in list(takes) if turn % 2 == 0 else reversed(takes):
            found[name].append(takes[name]())
    return found


def network(path: Path) -> Path:
    """Two convolutions on (1, 3, 42, 42)."""
    rng = np.random.default_rng(0)
    weights = {"v": (16, 3, 3, 3), "w": (16, 16, 3, 3)}
    graph = helper.make_graph(
        [
            helper.make_node("Conv", ["x", "v"], ["a"], pads=[1, 1, 1, 1]),
            helper.make_node("Relu", ["a"], ["b"]),
            helper.make_node("Conv", ["b", "w"], ["y"], pads=[1, 1, 1, 1]),
        ],
        "network",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 3, 42, 42])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 16, 42, 42])],
        [
            numpy_helper.from_array(rng.standard_normal(shape).astype(np.float32), name)
            for name, shape in weights.items()
        ],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), path)
    return path


if __name__ == "__main__":
    raise SystemExit(main())
