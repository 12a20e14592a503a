from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from edgekit.training.distillation import averaged, continuous_loss


def numbers(seed: int, *shape: int) -> Tensor:
    return torch.randn(*(shape or (6, 3)), generator=torch.Generator().manual_seed(seed))


@given(seed=st.integers(0, 1000), margin=st.floats(0, 2))
def test_bounded_equals_the_reference(seed: int, margin: float) -> None:
    outputs, taught, targets = numbers(seed), numbers(seed + 1), numbers(seed + 2)
    total = 0.0
    for s, t, y in zip(outputs.numpy(), taught.numpy(), targets.numpy(), strict=True):
        own, bound = np.mean((s - y) ** 2), np.mean((t - y) ** 2)
        total += own if own + margin > bound else 0.0
    loss = continuous_loss(outputs, taught, kind="bounded", targets=targets, margin=margin)
    assert float(loss) == pytest.approx(total / len(outputs), rel=1e-4, abs=1e-6)


def test_mse_is_that_to_the_teacher() -> None:
    outputs, taught = numbers(0), numbers(1)
    expected = np.mean((outputs.numpy() - taught.numpy()) ** 2)
    assert float(continuous_loss(outputs, taught, kind="mse")) == pytest.approx(float(expected))


def test_a_student_better_than_its_teacher_is_left_alone() -> None:
    targets, taught = torch.zeros(2, 1), torch.tensor([[1.0], [1.0]])
    outputs = torch.tensor([[0.5], [2.0]], requires_grad=True)
    continuous_loss(outputs, taught, kind="bounded", targets=targets).backward()
    assert outputs.grad is not None
    assert outputs.grad.tolist() == [[0.0], [2.0]]


def test_nonsense_is_refused() -> None:
    with pytest.raises(ValueError, match="outputs"):
        continuous_loss(numbers(0, 4), numbers(1, 4, 1), kind="mse")
    with pytest.raises(ValueError, match="targets"):
        continuous_loss(numbers(0), numbers(1), kind="bounded")


class TestAveraged:
    @pytest.mark.parametrize(("shape", "dim"), [((5, 4), 1), ((2, 4, 3, 3), 1), ((2, 3, 4), -1)])
    def test_probabilities_are_averaged(self, shape: tuple[int, ...], dim: int) -> None:
        answers = [3 * numbers(seed, *shape) for seed in range(3)]
        mean = sum(np.exp(a.numpy()) / np.exp(a.numpy()).sum(dim, keepdims=True) for a in answers) / 3
        together = averaged(answers, dim)
        assert together.shape == shape
        assert np.allclose(torch.softmax(together, dim).numpy(), mean, atol=1e-6)

    def test_the_order_of_the_teachers_does_not_matter(self) -> None:
        one, other = numbers(0), numbers(1)
        assert torch.allclose(averaged([one, other], 1), averaged([other, one], 1))

    def test_a_scale_gives_no_teacher_more_than_its_share(self) -> None:
        sure, unsure = torch.tensor([[1000.0, 0.0]]), torch.tensor([[0.0, 1.0]])
        share = torch.softmax(averaged([sure, unsure], 1), 1)[0, 0]
        assert float(share) == pytest.approx((1 + 1 / (1 + np.e)) / 2)

    def test_numbers_are_averaged(self) -> None:
        one, other = numbers(0), numbers(1)
        assert torch.allclose(averaged([one, other], None), (one + other) / 2)

    def test_a_single_teacher_is_not_touched(self) -> None:
        one = numbers(0)
        assert averaged([one], 1) is one
