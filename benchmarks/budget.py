"""A budget that is kept: what int8 loses by calibration alone, and what it loses and costs with a budget.

    EDGEKIT_DATA=… python benchmarks/budget.py [--networks resnet20 mobilenetv3 …] [--max-drop 0.5]
                                               [--set stages.qat.equalise=never]

For each network two runs of ``edgekit compress`` with the recipe ``quick``: plain, and with ``--max-drop``.
Points are of the test set, lost against the trained model; times are of the run with the budget, medians of
one thread, every file in turns with the others. Where the budget keeps nothing in float both runs are one.

    kept              whether all int8 files keep the budget
    lost_plain        points, by format, of calibration alone
    lost              points with the budget
    faster            than the fp32 file of the same format; faster_plain: the same of calibration alone

Networks: cifar10.py, cifar10_timm.py and cifar10_mobilenet.py beside their weights (trained by these scripts
where there are none), spoken_digits.py, and edgekit's embedded demo. What isn't there is left out, and said.
``resnet20-uneven``: the same function, but the channels between the two convolutions of three blocks are 1 to
256 times as large as they were, by powers of two, and weights behind them smaller: what training leaves in
some networks (Nagel et al. 2019, arXiv 1906.04721, section 3), made on purpose here. Calibration undoes that
by itself; with ``--set stages.qat.equalise=never`` it doesn't, and the budget has to be kept by floats.
A network's result is written as soon as it is there, and kept when the script is started again.
"""

from __future__ import annotations

import argparse
import dataclasses
import importlib
import json
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
import work
from provenance import surroundings

from edgekit.errors import EdgekitError, GuardError
from edgekit.pipeline import compress
from edgekit.report import Report
from edgekit.report.recommend import main_measurements
from edgekit.workload import Workload

HERE = Path(__file__).resolve().parent
OUT = HERE / "results" / "budget.json"
PACKAGES = ("torch", "timm", "onnxruntime", "ai-edge-litert", "litert-torch", "nncf", "numpy")
QUIET = ("diagnose.samples=0", "benchmark.threads=[1]", "benchmark.min_seconds=3")


def _from(script: str, function: str) -> Callable[[], Workload]:
    def made() -> Workload:
        sys.path.insert(0, str(HERE / "workloads"))
        found: Workload = getattr(importlib.import_module(script), function)()
        return found

    return made


def _uneven(made: Callable[[], Workload], *blocks: str) -> Callable[[], Workload]:
    """The network with uneven channels behind the first batch norm of blocks, which a ReLU follows."""

    def unevened() -> Workload:
        found = made()
        for one in map(found.model.get_submodule, blocks):
            norm, convolution = one.bn1, one.conv2
            bits = torch.arange(norm.num_features) * 9 // norm.num_features
            order = torch.randperm(norm.num_features, generator=torch.Generator().manual_seed(0))
            factors = 2.0 ** bits[order]
            with torch.no_grad():
                norm.weight.mul_(factors)
                norm.bias.mul_(factors)
                convolution.weight.div_(factors[:, None, None])
        return dataclasses.replace(found, name=f"{found.name}-uneven")

    return unevened


def _demo() -> Workload:
    from edgekit.opening import load_workload

    return load_workload(None)


NETWORKS: Mapping[str, Callable[[], Workload]] = {
    "digits": _demo,
    "resnet20": _from("cifar10", "resnet20"),
    "resnet20-uneven": _uneven(_from("cifar10", "resnet20"), "layer1.1", "layer2.1", "layer3.1"),
    "resnet56": _from("cifar10", "resnet56"),
    "mobilenetv3-32": _from("cifar10_mobilenet", "workload"),
    "mobilenetv3": _from("cifar10_timm", "mobilenetv3"),
    "efficientnet": _from("cifar10_timm", "efficientnet"),
    "vit": _from("cifar10_timm", "vit"),
    "spoken-digits": _from("spoken_digits", "workload"),
}


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--networks", nargs="+", choices=NETWORKS, default=list(NETWORKS))
    parser.add_argument("--max-drop", type=float, default=0.5)
    parser.add_argument(
        "--set", nargs="+", default=[], metavar="KEY=VALUE", help="of the recipe, in both runs"
    )
    parser.add_argument("--work", type=Path, default=work.cache_folder() / "benchmarks" / "budget")
    parser.add_argument("--out", type=Path, default=OUT)
    options = parser.parse_args(arguments)
    for name in options.networks:
        key = " ".join([name, f"{options.max_drop:g}", *options.set])
        try:
            workload = NETWORKS[name]()
        except EdgekitError as error:
            print(f"{name} is left out: {error.what}")
            continue
        row = measured(name, workload, options.max_drop, options.set, options.work)
        rows = json.loads(options.out.read_text()) if options.out.exists() else {}
        rows[key] = {**row, **surroundings(PACKAGES), "command": command(name, options.max_drop, options.set)}
        options.out.write_text(json.dumps(rows, indent=1, ensure_ascii=False) + "\n")
        print(
            f"{key}: lost {row['lost_plain']} plain, {row['lost']} with {row['float'] or 'nothing'} in float"
        )
    return 0


def command(name: str, points: float, overrides: Sequence[str]) -> str:
    told = f"python benchmarks/budget.py --networks {name} --max-drop {points:g}"
    return " ".join([told, "--set", *overrides]) if overrides else told


def measured(
    name: str, workload: Workload, points: float, overrides: Sequence[str], folder: Path
) -> dict[str, Any]:
    """A row of the result."""
    started = time.monotonic()
    asked = ("recommend.contract=true", f"recommend.max_accuracy_drop={points}")
    label = "-".join([name, *(one.replace("=", "-") for one in overrides)])
    budget = run(workload, folder / f"{label}-{points:g}", (*asked, *overrides))
    kept = budget.budget
    assert kept is not None
    chosen = kept.rounds[-1].float
    plain = run(workload, folder / f"{label}-plain", overrides) if chosen else budget
    whole = max(kept.macs, 1)
    return {
        "max_drop": points,
        "kept": kept.kept,
        "float_accuracy": budget.baseline.accuracy,
        "validation_samples": len(workload.validation),
        "lost_plain": lost(plain),
        "lost": lost(budget),
        "faster_plain": faster(plain),
        "faster": faster(budget),
        "float": list(chosen),
        "float_macs_share": kept.rounds[-1].float_macs / whole,
        "rounds": [one.model_dump(mode="json") for one in kept.rounds],
        "held_out": kept.held_out,
        "most_sensitive": [one.model_dump(mode="json") for one in kept.modules[:12]],
        "files": files(budget),
        "files_plain": files(plain),
        "seconds": round(time.monotonic() - started),
    }


def run(workload: Workload, folder: Path, overrides: Sequence[str]) -> Report:
    """Also of a budget that wasn't kept: the report is there."""
    try:
        return compress(
            workload,
            "quick",
            out=folder,
            overrides=(*QUIET, *overrides),
            progress=work.Teller(folder.name),
        )
    except GuardError:
        return Report.load(folder)


def lost(report: Report) -> dict[str, float]:
    """By format, points of its int8 file."""
    return {
        one.format: round(100 * (report.baseline.accuracy - one.accuracy), 3)
        for one in report.artifacts
        if one.precision == "int8"
    }


def faster(report: Report) -> dict[str, float]:
    """By format, the fp32 file's p50 over that of the int8 file."""
    timed = {file: one.p50_ns for file, one in main_measurements(report.measurements).items()}
    found = {}
    for one in report.artifacts:
        twins = [o for o in report.artifacts if (o.format, o.precision) == (one.format, "fp32")]
        if one.precision == "int8" and one.file in timed and twins and twins[0].file in timed:
            found[one.format] = round(timed[twins[0].file] / timed[one.file], 3)
    return found


def files(report: Report) -> dict[str, dict[str, Any]]:
    timed = main_measurements(report.measurements)
    return {
        one.file: {
            "accuracy": one.accuracy,
            "size_bytes": one.size_bytes,
            "int8_coverage": one.int8_coverage,
            "p50_ns": timed[one.file].p50_ns if one.file in timed else None,
            "unstable": timed[one.file].unstable if one.file in timed else None,
        }
        for one in report.artifacts
    }


if __name__ == "__main__":
    sys.exit(work.guarded(main))
