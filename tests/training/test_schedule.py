from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgekit.training.steps.schedule import lr_factor
from tests.training.nets import config


def rates(steps: int, **changes: Any) -> list[float]:
    settings = config(**changes)
    return [lr_factor(settings, step, steps) for step in range(settings.epochs * steps)]


def one_cycle(total: int) -> Any:
    """As one would write it down: two halves of a cosine between three points."""
    peak = round(0.3 * (total - 1))
    up = [1 - (1 - 1 / 25) * (1 + np.cos(np.pi * i / peak)) / 2 for i in range(peak)]
    left = max(total - 1 - peak, 1)
    return up + [1e-4 + (1 - 1e-4) * (1 + np.cos(np.pi * i / left)) / 2 for i in range(total - peak)]


@pytest.mark.parametrize(("epochs", "steps"), [(10, 10), (3, 7), (1, 4), (1, 2), (1, 1)])
def test_one_cycle(epochs: int, steps: int) -> None:
    found = rates(steps, epochs=epochs, schedule="one_cycle")
    assert found == pytest.approx(one_cycle(epochs * steps))
    assert max(found) == pytest.approx(1.0)


def test_constant_after_the_warm_up() -> None:
    assert rates(4, schedule="constant", epochs=2, warmup_epochs=0.75) == [0.25, 0.5, 0.75, 1, 1, 1, 1, 1]


@given(
    st.sampled_from(["cosine", "one_cycle", "constant"]),
    st.integers(1, 20),
    st.integers(1, 20),
    st.floats(0, 30),
)
def test_between_zero_and_one_up_and_then_never_up_again(
    schedule: str, epochs: int, steps: int, warmup: float
) -> None:
    found = rates(steps, schedule=schedule, epochs=epochs, warmup_epochs=warmup)
    assert all(0 < value <= 1 for value in found)
    top = int(np.argmax(found))
    assert all(a <= b + 1e-12 for a, b in itertools.pairwise(found[: top + 1]))
    assert all(a >= b - 1e-12 for a, b in itertools.pairwise(found[top:]))
