"""Files that would execute something if they were loaded the easy way: each is refused, and nothing happens.

What each would do is make a folder. Where torch's own loader falls for it, the test sees that first.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import pickle
import shutil
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from typer.testing import CliRunner, Result

from edgekit import checkpoint
from edgekit.cli import app as cli
from edgekit.errors import WeightsError
from edgekit.files import sha256
from edgekit.int8 import storage
from edgekit.pipeline import compress
from edgekit.runtimes import native
from edgekit.runtimes.device import program_file
from edgekit.weights import load_weights
from tests.networks import Residual, images, quantized
from tests.torture.conftest import FAST, Forge

Parts = dict[str, bytes]


class Evil:
    """Unpickled, it makes a folder."""

    def __init__(self, marker: Path) -> None:
        self.marker = str(marker)

    def __reduce__(self) -> Any:
        return os.mkdir, (self.marker,)


@pytest.fixture
def marker(tmp_path: Path) -> Path:
    """What no file may make."""
    return tmp_path / "executed"


def call(*arguments: object) -> Result:
    return CliRunner().invoke(cli.app, [str(one) for one in arguments], prog_name="edgekit")


def refused(result: Result, marker: Path) -> None:
    """One message, exit code 2, and nothing was executed."""
    assert not marker.exists()
    assert result.exit_code == 2, result.output
    assert "Traceback" not in result.output
    assert result.stderr.count("next:") <= 1
    assert result.stderr.strip()


# --- programs --------------------------------------------------------------------------------------------


class Small(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(3))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * self.scale + torch.ones(3)


@pytest.fixture(scope="module")
def parts() -> Parts:
    """A program that torch saved, part by part."""
    batch = torch.export.Dim("n", min=1, max=64)
    program = torch.export.export(Small(), (torch.ones(2, 3),), dynamic_shapes=({0: batch},))
    saved = io.BytesIO()
    torch.export.save(program, saved)
    with zipfile.ZipFile(saved) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def written(parts: Parts, path: Path) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in parts.items():
            archive.writestr(name, content)
    return path


def edited(parts: Parts, name: str, change: Callable[[Any], object]) -> Parts:
    """With one part, which is JSON, changed."""
    value = json.loads(parts[name])
    change(value)
    return {**parts, name: json.dumps(value).encode()}


def pickled(value: object) -> bytes:
    stream = io.BytesIO()
    torch.save(value, stream)
    return stream.getvalue()


MODEL = "archive/models/model.json"
WEIGHTS = "archive/data/weights/model_weights_config.json"
CONSTANTS = "archive/data/constants/model_constants_config.json"
SAMPLES = "archive/data/sample_inputs/model.pt"


def sample_inputs(parts: Parts, marker: Path) -> Parts:
    return {**parts, SAMPLES: pickled((((Evil(marker),)), {}))}


def pickled_weight(parts: Parts, marker: Path) -> Parts:
    changed = {**parts, "archive/data/weights/weight_0": pickled(Evil(marker))}
    return edited(changed, WEIGHTS, lambda value: value["config"]["scale"].update(use_pickle=True))


def old_weights(parts: Parts, marker: Path) -> Parts:
    return {**parts, "archive/data/weights/model.pt": pickled({"scale": Evil(marker)})}


def old_constants(parts: Parts, marker: Path) -> Parts:
    return {**parts, "archive/data/constants/model.pt": pickled({"x": Evil(marker)})}


def opaque(parts: Parts, marker: Path) -> Parts:
    meta = {"path_name": "opaque_obj_0", "is_param": False, "use_pickle": True, "tensor_meta": None}
    changed = {**parts, "archive/data/constants/opaque_obj_0": pickle.dumps(Evil(marker))}
    return edited(changed, CONSTANTS, lambda value: value["config"].update(x=meta))


def custom_object(parts: Parts, marker: Path) -> Parts:
    meta = {"path_name": "custom_obj_0", "is_param": False, "use_pickle": True, "tensor_meta": None}
    changed = {**parts, "archive/data/constants/custom_obj_0": b"whatever"}
    return edited(changed, CONSTANTS, lambda value: value["config"].update(x=meta))


def of_2_6(parts: Parts, marker: Path) -> Parts:
    """The older format: no archive of its own, all tensors pickled."""
    return {
        "version": b"8.8",
        "serialized_exported_program.json": parts[MODEL],
        "serialized_state_dict.pt": pickled({"scale": Evil(marker)}),
        "serialized_constants.pt": pickled({}),
        "serialized_example_inputs.pt": pickled(((), {})),
    }


def function(parts: Parts, marker: Path) -> Parts:
    """The graph's last node calls a function of a module that torch has imported."""

    def change(value: Any) -> None:
        argument = {"name": "name", "arg": {"as_string": str(marker)}, "kind": 1}
        value["graph_module"]["graph"]["nodes"][-1].update(target="torch.os.mkdir", inputs=[argument])

    return edited(parts, MODEL, change)


def operator(parts: Parts, marker: Path) -> Parts:
    """An operator that touches files."""

    def change(value: Any) -> None:
        node = value["graph_module"]["graph"]["nodes"][-1]
        arguments = [("filename", {"as_string": str(marker)}), ("shared", {"as_bool": True})]
        node["target"] = "torch.ops.aten.from_file.default"
        node["inputs"] = [{"name": name, "arg": arg, "kind": 1} for name, arg in arguments]

    return edited(parts, MODEL, change)


def size(parts: Parts, marker: Path) -> Parts:
    """A symbolic size, which torch evaluates."""

    def change(value: Any) -> None:
        for one in value["graph_module"]["graph"]["tensor_values"].values():
            for size in one["sizes"]:
                if "as_expr" in size:
                    size["as_expr"]["expr_str"] = f"__import__('os').mkdir({str(marker)!r})"

    return edited(parts, MODEL, change)


def name(parts: Parts, marker: Path) -> Parts:
    """A value's name, of which torch makes Python."""
    code = f"mul; __import__('os').mkdir({str(marker)!r}); mul"
    return {**parts, MODEL: parts[MODEL].replace(b'"mul"', json.dumps(code).encode())}


def structure(module: str) -> Callable[[Parts, Path], Parts]:
    """Arguments that name a module, which torch imports."""

    def craft(parts: Parts, marker: Path) -> Parts:
        context = json.dumps({"__enum__": True, "fqn": f"{module}:X", "name": "Y"})
        spec = json.dumps([1, {"type": "builtins.dict", "context": context, "children_spec": []}])

        def change(value: Any) -> None:
            value["graph_module"]["module_call_graph"][0]["signature"]["out_spec"] = spec

        (marker.parent / f"{module}.py").write_text(f"import os\nos.mkdir({str(marker)!r})\n")
        return edited(parts, MODEL, change)

    return craft


def factory(parts: Parts, marker: Path) -> Parts:
    context = {"default_factory_module": "antigravity", "default_factory_name": "x", "dict_context": []}
    spec = json.dumps([1, {"type": "collections.defaultdict", "context": context, "children_spec": []}])

    def change(value: Any) -> None:
        value["graph_module"]["module_call_graph"][0]["signature"]["in_spec"] = spec

    return edited(parts, MODEL, change)


def guards(parts: Parts, marker: Path) -> Parts:
    return edited(
        parts, MODEL, lambda value: value.update(guards_code=[f"__import__('os').mkdir({str(marker)!r})"])
    )


# And whether torch's own loader executes their code. What it doesn't is of kinds that it needn't reach.
CRAFTED: dict[str, tuple[Callable[[Parts, Path], Parts], bool]] = {
    "sample_inputs": (sample_inputs, True),
    "pickled_weight": (pickled_weight, True),
    "old_weights": (old_weights, True),
    "old_constants": (old_constants, True),
    "opaque": (opaque, True),
    "custom_object": (custom_object, False),
    "of_2_6": (of_2_6, True),
    "function": (function, False),
    "operator": (operator, False),
    "size": (size, True),
    "name": (name, False),
    "structure": (structure("edgekit_torture_module"), True),
    "factory": (factory, False),
}


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


# --- in a run folder -------------------------------------------------------------------------------------


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


# --- native code -----------------------------------------------------------------------------------------


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


# --- whatever else is loaded -----------------------------------------------------------------------------


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
