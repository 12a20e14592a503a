from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from edgekit.training import loop
from edgekit.training.steps.averaging import Average
from tests.training.nets import KillAfter, Killed, Normed, config, fit, identical, seeded, without_times


@given(st.lists(st.floats(-100, 100, width=32), min_size=1, max_size=40), st.floats(0.01, 0.9999))
def test_is_the_formula(values: list[float], decay: float) -> None:
    model = torch.nn.Linear(1, 1, bias=False)
    torch.nn.init.zeros_(model.weight)
    average, expected = Average(model, decay), 0.0
    for t, value in enumerate(values, 1):
        torch.nn.init.constant_(model.weight, value)
        average.update()
        d = min(decay, (1 + t) / (10 + t))
        expected = d * expected + (1 - d) * value
    np.testing.assert_allclose(average.values["weight"].item(), expected, rtol=1e-4, atol=1e-3)


def test_what_does_not_move_stays_bit_equal_and_counters_are_copied() -> None:
    model = seeded(Normed)
    average = Average(model, 0.99)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    model.norm.num_batches_tracked += 7
    for _ in range(20):
        average.update()
    for key, value in before.items():
        if key == "norm.num_batches_tracked":
            assert int(average.values[key]) == int(value) + 7
        else:
            assert torch.equal(average.values[key], value)


def test_applied_for_a_while_only() -> None:
    model, other = seeded(Normed, 0), seeded(Normed, 1)
    average = Average(other, 0.5)
    average.model = model
    with average.applied():
        assert identical(model, other)
    assert identical(model, seeded(Normed, 0))


def test_a_training_ends_with_the_average_of_all_its_steps(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[dict[str, torch.Tensor]] = []
    step = loop._Training._step

    def noting(self: Any, batch: Any) -> Any:
        answer = step(self, batch)
        seen.append({key: value.clone() for key, value in self.model.state_dict().items()})
        return answer

    monkeypatch.setattr(loop._Training, "_step", noting)
    model = seeded(Normed)
    start = {key: value.double() for key, value in model.state_dict().items()}
    fit(model, tmp_path, config(ema_decay=0.8))
    for key, value in start.items():
        for t, state in enumerate(seen, 1):
            d = min(0.8, (1 + t) / (10 + t))
            value = d * value + (1 - d) * state[key].double()
        if state[key].is_floating_point():
            torch.testing.assert_close(model.state_dict()[key].double(), value, rtol=1e-4, atol=1e-5)
    assert not torch.equal(model.state_dict()["head.weight"], seen[-1]["head.weight"])


@pytest.mark.parametrize("number", [1, 3, 4])
def test_killed_and_continued(number: int, tmp_path: Path) -> None:
    settings = config(ema_decay=0.9)
    undisturbed, continued = seeded(Normed), seeded(Normed)
    expected = fit(undisturbed, tmp_path / "a", settings)
    with pytest.raises(Killed):
        fit(seeded(Normed), tmp_path / "b", settings, progress=KillAfter(number))
    assert without_times(fit(continued, tmp_path / "b", settings)) == without_times(expected)
    assert identical(continued, undisturbed)
    again = seeded(Normed)  # and once more after its end
    fit(again, tmp_path / "b", settings)
    assert identical(again, undisturbed)
