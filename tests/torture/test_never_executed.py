"""Files that would execute something if they were loaded the easy way: each is refused, and nothing happens.

What each would do is make a folder. Where torch's own loader falls for it, the test sees that first.
"""

from __future__ import annotations

import contextlib
import io
import shutil
import sys
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from edgekit import checkpoint
from edgekit.errors import WeightsError
from edgekit.files import sha256
from edgekit.int8 import storage
from edgekit.pipeline import compress
from edgekit.runtimes import native
from edgekit.runtimes.device import program_file
from edgekit.weights import load_weights
from tests.networks import Residual, images, quantized
from tests.torture.conftest import FAST, Forge
from tests.torture.crafted import (
    CRAFTED,
    SAMPLES,
    Evil,
    Parts,
    Small,
    call,
    guards,
    pickled,
    refused,
    written,
)


@pytest.fixture
def marker(tmp_path: Path) -> Path:
    """What no file may make."""
    return tmp_path / "executed"


@pytest.fixture(scope="module")
def parts() -> Parts:
    """A program that torch saved, part by part."""
    batch = torch.export.Dim("n", min=1, max=64)
    program = torch.export.export(Small(), (torch.ones(2, 3),), dynamic_shapes=({0: batch},))
    saved = io.BytesIO()
    torch.export.save(program, saved)
    with zipfile.ZipFile(saved) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


@pytest.fixture(params=CRAFTED)
def crafted(request: pytest.FixtureRequest, parts: Parts, marker: Path) -> Path:
    craft, _ = CRAFTED[request.param]
    return written(craft(parts, marker), marker.parent / "crafted.pt2")


@pytest.mark.parametrize("kind", [kind for kind, (_, falls) in CRAFTED.items() if falls])
def test_torch_itself_executes_it(
    kind: str, parts: Parts, marker: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So that the tests below can fail."""
    path = written(CRAFTED[kind][0](parts, marker), marker.parent / "crafted.pt2")
    monkeypatch.syspath_prepend(str(marker.parent))
    with contextlib.suppress(Exception):  # what was executed gave torch nothing that it could use
        torch.export.load(path)
    sys.modules.pop("edgekit_torture_module", None)
    assert marker.is_dir()


def test_no_crafted_program_is_read(crafted: Path, marker: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(marker.parent))
    with pytest.raises(program_file.Refused):
        program_file.load(torch, str(crafted))
    with pytest.raises(WeightsError, match="nothing of it was executed"):
        storage.load(crafted)
    assert not marker.exists()


def test_bench_refuses_it(crafted: Path, marker: Path) -> None:
    refused(call("bench", crafted, "--quiet"), marker)


@pytest.mark.parametrize("kind", ["sample_inputs", "function"])
def test_inspect_and_export_refuse_it(kind: str, parts: Parts, marker: Path) -> None:
    path = written(CRAFTED[kind][0](parts, marker), marker.parent / "crafted.pt2")
    refused(call("inspect", path), marker)
    refused(call("export", path, "--format", "onnx", "--quiet"), marker)


def test_guards_are_left_out(parts: Parts, marker: Path) -> None:
    path = written(guards(parts, marker), marker.parent / "crafted.pt2")
    program = program_file.load(torch, str(path))
    assert torch.equal(program.module()(torch.ones(4, 3)), torch.full((4, 3), 2.0))
    assert not marker.exists()


def test_what_torch_saves_is_read(parts: Parts, tmp_path: Path) -> None:
    path = written(parts, tmp_path / "plain.pt2")
    x = torch.randn(5, 3)
    assert torch.equal(program_file.load(torch, str(path)).module()(x), Small()(x))


def test_the_two_readers_of_an_archive_cant_be_shown_different_ones(parts: Parts, marker: Path) -> None:
    """Two parts of one name: who looks at the first and loads the second loads what he didn't see."""
    path = written(parts, marker.parent / "twice.pt2")
    with zipfile.ZipFile(path, "a") as archive, pytest.warns(UserWarning, match="Duplicate name"):
        archive.writestr(SAMPLES, pickled(Evil(marker)))
    with pytest.raises(program_file.Refused, match="put together in another way"):
        program_file.load(torch, str(path))


def test_a_compressed_archive_is_refused_unread(tmp_path: Path) -> None:
    path = tmp_path / "bomb.pt2"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data/weights/weight_0", b"\0" * (64 << 20))
    assert path.stat().st_size < 1 << 20
    with pytest.raises(program_file.Refused, match="compressed"):
        program_file.load(torch, str(path))


@pytest.mark.parametrize(
    "text",
    [
        "exec(chr(1))",
        "s0.x",
        "9**9**9**9**9",
        "2**999999999",
        "lambda: 1",
        "Pow(Integer(9), Integer(999999))",
        "s0[0]",
        "",
    ],
)
def test_sizes_that_are_code_or_never_end_are_no_expressions(text: str) -> None:
    assert not program_file._is_expression(text)


@pytest.mark.parametrize(
    "text",
    ["s0", "2*s0 + 1", "Max(1, s77//2)", "Symbol('s77', positive=True, integer=True)", "s0**2", "Mod(u3, 4)"],
)
def test_sizes_that_torch_writes_are_expressions(text: str) -> None:
    assert program_file._is_expression(text)


def stage_of(run: Path) -> Path:
    (graph,) = run.glob("stages/*/int8_graph.pt2")
    return graph.parent


def plant(folder: Path, marker: Path, file: str) -> None:
    """Put code among the sample inputs of a graph that is what it was otherwise."""
    path = folder / file
    if not path.exists():
        shutil.copyfile(folder / "int8_graph.pt2", path)
    with zipfile.ZipFile(path) as archive:
        parts = {name: archive.read(name) for name in archive.namelist()}
    (samples,) = (name for name in parts if name.endswith("data/sample_inputs/model.pt"))
    written({**parts, samples: pickled(((Evil(marker),), {}))}, path)


def test_a_planted_graph_without_a_fitting_record_is_refused(run: Path, marker: Path) -> None:
    plant(stage_of(run), marker, "int8_graph.pt2")
    refused(call("export", run, "--format", "onnx", "--precision", "int16x8", "--quiet"), marker)


def test_a_planted_graph_with_a_fitting_record_is_refused(run: Path, marker: Path, forge: Forge) -> None:
    folder = stage_of(run)
    plant(folder, marker, "int8_graph.pt2")
    digest = sha256(folder / "int8_graph.pt2")
    forge(folder / "stage.json", lambda record: record["files"].update({"int8_graph.pt2": digest}))
    refused(call("export", run, "--format", "litert", "--precision", "int16x8", "--quiet"), marker)


@pytest.mark.parametrize("file", ["int8_graph.pt2", "calibrated.pt2"])
def test_a_resumed_run_makes_planted_graphs_anew(run: Path, marker: Path, file: str) -> None:
    folder = stage_of(run)
    plant(folder, marker, file)
    (folder / "stage.json").unlink()
    (run / "report.json").unlink()
    report = compress(None, "quick", out=run, overrides=FAST)
    assert not marker.exists()
    assert report.artifacts
    storage.load(folder / "int8_graph.pt2")


def package(path: Path) -> Path:
    """Something that says it is an AOTInductor package; nothing looks further unless it is to be loaded."""
    return written(
        {"archive/archive_format": b"pt2", "archive/data/aotinductor/model/x.so": path.name.encode()}, path
    )


def test_compiled_code_of_others_needs_an_option(tmp_path: Path, marker: Path) -> None:
    path = package(tmp_path / "theirs.pt2")
    result = call("bench", path, "--quiet")
    refused(result, marker)
    assert "--allow-compiled" in result.stderr
    allowed = call("bench", path, "--allow-compiled", "--quiet", "--out", tmp_path / "x.json")
    assert "--allow-compiled" not in allowed.output  # it gets as far as torch, which finds no code in it
    assert allowed.exit_code == 1


def test_code_that_was_compiled_here_is_known_again(tmp_path: Path) -> None:
    path = package(tmp_path / "ours.pt2")
    assert not native.is_ours(path)
    native.remember(sha256(path))
    assert native.is_ours(path)
    path.write_bytes(path.read_bytes() + b"\0")
    assert not native.is_ours(path)


def test_a_planted_package_in_a_run_folder_isnt_loaded(run: Path, marker: Path, forge: Forge) -> None:
    """Even where every record fits."""
    path = package(run / "artifacts" / "digits_fp32_cpu.pt2")

    def add(record: dict[str, Any]) -> None:
        name, digest = f"artifacts/{path.name}", sha256(path)
        entry = {**record["artifacts"][0], "file": name, "sha256": digest, "format": "aotinductor"}
        record["artifacts"].append(entry)
        record["files"][name] = digest

    forge(run / "manifest.json", add)
    result = call("bench", run, "--quiet")
    refused(result, marker)
    assert "--allow-compiled" in result.stderr


@pytest.mark.parametrize("name", ["weights.pt", "weights.pth", "weights.bin", "weights.safetensors"])
def test_weights_that_are_code_are_refused(name: str, marker: Path) -> None:
    path = marker.parent / name
    path.write_bytes(pickled({"scale": Evil(marker)}))
    with pytest.raises(WeightsError):
        load_weights(Small(), path)
    assert not marker.exists()


def test_a_checkpoint_that_is_code_is_of_no_use(marker: Path) -> None:
    path = marker.parent / "checkpoint.pt"
    path.write_bytes(pickled({"version": 2, "optimizer": Evil(marker)}))
    found, reason = checkpoint.read(path, "x")
    assert found is None
    assert "damaged" in reason
    assert not marker.exists()


@pytest.mark.parametrize("suffix", ["npy", "npz"])
def test_samples_that_are_code_are_refused(suffix: str, marker: Path, finished: Path) -> None:
    path = marker.parent / f"samples.{suffix}"
    evil = np.array([Evil(marker)], dtype=object)
    if suffix == "npy":
        np.save(path, evil, allow_pickle=True)
    else:
        np.savez(path, x=evil)
    loaded = np.load(path, allow_pickle=True)  # executes it, the other kind where it is looked into
    if suffix == "npz":
        with loaded:
            assert len(loaded["x"]) == 1
    assert marker.exists()
    marker.rmdir()
    file = next((finished / "artifacts").glob("*.onnx"))
    refused(call("bench", file, "--input", path, "--quiet"), marker)


def test_modules_in_the_current_folder_are_nobodys(
    finished: Path, marker: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An unpacked project may have a json.py beside its model."""
    for name in ("json", "numpy", "onnx", "tempfile", "edgekit", "sitecustomize"):
        (marker.parent / f"{name}.py").write_text(f"import os\nos.mkdir({str(marker)!r})\n")
    monkeypatch.chdir(marker.parent)
    file = next((finished / "artifacts").glob("*.onnx")).absolute()
    for command in (("inspect", file), ("device", "probe", "local"), ("bench", file, "--quiet")):
        limits = ("--min-seconds", "0", "--min-runs", "1") if command[0] == "bench" else ()
        result = call(*command, *limits)
        assert result.exit_code == 0, result.output
        assert not marker.exists()


@pytest.mark.parametrize("command", [("compress", "--recipe"), ("bench", "x.onnx", "--device")])
def test_yaml_names_no_code(command: tuple[str, ...], marker: Path) -> None:
    path = marker.parent / "evil.yaml"
    path.write_text(f"stages: !!python/object/apply:os.mkdir [{marker}]\n")
    refused(call(*command, path), marker)


def test_what_edgekit_writes_needs_no_pickle_but_of_tensors(tmp_path: Path) -> None:
    _, graph = quantized(Residual)
    storage.save(graph, images(1), tmp_path / "graph.pt2")
    again = storage.load(tmp_path / "graph.pt2")
    assert torch.equal(again(images(3)), graph(images(3)))
    names = [
        str(node.meta.get("nn_module_stack")) for node in again.graph.nodes if node.op == "call_function"
    ]
    assert any("first" in name for name in names)  # which layer a node belongs to is told in messages
