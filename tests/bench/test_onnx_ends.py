"""ONNX files whose weights lie beside them, and whose input sizes are free."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from edgekit.devices.device import Device
from edgekit.errors import InputError
from edgekit.formats.onnx.ends import companions, refuse_free, size_of
from edgekit.formats.onnx.reading import read
from edgekit.pipeline.benchmarking import bench


def write(path: Path, *sizes: int | str, beside: bool = False) -> Path:
    """Average of all that is behind the channels, times a matrix (3, 400)."""
    weight = numpy_helper.from_array(np.ones((3, 400), np.float32), "weight")
    nodes = [
        helper.make_node("GlobalAveragePool", ["x"], ["mean"]),
        helper.make_node("Flatten", ["mean"], ["flat"]),
        helper.make_node("MatMul", ["flat", "weight"], ["y"]),
    ]
    ends = [
        helper.make_tensor_value_info("x", TensorProto.FLOAT, sizes),
        helper.make_tensor_value_info("y", TensorProto.FLOAT, [sizes[0], 400]),
    ]
    graph = helper.make_graph(nodes, "g", ends[:1], ends[1:], [weight])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(model, str(path), save_as_external_data=beside, location=f"{path.name}.data", size_threshold=0)
    return path


def test_weights_beside_the_file_are_part_of_its_size(tmp_path: Path) -> None:
    whole, parted = (
        write(tmp_path / "a.onnx", "n", 3, 4, 4),
        write(tmp_path / "b.onnx", "n", 3, 4, 4, beside=True),
    )
    assert companions(whole) == ()
    assert companions(parted) == (tmp_path / "b.onnx.data",)
    assert size_of(whole) == whole.stat().st_size
    assert size_of(parted) == parted.stat().st_size + 4 * 3 * 400
    for path in (whole, parted):
        assert sum(row["share"] for row in read(path)["tensors"]) <= 1


def test_weights_elsewhere_are_refused_and_damaged_files_have_none(tmp_path: Path) -> None:
    inside = tmp_path / "inside"
    inside.mkdir()
    parted = write(inside / "b.onnx", "n", 3, 4, 4, beside=True)
    model = onnx.load(str(parted), load_external_data=False)
    (tmp_path / "secret").write_bytes(b"x" * 1000)
    model.graph.initializer[0].external_data[0].value = "../secret"
    parted.write_bytes(model.SerializeToString())
    with pytest.raises(InputError, match="where none belong"):
        companions(parted)
    parted.write_bytes(b"\xff" * 100)
    assert companions(parted) == ()
    assert size_of(parted) == 100


@pytest.mark.parametrize("sizes", [("n", 3, "h", "w"), (1, 3, "h", 8)])
def test_free_sizes_are_asked_for(tmp_path: Path, sizes: tuple[int | str, ...]) -> None:
    path = write(tmp_path / "a.onnx", *sizes)
    with pytest.raises(InputError, match="sizes of its input free") as caught:
        bench([path], min_seconds=0.01, min_runs=1, out=tmp_path / "out.json")
    assert f"× {sizes[2]} ×" in caught.value.got
    assert not (tmp_path / "out.json").exists()
    np.save(tmp_path / "x.npy", np.ones((1, 3, 8, 8), np.float32))
    record, _ = bench(
        [path], inputs=tmp_path / "x.npy", min_seconds=0.01, min_runs=1, out=tmp_path / "out.json"
    )
    assert record.results


def test_a_free_batch_is_no_question(tmp_path: Path) -> None:
    refuse_free(write(tmp_path / "a.onnx", "n", 3, 8, 8))


def test_a_device_is_not_given_half_a_model(tmp_path: Path) -> None:
    path = write(tmp_path / "b.onnx", "n", 3, 4, 4, beside=True)
    far = Device(name="far", transport="ssh", address="nowhere.invalid", runtimes=("onnxruntime",))
    with pytest.raises(InputError, match="can't be taken to a device") as caught:
        bench([path], far)
    assert "b.onnx.data" in caught.value.got
