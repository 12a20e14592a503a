"""Thousands of spoilt inputs, seeded: each ends in a result, or in one message and exit code 2.

``make torture``; EDGEKIT_TORTURE=20000 for more of each kind, EDGEKIT_TORTURE_SEED=1 for others.
"""

from __future__ import annotations

import io
import json
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console

from edgekit import guarded
from edgekit.devices import load_device
from edgekit.errors import EdgekitError, MeasurementError
from edgekit.inspecting import artifact
from edgekit.pipeline.samples_of_files import cut
from edgekit.pruning.plans.plan import Plan
from edgekit.recipe import load_recipe
from edgekit.report import page
from tests.torture import mutations
from tests.torture.told import command, message, seeded

pytestmark = pytest.mark.torture


@pytest.mark.parametrize("kind", ["recipes", "devices"])
def test_configurations(root: Path, tmp_path: Path, kind: str, seed: int, count: int) -> None:
    texts = [path.read_text(encoding="utf-8") for path in sorted((root / kind).glob("*.yaml"))]
    path = tmp_path / "x.yaml"
    load: Any = load_recipe if kind == "recipes" else load_device
    refused = 0
    for random in seeded(kind, seed, count):
        path.write_bytes(mutations.yaml_text(random, random.choice(texts)))
        refused += bool(message(load, path))
        if random.random() < 0.05:
            command(kind.removesuffix("s"), "show", str(path), "--json")
    assert 0 < refused < count


def test_settings(seed: int, count: int) -> None:
    paths = (
        "seed",
        "stages.prune.speedup",
        "stages.*.training.epochs",
        "exports.formats[0]",
        "stages",
        "a.b",
    )
    for random in seeded("settings", seed, count):
        sign = random.choice(("=", "=", "==", "", ".x="))
        text = random.choice(paths) + sign + random.choice(mutations.HAZARDS)
        message(load_recipe, "mobile", [text])


def test_plans(trained: Path, tmp_path: Path, seed: int, count: int) -> None:
    whole = json.loads((trained / "stages/2-prune/plan.json").read_text())

    def read(content: bytes) -> None:
        try:
            Plan.from_json(content.decode("utf-8", "replace"), where="plan.json")
        except EdgekitError as error:  # the command that was given it says so as what was given
            assert len(str(error)) < 20_000

    for random in seeded("plans", seed, count):
        content = mutations.json_text(random, whole)
        assert message(read, content) == ""


def test_run_folders(trained: Path, tmp_path: Path, seed: int, count: int) -> None:
    run = tmp_path / "run"
    names = [
        path.relative_to(trained)
        for pattern in ("*.json", "stages/*/*.json", "stages/*/training.csv")
        for path in sorted(trained.glob(pattern))
    ]
    for name in names:
        (run / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(trained / name, run / name)

    def shown() -> None:
        found = page.load(run)
        assert all(len(line) < 1000 and line.isprintable() for line in found.missing)
        page.build([found], scripts=False)

    for random in seeded("run folders", seed, count):
        name = random.choice(names)
        path = run / name
        if random.random() < 0.06:
            path.unlink()
            target = random.choice((None, "nowhere", path.name))
            path.mkdir() if target is None else path.symlink_to(target)
        elif name.suffix == ".json":
            path.write_bytes(mutations.json_text(random, json.loads((trained / name).read_text())))
        else:
            path.write_bytes(mutations.yaml_text(random, (trained / name).read_text()))
        message(shown)
        if path.is_dir():
            path.rmdir()
        elif os.path.lexists(path):
            path.unlink()
        shutil.copyfile(trained / name, path)


def test_samples(tmp_path: Path, seed: int, count: int) -> None:
    refused = 0
    for random in seeded("samples", seed, count):
        path = tmp_path / f"x.{random.choice(('npy', 'npz'))}"
        stream = io.BytesIO()
        one = mutations.array(random, (4, 1, 8, 8))
        if path.suffix == ".npz":
            np.savez(stream, **{f"input{i}": one for i in range(random.choice((0, 1, 2)))})
        else:
            np.save(stream, one)
        content = stream.getvalue()
        path.write_bytes(mutations.damaged(random, content) if random.random() < 0.5 else content)
        refused += bool(message(cut, path, tmp_path / "y.npy", 4))
    assert 0 < refused < count


@pytest.mark.parametrize("name", ["original_fp32.onnx", "tiny_int8*.onnx"])
def test_models(
    trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, seed: int, count: int
) -> None:
    """All in this process, which is quicker than one for each file: a crash fails the whole test."""
    from edgekit.cli.views.inspect import inspect_view

    def here(function: Any, *arguments: Any, what: str, where: str = "", next: str = "", **_: Any) -> Any:
        try:
            return function(*arguments)
        except EdgekitError:
            raise
        except Exception as error:
            raise MeasurementError(what, where=where, got=str(error), next=next) from error

    monkeypatch.setattr(guarded, "call", here)
    (whole,) = (trained / "artifacts").glob(name)
    path = tmp_path / "model.onnx"

    def looked_at() -> None:
        found = artifact.inspect_artifact(path)
        Console(file=io.StringIO(), width=140).print(inspect_view(found, 140, None))

    refused = 0
    for random in seeded("models", seed, count):
        content = whole.read_bytes()
        for _ in range(random.choice((1, 1, 3))):
            content = mutations.damaged(random, content)
        path.write_bytes(content)
        refused += bool(message(looked_at))
    assert 0 < refused < count
