"""Detectors that other people built go the whole way: cut, calibrated, decoded in both files, bundled."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.foreign import told_about

RECIPE = """
name: foreign
stages:
  - kind: prune
    speedup: 1.5
    training: {epochs: 0}
  - kind: qat
    calibration_samples: 32
    training: {epochs: 0}
exports: {formats: [onnx, litert], precisions: [int8], head: decoded}
benchmark: {threads: [1], min_seconds: 0.01, min_runs: 3}
recommend: {max_accuracy_drop: 100, objective: size}
diagnose: {samples: 4}
"""
SCRIPT = """
import json, sys
source, folder, root = sys.argv[1:4]
sys.path[:0] = [root, root + "/benchmarks"]
from pathlib import Path
from edgekit.bundle.checking import check
from edgekit.bundle.writing import bundle
from edgekit.pipeline import compress

folder, name = Path(folder), source.partition(":")[2]
workload = folder / "own.py"
workload.write_text(f"from tests.detection.foreign_heads import {name} as workload")
report = compress(workload, folder / "recipe.yaml", out=folder / "run")
entries = json.loads((folder / "run" / "manifest.json").read_text())["artifacts"]
files = {one["file"].rpartition("/")[2]: one["evaluation"] for one in entries if one["precision"] == "int8"}
told = {
    "macs": [report.baseline.macs, report.stages[0].macs],
    "seconds": {one.kind: round(one.seconds) for one in report.stages},
    "files": {
        file: {
            "outputs": one["outputs"],
            "coverage": one["coverage"]["share"],
            "partitions": one["coverage"]["partitions"],
            "outside": one["coverage"]["outside"],
        }
        for file, one in files.items()
    },
    "bundles": {},
}
for file in files:
    for target in ("python", "cpp") if file.endswith(".tflite") else ("python",):
        made = bundle(folder / "run", target, workload, artifact=file, out=folder / f"{target}-{file}")
        told["bundles"][f"{target}: {file}"] = check(made).tried.passed
print(json.dumps(told))
"""


def whole_way(source: str, folder: Path, seconds: float) -> dict[str, Any]:
    (folder / "recipe.yaml").write_text(RECIPE)
    told = json.loads(told_about(source, SCRIPT, folder, seconds=seconds)[-1])
    print(json.dumps(told, indent=1))
    return dict(told)


@pytest.mark.slow
@pytest.mark.parametrize("source", ["torch:yolo", "torchvision:ssdlite"])
def test_the_whole_way(source: str, tmp_path: Path) -> None:
    told = whole_way(source, tmp_path, 2400)
    before, after = told["macs"]
    assert after <= before / 1.5
    for one in told["files"].values():
        assert set(one["outputs"]) == {"boxes", "scores"}
        assert min(output["snr_db"] for output in one["outputs"].values()) >= 30
        assert one["coverage"] == 1
    assert len(told["bundles"]) == 3
    assert all(told["bundles"].values())
