from __future__ import annotations

import importlib.util
import json
import math
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch

from edgekit.formats import FORMATS
from edgekit.report.recommend import recommend
from edgekit.report.summary import Artifact, Measured

KEYS = {"name", "metric", "unit", "edgekit", "peer", "peer_name", "ratio", "samples", "slower_than_fp32"}


@pytest.fixture(scope="module")
def script(root: Path) -> ModuleType:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(root / "benchmarks"))  # where `import networks` looks when it is run
        patch.delitem(sys.modules, "networks", raising=False)
        path = root / "benchmarks" / "int8_vs_default.py"
        spec = importlib.util.spec_from_file_location("int8_vs_default", path)
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        patch.setitem(sys.modules, "int8_vs_default", module)  # dataclasses look their module up
        spec.loader.exec_module(module)
        yield module
        sys.modules.pop("networks", None)


@pytest.fixture(scope="module")
def comparison(script: ModuleType) -> ModuleType:
    """What it makes of measured files."""
    return sys.modules["int8_comparison"]


def files(comparison: ModuleType, snr_db: float = 40.0, **p50_us: float) -> Any:
    """A network's files, the ones not named as slow as can be; 9 timings each around the given p50."""
    found = {}
    for key, variant in comparison.VARIANTS.items():
        middle = round(1000 * p50_us.get(key, 1000))
        raw = [middle + step for step in range(-4, 5)]
        snr = snr_db if variant.precision == "int8" else 130.0
        found[key] = comparison.File(variant, Path(key), raw_ns=raw, snr_db=snr, coverage=1.0, size_bytes=10)
    return found


def test_the_fastest_right_file_of_edgekit_is_recommended(comparison: ModuleType) -> None:
    one = files(comparison, fp32_onnx=200, int8_onnx=150, int8_litert=100, quantize_static=50)
    assert comparison.recommended(one) is one["int8_litert"]
    one["int8_litert"].error = "crashed"
    assert comparison.recommended(one) is one["int8_onnx"]
    one["int8_onnx"].snr_db = comparison.MIN_SNR_DB - 0.1
    assert comparison.recommended(one) is one["fp32_onnx"]
    for file in one.values():
        file.raw_ns = []
    assert comparison.recommended(one) is None


def test_a_file_without_answers_to_compare_is_not_recommended(comparison: ModuleType) -> None:
    one = files(comparison, int8_onnx=1)
    one["int8_onnx"].snr_db = None
    assert comparison.recommended(one) is not one["int8_onnx"]


@pytest.mark.parametrize("latencies", [(200, 220, 150, 100), (100, 220, 150, 120), (90, 80, 100, 120)])
def test_it_is_the_choice_that_edgekit_makes(comparison: ModuleType, latencies: tuple[int, ...]) -> None:
    keys = ("fp32_onnx", "fp32_litert", "int8_onnx", "int8_litert")
    one = files(comparison, **dict(zip(keys, latencies, strict=True)))
    artifacts = [
        Artifact.model_construct(
            file=key, format=key.split("_")[1], precision=key.split("_")[0], accuracy=0.9, size_bytes=10
        )
        for key in keys
    ]
    measurements = [
        Measured.model_construct(
            artifact=key,
            runtime=FORMATS[key.split("_")[1]].runtime,
            device="local",
            threads=1,
            p50_ns=round(one[key].p50_ns),
        )
        for key in keys
    ]
    told = recommend(artifacts, measurements, accuracy=0.9, reference="fp32_onnx")
    assert comparison.recommended(one).path.name == told.artifact


def test_slower_counts_networks_by_p50(comparison: ModuleType) -> None:
    results = {
        "a": files(comparison, fp32_onnx=100, int8_onnx=101, quantize_static=300, nncf=100),
        "b": files(comparison, fp32_onnx=100, int8_onnx=99, quantize_static=300, nncf=99),
    }
    count = comparison.count_slower
    assert count(results, comparison.chosen("int8_onnx")) == 1
    assert count(results, comparison.chosen("quantize_static")) == 2
    assert count(results, comparison.chosen("nncf")) == 0
    assert count(results, comparison.recommended) == 0
    results["a"]["quantize_static"].raw_ns = []
    assert count(results, comparison.chosen("quantize_static")) == 1  # not measured: its row says so


def test_geometric_mean(comparison: ModuleType) -> None:
    assert comparison.geometric_mean([1, 4]) == pytest.approx(2)
    assert comparison.geometric_mean([3]) == pytest.approx(3)
    assert comparison.geometric_mean([]) == math.inf


def test_ratio_lies_within_its_interval(comparison: ModuleType) -> None:
    rng = np.random.default_rng(0)
    pairs = [
        (rng.normal(100, 5, 300).astype(int).tolist(), rng.normal(mean, 5, 300).astype(int).tolist())
        for mean in (200, 800)
    ]
    for timed, expected in ((pairs[:1], 2), (pairs, 4)):
        found = comparison.ratio_of(timed)
        assert found["ratio"] == pytest.approx(expected, rel=0.05)
        assert found["ratio_low"] < found["ratio"] < found["ratio_high"]
    assert set(comparison.ratio_of([]).values()) == {None}


def test_snr(script: ModuleType) -> None:
    reference = np.array([[3.0, 4.0]])
    assert script.snr_db(reference, reference * 1.1) == pytest.approx(20)
    assert script.snr_db(reference, reference) == 200
    assert script.snr_db(reference * 0, reference) == -math.inf


def test_rows(comparison: ModuleType) -> None:
    results = {
        "a": files(comparison, fp32_onnx=100, int8_litert=50, quantize_static=200, nncf=400),
        "b": files(comparison, fp32_onnx=100, int8_onnx=20, quantize_static=20, nncf=80),
    }
    first, *others = comparison.rows(results)
    assert [row["peer_name"] for row in (first, *others)] == [
        comparison.VARIANTS[key].title for key in comparison.PEERS
    ]
    assert (first["edgekit"], first["peer"]) == pytest.approx((1000**0.5, 4000**0.5), abs=0.01)
    assert first["ratio"] == pytest.approx(2)
    assert others[-1]["ratio"] == pytest.approx(32**0.5, abs=1e-4)
    assert (first["slower_than_fp32"], first["peer_slower_than_fp32"]) == (0, 1)
    check(json.loads(json.dumps([first, *others], allow_nan=False)), names=["a", "b"])
    against_fp32 = [row for row in first["details"] if row["peer_name"] == "edgekit fp32 ONNX"]
    assert [row["edgekit_file"] for row in against_fp32[:2]] == ["edgekit int8 LiteRT", "edgekit int8 ONNX"]


def test_a_failed_peer_keeps_its_row(comparison: ModuleType) -> None:
    results = {name: files(comparison, int8_onnx=10, nncf=30) for name in "ab"}
    results["b"]["nncf"] = comparison.File(
        comparison.VARIANTS["nncf"], Path("nncf"), error="RuntimeError: no"
    )
    nncf = comparison.rows(results)[-1]
    assert (nncf["ratio"], nncf["networks"]) == (pytest.approx(3), 1)
    assert "1 of 2" in nncf["error"]
    row = next(row for row in nncf["details"] if row["name"] == "b")
    assert (row["peer"], row["ratio"]) == (None, None)
    assert row["error"].endswith("RuntimeError: no")
    assert "failed: RuntimeError: no" in comparison.table(results)


def test_verdicts(comparison: ModuleType) -> None:
    good = files(comparison, fp32_onnx=100, int8_onnx=50, quantize_static=110)
    *_, never_slower, twice = comparison.verdicts({"a": good})
    assert never_slower.startswith("PASS")
    assert twice.startswith("PASS")
    bad = files(comparison, fp32_onnx=100, int8_onnx=70, quantize_static=110, torch_fp32=60)
    *_, never_slower, twice = comparison.verdicts({"a": bad})
    assert never_slower.startswith("FALLS SHORT")
    assert twice.startswith("FALLS SHORT")


@pytest.mark.parametrize(
    (
        "name",
        "parameters",
    ),  # published: 78,666 (MLPerf Tiny, Keras counts four numbers per batch-norm channel)
    [
        ("resnet8", 78_186),
        ("mobilenetv1-0.25", 213_586),
        ("mobilenetv1", 4_231_976),
        ("mobilenetv2", 3_504_872),
    ],
)
def test_networks_have_their_papers_size(script: ModuleType, name: str, parameters: int) -> None:
    model = script.NETWORKS[name].build()
    assert sum(p.numel() for p in model.parameters()) == parameters


def test_networks_follow_from_their_seed(script: ModuleType) -> None:
    networks = script.networks
    network = networks.NETWORKS["resnet8"]
    inputs = networks.images(4, network.size, torch.Generator().manual_seed(7))
    assert inputs.shape == (4, *network.shape)
    assert inputs.std() == pytest.approx(1, abs=0.2)
    with torch.no_grad():
        first, again, other = (networks.make(network, seed=seed, passes=1)(inputs) for seed in (0, 0, 1))
    assert torch.equal(first, again)
    assert not torch.allclose(first, other)
    assert 0.1 < first.std() < 10


@pytest.mark.slow
def test_script_writes_its_results(root: Path, tmp_path: Path) -> None:
    out = tmp_path / "results" / "out.json"
    command = [sys.executable, str(root / "benchmarks" / "int8_vs_default.py"), "--networks", "resnet8"]
    done = subprocess.run([*command, "--seconds", "0.1", "--out", str(out)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    verdicts = [line for line in done.stdout.splitlines() if line.startswith(("PASS: ", "FALLS SHORT: "))]
    assert len(verdicts) == 2
    rows = json.loads(out.read_text())
    check(rows, names=["resnet8"])
    for row in rows:
        assert {"cpu", "cores", "isa"} <= set(row["machine"])
        assert {"torch", "onnxruntime", "nncf", "ai-edge-litert", "numpy", "edgekit"} == set(row["versions"])
        assert len(row["commit"].removesuffix("-dirty")) == 40
    ours = [one for one in rows[0]["files"] if one["file"].startswith("edgekit int8")]
    assert len(ours) == 2
    assert all(one["int8_coverage"] == 1 and one["snr_db"] >= 20 for one in ours)
    raw = json.loads(out.with_suffix(".raw.json").read_text())["resnet8"]
    assert {one["samples"] for one in rows[0]["files"]} == {len(samples) for samples in raw.values()}


def check(rows: list[dict[str, Any]], names: list[str]) -> None:
    """The schema of what is written: every row has all keys, and each peer's row those of its networks."""
    for row in rows:
        assert set(row) >= KEYS
        assert row["name"] == "geometric mean"
        assert row["unit"] == "µs"
        details = row["details"]
        assert all(set(one) >= KEYS for one in details)
        like = [one for one in details if one["peer_name"] == row["peer_name"]]
        assert [one["name"] for one in like] == [*names, "geometric mean", *names]
    assert len(rows[0]["files"]) == 8 * len(names)
