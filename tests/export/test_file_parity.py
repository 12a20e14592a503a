"""Which tensor of a file is which of the graph's, and what is said of a file that can't be opened."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from edgekit.errors import ExportError
from edgekit.formats.exporting import export
from edgekit.formats.options import ExportOptions, Target
from edgekit.formats.parity import file_parity as module
from edgekit.formats.parity.file_parity import file_parity
from edgekit.formats.parity.layers import LayerParity, first_wrong
from edgekit.graph.probes import quantized_tensors
from edgekit.workload.preprocessing import Preprocessing
from tests.networks import IMAGE_NETWORKS, Concatenated, Mobile, Residual, images, quantized
from tests.parity.onnx_file import OnnxFile
from tests.spelling import spelled


def written(network: type[nn.Module], path: Path, format: str = "onnx", target: Target | None = None) -> Path:
    options = ExportOptions(target=target or Target())
    graph = quantized(network)[1]
    export(graph, images(1), path, format=format, precision="int8", metadata={}, options=options)
    return path


@pytest.mark.parametrize("format", ["onnx", "litert"])
@pytest.mark.parametrize("network", IMAGE_NETWORKS)
def test_every_layer_of_a_right_file_is_right(network: type[nn.Module], format: str, tmp_path: Path) -> None:
    if format == "litert":
        pytest.importorskip("litert_torch", reason="needs the extra litert")
    graph = quantized(network)[1]
    layers = file_parity(
        graph, written(network, tmp_path / "file", format), format, images(3), fused=not spelled()
    )
    assert first_wrong(layers) is None
    names = {layer.layer for layer in layers}
    assert "output" in names
    weighted = {
        name for name in quantized_tensors(graph) if any(f"{name}.weight" == key for key in keys(graph))
    }
    assert weighted <= names


def keys(graph: nn.Module) -> list[str]:
    return [name for name, _ in graph.named_parameters()]


@pytest.mark.parametrize("target", [Target("uint8", 7), Target("int8", 8)], ids=["7bit", "arm"])
def test_files_for_other_cpus_are_compared_as_they_are_spelled(target: Target, tmp_path: Path) -> None:
    path = written(Residual, tmp_path / "file", target=target)
    options = ExportOptions(target=target)
    layers = file_parity(quantized(Residual)[1], path, "onnx", images(3), options=options, fused=False)
    assert first_wrong(layers) is None
    assert max(layer.moved for layer in layers) < 0.01


PER_CHANNEL = Preprocessing(layout="NHWC", scale=1 / 42, mean=(2.9, 3.0, 3.2), std=(1.0, 0.9, 1.1))
ONE_GRID = Preprocessing(layout="NHWC", scale=1 / 64, mean=(2.0,), std=(2 / 3,))


@pytest.mark.parametrize("format", ["onnx", "litert"])
@pytest.mark.parametrize(
    "options",
    [
        ExportOptions(preprocessing=PER_CHANNEL),
        ExportOptions(preprocessing=ONE_GRID),
        ExportOptions(temperature=1.7),
        ExportOptions(preprocessing=ONE_GRID, temperature=0.6),
    ],
    ids=["preprocessing", "pixels", "temperature", "both"],
)
def test_files_with_preprocessing_or_a_temperature_inside_are_looked_into(
    options: ExportOptions, format: str, tmp_path: Path
) -> None:
    if format == "litert":
        pytest.importorskip("litert_torch", reason="needs the extra litert")
    graph, path = quantized(Residual)[1], tmp_path / "file"
    export(graph, images(1), path, format=format, precision="int8", metadata={}, options=options)
    raw = torch.randint(0, 256, (3, 8, 8, 3), generator=torch.Generator().manual_seed(7), dtype=torch.uint8)
    embedded = options.preprocessing
    samples = images(3) if embedded is None else embedded(raw)
    pixels = None if embedded is None else raw

    def compared() -> list[LayerParity]:
        return file_parity(graph, path, format, samples, options=options, pixels=pixels, fused=not spelled())

    assert first_wrong(compared()) is None
    assert {"first", "output"} <= {layer.layer for layer in compared()}
    if format == "onnx":
        file = OnnxFile(path)
        file.change(file.weight("first"), 0, np.negative)
        file.save()
        wrong = first_wrong(compared())
        assert wrong is not None
        assert wrong.layer == "first"


def test_a_layer_that_reads_on_another_grid_than_was_written_is_the_wrong_one(tmp_path: Path) -> None:
    file = OnnxFile(written(Mobile, tmp_path / "file"))
    reading = file.maker(file.layer("body.3").input[0])
    file.change(reading, 2, lambda zero: zero + zero.dtype.type(3))
    file.save()
    wrong = first_wrong(file_parity(quantized(Mobile)[1], file.path, "onnx", images(3), fused=not spelled()))
    assert wrong is not None
    assert wrong.layer == "body.3"


def test_layers_behind_a_wrong_one_are_right_by_themselves(tmp_path: Path) -> None:
    file = OnnxFile(written(Concatenated, tmp_path / "file"))
    file.change(file.weight("large"), 0, np.negative)
    file.save()
    layers = file_parity(quantized(Concatenated)[1], file.path, "onnx", images(3), fused=not spelled())
    assert [layer.layer for layer in layers if layer.why] == ["large"]


def test_samples_are_compared_as_far_as_memory_goes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only the second sample is loud enough to be cut."""
    graph, samples = quantized(Residual)[1], images(2) * torch.tensor([0.1, 1.0]).reshape(2, 1, 1, 1)
    file = OnnxFile(written(Residual, tmp_path / "file"))
    file.insert("Min", file.layer("first"), np.array(60 * file.step("first"), np.float32))
    file.save()
    assert first_wrong(file_parity(graph, file.path, "onnx", samples, fused=not spelled())) is not None
    monkeypatch.setattr(module, "_BYTES", 1)
    assert first_wrong(file_parity(graph, file.path, "onnx", samples, fused=not spelled())) is None


def test_a_file_that_the_runtime_refuses_is_told(tmp_path: Path) -> None:
    path = tmp_path / "broken.onnx"
    path.write_bytes(b"nothing")
    with pytest.raises(ExportError, match=r"broken\.onnx: the file's layers can't be looked at"):
        file_parity(quantized(Residual)[1], path, "onnx", images(1))
