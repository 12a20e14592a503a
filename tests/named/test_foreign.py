"""Files of others with several inputs: timed on made-up samples, on an .npz, or asked for what is missing."""

from __future__ import annotations

import subprocess
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from edgekit.errors import DataError, InputError
from edgekit.pipeline.benchmarking import bench


def file(folder: Path, tokens: int | str = 6) -> Path:
    """Sums of masked tokens and of features: names as no workload of ours has them."""
    ids = helper.make_tensor_value_info("ids:0", TensorProto.INT64, ["n", tokens])
    features = helper.make_tensor_value_info("features", TensorProto.FLOAT, ["n", 4])
    totals = helper.make_tensor_value_info("totals", TensorProto.FLOAT, ["n", 1])
    sums = helper.make_tensor_value_info("sums", TensorProto.FLOAT, ["n", 1])
    axis = helper.make_tensor("axis", TensorProto.INT64, [1], [1])
    nodes = [
        helper.make_node("Cast", ["ids:0"], ["cast"], to=TensorProto.FLOAT),
        helper.make_node("ReduceSum", ["cast", "axis"], ["totals"]),
        helper.make_node("ReduceSum", ["features", "axis"], ["sums"]),
    ]
    graph = helper.make_graph(nodes, "foreign", [ids, features], [totals, sums], [axis])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(model, str(folder / "foreign.onnx"))
    return folder / "foreign.onnx"


def test_made_up_samples_fit_every_input(tmp_path: Path) -> None:
    record, _ = bench([str(file(tmp_path))], min_seconds=0.01, min_runs=3, out=tmp_path / "r.json")
    assert not record.failures
    assert record.results[0].samples


def test_samples_of_a_file_have_an_array_for_each(tmp_path: Path) -> None:
    path = file(tmp_path, tokens="words")
    np.savez(
        tmp_path / "x.npz", **{"ids:0": np.ones((5, 9), np.int64), "features": np.zeros((5, 4), np.float32)}
    )
    record, _ = bench(
        [str(path)], inputs=tmp_path / "x.npz", min_seconds=0.01, min_runs=3, out=tmp_path / "r.json"
    )
    assert not record.failures
    found = record.results[0].accuracy
    assert found is not None
    assert found.samples == 5


def test_free_sizes_are_asked_for_with_a_command_that_makes_them(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="leaves sizes of its input free") as caught:
        bench([str(file(tmp_path, tokens="words"))], out=tmp_path / "r.json")
    assert "input 'ids:0': n × words" in caught.value.got
    command = caught.value.next.partition(": ")[2].partition(", then")[0]
    subprocess.run(command, shell=True, cwd=tmp_path, check=True)
    with np.load(tmp_path / "x.npz") as made:
        assert {name: made[name].shape for name in made.files} == {"ids:0": (1, 224), "features": (1, 4)}


@pytest.mark.parametrize(
    ("arrays", "text"),
    [
        ({"a": np.zeros((2, 3)), "b": np.zeros((3, 3))}, r"a \(2, 3\), b \(3, 3\)"),
        ({}, "an empty file"),
    ],
)
def test_arrays_that_differ_in_number_are_told(
    arrays: dict[str, np.ndarray], text: str, tmp_path: Path
) -> None:
    np.savez(tmp_path / "x.npz", **arrays)
    with pytest.raises(DataError, match=text):
        bench([str(file(tmp_path))], inputs=tmp_path / "x.npz", out=tmp_path / "r.json")
