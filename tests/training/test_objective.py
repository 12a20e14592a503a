"""How the task's loss and the teacher's are put together, for every kind of task."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from edgekit.stages.base import DistillationConfig, TrainingConfig
from edgekit.tasks import Classification, Regression, Segmentation, Task, TokenClassification
from edgekit.training.data.batches import Batch
from edgekit.training.data.mixing import Mixed
from edgekit.training.distillation import continuous_loss, distillation_loss
from edgekit.training.steps.objective import Objective

NOTHING = nn.Identity()


def numbers(seed: int, *shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def labels(seed: int, *shape: int) -> Tensor:
    return torch.randint(4, shape, generator=torch.Generator().manual_seed(seed))


def batch(targets: Tensor, mixed: Mixed | None = None) -> Batch:
    return Batch(torch.arange(len(targets)), torch.zeros(len(targets), 1), targets, mixed)


def settings(**told: Any) -> TrainingConfig:
    return TrainingConfig(distillation=DistillationConfig(**{"weight": 0.75, **told}))


SHAPES = [
    (Classification(4), (6, 4), (6,), 1),
    (TokenClassification(4), (3, 5, 4), (3, 5), 2),
    (Segmentation(4), (2, 4, 3, 3), (2, 3, 3), 1),
]
KINDS = ["standardized", "classical", "dkd", "dist"]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("task", "shape", "target_shape", "dim"), SHAPES, ids=lambda x: str(x)[:12])
def test_rows_are_samples_tokens_and_pixels(
    task: Task, shape: tuple[int, ...], target_shape: tuple[int, ...], dim: int, kind: Any
) -> None:
    student, teacher, targets = numbers(0, *shape), numbers(1, *shape), labels(2, *target_shape)
    found = Objective(task, settings(loss=kind))(NOTHING, student, batch(targets), teacher)
    rows = [side.movedim(dim, -1).reshape(-1, 4) for side in (student, teacher)]
    told = distillation_loss(*rows, kind=kind, temperature=2.0, targets=targets.reshape(-1))
    assert found.item() == pytest.approx(0.25 * task.loss(student, targets).item() + 0.75 * told.item())


@pytest.mark.parametrize("kind", KINDS)
def test_padding_and_void_take_no_part(kind: Any) -> None:
    task = TokenClassification(4, ignore_label=9)
    student, teacher, targets = numbers(0, 3, 5, 4), numbers(1, 3, 5, 4), labels(2, 3, 5)
    targets[:, 3:] = 9
    objective = Objective(task, settings(loss=kind))
    found = objective(NOTHING, student, batch(targets), teacher)
    other = teacher.clone()
    other[:, 3:] = 100 * numbers(5, 3, 2, 4)
    assert torch.equal(found, objective(NOTHING, student, batch(targets), other))
    short = Objective(TokenClassification(4), settings(loss=kind))
    cut = short(NOTHING, student[:, :3], batch(targets[:, :3]), teacher[:, :3])
    assert found.item() == pytest.approx(cut.item(), rel=1e-5)


def test_a_batch_of_padding_alone_has_no_loss() -> None:
    task = TokenClassification(4, ignore_label=9)
    student = numbers(0, 3, 5, 4).requires_grad_()
    objective = Objective(task, settings())
    loss = objective(NOTHING, student, batch(torch.full((3, 5), 9)), numbers(1, 3, 5, 4))
    loss.backward()
    assert loss.item() == 0
    assert student.grad is not None
    assert not student.grad.any()


@pytest.mark.parametrize("kind", ["mse", "bounded"])
def test_numbers(kind: Any) -> None:
    student, teacher, targets = numbers(0, 6, 2), numbers(1, 6, 2), numbers(2, 6, 2)
    objective = Objective(Regression(), settings(continuous=kind, margin=0.5))
    found = objective(NOTHING, student, batch(targets), teacher)
    told = continuous_loss(student, teacher, kind=kind, targets=targets, margin=0.5)
    own = (student - targets).square().mean()
    assert found.item() == pytest.approx(0.25 * own.item() + 0.75 * told.item())


def test_a_mixed_batch_is_bounded_by_both_targets() -> None:
    student, teacher, one, other = (numbers(seed, 6, 2) for seed in range(4))
    mixed = Mixed(torch.zeros(6, 1), one, other, 0.75)
    found = Objective(Regression(), settings(continuous="bounded", weight=1.0))(
        NOTHING, student, batch(one, mixed), teacher
    )
    parts = [continuous_loss(student, teacher, kind="bounded", targets=t).item() for t in (one, other)]
    assert found.item() == pytest.approx(0.75 * parts[0] + 0.25 * parts[1])


def test_weights_of_the_losses_reach_them() -> None:
    student, teacher, targets = numbers(0, 6, 4), numbers(1, 6, 4), labels(2, 6)
    for kind, changes in (
        ("dkd", {"dkd_alpha": 3.0}),
        ("dkd", {"dkd_beta": 3.0}),
        ("dist", {"dist_inter": 3.0}),
        ("dist", {"dist_intra": 3.0}),
    ):
        values = [
            Objective(Classification(4), settings(loss=kind, **told))(
                NOTHING, student, batch(targets), teacher
            ).item()
            for told in ({}, changes)
        ]
        assert values[0] != pytest.approx(values[1])


def test_without_labels_the_teachers_loss_is_all_there_is() -> None:
    student, teacher, targets = numbers(0, 6, 4), numbers(1, 6, 4), labels(2, 6)
    objective = Objective(Classification(4, ignore_label=0), settings(weight=0.1), labelled=False)
    found = objective(NOTHING, student, batch(targets), teacher)
    told = distillation_loss(student, teacher, kind="standardized", temperature=2.0)
    assert found.item() == pytest.approx(told.item())
