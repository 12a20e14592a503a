"""Where a figure comes from: the machine, the versions and the commit that every benchmark row carries."""

from __future__ import annotations

import subprocess
from importlib import metadata
from pathlib import Path
from typing import Any

PACKAGES = ("torch", "onnxruntime", "nncf", "ai-edge-litert", "litert-torch", "onnx", "numpy")
_ISA = ("avx2", "avx512f", "avx512_vnni", "avx_vnni", "avx512_bf16", "amx_int8", "asimddp", "i8mm", "sve")


def provenance() -> dict[str, Any]:
    """``machine``, ``versions`` and ``commit`` of this very run."""
    from edgekit import __version__
    from edgekit.devices.device import load_device, probe

    about = probe(load_device("local"))
    versions = {"edgekit": __version__}
    for package in PACKAGES:
        try:
            versions[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    machine = {
        "cpu": about["cpu"],
        "machine": about["machine"],
        "cores": len(about["affinity"]),
        "isa": [flag for flag in about["isa"] if flag in _ISA],
        "virtual": about["virtual"],
        "python": about["python"],
    }
    return {"machine": machine, "versions": versions, "commit": commit()}


def commit() -> str:
    """The checked out commit; "-dirty" where files differ from it."""
    root = Path(__file__).resolve().parent.parent

    def git(*arguments: str) -> str:
        done = subprocess.run(["git", *arguments], cwd=root, capture_output=True, text=True, check=False)
        return done.stdout.strip()

    changed = [
        line for line in git("status", "--porcelain").splitlines() if "benchmarks/results/" not in line
    ]
    return git("rev-parse", "HEAD") + ("-dirty" if changed else "")
