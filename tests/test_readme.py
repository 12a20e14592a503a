"""The README's promises: its tables come from the reports, its example is whole and runs."""

from __future__ import annotations

import json
import re
import runpy
import subprocess
import sys
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file

from edgekit import load_workload


def example(root: Path) -> str:
    found = re.search(r"```python\n(import numpy.*?)```", (root / "README.md").read_text(), re.DOTALL)
    assert found
    return found[1]


def test_tables_are_what_the_reports_say(root: Path) -> None:
    script = root / "scripts" / "published_figures.py"
    assert subprocess.run([sys.executable, script, "--check"], check=False).returncode == 0


def test_what_falls_short_is_bold(root: Path) -> None:
    figures = runpy.run_path(str(root / "scripts" / "published_figures.py"))
    for name, aim in (("kd_throughput", "required"), ("resnet56", "required_accuracy")):
        rows = json.loads((root / "benchmarks" / "results" / f"{name}.json").read_text())
        side = "ratio" if name == "kd_throughput" else "edgekit"
        for value, bold in ((rows[0][aim], False), (rows[0][aim] - 0.01, True)):
            made = [{**row, side: value} for row in rows]
            assert ("**" in figures["AGAINST"][name](made)[-1]) == bold


def test_example_is_short_whole_and_loads(root: Path, tmp_path: Path) -> None:
    code = example(root)
    assert len(code.strip().splitlines()) < 30
    (tmp_path / "my_workload.py").write_text(
        code.replace('"data.npz"', repr(str(tmp_path / "data.npz"))).replace(
            '"net.safetensors"', repr(str(tmp_path / "net.safetensors"))
        )
    )
    random = np.random.default_rng(0)
    data = {}
    for split in ("train", "test"):
        data[f"{split}_x"] = random.integers(0, 256, (20, 32, 32, 3), dtype=np.uint8)
        data[f"{split}_y"] = np.arange(20) % 10
    np.savez(tmp_path / "data.npz", **data)
    sizes = {"0": (32, 3, 3, 3), "2": (64, 32, 3, 3), "6": (10, 64)}
    weights = {f"{k}.weight": torch.randn(v) * 0.1 for k, v in sizes.items()}
    weights |= {f"{k}.bias": torch.zeros(v[0]) for k, v in sizes.items()}
    save_file(weights, tmp_path / "net.safetensors")
    workload = load_workload(str(tmp_path / "my_workload.py"))
    workload.check()
    assert workload.example(3).shape == (3, 3, 32, 32)


def test_every_recipe_is_in_the_table(root: Path) -> None:
    text = (root / "README.md").read_text()
    assert all(f"| `{path.stem}` |" in text for path in (root / "recipes").glob("*.yaml"))
