"""What the graph reads from a grid the file doesn't read before it was rounded."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from edgekit.formats.exporting import export
from edgekit.formats.litert import finishing, tflite_edit
from edgekit.formats.litert.wiring import Wiring
from edgekit.graph.capture import capture
from edgekit.int8.calibration import calibrate
from tests.export.runtimes import nhwc, run_litert
from tests.networks import snr_db


class Mixer(nn.Module):
    """A norm that is pooled and subtracted in a float stream, as PoolFormer's token mixer does."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Conv2d(3, 16, 1), nn.Conv2d(16, 4, 1)
        self.norm, self.norm2 = nn.GroupNorm(1, 16), nn.GroupNorm(1, 16)
        self.pool = nn.AvgPool2d(3, 1, 1, count_include_pad=False)

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x)
        mixed = self.norm(x)
        return self.last(self.norm2(100 * x + self.pool(mixed) - mixed))


def beside_their_grid(path: Path) -> int:
    """How many floats are read both by a quantiser and by another op."""
    file = Wiring(tflite_edit.read(path.read_bytes()))
    sources = [int(one.inputs[0]) for one in file.graph.operators if file.kind(one) == "QUANTIZE"]
    return sum(len(file.readers[one]) > 1 for one in sources)


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Tensor, Callable[[str], Path]]:
    torch.manual_seed(0)
    x = torch.randn(32, 3, 9, 9)
    graph = calibrate(capture(Mixer().eval(), x[:1]), [x])
    folder = tmp_path_factory.mktemp("rounded")

    def write(name: str) -> Path:
        path = folder / f"{name}.tflite"
        export(graph, x[:1], path, format="litert", precision="int8", metadata={})
        return path

    return graph, x, write


def test_every_number_is_read_from_its_grid(written: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    graph, x, write = written
    path = write("mended")
    assert beside_their_grid(path) == 0
    assert snr_db(graph(x), run_litert(path, nhwc(x))) > 50
    # The converter leaves something to mend, or this asks nothing.
    monkeypatch.setattr(finishing.rounded, "read_rounded", lambda *_: 0)
    assert beside_their_grid(write("as_converted")) == 1
