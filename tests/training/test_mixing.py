from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from edgekit.config.settings import DistillationConfig, TrainingConfig
from edgekit.errors import WorkloadError
from edgekit.tasks import Segmentation, TokenClassification
from edgekit.training.data.batches import Batch, Batches
from edgekit.training.data.mixing import Mixing, check_mixing
from edgekit.workload import Preprocessing, Workload
from tests.training.small import Killed, bars, config, identical, kill_in, run, small, workload

SEEDS = st.integers(0, 2**32)


def numbered(n: int = 6, size: int = 8) -> tuple[Tensor, Tensor]:
    """Every image is filled with its own number, which is its target as well."""
    numbers = torch.arange(n)
    return numbers.float().reshape(n, 1, 1, 1).expand(n, 2, size, size + 3).contiguous(), numbers


@given(SEEDS, st.floats(0.05, 5))
def test_mixup_is_a_weighted_mean_of_two_images_and_of_their_losses(seed: int, alpha: float) -> None:
    inputs, targets = numbered()
    mixed = Mixing(alpha, 0.0, spatial=False, seed=seed)(inputs, targets)
    assert 0.5 <= mixed.share <= 1
    expected = mixed.share * targets + (1 - mixed.share) * mixed.others
    assert torch.allclose(mixed.inputs.mean((1, 2, 3)), expected, atol=1e-5)
    assert mixed.inputs.std(dim=(1, 2, 3)).max() < 1e-5
    assert float(mixed.loss(lambda t: t.double().sum())) == pytest.approx(float(expected.sum()), rel=1e-6)
    assert torch.equal(inputs, numbered()[0])


@given(SEEDS, st.floats(0.05, 5))
def test_cutmix_puts_a_rectangle_of_the_other_image_in(seed: int, alpha: float) -> None:
    inputs, targets = numbered()
    mixed = Mixing(0.0, alpha, spatial=False, seed=seed)(inputs, targets)
    assert 0.5 <= mixed.share <= 1
    for image, own, other in zip(mixed.inputs, mixed.targets, mixed.others, strict=True):
        assert torch.equal(image[0], image[1])
        foreign = image[0] != own
        assert bool((image[0][foreign] == other).all())
        if own != other:
            assert float((~foreign).double().mean()) == pytest.approx(mixed.share)
            rows, columns = foreign.any(1), foreign.any(0)
            assert torch.equal(foreign, rows[:, None] & columns)


@given(SEEDS)
def test_cutmix_moves_masks_with_the_pixels(seed: int) -> None:
    inputs, _ = numbered()
    masks = inputs[:, 0].long()
    mixed = Mixing(0.0, 1.0, spatial=True, seed=seed)(inputs, masks)
    assert torch.equal(mixed.inputs[:, 0].long(), mixed.targets)
    assert mixed.share == 1
    assert torch.equal(masks, inputs[:, 0].long())


def test_both_share_the_batches() -> None:
    mixing, (inputs, targets) = Mixing(1.0, 1.0, spatial=False, seed=0), numbered(8)
    cut = [bool((mixing(inputs, targets).inputs % 1 == 0).all()) for _ in range(200)]
    assert 70 < sum(cut) < 130


def test_shares_follow_the_beta_distribution() -> None:
    mixing, (inputs, targets) = Mixing(0.4, 0.0, spatial=False, seed=0), numbered(2)
    shares = [mixing(inputs, targets).share for _ in range(4000)]
    drawn = np.random.default_rng(5).beta(0.4, 0.4, 100_000)
    assert np.mean(shares) == pytest.approx(np.maximum(drawn, 1 - drawn).mean(), abs=0.01)


def test_a_part_of_a_batch_is_the_same_samples() -> None:
    inputs, targets = numbered()
    mixed = Mixing(1.0, 0.0, spatial=False, seed=0)(inputs, targets)
    batch = Batch(torch.arange(6), mixed.inputs, mixed.targets, mixed)
    parts = [batch.part(0, 2), batch.part(2, 6)]
    for whole, name in ((batch.rows, "rows"), (batch.inputs, "inputs"), (batch.targets, "targets")):
        assert torch.equal(torch.cat([getattr(part, name) for part in parts]), whole)
    losses = [len(part) * part.task_loss(lambda t: t.double().mean()) for part in parts]
    assert float(sum(losses)) == pytest.approx(6 * float(batch.task_loss(lambda t: t.double().mean())))


def test_batches_are_mixed_by_seed_and_epoch() -> None:
    def first(epoch: int, seed: int = 0) -> Tensor:
        return next(Batches(workload(), 16, seed, "prune", config(mixup=0.4)).of_epoch(epoch)).inputs

    assert torch.equal(first(0), first(0))
    assert not torch.equal(first(0), first(1))
    assert not torch.equal(first(0), first(0, seed=1))


def test_off_means_off() -> None:
    plain = next(Batches(workload(), 16, 0, "prune").of_epoch(0))
    off = next(Batches(workload(), 16, 0, "prune", config()).of_epoch(0))
    assert off.mixed is None
    assert torch.equal(plain.inputs, off.inputs)


@pytest.mark.parametrize("changes", [{"mixup": 0.4}, {"cutmix": 1.0}, {"mixup": 0.4, "cutmix": 1.0}])
def test_a_mixed_training_continues_bit_equal(changes: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    undisturbed, continued = small(), small()
    run(undisturbed, tmp_path / "a", config(**changes))
    with pytest.raises(Killed):
        run(small(), tmp_path / "b", config(**changes), progress=kill_in(2, "epoch"))
    run(continued, tmp_path / "b", config(**changes))
    plain = small()
    (tmp_path / "c").mkdir()
    run(plain, tmp_path / "c", config())
    assert identical(continued, undisturbed)
    assert not identical(plain, undisturbed)


def test_the_teacher_answers_for_the_mixed_inputs(tmp_path: Path) -> None:
    seen: dict[str, list[Tensor]] = {"teacher": [], "student": []}

    class Listening(nn.Module):
        def __init__(self, name: str) -> None:
            super().__init__()
            self.name, self.linear = name, nn.Linear(64, 3)

        def forward(self, x: Tensor) -> Tensor:
            if len(x) == 16:
                seen[self.name].append(x.detach().clone())
            answers: Tensor = self.linear(x.flatten(1))
            return answers

    settings = config(epochs=2, mixup=1.0, distillation=DistillationConfig(weight=1.0))
    student = Listening("student")
    listening = workload(model=student)
    run(student, tmp_path, settings, teacher=Listening("teacher"), workload=listening)
    assert len(seen["teacher"]) == len(seen["student"]) == 8
    for asked, given_ in zip(seen["teacher"], seen["student"], strict=True):
        assert torch.equal(asked, given_)


def _tokens() -> Workload:
    ids = torch.zeros(8, 5, dtype=torch.long)
    return workload(
        task=TokenClassification(5),
        train=(ids, ids),
        validation=(ids, ids),
        preprocessing=Preprocessing(dtype="int64"),
        augmentation=None,
    )


def _vectors() -> Workload:
    data = torch.zeros(8, 5), torch.zeros(8, dtype=torch.long)
    return workload(train=data, validation=data, preprocessing=Preprocessing(), augmentation=None)


def _coarse_masks() -> Workload:
    data = bars(8, 0)[0], torch.zeros(8, 4, 4, dtype=torch.long)
    return workload(task=Segmentation(3), train=data, validation=data, augmentation=None)


@pytest.mark.parametrize(
    ("build", "changes", "got"),
    [
        (_tokens, {"mixup": 0.2}, "int64"),
        (_vectors, {"cutmix": 1.0}, "shape"),
        (_coarse_masks, {"cutmix": 1.0}, "targets"),
    ],
)
def test_what_cannot_be_mixed_is_refused(build: Any, changes: dict[str, Any], got: str) -> None:
    with pytest.raises(WorkloadError, match="can't be mixed") as error:
        check_mixing(TrainingConfig(**changes), build())
    assert got in error.value.got
    check_mixing(TrainingConfig(), build())


def test_a_recipe_that_cannot_be_followed_is_refused_before_any_work(tmp_path: Path) -> None:
    from edgekit import compress

    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(
        "name: mixed\nexports: {precisions: [fp32]}\nstages:\n  - {kind: prune, training: {cutmix: 1.0}}\n"
    )
    linear = _vectors()
    given_ = Workload("vectors", nn.Linear(5, 3), linear.task, linear.train, linear.validation)
    with pytest.raises(WorkloadError, match="can't be mixed"):
        compress(given_, recipe=str(recipe), out=tmp_path / "run")
    assert not (tmp_path / "run").exists()
