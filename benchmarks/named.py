"""Networks with several tensors in or out through the whole main job: see workloads/named.py.

    EDGEKIT_DATA=… python benchmarks/workloads/named.py        # trains those that are trained here, minutes
    EDGEKIT_DATA=… python benchmarks/named.py [NAME …]         # compress, then bundles; one process for each

Each is cut to two thirds of its MACs, recovers, is trained in int8 and exported to ONNX and LiteRT. Scores
are those of the files, in their runtimes; on data without labels, against the original model. Decibels are of
each output, over all and of the worst channel: of the int8 graph against the float model before it
("fake-quantised"), and of each file against the graph. A bundle passes where its own golden test does.
The streaming one is also run as generated C, over all validation sequences with its own states.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
NAMES = ("bert", "distilbert", "rnet", "onet", "ssdlite", "deeplabv3", "two_branch", "siamese", "spotter")
LABELLED = ("bert", "distilbert", "two_branch", "siamese", "spotter")
TARGETS, FORMATS = ("python", "cpp"), ("onnx", "litert")


def main() -> int:
    """Try the networks, and write the rows after each of them."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("names", nargs="*", default=[])
    parser.add_argument("--one", help=argparse.SUPPRESS)
    parser.add_argument("--out", type=Path, default=HERE / "results" / "named.json")
    parser.add_argument("--work", type=Path, default=Path(tempfile.gettempdir()) / "edgekit-named")
    arguments = parser.parse_args()
    sys.path.insert(0, str(HERE))
    if arguments.one:
        print("ROW", json.dumps(row_of(arguments.one, arguments.work)), flush=True)
        return 0
    from provenance import surroundings

    from edgekit.files import write_json

    rows = {row["name"]: row for row in _read(arguments.out)}
    about = surroundings()
    for name in arguments.names or NAMES:
        command = [sys.executable, __file__, "--one", name, "--work", str(arguments.work)]
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
        line = next((text for text in done.stdout.splitlines() if text.startswith("ROW ")), "")
        row = json.loads(line[4:]) if line else {"went": "crashed", "failure": done.stderr[-2000:]}
        rows[name] = {"name": name, "commit": about["commit"], **row}
        print(json.dumps(rows[name], indent=1), flush=True)
        order = [rows[one] for one in NAMES if one in rows]
        write_json(arguments.out, {**about, "rows": order}, indent=1)
    return 0


def _read(path: Path) -> list[dict[str, Any]]:
    return list(json.loads(path.read_text())["rows"]) if path.exists() else []


def recipe_of(name: str) -> dict[str, Any]:
    """Random and foreign weights learn from the original's answers, those of ours from labels as well."""
    epochs = 4 if name in LABELLED else 2
    adam = {"optimizer": "adamw", "lr": 3e-4} if name in ("bert", "distilbert") else {}
    return {
        "description": "Several tensors in or out",
        "stages": [
            {"kind": "prune", "speedup": 1.5, "training": {"epochs": epochs, **adam}},
            {
                "kind": "qat",
                "training": {"epochs": 1, **({"optimizer": "adamw", "lr": 1e-4} if adam else {})},
            },
        ],
        "exports": {"formats": ["onnx", "litert"], "precisions": ["fp32", "int8"]},
        "benchmark": {"threads": [1], "min_seconds": 0.3, "min_runs": 5},
        "diagnose": {"samples": 16},
        "recommend": {"max_accuracy_drop": 100},
    }


def row_of(name: str, work: Path) -> dict[str, Any]:
    """One network."""
    import torch

    torch.set_num_threads(1)
    import edgekit
    from edgekit.errors import EdgekitError

    folder = work / name
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    recipe = folder / "recipe.yaml"
    recipe.write_text(json.dumps(recipe_of(name)))
    source = f"{HERE / 'workloads' / 'named.py'}:{name}"
    try:
        report = edgekit.compress(source, str(recipe), out=folder / "run").to_json()
    except EdgekitError as error:
        return {"went": "failed", "failure": str(error)}
    manifest = json.loads((folder / "run" / "manifest.json").read_text())
    scores = {one["file"]: one["evaluation"].get("scores") for one in manifest["artifacts"]}
    baseline = report["baseline"]
    return {
        "went": "whole way",
        "metric": report["task"]["metric"],
        "score": baseline["accuracy"],
        "macs": baseline["macs"],
        "macs_reached": round(baseline["macs"] / report["stages"][-1]["macs"], 3),
        "files": {
            Path(one["file"]).name: {
                "score": one["accuracy"],
                "scores": scores[one["file"]],
                "int8_coverage": one["int8_coverage"],
                "size_bytes": one["size_bytes"],
            }
            for one in report["artifacts"]
        },
        "decibels": {step["rung"]: _decibels(step) for step in report["ladder"]},
        "p50_us": {
            Path(one["artifact"]).name: round(one["p50_ns"] / 1000, 1) for one in report["measurements"]
        },
        "bundles": {
            f"{target}, {format}": _bundled(source, folder, report["artifacts"], target, format)
            for target in TARGETS
            for format in FORMATS
        },
        **({"c99": in_c(source, folder)} if name == "spotter" else {}),
    }


def _decibels(step: dict[str, Any]) -> dict[str, Any]:
    """By output, (over all, of the worst channel)."""
    outputs = step.get("outputs") or {"output": step}
    return {
        name: [round(one["snr_db"], 1), round(one["worst_channel_db"], 1)] for name, one in outputs.items()
    }


def _bundled(source: str, folder: Path, files: list[dict[str, Any]], target: str, format: str) -> str:
    """What the golden test of the bundle's own code says: "passed", or why not."""
    (file,) = (one["file"] for one in files if one["format"] == format and one["precision"] == "int8")
    out = folder / f"{target}-{format}"
    command = [sys.executable, "-m", "edgekit", "bundle", str(folder / "run"), source]
    command += ["--target", target, "--artifact", Path(file).name, "--out", str(out), "--json"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        return " ".join((done.stderr or done.stdout).split())[-300:]
    said = json.loads(done.stdout)["golden_test"]
    return "passed" if said["passed"] else str(said["told"])


def in_c(source: str, folder: Path) -> dict[str, Any]:
    """The int8 LiteRT file as C over all validation sequences, beside what the file answered in LiteRT."""
    import ctypes

    import numpy as np

    from edgekit.bundle.c99 import generate
    from edgekit.bundle.gathering import gather
    from edgekit.bundle.targets.python.package import named
    from edgekit.bundle.targets.python.package.file import File
    from edgekit.opening import load_workload

    contents = gather(folder / "run", source, formats=("litert",), precisions=("int8",))
    file = folder / contents.model.name
    file.write_bytes(contents.model.content)
    made = generate(file, prefix="net")
    (folder / "net.h").write_text(made.header)
    (folder / "net.c").write_text(made.source)
    command = [
        "gcc",
        "-std=c99",
        "-O2",
        "-shared",
        "-fPIC",
        str(folder / "net.c"),
        "-o",
        str(folder / "net.so"),
    ]
    subprocess.run(command, check=True)
    compiled = ctypes.CDLL(str(folder / "net.so")).net_run
    compiled.restype = None
    arena = np.zeros(made.arena_bytes, np.int8)

    class Compiled:
        def run(self, inputs: Any) -> Any:
            rows = {one.end.name: np.zeros(one.end.shape, one.end.dtype) for one in contents.outputs}
            every = [*(inputs[one.end.name] for one in contents.inputs), *rows.values(), arena]
            compiled(*(ctypes.c_void_p(one.ctypes.data) for one in every))
            return rows

    stream = named.Model(File(contents.spec(), Compiled())).stream()
    validation = load_workload(source).validation
    scores = []
    for frames in validation.inputs["frame"].numpy():
        stream.reset()
        told = [stream.step(frame=frame)["scores"].scores for frame in frames]
        scores.append(told[-1])
    best = np.array(scores).argmax(1)
    answers = np.load(folder / "run" / "answers" / f"{contents.model.name}.npy")
    return {
        "score": float((best == validation.targets.numpy()).mean()),
        "same_class_as_in_litert": float((best == answers.argmax(1)).mean()),
        "largest_difference": float(np.abs(np.array(scores) - answers).max()),
        "sequences": len(best),
        "arena_bytes": made.arena_bytes,
    }


if __name__ == "__main__":
    sys.exit(main())
