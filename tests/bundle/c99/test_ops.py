"""Every kind of op, drawn at random, gives the bits of LiteRT's reference kernel."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

pytest.importorskip("ai_edge_litert", reason="needs the extra litert")

from edgekit.bundle.c99 import SUPPORTED
from edgekit.formats.litert import tflite_edit
from tests.bundle.c99.running import Library, differing, needs_gcc
from tests.bundle.c99.strategies import DRAWS

AT_ONCE = 4  # files that are compiled together
EXAMPLES = settings.default.max_examples // 15  # many more in the profile "thorough"


def test_every_supported_kind_is_drawn(tmp_path: Path) -> None:
    drawn = set()
    for name, draw in DRAWS.items():
        for number in range(20):
            path = draw(np.random.default_rng(number), tmp_path / f"{name}{number}.tflite")
            drawn |= {*tflite_edit.kinds(tflite_edit.read(path.read_bytes()))}
    assert {*SUPPORTED} <= drawn


@needs_gcc
@pytest.mark.parametrize("kind", DRAWS)
@settings(max_examples=EXAMPLES, phases=[Phase.generate])  # a seed can't be made simpler
@given(seed=st.integers(0, 2**32 - 1))
def test_same_bits_as_the_reference_kernel(
    kind: str, seed: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp(kind)
    files = [
        DRAWS[kind](np.random.default_rng([seed, number]), folder / f"{number}.tflite")
        for number in range(AT_ONCE)
    ]
    assert differing(Library(folder, files), files) == {}
