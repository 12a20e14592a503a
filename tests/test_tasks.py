from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from edgekit.errors import DataError, WorkloadError
from edgekit.tasks import (
    Classification,
    Reconstruction,
    Regression,
    Segmentation,
    Task,
    TokenClassification,
)


def noise(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def labels(*shape: int, classes: int, seed: int = 0) -> torch.Tensor:
    return torch.randint(classes, shape, generator=torch.Generator().manual_seed(seed))


CASES = [
    pytest.param(Classification(5), noise(7, 5), labels(7, classes=5), id="classification"),
    pytest.param(TokenClassification(4), noise(3, 6, 4), labels(3, 6, classes=4), id="tokens"),
    pytest.param(Segmentation(3), noise(2, 3, 4, 5), labels(2, 4, 5, classes=3), id="segmentation"),
    pytest.param(Regression(), noise(8, 2), noise(8, 2, seed=1), id="regression"),
    pytest.param(Regression(), noise(8), noise(8, seed=1), id="regression-1d"),
    pytest.param(Reconstruction(), noise(3, 1, 4, 4), noise(3, 1, 4, 4, seed=1), id="reconstruction"),
]


@pytest.mark.parametrize(("task", "outputs", "targets"), CASES)
class TestEveryTask:
    def test_accepts_what_fits(self, task: Task, outputs: torch.Tensor, targets: torch.Tensor) -> None:
        task.check(outputs, targets)

    def test_loss_is_a_scalar_with_gradients(
        self, task: Task, outputs: torch.Tensor, targets: torch.Tensor
    ) -> None:
        outputs = outputs.clone().requires_grad_()
        task.loss(outputs, targets).backward()
        assert outputs.grad is not None
        assert outputs.grad.abs().sum() > 0

    def test_agrees_with_itself(self, task: Task, outputs: torch.Tensor, targets: torch.Tensor) -> None:
        assert task.agreement(outputs, outputs.clone()) == 1.0
        assert task.agreement(outputs, -outputs) < 1.0

    def test_score_of_the_right_answer_is_one(
        self, task: Task, outputs: torch.Tensor, targets: torch.Tensor
    ) -> None:
        classes = getattr(task, "num_classes", None)
        right = targets
        if classes is not None:
            right = torch.nn.functional.one_hot(targets, classes).float()
            if isinstance(task, Segmentation):
                right = right.permute(0, 3, 1, 2)
        assert task.score(right, targets) == 1.0
        assert task.score(outputs, targets) < 1.0

    def test_refuses_another_number_of_samples(
        self, task: Task, outputs: torch.Tensor, targets: torch.Tensor
    ) -> None:
        with pytest.raises(DataError, match="don't fit the task"):
            task.check(outputs[1:], targets)

    def test_logits_are_rows_or_none(self, task: Task, outputs: torch.Tensor, targets: torch.Tensor) -> None:
        rows = task.logits(outputs)
        if rows is None:
            assert isinstance(task, Regression | Reconstruction)
        else:
            assert rows.shape == (targets.numel(), task.num_classes)  # type: ignore[attr-defined]
            assert torch.equal(rows.argmax(1), task.answers(outputs).reshape(-1))  # type: ignore[attr-defined]

    def test_description_is_json(self, task: Task, outputs: torch.Tensor, targets: torch.Tensor) -> None:
        described = json.loads(json.dumps(task.describe()))
        assert described["kind"] == task.kind
        assert described["metric"] == task.metric


@pytest.mark.parametrize("bad", [-1, 10])
def test_labels_out_of_range_are_named(bad: int) -> None:
    with pytest.raises(DataError) as error:
        Classification(10).check_targets(torch.tensor([0, 3, bad]), where="train targets")
    assert "train targets: labels out of range" in str(error.value)
    assert str(bad) in error.value.got
    assert "0 to 9" in error.value.expected


def test_an_ignored_label_is_in_range_and_counts_nowhere() -> None:
    task = TokenClassification(3, ignore_label=-1)
    outputs, targets = noise(2, 4, 3), torch.tensor([[0, 1, -1, -1], [2, -1, -1, -1]])
    task.check(outputs, targets)
    counted = targets != -1
    expected = (outputs.argmax(-1)[counted] == targets[counted]).double().mean()
    assert task.score(outputs, targets) == float(expected)
    plain = torch.nn.functional.cross_entropy(outputs[counted], targets[counted])
    assert torch.allclose(task.loss(outputs, targets), plain)


def test_a_split_without_labels_that_count_is_refused() -> None:
    with pytest.raises(DataError, match="no labels"):
        Segmentation(3, ignore_label=255).check_targets(torch.full((1, 2, 2), 255))


@pytest.mark.parametrize(
    ("task", "targets"),
    [
        (Classification(3), torch.zeros(4)),
        (Classification(3), torch.zeros(4, 1, dtype=torch.int64)),
        (Segmentation(3), torch.zeros(4, dtype=torch.int64)),
        (Regression(), torch.zeros(4, dtype=torch.int64)),
    ],
)
def test_targets_of_another_task_are_refused(task: Task, targets: torch.Tensor) -> None:
    with pytest.raises(DataError, match="targets don't fit the task"):
        task.check_targets(targets)


@pytest.mark.parametrize("shape", [(4, 5), (4, 10, 1), (4,)])
def test_outputs_of_another_width_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(DataError) as error:
        Classification(10).check(torch.zeros(shape), torch.zeros(4, dtype=torch.int64))
    assert "(4, 10)" in error.value.expected


def test_one_class_is_no_classification() -> None:
    with pytest.raises(WorkloadError, match="two classes") as error:
        Classification(1)
    assert "num_classes=2" in error.value.next
    assert "s = self.model(x); return torch.cat([-s / 2, s / 2], 1)" in error.value.next


@given(st.integers(0, 1000))
def test_mean_iou_equals_the_definition(seed: int) -> None:
    outputs, targets = noise(2, 4, 3, 3, seed=seed), labels(2, 3, 3, classes=4, seed=seed + 1)
    answers, want = outputs.argmax(1).numpy(), targets.numpy()
    ious = []
    for c in range(4):
        union = np.logical_or(answers == c, want == c).sum()
        if union:
            ious.append(np.logical_and(answers == c, want == c).sum() / union)
    assert Segmentation(4).score(outputs, targets) == pytest.approx(np.mean(ious))


@given(st.integers(0, 1000))
def test_r2_equals_the_definition(seed: int) -> None:
    outputs, targets = noise(9, 2, seed=seed), noise(9, 2, seed=seed + 1)
    got, want = outputs.double().numpy(), targets.double().numpy()
    r2 = 1 - ((got - want) ** 2).sum(0) / ((want - want.mean(0)) ** 2).sum(0)
    assert Regression().score(outputs, targets) == pytest.approx(r2.mean())
    whole = 1 - ((got - want) ** 2).sum() / ((want - want.mean()) ** 2).sum()
    assert Reconstruction().score(outputs, targets) == pytest.approx(whole)


def test_constant_targets_reward_only_the_exact_answer() -> None:
    constant = torch.full((4, 1), 2.0)
    assert Regression().score(constant, constant) == 1.0
    assert Regression().score(constant + 1, constant) == 0.0


def test_continuous_agreement_has_a_tolerance() -> None:
    reference = noise(50, 1)
    spread = float(reference.std(correction=0))
    assert Regression(tolerance=0.1).agreement(reference + 0.09 * spread, reference) == 1.0
    assert Regression(tolerance=0.1).agreement(reference + 0.11 * spread, reference) == 0.0


def test_label_smoothing_reaches_the_loss() -> None:
    outputs, targets = 9 * torch.eye(3), torch.arange(3)
    task = Classification(3)
    assert task.loss(outputs, targets, label_smoothing=0.1) > task.loss(outputs, targets)
