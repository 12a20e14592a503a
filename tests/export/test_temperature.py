from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from edgekit.errors import ExportError
from edgekit.formats import FORMATS
from edgekit.formats.exporting import export
from edgekit.formats.options import ExportOptions
from edgekit.formats.temperature import fold_temperature
from edgekit.graph.capture import capture
from tests.export.runtimes import nhwc, run_litert, run_onnx
from tests.networks import Residual, images, quantized, seeded


class Fully(nn.Module):
    """Ends with a convolution and a reshape: (N, 3, 8, 8) to (N, 5)."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.head = nn.Conv2d(3, 8, 3), nn.Conv2d(8, 5, 6, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(torch.relu(self.stem(x))).flatten(1)


class Soft(Residual):
    """Ends with a softmax."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(x).softmax(1)


class Twice(nn.Module):
    """The scores are read once more."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(3, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.head(x)
        return y + y.mean()


@pytest.mark.parametrize("temperature", [0.25, 3.7])
@pytest.mark.parametrize("build", [Residual, Fully])
def test_the_scores_of_the_float_graph_come_divided(build: type[nn.Module], temperature: float) -> None:
    graph = capture(seeded(build), images(2))
    before = graph(images(6))
    folded = fold_temperature(graph, temperature, "net")
    torch.testing.assert_close(folded(images(6)), before / temperature)
    torch.testing.assert_close(graph(images(6)), before, rtol=0, atol=0)  # the graph given is as it was


@pytest.mark.parametrize("temperature", [0.3, 2.0])
@pytest.mark.parametrize("build", [Residual, Fully])
def test_not_an_integer_changes_in_int8(build: type[nn.Module], temperature: float) -> None:
    _, graph = quantized(build)
    folded = fold_temperature(graph, temperature, "net")

    def scale(of: Any) -> float:
        (results,) = next(node for node in of.graph.nodes if node.op == "output").args
        last = results[0] if isinstance(results, tuple) else results
        while last.target is not torch.ops.quantized_decomposed.dequantize_per_tensor.default:
            last = last.args[0]
        return float(last.args[1])

    assert scale(folded) == pytest.approx(scale(graph) / temperature)
    before = torch.round(graph(images(16)) / scale(graph))
    after = torch.round(folded(images(16)) / scale(folded))
    assert torch.equal(before, after)


@pytest.mark.parametrize(("build", "what"), [(Soft, "softmax"), (Twice, "add")])
def test_a_model_that_ends_otherwise_is_refused(build: type[nn.Module], what: str) -> None:
    example = torch.randn(2, 3) if build is Twice else images(2)
    graph = capture(seeded(build), example)
    with pytest.raises(ExportError, match=rf"comes from '{what}") as caught:
        fold_temperature(graph, 2.0, "net.onnx")
    assert "divide the scores" in caught.value.next


@pytest.mark.parametrize("precision", ["fp32", "int8"])
@pytest.mark.parametrize("format", ["onnx", "litert"])
def test_a_file_gives_divided_scores(tmp_path: Path, format: Any, precision: Any) -> None:
    model, graph = quantized(Residual)
    answers = []
    for temperature in (1.0, 2.5):
        options = ExportOptions(temperature=temperature)
        path = tmp_path / f"{temperature}.file"
        source = graph if precision == "int8" else model
        export(source, images(1), path, format=format, precision=precision, metadata={}, options=options)
        answers.append(run_onnx(path, images(8)) if format == "onnx" else run_litert(path, nhwc(images(8))))
    torch.testing.assert_close(answers[1], answers[0] / 2.5, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("temperature", [0.0, -1.0, float("nan"), float("inf")])
def test_a_temperature_is_above_zero(tmp_path: Path, temperature: float) -> None:
    options = ExportOptions(temperature=temperature)
    with pytest.raises(ExportError, match="a number above 0"):
        export(
            seeded(Residual),
            images(1),
            tmp_path / "net.onnx",
            format="onnx",
            precision="fp32",
            metadata={},
            options=options,
        )


def test_it_stands_in_the_name() -> None:
    assert FORMATS["onnx"].tags(ExportOptions(temperature=0.5), "fp32") == "_t0.5"
    assert FORMATS["onnx"].tags(ExportOptions(), "fp32") == ""
