"""What is told about exported files, and about files that are none."""

from __future__ import annotations

import hashlib
import io
import json
import random
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper
from rich.console import Console

from edgekit.cli.views.inspect import inspect_view
from edgekit.errors import EdgekitError, InputError, WeightsError
from edgekit.formats.litert import reading as tflite_file
from edgekit.formats.onnx import reading as onnx_file
from edgekit.inspecting import inspect
from edgekit.inspecting.artifact import format_of
from tests.networks import Residual, quantized

Files = dict[str, Path]
WEIGHTS = 8 * 3 * 9 + 8 * 8 * 9 + 5 * 8  # of Residual


def shown(found: dict[str, Any]) -> str:
    stream = io.StringIO()
    Console(file=stream, width=200).print(inspect_view(found, 200))
    return stream.getvalue()


def packed(name: str) -> bytes:
    """An archive with one thing in it."""
    whole = io.BytesIO()
    with zipfile.ZipFile(whole, "w") as archive:
        archive.writestr(name, b"\x7fELF")
    return whole.getvalue()


@pytest.mark.parametrize("kind", ["onnx", "tflite", "pt2"])
def test_what_is_common_to_all_files(files: Files, kind: str) -> None:
    path = files[kind]
    found = inspect(path)
    assert found == json.loads(json.dumps(found))
    assert found["sha256"] == hashlib.sha256(path.read_bytes()).hexdigest()
    assert found["size_bytes"] == path.stat().st_size
    assert found["integer_weights"] == {"tensors": 3, "bytes": WEIGHTS}
    assert not found["float_weights"]
    sizes = [row["bytes"] for row in found["tensors"]]
    assert sizes == sorted(sizes, reverse=True)
    assert 0 < sum(row["share"] for row in found["tensors"]) < 1
    total = sum(one["bytes"] for one in found["constant_dtypes"].values())
    assert total == sum(sizes)
    assert list(found["activation_dtypes"]) == [{"onnx": "uint8"}.get(kind, "int8")]


# What the kernel does to a process whose runtime takes more memory than there is.
KILLED = """
import os, signal, sys, threading, time
def watch():
    while "onnxruntime" not in sys.modules:
        time.sleep(0.001)
    os.kill(os.getpid(), signal.SIGKILL)
threading.Thread(target=watch, daemon=True).start()
"""


def test_a_file_whose_runtime_is_killed_for_memory_is_read_without_it(
    files: Files, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = inspect(files["onnx"])
    (tmp_path / "sitecustomize.py").write_text(KILLED)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    found = inspect(files["onnx"])
    assert found["tensors"] == whole["tensors"]
    assert found["executed"] is None
    assert "memory" in found["executed_error"]
    assert "executed_error" not in whole
    assert "more memory than there is" in shown(found)


@pytest.mark.parametrize(("kind", "runtime"), [("onnx", "onnxruntime"), ("tflite", "litert")])
def test_the_runtime_is_asked_too(files: Files, kind: str, runtime: str) -> None:
    found = inspect(files[kind])
    executed = found["executed"]
    assert executed["runtime"] == runtime
    assert executed["coverage"]["share"] == 1.0
    assert executed["coverage"]["total_macs"] == 8 * 3 * 9 * 64 + 8 * 8 * 9 * 64 + 5 * 8
    assert executed["operators"]
    assert found["metadata"]["classes"] == '["ü", "b"]'


def test_scales_are_those_of_the_graph(files: Files) -> None:
    """The same three weights in all three files, with the scales that calibration gave them."""
    _, graph = quantized(Residual)
    scales = [value for name, value in graph.named_buffers() if name.endswith("weight_scale")]
    expected = sorted((float(s.min()), float(s.max())) for s in scales)
    for kind in ("onnx", "tflite", "pt2"):
        weights = [row for row in inspect(files[kind])["tensors"] if row["role"] == "weight"]
        got = sorted((row["scale"]["min"], row["scale"]["max"]) for row in weights)
        assert np.allclose(got, expected, rtol=1e-6)
        assert {row["scale"]["count"] for row in weights} == {5, 8}
        assert all(row["zero_point"] == {"min": 0, "max": 0} for row in weights)


def test_both_runtimes_get_one_input_grid(files: Files) -> None:
    litert = inspect(files["tflite"])["inputs"][0]
    grids = [(row["scale"], row["zero_point"]) for row in inspect(files["onnx"])["activations"]]
    expected = (pytest.approx(litert["scale"]), litert["zero_point"] + 128)
    assert expected in grids
    assert litert["shape"] == [1, 8, 8, 3]


def test_the_arena_of_a_file_is_below_what_the_runtime_plans(files: Files) -> None:
    """LiteRT adds scratch space; and nobody needs more than all tensors at once."""
    found = inspect(files["tflite"])
    every = sum(row["bytes"] for row in found["activations"])
    assert 2 * 8 * 64 <= found["arena"]["bytes"] < every
    assert found["arena"]["bytes"] <= found["executed"]["arena_bytes"]


def test_top_limits_the_list_and_nothing_else(files: Files) -> None:
    whole, few = inspect(files["tflite"]), inspect(files["tflite"], top=2)
    assert few["tensors"] == whole["tensors"][:2]
    assert few["tensors_in_file"] == whole["tensors_in_file"] == len(whole["tensors"])
    assert few["constant_dtypes"] == whole["constant_dtypes"]


def test_a_float_file(files: Files) -> None:
    found = inspect(files["onnx_fp32"])
    assert found["integer_weights"]["tensors"] == 0
    assert [row["used_by"] for row in found["float_weights"]] == ["Conv second", "Conv first", "Gemm head"]
    assert found["executed"]["coverage"]["share"] == 0.0


def test_a_weight_that_was_left_in_float_is_named(files: Files, tmp_path: Path) -> None:
    model = onnx.load(files["onnx"])
    values = {tensor.name: tensor for tensor in model.graph.initializer}
    gemm = next(node for node in model.graph.node if node.op_type == "Gemm")
    dequantize = next(node for node in model.graph.node if gemm.input[1] in node.output)
    weight = numpy_helper.to_array(values[dequantize.input[0]]).astype(np.float32)
    model.graph.initializer.append(numpy_helper.from_array(weight, "left_over"))
    gemm.input[1] = "left_over"
    onnx.save(model, tmp_path / "mixed.onnx")
    found = inspect(tmp_path / "mixed.onnx")
    assert found["float_weights"] == [
        {"name": "left_over", "dtype": "float32", "bytes": 160, "used_by": "Gemm head"}
    ]
    assert found["integer_weights"]["tensors"] == 2
    assert 0 < found["executed"]["coverage"]["share"] < 1


def test_quantised_operators_carry_their_scales(tmp_path: Path) -> None:
    """The other spelling of int8 ONNX: QLinearConv, as ``quantize_static`` can write it."""
    scales = {"xs": 0.5, "ys": 0.25}
    constants = [numpy_helper.from_array(np.array(value, np.float32), name) for name, value in scales.items()]
    constants += [numpy_helper.from_array(np.array(128, np.uint8), name) for name in ("xz", "yz")]
    constants += [
        numpy_helper.from_array(np.ones((4, 3, 1, 1), np.int8), "w"),
        numpy_helper.from_array(np.array([0.1, 0.2, 0.3, 0.4], np.float32), "ws"),
        numpy_helper.from_array(np.zeros(4, np.int8), "wz"),
    ]
    node = helper.make_node("QLinearConv", ["x", "xs", "xz", "w", "ws", "wz", "ys", "yz"], ["y"])
    ports = [helper.make_tensor_value_info(name, TensorProto.UINT8, [1, None, 4, 4]) for name in ("x", "y")]
    graph = helper.make_graph([node], "g", ports[:1], ports[1:], constants)
    path = tmp_path / "qlinear.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10), path)
    found = onnx_file.read(path)
    assert found["inputs"][0]["scale"] == 0.5
    assert found["outputs"][0] | {"shape": []} == {
        "name": "y",
        "dtype": "uint8",
        "shape": [],
        "scale": 0.25,
        "zero_point": 128,
    }
    weight = next(row for row in found["tensors"] if row["name"] == "w")
    assert weight["scale"] == {"count": 4, "min": pytest.approx(0.1), "max": pytest.approx(0.4), "axis": 0}
    assert {row["role"] for row in found["tensors"]} == {"weight", "scale"}


# --- files that are refused ------------------------------------------------------------------------------


def unknown_op(path: Path) -> None:
    ports = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1]) for name in ("x", "y")]
    node = helper.make_node("Frobnicate", ["x"], ["y"], domain="made.up")
    graph = helper.make_graph([node], "g", ports[:1], ports[1:])
    opsets = [helper.make_opsetid("", 20), helper.make_opsetid("made.up", 1)]
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=10), path)


def test_what_the_runtime_refuses_is_told_in_its_own_words(tmp_path: Path) -> None:
    path = tmp_path / "custom.onnx"
    unknown_op(path)
    with pytest.raises(InputError) as caught:
        inspect(path)
    assert caught.value.what == "onnxruntime refuses the file"
    assert "Frobnicate" in caught.value.got
    assert "ONNXRuntimeError" in caught.value.got
    assert caught.value.where == str(path)


@pytest.mark.parametrize(
    ("name", "content", "error", "words"),
    [
        ("empty.onnx", b"", InputError, "empty"),
        ("empty.tflite", b"", InputError, "empty"),
        ("text.onnx", b"hello, world\n", InputError, "INVALID_PROTOBUF"),
        ("text.tflite", b"hello, world\n", InputError, "not a valid Flatbuffer"),
        ("zeros.onnx", bytes(100), InputError, "onnxruntime"),
        ("zeros.tflite", bytes(100), InputError, "litert"),
        ("magic.tflite", b"\xff\xff\xff\x7fTFL3" + bytes(40), InputError, "not a valid Flatbuffer"),
        ("nothing.onnx", b"\x08\x0a", InputError, "no graph"),
        ("zip.pt2", b"PK\x03\x04" + bytes(40), WeightsError, "can't read the int8 graph"),
        ("code.pt2", packed("code/data/aotinductor/model/x.wrapper.so"), WeightsError, "compiled code"),
        ("model.pth", b"\x80\x02", InputError, "weights alone"),
        ("notes.txt", b"hello", InputError, "expected:"),
    ],
)
def test_files_that_are_none(
    tmp_path: Path, name: str, content: bytes, error: type[EdgekitError], words: str
) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(error) as caught:
        inspect(path)
    assert words in str(caught.value)
    assert name in str(caught.value)


def test_content_counts_more_than_the_name(files: Files, tmp_path: Path) -> None:
    for kind, format in (("tflite", "litert"), ("onnx", "onnx")):
        renamed = tmp_path / f"{kind}.bin"
        renamed.write_bytes(files[kind].read_bytes())
        assert format_of(renamed) == format
    assert inspect(tmp_path / "tflite.bin")["executed"]["coverage"]["share"] == 1.0


def test_paths_that_lead_nowhere(files: Files) -> None:
    with pytest.raises(InputError, match="did you mean 'int8.tflite'") as caught:
        inspect(files["tflite"].with_name("int8.tflit"))
    assert caught.value.exit_code == 2
    with pytest.raises(InputError, match="a folder, not a file"):
        inspect(files["tflite"].parent)


def damaged(content: bytes, seed: int) -> bytes:
    """Truncated, or with a few bytes replaced."""
    chance = random.Random(seed)
    if seed % 4 == 3:
        return content[: chance.randrange(1, len(content))]
    changed = bytearray(content)
    for _ in range(chance.choice((1, 1, 2, 8))):
        changed[chance.randrange(len(changed))] = chance.choice((0, 128, 255, chance.randrange(256)))
    return bytes(changed)


@pytest.mark.parametrize("kind", ["onnx", "tflite"])
@settings(max_examples=20)
@given(seed=st.integers(0, 2**32))
def test_a_damaged_file_gives_a_result_or_an_error_of_ours(
    files: Files, tmp_path_factory: pytest.TempPathFactory, kind: str, seed: int
) -> None:
    path = tmp_path_factory.mktemp("damaged") / files[kind].name
    path.write_bytes(damaged(files[kind].read_bytes(), seed))
    try:
        found: dict[str, Any] = inspect(path)
    except EdgekitError as error:
        assert error.exit_code == 2
        assert path.name in str(error)
        assert error.got
    else:
        assert found["size_bytes"] == path.stat().st_size


@pytest.mark.parametrize("kind", ["onnx", "tflite"])
@settings(max_examples=60)
@given(seed=st.integers(0, 2**32))
def test_the_readers_end_on_damaged_files(
    files: Files, tmp_path_factory: pytest.TempPathFactory, kind: str, seed: int
) -> None:
    """Without the runtime in front of them: an exception or a result, never a hang or a giant allocation."""
    path = tmp_path_factory.mktemp("damaged") / files[kind].name
    path.write_bytes(damaged(files[kind].read_bytes(), seed))
    try:
        found = (onnx_file if kind == "onnx" else tflite_file).read(path)
    except Exception as error:
        assert not isinstance(error, MemoryError)
    else:
        json.dumps(found)
