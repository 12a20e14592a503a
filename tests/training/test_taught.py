"""Trainings that learn from feature maps, from several teachers, without labels."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from edgekit.errors import StageError
from edgekit.graph.capture import capture
from edgekit.progress import Event
from edgekit.stages.base import DistillationConfig, TrainingConfig
from edgekit.tasks import Classification, Regression
from edgekit.training import evaluate
from edgekit.training.computing import speed
from edgekit.training.computing.speed import can_compile
from edgekit.training.teachers import teacher as teacher_module
from edgekit.workload import Workload
from tests.training.nets import KillAfter, Killed, fit, identical, without_times


class Maps(nn.Module):
    """(N, 3, 8, 8) to (N, 3): feature maps at 8x8 and 4x4, dropout in between."""

    def __init__(self, width: int = 4) -> None:
        super().__init__()
        self.fine = nn.Sequential(nn.Conv2d(3, width, 3, padding=1), nn.BatchNorm2d(width), nn.ReLU())
        self.drop = nn.Dropout(0.1)
        self.coarse = nn.Sequential(nn.Conv2d(width, 2 * width, 3, stride=2, padding=1), nn.ReLU())
        self.head = nn.Linear(2 * width, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.coarse(self.drop(self.fine(x))).mean((2, 3)))


class Residual(Maps):
    """The same with a convolution that a fused form can take a ReLU into."""

    def __init__(self) -> None:
        super().__init__(8)
        self.coarse = nn.Sequential(nn.Conv2d(8, 16, 3, stride=2, padding=1), nn.BatchNorm2d(16), nn.ReLU())


class Flat(nn.Module):
    """(N, 3, 8, 8) to (N, 3), without a single map."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(192, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(x.flatten(1))


def net(build: Callable[[], nn.Module] = Maps, seed: int = 0) -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return build().eval()


def wide() -> nn.Module:
    return net(lambda: Maps(6), 9)


def images(count: int, seed: int) -> tuple[Tensor, Tensor]:
    """(count, 3, 8, 8); the brightest colour."""
    x = torch.randn(count, 3, 8, 8, generator=torch.Generator().manual_seed(seed))
    return x, x.mean((2, 3)).argmax(1)


def workload(**changes: Any) -> Workload:
    settings: dict[str, Any] = {
        "name": "colours",
        "model": wide(),
        "task": Classification(3),
        "train": images(64, 0),
        "validation": images(48, 1),
    }
    return Workload(**{**settings, **changes})


def config(epochs: int = 3, **told: Any) -> TrainingConfig:
    return TrainingConfig(epochs=epochs, batch_size=16, lr=0.05, distillation=DistillationConfig(**told))


def run(student: nn.Module, folder: Path, settings: TrainingConfig, **changes: Any) -> Any:
    return fit(student, folder, settings, **{"teacher": wide(), "workload": workload(), **changes})


class TestFeatures:
    @pytest.mark.parametrize("kind", ["hint", "attention"])
    def test_the_students_maps_come_nearer_to_the_teachers(self, kind: str, tmp_path: Path) -> None:
        student, teacher = net(), wide()
        untouched, names = copy.deepcopy(teacher), set(student.state_dict())
        settings = config(12, loss="none", weight=0.0, features={"kind": kind, "weight": 100.0})
        history = run(student, tmp_path, settings, teacher=teacher)
        # The task's own loss starts at about ln 3: what falls by so much is the other one.
        assert history.epochs[-1]["loss"] < 0.75 * history.epochs[0]["loss"]
        assert identical(teacher, untouched)
        assert set(student.state_dict()) == names
        assert not any(module._forward_hooks for module in [*student.modules(), *teacher.modules()])
        pairs = history.details()["training"]["features"]["pairs"]
        assert [(p["student"], p["teacher"]) for p in pairs] == [("fine", "fine"), ("coarse", "coarse")]
        assert f"{kind} between layers: fine to fine, coarse to coarse" in history.note

    @pytest.mark.parametrize("kind", ["hint", "attention"])
    def test_a_killed_training_goes_on_bit_for_bit(self, kind: str, tmp_path: Path) -> None:
        settings = config(features={"kind": kind})
        straight, killed = net(), net()
        whole = run(straight, tmp_path / "straight", settings)
        with pytest.raises(Killed):
            run(killed, tmp_path / "killed", settings, progress=KillAfter(2))
        again = net()
        resumed = run(again, tmp_path / "killed", settings)
        assert identical(straight, again)
        assert without_times(whole) == without_times(resumed)
        assert whole.note == resumed.note

    @pytest.mark.parametrize("kind", ["hint", "attention"])
    def test_a_fused_teacher_tells_the_same(
        self, kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        settings = config(features={"kind": kind, "weight": 10.0})
        teacher, plain, fast = net(Residual, 9), net(), net()
        slow_losses = run(plain, tmp_path / "plain", settings, teacher=teacher).epochs
        forms: list[Any] = []
        monkeypatch.setattr(speed, "_FUSE_FROM", 0)
        fuse = teacher_module.fused
        monkeypatch.setattr(teacher_module, "fused", lambda *given: forms.append(fuse(*given)) or forms[-1])
        fast_losses = run(fast, tmp_path / "fast", settings, teacher=teacher).epochs
        assert len(forms) == 1
        assert forms[0] is not None
        for one, other in zip(slow_losses, fast_losses, strict=True):
            assert one["loss"] == pytest.approx(other["loss"], rel=1e-3)
        assert all(
            torch.allclose(one, other, rtol=1e-2, atol=1e-4)
            for one, other in zip(plain.parameters(), fast.parameters(), strict=True)
        )

    @pytest.mark.slow
    def test_a_compiled_student_tells_the_same(self, tmp_path: Path) -> None:
        told = {"features": {"kind": "attention", "weight": 10.0}}
        students = [net(Residual), net(Residual)]
        if not can_compile(students[0]):
            pytest.skip("no C++ compiler")
        for student, how in zip(students, ("never", "always"), strict=True):
            student.drop = nn.Identity()  # its random numbers are others when compiled
            run(student, tmp_path / how, config(**told).model_copy(update={"compile": how}))
        assert all(
            torch.allclose(one, other, rtol=1e-2, atol=1e-4)
            for one, other in zip(*(student.parameters() for student in students), strict=True)
        )

    def test_the_weight_counts_and_the_layers_can_be_named(self, tmp_path: Path) -> None:
        students = []
        for index, features in enumerate(
            (
                None,
                {"kind": "hint"},
                {"kind": "hint", "weight": 9.0},
                {"kind": "hint", "layers": [["fine", "fine.0"]]},
            )
        ):
            students.append(net())
            run(students[-1], tmp_path / str(index), config(1, features=features))
        weights = [student.get_parameter("fine.0.weight") for student in students]
        assert len({tuple(w.flatten().tolist()) for w in weights}) == 4

    def test_an_exported_graph_learns_by_its_nodes(self, tmp_path: Path) -> None:
        module = net()
        graph = capture(module, workload().example(2))
        before = [(node.op, node.name) for node in graph.graph.nodes]
        settings = config(6, loss="none", features={"kind": "hint", "weight": 100.0})
        history = run(graph, tmp_path, settings)
        assert [p["resolution"] for p in history.facts["features"]["pairs"]] == ["8x8", "4x4"]
        assert history.epochs[-1]["loss"] < 0.8 * history.epochs[0]["loss"]
        assert [(node.op, node.name) for node in graph.graph.nodes] == before
        assert set(graph.state_dict()) == set(capture(module, workload().example(2)).state_dict())

    def test_models_without_a_common_resolution_are_told_of(self, tmp_path: Path) -> None:
        events: list[Event] = []
        history = run(net(Flat), tmp_path, config(1, features={"kind": "attention"}), progress=events.append)
        (warning,) = [event.message for event in events if event.kind == "warning"]
        assert warning == "attention left out: no two layers of teacher and student have one resolution"
        assert warning in history.note

    def test_layers_that_are_not_there(self, tmp_path: Path) -> None:
        settings = config(features={"kind": "hint", "layers": [["fin", "fine"]]})
        with pytest.raises(StageError, match="the student has no such layer"):
            run(net(), tmp_path, settings)


class TestWithoutLabels:
    def test_is_learning_from_the_teacher_alone(self, tmp_path: Path) -> None:
        x, y = images(64, 0)
        student, other = net(), net()
        told = run(student, tmp_path / "a", config(weight=0.3), workload=workload(train=(x, None)))
        run(other, tmp_path / "b", config(weight=1.0), workload=workload(train=(x, y)))
        assert identical(student, other)
        assert "no labels: learned from the teacher's answers alone" in told.note

    def test_the_meter_shows_the_agreement_with_the_original(self, tmp_path: Path) -> None:
        given = workload(model=net(Flat), train=(images(64, 0)[0], None))
        # In agreement from the beginning, so that nothing pulls it away.
        student = copy.deepcopy(given.model)
        history = run(student, tmp_path, config(1, loss="classical"), workload=given, teacher=given.model)
        assert history.epochs[0]["accuracy"] == 1
        assert evaluate(given.model, given, split="train").score == 1

    @pytest.mark.parametrize(("told", "teacher"), [({"loss": "none"}, wide()), ({}, None)])
    def test_needs_a_teacher(self, told: dict[str, Any], teacher: nn.Module | None, tmp_path: Path) -> None:
        given = workload(train=(images(64, 0)[0], None))
        with pytest.raises(StageError, match="without labels needs a teacher"):
            run(net(), tmp_path, config(**told), workload=given, teacher=teacher)


class TestSeveralTeachers:
    def test_their_mean_is_learned(self, tmp_path: Path) -> None:
        class Mean(nn.Module):
            def __init__(self, one: nn.Module, other: nn.Module) -> None:
                super().__init__()
                self.one, self.other = one, other

            def forward(self, x: Tensor) -> Tensor:
                return (self.one(x) + self.other(x)) / 2

        one, other = wide(), net(Flat, 5)
        x = images(64, 0)[0]
        settings: dict[str, Any] = {"task": Regression(), "train": (x, torch.zeros(64, 3))}
        settings |= {"validation": (x, torch.zeros(64, 3)), "model": one}
        together, alone = net(), net()
        history = run(
            together, tmp_path / "a", config(), workload=workload(teachers=[other], **settings), teacher=one
        )
        run(alone, tmp_path / "b", config(), workload=workload(**settings), teacher=Mean(one, other).eval())
        for a, b in zip(together.parameters(), alone.parameters(), strict=True):
            assert torch.allclose(a, b, atol=1e-4)
        assert "2 teachers, averaged" in history.note
        assert history.facts["teachers"] == 2
