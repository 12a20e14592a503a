from __future__ import annotations

import copy
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from edgekit.errors import StageError
from edgekit.progress import Event, silent
from edgekit.stages.base import DistillationConfig, TrainingConfig
from edgekit.tasks import Classification, Regression, Segmentation, Task, TokenClassification
from edgekit.training import TrainingHistory, evaluate, train
from edgekit.workload import Augmentation, Preprocessing, Workload

NO_TEACHER = DistillationConfig(loss="none")


class Small(nn.Module):
    """Convolution, batch norm, dropout, linear: everything that keeps a state or draws random numbers."""

    def __init__(self, outputs: int = 3) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 6, 3, padding=1)
        self.bn = nn.BatchNorm2d(6)
        self.drop = nn.Dropout(0.3)
        self.linear = nn.Linear(6 * 4 * 4, outputs)

    def forward(self, x: Tensor) -> Tensor:
        x = nn.functional.max_pool2d(torch.relu(self.bn(self.conv(x))), 2)
        logits: Tensor = self.linear(self.drop(x.flatten(1)))
        return logits


def small(seed: int = 0) -> Small:
    torch.manual_seed(seed)
    return Small().eval()


def bars(n: int, seed: int) -> tuple[Tensor, Tensor]:
    """Noisy 8x8 byte images; the class is which third is bright."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(3, (n,), generator=generator)
    images = torch.randint(0, 120, (n, 8, 8, 1), generator=generator)
    for image, label in zip(images, labels, strict=True):
        image[3 * int(label) : 3 * int(label) + 2] += 100
    return images.to(torch.uint8), labels


def workload(**changes: Any) -> Workload:
    settings: dict[str, Any] = {
        "name": "bars",
        "model": small(),
        "task": Classification(3),
        "train": bars(70, 0),
        "validation": bars(33, 1),
        "preprocessing": Preprocessing(layout="NHWC", scale=1 / 255, mean=(0.3,), std=(0.3,)),
        "augmentation": Augmentation(horizontal_flip=True, shift=1),
    }
    return Workload(**{**settings, **changes})


def config(**changes: Any) -> TrainingConfig:
    return TrainingConfig(**{"epochs": 4, "batch_size": 16, "lr": 0.05, **changes})


def run(
    model: nn.Module, folder: Path, settings: TrainingConfig | None = None, **changes: Any
) -> TrainingHistory:
    arguments: dict[str, Any] = {
        "teacher": small(9),
        "workload": workload(),
        "config": settings or config(),
        "seed": 0,
        "checkpoint": folder / "checkpoint.pt",
        "stage": "prune",
        "progress": silent,
    }
    return train(model, **{**arguments, **changes})


def identical(a: nn.Module, b: nn.Module) -> bool:
    one, other = a.state_dict(), b.state_dict()
    return one.keys() == other.keys() and all(torch.equal(one[k], other[k]) for k in one)


def without_times(entry: dict[str, float]) -> dict[str, float]:
    return {key: value for key, value in entry.items() if key not in ("seconds", "images_per_second")}


class Killed(Exception):
    pass


def kill_in(epoch: int, kind: str) -> Callable[[Event], None]:
    def progress(event: Event) -> None:
        if event.epoch == epoch and event.kind == kind:
            raise Killed

    return progress


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


class TestResume:
    @pytest.mark.parametrize("epoch", [1, 3, 4])
    @pytest.mark.parametrize("kind", ["step", "epoch"])
    @pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
    def test_killed_and_continued_equals_undisturbed(
        self, epoch: int, kind: str, optimizer: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("edgekit.monitor.meter._SECONDS_BETWEEN_STEPS", 0.0)
        settings = config(optimizer=optimizer, lr=0.01)
        undisturbed, continued = small(), small()
        (tmp_path / "a").mkdir()
        (tmp_path / "b").mkdir()
        expected = run(undisturbed, tmp_path / "a", settings)
        with pytest.raises(Killed):
            run(small(), tmp_path / "b", settings, progress=kill_in(epoch, kind))
        events: list[Event] = []
        got = run(continued, tmp_path / "b", settings, progress=events.append)
        assert identical(continued, undisturbed)
        timeless = [[without_times(e) for e in history.epochs] for history in (expected, got)]
        assert timeless[0] == timeless[1]
        assert {e.epoch for e in events if e.kind == "epoch"} == set(range(epoch, 5))

    def test_a_finished_training_is_not_repeated(self, tmp_path: Path) -> None:
        first, second = small(), small()
        run(first, tmp_path)
        events: list[Event] = []
        history = run(second, tmp_path, progress=events.append)
        assert identical(first, second)
        assert len(history.epochs) == 4
        assert [e.kind for e in events] == ["note"]

    @pytest.mark.parametrize("damage", ["cut", "empty", "text", "other-file"])
    def test_a_damaged_checkpoint_is_ignored_with_a_warning(self, damage: str, tmp_path: Path) -> None:
        path = tmp_path / "checkpoint.pt"
        undisturbed, model = small(), small()
        run(undisturbed, tmp_path)
        whole = path.read_bytes()
        if damage == "other-file":
            torch.save({"a": torch.zeros(3)}, path)
        else:
            path.write_bytes({"cut": whole[: len(whole) // 2], "empty": b"", "text": b"checkpoint"}[damage])
        events: list[Event] = []
        run(model, tmp_path, progress=events.append)
        assert events[0].kind == "warning"
        assert "starting over" in events[0].message
        assert identical(model, undisturbed)

    @pytest.mark.parametrize(
        "changes", [{"seed": 1}, {"stage": "qat"}, {"settings": config(lr=0.04)}, {"teacher": None}]
    )
    def test_a_checkpoint_of_another_training_is_ignored(
        self, changes: dict[str, Any], tmp_path: Path
    ) -> None:
        run(small(), tmp_path, config(epochs=1))
        events: list[Event] = []
        run(small(), tmp_path, **{"settings": config(epochs=1), **changes, "progress": events.append})
        assert events[0].kind == "warning"
        assert "other settings" in events[0].message

    def test_a_checkpoint_of_another_architecture_leaves_the_model_alone(self, tmp_path: Path) -> None:
        class Renamed(Small):
            def __init__(self) -> None:
                super().__init__()
                self.register_buffer("more", torch.zeros(1))

        run(small(), tmp_path, config(epochs=1))
        torch.manual_seed(0)
        model, events = Renamed(), list[Event]()
        run(model, tmp_path, config(epochs=1), progress=events.append)
        assert "don't fit" in events[0].message

    def test_nothing_but_the_checkpoint_is_left(self, tmp_path: Path) -> None:
        run(small(), tmp_path)
        assert sorted(p.name for p in tmp_path.iterdir()) == ["checkpoint.pt", "training.csv"]

    def test_kill_9(self, tmp_path: Path) -> None:
        code = (
            "import sys, time; sys.path.insert(0, sys.argv[2]); from tests.training.test_training import *\n"
            "from pathlib import Path\n"
            "def progress(event):\n"
            "    if event.kind == 'epoch':\n"
            "        print(event.epoch, flush=True); time.sleep(0.05)\n"
            "run(small(), Path(sys.argv[1]), config(epochs=40), progress=progress)\n"
        )
        root = str(Path(__file__).resolve().parents[2])
        process = subprocess.Popen(
            [sys.executable, "-c", code, str(tmp_path), root],
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "OMP_NUM_THREADS": str(torch.get_num_threads())},
        )
        assert process.stdout is not None
        with process.stdout:
            for line in process.stdout:
                if int(line) == 5:
                    process.send_signal(signal.SIGKILL)
                    break
            process.wait(timeout=60)
        assert process.returncode == -signal.SIGKILL
        (tmp_path / "undisturbed").mkdir()
        continued, undisturbed, events = small(), small(), list[Event]()
        run(continued, tmp_path, config(epochs=40), progress=events.append)
        run(undisturbed, tmp_path / "undisturbed", config(epochs=40))
        assert events[0].message.startswith("continuing after epoch")
        assert identical(continued, undisturbed)


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
