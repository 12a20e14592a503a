"""Tables of embeddings are bytes in both files, wherever their rows go."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from torch import Tensor, nn

from edgekit.formats import FORMATS
from edgekit.formats.exporting import export
from edgekit.graph.capture import capture
from edgekit.inspecting import inspect
from edgekit.int8.calibration import calibrate
from edgekit.runtimes.device import runtimes
from tests.spelling import backend_for

WORDS, WIDTH = 300, 16


class Texts(nn.Module):
    """Rows of a table and of positions meet in front of a norm, as in a transformer, or of a linear layer."""

    def __init__(self, *, norm: bool) -> None:
        super().__init__()
        self.words, self.places = nn.Embedding(WORDS, WIDTH), nn.Embedding(6, WIDTH)
        self.norm = nn.LayerNorm(WIDTH) if norm else nn.Identity()
        self.out = nn.Linear(WIDTH, 3)

    def forward(self, ids: Tensor) -> Tensor:
        rows = self.words(ids) + self.places(torch.arange(6))
        return self.out(self.norm(rows)).mean(1)


@pytest.mark.parametrize("norm", [True, False], ids=["norm", "linear"])
@pytest.mark.parametrize("format", ["onnx", "litert"])
def test_a_table_of_words_is_bytes_and_the_file_right(format: str, norm: bool, tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = Texts(norm=norm).eval()
    ids = torch.randint(0, WORDS, (32, 6))
    graph = calibrate(capture(model, ids[:1]), [ids])
    path = tmp_path / f"texts{FORMATS[format].suffix}"
    export(graph, ids[:1], path, format=format, precision="int8", metadata={})
    table = WORDS * WIDTH
    assert path.stat().st_size < 2.5 * table  # floats would be four bytes each
    if format == "litert":
        kinds = {one["type"]: one for one in _constants(path)}
        assert "float32" not in kinds or kinds["float32"]["elements"] < table
    backend = backend_for(path) if format == "onnx" else ""
    runtime = runtimes.find(FORMATS[format].runtime)(str(path), 1, backend)
    for row in ids[:8].split(1):
        runtime.bind(runtime.arrange(row.numpy()))
        runtime.invoke()
        with torch.no_grad():
            wanted = graph(row).numpy()
        np.testing.assert_allclose(runtime.output(), wanted, atol=0.02 * np.abs(wanted).max())


def _constants(path: Path) -> list[dict[str, object]]:
    """The largest constant of each type."""
    found: dict[str, dict[str, object]] = {}
    for one in inspect(path)["tensors"]:
        elements = int(np.prod(one["shape"]))
        kept = found.setdefault(one["dtype"], {"type": one["dtype"], "elements": 0})
        kept["elements"] = max(int(str(kept["elements"])), elements)
    return list(found.values())


def test_what_onnx_runtime_looks_up_is_integers(tmp_path: Path) -> None:
    torch.manual_seed(0)
    ids = torch.randint(0, WORDS, (32, 6))
    graph = calibrate(capture(Texts(norm=True).eval(), ids[:1]), [ids])
    export(graph, ids[:1], tmp_path / "x.onnx", format="onnx", precision="int8", metadata={})
    model = onnx.load(str(tmp_path / "x.onnx"))
    tables = [one for one in model.graph.initializer if list(one.dims) == [WORDS, WIDTH]]
    assert [one.data_type for one in tables] == [onnx.TensorProto.UINT8]
