from __future__ import annotations

import copy
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from edgekit.errors import StageError
from edgekit.progress import Event
from edgekit.stages.base import DistillationConfig, TrainingConfig
from edgekit.tasks import Regression, Segmentation, Task, TokenClassification
from edgekit.training import evaluate
from edgekit.workload import Preprocessing
from tests.training.small import Killed, Small, config, identical, kill_in, run, small, workload

NO_TEACHER = DistillationConfig(loss="none")


class TestTrain:
    def test_learns(self, tmp_path: Path) -> None:
        model, given = small(), workload()
        before = evaluate(model, given).score
        history = run(model, tmp_path, config(epochs=12, distillation=NO_TEACHER), teacher=None)
        assert len(history.epochs) == 12
        assert history.epochs[-1]["loss"] < history.epochs[0]["loss"]
        assert before < 0.6
        assert evaluate(model, given).score > 0.9
        assert not model.training

    @pytest.mark.parametrize("loss", ["standardized", "classical"])
    def test_a_student_learns_from_its_teacher_alone(self, loss: Any, tmp_path: Path) -> None:
        teacher, given = small(9), workload()
        run(teacher, tmp_path, config(epochs=12, distillation=NO_TEACHER), teacher=None)
        untouched = copy.deepcopy(teacher)
        student = small(1)
        told = DistillationConfig(loss=loss, weight=1.0)
        run(student, tmp_path, config(epochs=12, distillation=told), teacher=teacher, stage="distill")
        answers, taught = evaluate(student, given).outputs, evaluate(teacher, given).outputs
        assert given.task.agreement(answers, taught) > 0.85
        assert identical(teacher, untouched)

    def test_optimizers_and_gradient_clipping(self, tmp_path: Path) -> None:
        for changes in ({"optimizer": "adamw", "lr": 0.01}, {"momentum": 0.0}, {"gradient_clip": None}):
            history = run(small(), tmp_path, config(epochs=2, warmup_epochs=0, **changes))
            assert len(history.epochs) == 2

    def test_no_epochs_change_nothing(self, tmp_path: Path) -> None:
        model = small()
        assert run(model, tmp_path, config(epochs=0)).epochs == []
        assert identical(model, small())
        assert not (tmp_path / "checkpoint.pt").exists()

    def test_only_the_given_parameters_are_trained(self, tmp_path: Path) -> None:
        model, before = small(), small()
        run(model, tmp_path, config(epochs=1), parameters=model.linear.parameters())
        assert torch.equal(model.conv.weight, before.conv.weight)
        assert not torch.equal(model.linear.weight, before.linear.weight)

    def test_weights_come_back_in_the_usual_memory_order(self, tmp_path: Path) -> None:
        model = small()
        run(model, tmp_path, config(epochs=1))
        assert all(p.is_contiguous() for p in model.parameters())

    def test_the_callers_random_numbers_are_untouched(self, tmp_path: Path) -> None:
        model, given = small(), workload()
        state = torch.get_rng_state()
        run(model, tmp_path, config(epochs=1), teacher=model, workload=given)
        assert torch.equal(state, torch.get_rng_state())

    def test_seed_and_stage_decide(self, tmp_path: Path) -> None:
        results = []
        for number, (seed, stage) in enumerate([(0, "prune"), (0, "prune"), (1, "prune"), (0, "distill")]):
            folder = tmp_path / str(number)
            folder.mkdir()
            results.append(small())
            run(results[-1], folder, config(epochs=1), seed=seed, stage=stage)
        assert identical(results[0], results[1])
        assert not identical(results[0], results[2])
        assert not identical(results[0], results[3])

    def test_fewer_samples_than_a_batch(self, tmp_path: Path) -> None:
        history = run(small(), tmp_path, config(epochs=1, batch_size=500))
        assert len(history.epochs) == 1

    @pytest.mark.parametrize("lr", [1e10])
    def test_divergence_is_an_error_with_advice(self, lr: float, tmp_path: Path) -> None:
        class Exploding(Small):
            def forward(self, x: Tensor) -> Tensor:
                return super().forward(x) * self.linear.weight.square().sum()

        torch.manual_seed(0)
        settings = config(gradient_clip=None, warmup_epochs=0, distillation=NO_TEACHER).model_copy(
            update={"lr": lr}
        )
        with pytest.raises(StageError, match="the training diverged") as error:
            run(Exploding(), tmp_path, settings, teacher=None, autocast=False)
        assert "lower lr" in error.value.next
        assert "gradient_clip" in error.value.next


class TestEvents:
    def test_an_epoch_each_and_steps_in_between(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("edgekit.monitor.meter._SECONDS_BETWEEN_STEPS", 0.0)
        events: list[Event] = []
        run(small(), tmp_path, config(epochs=2), progress=events.append)
        assert [e.kind for e in events] == (["step"] * 4 + ["epoch"]) * 2
        last = events[-1]
        assert (last.stage, last.epoch, last.epochs, last.done, last.total) == ("prune", 2, 2, 64, 64)
        assert last.seconds_left == 0
        for event in events:
            assert event.loss is not None
            assert event.accuracy is not None
            assert 0 <= event.accuracy <= 1
            assert event.images_per_second is not None
            assert event.images_per_second > 0

    def test_steps_are_rare(self, tmp_path: Path) -> None:
        events: list[Event] = []
        began = time.monotonic()
        run(small(), tmp_path, config(epochs=3, batch_size=2), progress=events.append)
        steps = sum(event.kind == "step" for event in events)
        assert steps <= 5 * (time.monotonic() - began) + 1


def lr_of(settings: TrainingConfig, steps_per_epoch: int) -> list[float]:
    """Warm-up and cosine as one would write them down."""
    import math

    total = settings.epochs * steps_per_epoch
    warm = min(round(settings.warmup_epochs * steps_per_epoch), total - 1)
    rates = [settings.lr * (i + 1) / (warm + 1) for i in range(warm)]
    rest = total - warm
    return rates + [settings.lr * (1 + math.cos(math.pi * i / rest)) / 2 for i in range(rest)]


@pytest.mark.parametrize("warmup", [0.0, 0.5, 1.5, 9.0])
def test_learning_rate_warms_up_and_falls_along_a_cosine(
    warmup: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[float] = []
    step = torch.optim.SGD.step

    def spy(self: torch.optim.SGD, *arguments: Any) -> Any:
        seen.append(self.param_groups[0]["lr"])
        return step(self, *arguments)

    monkeypatch.setattr(torch.optim.SGD, "step", spy)
    settings = config(epochs=3, warmup_epochs=warmup)
    run(small(), tmp_path, settings)
    assert seen == pytest.approx(lr_of(settings, 4))
    assert max(seen) <= settings.lr


def exported(model: nn.Module, example: Tensor) -> nn.Module:
    batch = torch.export.Dim("batch", min=2, max=4096)
    return torch.export.export(model, (example,), dynamic_shapes=({0: batch},)).module()


class TestExportedGraphs:
    def test_train_evaluate_and_continue(self, tmp_path: Path) -> None:
        given = workload()
        graphs = [exported(small(), given.example(2)) for _ in range(2)]
        before = evaluate(graphs[0], given)
        assert torch.allclose(before.outputs, evaluate(small(), given).outputs, atol=1e-5)
        (tmp_path / "a").mkdir()
        (tmp_path / "b").mkdir()
        history = run(graphs[0], tmp_path / "a", config(epochs=3))
        assert history.epochs[-1]["loss"] < history.epochs[0]["loss"]
        with pytest.raises(Killed):
            run(graphs[1], tmp_path / "b", config(epochs=3), progress=kill_in(2, "epoch"))
        run(graphs[1], tmp_path / "b", config(epochs=3))
        assert identical(graphs[0], graphs[1])

    def test_a_graph_may_be_the_teacher(self, tmp_path: Path) -> None:
        given = workload()
        history = run(small(1), tmp_path, config(epochs=1), teacher=exported(small(), given.example(2)))
        assert len(history.epochs) == 1

    def test_a_graph_inside_a_module(self, tmp_path: Path) -> None:
        given = workload()
        model = nn.Sequential(exported(small(), given.example(2)), nn.BatchNorm1d(3))
        run(model, tmp_path, config(epochs=1))
        assert int(model[1].num_batches_tracked) == 4  # type: ignore[arg-type]
        assert not model[1].training


class TestEvaluate:
    def test_equals_a_plain_loop_over_single_samples(self) -> None:
        given, model = workload(), small()
        with torch.no_grad():
            plain = torch.cat([model(x[None]) for x in given.preprocessing(given.validation.inputs)])
        got = evaluate(model, given, batch_size=8)
        assert torch.allclose(got.outputs, plain, atol=1e-5)
        assert got.score == float((plain.argmax(1) == given.validation.targets).double().mean())
        assert not got.outputs.is_inference()

    def test_splits_and_limits(self) -> None:
        given = workload()
        assert evaluate(small(), given, split="train").outputs.shape == (70, 3)
        limited = evaluate(small(), given, limit=5)
        assert torch.allclose(limited.outputs, evaluate(small(), given).outputs[:5], atol=1e-6)
        assert evaluate(small(), given, limit=1000).outputs.shape == (33, 3)

    def test_modes_are_restored(self) -> None:
        model = small().train()
        model.bn.eval()
        before = copy.deepcopy(model)
        evaluate(model, workload())
        assert model.training
        assert model.drop.training
        assert not model.bn.training
        assert identical(model, before)


class Tokens(nn.Module):
    """Token ids (N, T) to class scores per token (N, T, C)."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(5, 8)
        self.linear = nn.Linear(8, 5)

    def forward(self, ids: Tensor) -> Tensor:
        scores: Tensor = self.linear(self.embedding(ids))
        return scores


def _ids(n: int) -> tuple[Tensor, Tensor]:
    ids = torch.randint(5, (n, 7), generator=torch.Generator().manual_seed(n))
    return ids, (ids + 1) % 5


def _vectors(n: int) -> tuple[Tensor, Tensor]:
    x = torch.randn(n, 4, generator=torch.Generator().manual_seed(n))
    return x, x @ torch.tensor([[1.0, 0], [0, 1], [1, 1], [0, -1]])


def _masks(n: int) -> tuple[Tensor, Tensor]:
    x = torch.rand(n, 1, 6, 6, generator=torch.Generator().manual_seed(n))
    return x, (x[:, 0] > 0.5).long()


@pytest.mark.parametrize(
    ("task", "build", "data", "preprocessing"),
    [
        (TokenClassification(5), Tokens, _ids, Preprocessing(dtype="int64")),
        (Regression(), lambda: nn.Linear(4, 2), _vectors, Preprocessing()),
        (
            Segmentation(2),
            lambda: nn.Sequential(nn.Conv2d(1, 8, 1), nn.ReLU(), nn.Conv2d(8, 2, 1)),
            _masks,
            Preprocessing(layout="NCHW", mean=(0.5,)),
        ),
    ],
    ids=["tokens", "regression", "segmentation"],
)
def test_other_tasks_train_with_a_teacher(
    task: Task,
    build: Callable[[], nn.Module],
    data: Callable[[int], tuple[Tensor, Tensor]],
    preprocessing: Preprocessing,
    tmp_path: Path,
) -> None:
    torch.manual_seed(0)
    given = workload(
        model=build(),
        task=task,
        train=data(64),
        validation=data(32),
        preprocessing=preprocessing,
        augmentation=None,
    )
    given.check()
    settings = config(epochs=40, optimizer="adamw", lr=0.05)
    run(given.model, tmp_path, settings, teacher=None, workload=given, stage="teacher")
    taught = evaluate(given.model, given)
    assert taught.score > 0.9
    student = build()
    run(student, tmp_path, settings, teacher=given.model, workload=given)
    assert evaluate(student, given).score > 0.9
