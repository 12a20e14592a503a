"""As test_torture.py: records of runs and bundles whose sha256 fits, plans put to use, other kinds of files.

Whole commands take seconds each, so of those there is one for 400 mutations of the other kinds.
"""

from __future__ import annotations

import io
import json
import shutil
from pathlib import Path
from random import Random
from typing import Any

import pytest
import torch
from rich.console import Console

from edgekit import checkpoint
from edgekit.bench.compare import compare
from edgekit.bench.gate import check_gate
from edgekit.bundle import gathering
from edgekit.bundle.checking import check
from edgekit.bundle.choosing import choose
from edgekit.bundle.writing import bundle
from edgekit.cli.views.bench import compare_view, gate_view
from edgekit.cli.views.bundle import bundle_view
from edgekit.errors import BundleError, StageError
from edgekit.files import sha256_of
from edgekit.pipeline.benchmarking import _subjects
from edgekit.pipeline.reopening import identity_of
from edgekit.pruning.plans.plan import Plan
from edgekit.runs.folder import Damaged
from edgekit.runs.manifest import read_manifest
from edgekit.weights import load_weights, save_weights
from tests.pipeline import tiny
from tests.torture import mutations
from tests.torture.told import command, message, seeded

pytestmark = pytest.mark.torture


def forged(random: Random, whole: dict[str, Any]) -> bytes:
    """A record with mishaps in its values, and mostly the sha256 that fits them: chance, and malice."""
    content = mutations.json_text(random, {key: one for key, one in whole.items() if key != "sha256"})
    try:
        record = json.loads(content)
        digest = sha256_of(record)
    except (ValueError, RecursionError):
        return content
    if not isinstance(record, dict) or random.random() < 0.1:
        return content
    return json.dumps({**record, "sha256": digest}).encode()


def drawn(view: Any) -> None:
    Console(file=io.StringIO(), width=140).print(view)


def test_manifests(finished: Path, run: Path, seed: int, count: int) -> None:
    """Read as bench, export, bundle and a run that goes on read them."""
    whole = json.loads((finished / "manifest.json").read_text())

    def used() -> None:
        identity_of(run)
        _subjects([run])
        manifest, report = gathering._manifest(run), gathering._report(run)
        choose(run, manifest, report)
        gathering._card(run, manifest["card"])

    refused = 0
    for random in seeded("manifests", seed, count):
        (run / "manifest.json").write_bytes(forged(random, whole))
        try:
            read_manifest(run)
        except Damaged as damage:
            assert len(str(damage)) < 20_000
        refused += bool(message(used))
    assert 0 < refused < count


def test_bundles(finished: Path, tmp_path: Path, seed: int, count: int) -> None:
    """A bundle that isn't what was written is the answer of the check: exit code 1, as of a gate."""
    written = bundle(finished, "python", out=tmp_path / "written")
    whole = json.loads((written / "bundle.json").read_text())
    names = sorted(path.relative_to(written) for path in written.rglob("*") if path.is_file())
    theirs = Path(shutil.copytree(written, tmp_path / "theirs"))

    def checked() -> None:
        try:
            drawn(bundle_view(check(theirs)))
        except BundleError as error:
            assert len(str(error)) < 30_000
            assert error.got

    for random in seeded("bundles", seed, count):
        name = Path("bundle.json") if random.random() < 0.7 else random.choice(names)
        path = theirs / name
        if random.random() < 0.05:
            path.unlink()
            path.mkdir() if random.random() < 0.5 else path.symlink_to(random.choice(("nowhere", path.name)))
        elif name.name == "bundle.json":
            path.write_bytes(forged(random, whole))
        else:
            path.write_bytes(mutations.damaged(random, path.read_bytes()))
        message(checked)
        path.rmdir() if path.is_dir() and not path.is_symlink() else path.unlink()
        shutil.copyfile(written / name, path)


def test_plans_put_to_use(trained: Path, seed: int, count: int) -> None:
    """What can be read as a plan fits the model, or is told not to."""
    whole = json.loads((trained / "stages/2-prune/plan.json").read_text())
    model = tiny.TinyNet()
    kept = {name: one.clone() for name, one in model.state_dict().items()}

    def applied(content: bytes) -> None:
        try:
            plan = Plan.from_json(content.decode("utf-8", "replace"), where="plan.json")
            small = plan.applied_to(model)
            small.eval()(torch.zeros(2, 1, 8, 8))
        except StageError as error:
            assert len(str(error)) < 30_000

    fitted = 0
    for random in seeded("used plans", seed, count):
        rows = random.choice((whole["layers"], whole["layers"], [whole]))
        at = random.randrange(len(rows))
        changed = mutations.json_text(random, rows[at])
        try:
            layers = [*whole["layers"][:at], json.loads(changed), *whole["layers"][at + 1 :]]
            content = json.dumps({**whole, "layers": layers}).encode()
        except (ValueError, RecursionError):
            content = changed
        fitted += message(applied, content) == ""
    assert fitted
    assert all(torch.equal(kept[name], one) for name, one in model.state_dict().items())


def test_results(finished: Path, tmp_path: Path, seed: int, count: int) -> None:
    """Results of `edgekit bench`, for compare and gate."""
    (source,) = (finished / "measurements").glob("*.json")
    whole, path = json.loads(source.read_text()), tmp_path / "x.json"
    few = {**whole, "results": whole["results"][:2]}

    def used() -> None:
        drawn(compare_view(compare(path, source)))
        drawn(gate_view(check_gate(path, source, max_slowdown=0.1, max_drop=1, max_growth=0.1)))

    refused = 0
    for random in seeded("results", seed, count):
        path.write_bytes(mutations.json_text(random, few))
        refused += bool(message(used))
    assert 0 < refused < count


def test_weights_and_checkpoints(tmp_path: Path, seed: int, count: int) -> None:
    model = tiny.TinyNet()
    wholes = {}
    for suffix in ("safetensors", "pth"):
        path = tmp_path / f"whole.{suffix}"
        if suffix == "pth":
            torch.save(model.state_dict(), path)
        else:
            save_weights(model, path)
        wholes[suffix] = path.read_bytes()
    refused = 0
    for random in seeded("weights", seed, count):
        suffix = random.choice(sorted(wholes))
        path = tmp_path / f"x.{suffix}"
        path.write_bytes(mutations.damaged(random, wholes[suffix]))
        refused += bool(message(lambda path=path: load_weights(tiny.TinyNet(), path)))
        found, reason = checkpoint.read(path, "x")
        assert found is None
        assert reason
    assert 0 < refused < count


@pytest.mark.parametrize("pattern", ["artifacts/*.tflite", "stages/*/int8_graph.pt2"])
def test_files_in_processes_of_their_own(
    finished: Path, tmp_path: Path, pattern: str, seed: int, count: int
) -> None:
    """As a user gives them, to inspect: LiteRT and torch may crash on them, and the child with them."""
    (whole,) = finished.glob(pattern)
    path, refused = tmp_path / whole.name, 0
    tries = max(5, count // 400)
    for random in seeded(pattern, seed, tries):
        path.write_bytes(mutations.damaged(random, whole.read_bytes()))
        refused += command("inspect", str(path), "--quiet").exit_code == 2
    assert refused > 0


def test_whole_commands_on_forged_runs(finished: Path, tmp_path: Path, seed: int, count: int) -> None:
    """Any record, any command that takes a run: what is told, not what it is worth."""
    run, other = tmp_path / "run", tmp_path / "other"
    records = sorted(
        path.relative_to(finished)
        for path in finished.rglob("*.json")
        if "sha256" in (whole := json.loads(path.read_text())) and isinstance(whole, dict)
    )
    assert len(records) > 5
    calls = (
        ("report", str(run)),
        ("bench", str(run), "--min-seconds", "0", "--min-runs", "1", "--quiet"),
        ("bundle", str(run), "--target", "python", "--out", str(other), "--force", "--quiet"),
        ("export", str(run), "--format", "onnx", "--precision", "fp32", "--quiet"),
    )
    for random in seeded("forged runs", seed, max(8, count // 400)):
        shutil.rmtree(run, ignore_errors=True)
        shutil.copytree(finished, run)
        for name in random.sample(records, random.choice((1, 1, 2))):
            (run / name).write_bytes(forged(random, json.loads((run / name).read_text())))
        command(*random.choice(calls))
