from __future__ import annotations

import pytest
import torch

from tests.models import CASES, each, inputs, samples, score, train, trained, training
from tests.models.tasks import Classes, PixelClasses


@pytest.mark.parametrize("name", each())
def test_runs_at_any_batch_size(name: str) -> None:
    case, model = CASES[name], trained(name)
    x = inputs(case, 3, seed=1)
    assert x.shape == (3, *case.shape)
    assert x.dtype == case.dtype
    with torch.no_grad():
        three, one = model(x), model(x[:1])
    assert not model.training
    assert torch.isfinite(three).all()
    torch.testing.assert_close(three[:1], one, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("name", each())
def test_has_learnt_its_task(name: str) -> None:
    case, (model, losses) = CASES[name], training(name)
    assert sum(losses[-3:]) < 0.7 * sum(losses[:3])
    x, target = samples(case, 128, seed=2)
    with torch.no_grad():
        reached = score(case, model(x), target)
    chance = 1 / case.target.count if isinstance(case.target, Classes | PixelClasses) else 0
    assert reached > chance + 0.5 * (1 - chance)


def test_leaves_the_global_random_state_alone() -> None:
    before = torch.get_rng_state()
    train("lstm")
    inputs(CASES["resnet8"], 2)
    assert torch.equal(torch.get_rng_state(), before)


def test_is_deterministic() -> None:
    (one, _), (two, _) = train("padding"), training("padding")
    for mine, other in zip(one.parameters(), two.parameters(), strict=True):
        assert torch.equal(mine, other)
    case = CASES["padding"]
    assert torch.equal(inputs(case, 2, seed=3), inputs(case, 2, seed=3))
    assert not torch.equal(inputs(case, 2, seed=3), inputs(case, 2, seed=4))
