from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from edgekit.errors import StageError
from edgekit.progress import Event
from edgekit.tasks import Classification, Regression
from edgekit.training import loop
from edgekit.training.divergence import Diverged, Watch, chance_loss, without_numbers
from tests.training.nets import (
    KillAfter,
    Killed,
    Normed,
    config,
    fit,
    identical,
    points,
    seeded,
    without_times,
    workload,
)


class TestWatch:
    @pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
    def test_a_loss_that_is_no_number(self, value: float) -> None:
        watch = Watch(1.0)
        with pytest.raises(Diverged, match=str(value)):
            watch.loss(value)

    @given(st.lists(st.floats(0, 1e6), max_size=30), st.floats(0.01, 100))
    def test_explodes_exactly_after_five_high_steps_in_a_row(
        self, losses: list[float], chance: float
    ) -> None:
        watch, run, told = Watch(chance), 0, False
        for value in losses:
            run = run + 1 if value > 10 * max(losses[0], chance) else 0
            try:
                watch.loss(value)
            except Diverged:
                told = True
                break
            assert run < 5
        assert told == (run >= 5)

    def test_what_is_counted_ends_with_the_epoch(self) -> None:
        watch = Watch(1.0)
        for value in (1.0, 50, 50, 50, 50):
            watch.loss(value)
        watch.start()
        watch.loss(50)

    def test_weights(self) -> None:
        watch = Watch(1.0)
        watch.weights([torch.zeros(3), torch.ones(2)])
        for bad in (math.nan, math.inf):
            with pytest.raises(Diverged, match="weights"):
                watch.weights([torch.zeros(3), torch.tensor([0.0, bad])])

    def test_chance(self) -> None:
        assert chance_loss(Classification(10), torch.zeros(4), _nobody) == pytest.approx(math.log(10))
        targets = torch.tensor([[1.0], [3.0]])
        assert chance_loss(Regression(), targets, _nobody) == pytest.approx(1.0)


def _nobody() -> Any:
    raise AssertionError("a model is asked only where the targets don't tell")


class Breaking(Normed):
    """Gives NaN in its ``at``-th training steps, counted over the life of the process."""

    steps = 0
    at: tuple[int, ...] = ()

    def forward(self, x: Tensor) -> Tensor:
        outputs = super().forward(x)
        if self.training and torch.is_grad_enabled():
            type(self).steps += 1
            if type(self).steps in type(self).at:
                return outputs * math.nan
        return outputs


@pytest.fixture
def breaking(monkeypatch: pytest.MonkeyPatch) -> type[Breaking]:
    monkeypatch.setattr(Breaking, "steps", 0)
    monkeypatch.setattr(Breaking, "at", ())
    return Breaking


class HighRates(Normed):
    """Gives NaN whenever the third epoch is trained at the full rate: the same before and after a kill."""

    lr = 0.0

    def forward(self, x: Tensor) -> Tensor:
        outputs = super().forward(x)
        return outputs * math.nan if self.training and type(self).lr > 0.04 else outputs


@pytest.fixture
def high_rates(monkeypatch: pytest.MonkeyPatch) -> type[HighRates]:
    """With the schedule of ``SECOND_HIGH`` the third epoch is the first with a rate above 0.04."""
    factors = (0.5, 0.7, 1.0, 0.6)
    monkeypatch.setattr(loop, "lr_factor", lambda config, step, steps: factors[step // steps])
    step = loop._Training._step

    def noting(self: Any, batch: Any) -> Any:
        HighRates.lr = self.optimizer.param_groups[0]["lr"]
        return step(self, batch)

    monkeypatch.setattr(loop._Training, "_step", noting)
    return HighRates


STEPS = 6  # an epoch


def test_goes_back_to_the_last_good_epoch_with_half_the_rate(
    breaking: type[Breaking], tmp_path: Path
) -> None:
    breaking.at = (2 * STEPS + 3,)
    events: list[Event] = []
    model = seeded(breaking)
    history = fit(model, tmp_path / "a", progress=events.append)
    assert [entry["epoch"] for entry in history.epochs] == [1, 2, 3, 4]
    assert breaking.steps == 4 * STEPS + 3  # two whole epochs, three lost steps, the third and the fourth
    (fault,) = history.facts["roll_backs"]
    assert fault == {"epoch": 3, "back_to": 2, "seen": "the loss is nan", "lr": 0.025}
    (warning,) = [event for event in events if event.kind == "warning"]
    assert "diverged in epoch 3 (the loss is nan): back to the end of epoch 2" in warning.message
    assert warning.message in history.note
    assert history.details()["training"]["roll_backs"] == [fault]
    assert [entry["roll_backs"] for entry in history.epochs] == [0, 0, 1, 1]
    undisturbed = fit(seeded(Normed), tmp_path / "b")
    lrs = [(a["lr"], b["lr"]) for a, b in zip(history.epochs, undisturbed.epochs, strict=True)]
    assert lrs[:2] == [(b, b) for _, b in lrs[:2]]
    assert [a for a, _ in lrs[2:]] == pytest.approx([b / 2 for _, b in lrs[2:]])


def test_what_the_lost_steps_did_is_undone(breaking: type[Breaking], tmp_path: Path) -> None:
    """Diverging in the first step of an epoch, or after five more, is all the same afterwards."""
    models = []
    for number, step in enumerate((2 * STEPS + 1, 2 * STEPS + 6)):
        breaking.steps, breaking.at = 0, (step,)
        models.append(seeded(breaking))
        fit(models[-1], tmp_path / str(number), config(ema_decay=0.9))
    assert identical(*models)


def test_in_the_first_epoch_it_begins_again(breaking: type[Breaking], tmp_path: Path) -> None:
    breaking.at = (4,)
    history = fit(seeded(breaking), tmp_path)
    assert history.facts["roll_backs"][0]["back_to"] == 0
    assert "back to the beginning" in history.note
    assert [entry["roll_backs"] for entry in history.epochs] == [1, 1, 1, 1]


def test_the_second_time_it_is_an_error(breaking: type[Breaking], tmp_path: Path) -> None:
    breaking.at = (2 * STEPS + 3, 3 * STEPS + 5)
    with pytest.raises(StageError, match="the training diverged twice") as error:
        fit(seeded(breaking), tmp_path, config(gradient_clip=None))
    assert "epoch 3 (the loss is nan)" in error.value.got
    assert "lower lr (last 0.025)" in error.value.next
    assert "gradient_clip" in error.value.next
    # The checkpoint is that of the last good epoch: the same command diverges again, it doesn't go on as
    # if nothing had been.
    breaking.steps, breaking.at = 0, (1,)
    with pytest.raises(StageError, match="diverged twice"):
        fit(seeded(breaking), tmp_path, config(gradient_clip=None))


def test_without_trouble_there_is_nothing_to_tell(tmp_path: Path) -> None:
    history = fit(seeded(), tmp_path)
    assert history.note == ""
    assert set(history.details()) == {"history"}


@pytest.mark.parametrize(
    ("number", "kind"), [(1, "epoch"), (2, "epoch"), (1, "warning"), (3, "epoch"), (4, "epoch")]
)
def test_killed_around_a_roll_back_and_continued_equals_undisturbed(
    number: int, kind: str, high_rates: type[HighRates], tmp_path: Path
) -> None:
    undisturbed, continued = seeded(high_rates), seeded(high_rates)
    expected = fit(undisturbed, tmp_path / "a")
    assert len(expected.facts["roll_backs"]) == 1
    with pytest.raises(Killed):
        fit(seeded(high_rates), tmp_path / "b", progress=KillAfter(number, kind))
    got = fit(continued, tmp_path / "b")
    assert identical(continued, undisturbed)
    assert without_times(got) == without_times(expected)
    assert got.facts == expected.facts
    assert got.note == expected.note


def test_right_after_a_resume(breaking: type[Breaking], tmp_path: Path) -> None:
    with pytest.raises(Killed):
        fit(seeded(breaking), tmp_path, progress=KillAfter(3))
    breaking.steps, breaking.at = 0, (2,)
    history = fit(seeded(breaking), tmp_path)
    assert history.facts["roll_backs"][0]["back_to"] == 2
    assert len(history.epochs) == 4


class Exploding(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(x)


def test_an_exploding_loss_is_seen_before_it_overflows(tmp_path: Path) -> None:
    settings = config(gradient_clip=None, warmup_epochs=0, batch_size=2, weight_decay=1).model_copy(
        update={"lr": 5.0}
    )
    torch.manual_seed(0)
    with pytest.raises(StageError, match="diverged twice") as error:
        fit(Exploding(), tmp_path, settings)
    assert "for 5 steps" in error.value.got


class Loudness(nn.Module):
    """Divides by the size of a sample: of a silent one 0 / 0."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(x / x.square().sum(1, keepdim=True).sqrt())


def test_answers_that_are_no_numbers_are_told_by_their_rows(tmp_path: Path) -> None:
    x, y = points(96, 0)
    x[[17, 40]] = 0
    made = workload(train=(x, y))
    with pytest.raises(StageError) as caught:
        fit(seeded(Loudness), tmp_path, config(), workload=made)
    assert "no numbers" in caught.value.what
    assert "2 samples, the first in row 17" in str(caught.value)
    assert without_numbers(seeded(Loudness), made, torch.arange(96)) == [17, 40]
