"""A gate is as good as what it catches: faults are planted into right files."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip("litert_torch", reason="needs the extra litert")

from tests.parity.faults import FAULTS
from tests.parity.judging import judged, planted, right_file
from tests.parity.networks import DEPTHS

each_format = pytest.mark.parametrize("format", ["onnx", "litert"])
each_depth = pytest.mark.parametrize(
    "depth", [pytest.param(depth, marks=[pytest.mark.slow] * (depth == "deep")) for depth in DEPTHS]
)


@each_format
@each_depth
@pytest.mark.parametrize("kind", ["convolutional", "attending"])
def test_a_right_file_passes(kind: str, depth: str, format: str, tmp_path: Path) -> None:
    path = tmp_path / f"right.{format}"
    path.write_bytes(right_file(kind, depth, format))
    found = judged(path, kind, depth, format)
    assert not found.refused, found.said


@each_format
@each_depth
@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_is_refused_with_its_layer(name: str, depth: str, format: str, tmp_path: Path) -> None:
    layer, found = planted(name, depth, format, tmp_path)
    assert found.refused, f"{found.snr_db:.1f} dB"
    assert found.blamed == layer, found.said
