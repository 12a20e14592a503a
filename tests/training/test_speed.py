from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from edgekit.config.settings import TrainingConfig
from edgekit.errors import StageError
from edgekit.execution import Forward
from edgekit.progress import Event
from edgekit.training.computing import speed
from edgekit.training.computing.remembered import Memory
from edgekit.training.computing.speed import Choice, choose
from edgekit.training.data.batches import Batches
from edgekit.training.teachers.teacher import Teacher
from tests.training.small import Killed, config, identical, kill_in, run, small, workload


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("EDGEKIT_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def both(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine on which both precisions come into question, for trainings of any length."""
    monkeypatch.setattr(speed, "fast_half", lambda device: "bfloat16")
    monkeypatch.setattr(speed, "_MEASURE_FROM", 1)


def took(monkeypatch: pytest.MonkeyPatch, float32: float, bfloat16: float) -> list[int]:
    """Steps take these seconds; how often they were measured."""
    asked: list[int] = []

    def measured(candidates: dict[Any, Any]) -> dict[Any, float]:
        asked.append(len(candidates))
        seconds = {"float32": float32, "bfloat16": bfloat16}
        return {name: seconds[name] for name in candidates}

    monkeypatch.setattr(speed, "_in_turns", measured)
    return asked


def chosen(folder: Path, settings: TrainingConfig | None = None, **changes: Any) -> Choice:
    arguments: dict[str, Any] = {
        "steps": 500,
        "checkpoint": folder / "checkpoint.pt",
        "autocast": True,
        "tell": lambda text: None,
        **changes,
    }
    steps = arguments.pop("steps")
    return choose(small(), None, workload().example(16), steps, settings or config(), **arguments)


@pytest.mark.usefixtures("both")
class TestChoice:
    @pytest.mark.parametrize(
        ("float32", "bfloat16", "expected"),
        [(1.0, 0.5, "bfloat16"), (0.5, 1.0, "float32"), (1.0, 0.97, "float32")],
    )
    def test_the_faster_precision_if_it_is_worth_it(
        self, float32: float, bfloat16: float, expected: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        took(monkeypatch, float32, bfloat16)
        told: list[str] = []
        assert chosen(tmp_path, tell=told.append).precision == expected
        assert told == [
            f"computes in {expected} (a step: float32 {float32 * 1000:.0f} ms, "
            f"bfloat16 {bfloat16 * 1000:.0f} ms)"
        ]

    def test_measured_once_on_a_machine(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        folders = [tmp_path / "a", tmp_path / "b"]
        for folder in folders:
            folder.mkdir()
        asked = took(monkeypatch, 1.0, 0.5)
        first = chosen(folders[0])
        took(monkeypatch, 0.5, 1.0)
        assert chosen(folders[1]) == first
        assert asked == [2]
        assert (folders[1] / "checkpoint.speed.json").exists()

    def test_a_folder_keeps_its_choice_without_the_cache(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        took(monkeypatch, 1.0, 0.5)
        first = chosen(tmp_path)
        monkeypatch.setenv("EDGEKIT_CACHE", str(tmp_path / "elsewhere"))
        took(monkeypatch, 0.5, 1.0)
        assert chosen(tmp_path) == first

    @pytest.mark.parametrize("changes", [{"steps": 501}, {"settings": config(compile="never")}])
    def test_another_training_is_measured_anew(
        self, changes: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        took(monkeypatch, 1.0, 0.5)
        chosen(tmp_path)
        took(monkeypatch, 0.5, 1.0)
        assert chosen(tmp_path, **changes).precision == "float32"

    def test_a_cache_that_cannot_be_written_is_told(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        (tmp_path / "file").write_text("")
        monkeypatch.setenv("EDGEKIT_CACHE", str(tmp_path / "file"))
        took(monkeypatch, 1.0, 0.5)
        told: list[str] = []
        assert chosen(tmp_path, tell=told.append).precision == "bfloat16"
        assert "another run may choose differently" in told[-1]

    @pytest.mark.parametrize("content", ["", "{", "[]", '{"key": 3}', '{"key": "x", "choice": {}}'])
    def test_a_damaged_memory_is_no_memory(self, content: str, tmp_path: Path) -> None:
        memory = Memory({"a": 1}, tmp_path / "checkpoint.pt")
        assert memory.keep({"fused": True}) == ""
        for path in (memory.near, memory.far):
            path.write_text(content)
        assert memory.recall() is None

    @pytest.mark.parametrize(
        ("changes", "precision"),
        [
            ({"settings": config(precision="bfloat16", compile="never")}, "bfloat16"),
            ({"settings": config(precision="float32", compile="never")}, "float32"),
            ({"settings": config(compile="never"), "autocast": False}, "float32"),
        ],
    )
    def test_what_is_given_is_not_measured(
        self, changes: dict[str, Any], precision: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        asked = took(monkeypatch, 1.0, 1.0)
        assert chosen(tmp_path, **changes).precision == precision
        assert asked == []
        assert not list(tmp_path.iterdir())

    def test_measuring_leaves_model_and_random_numbers_alone(self, tmp_path: Path) -> None:
        model, state = small(), torch.get_rng_state()
        choice = choose(
            model,
            None,
            workload().example(16),
            500,
            config(),
            checkpoint=tmp_path / "checkpoint.pt",
            autocast=True,
            tell=lambda text: None,
        )
        assert choice.measured is not None
        assert set(choice.measured) == {"float32", "bfloat16"}
        assert all(seconds > 0 for seconds in choice.measured.values())
        assert identical(model, small())
        assert all(p.grad is None for p in model.parameters())
        assert torch.equal(state, torch.get_rng_state())

    def test_killed_and_continued_while_the_clock_changes_its_mind(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, own_cache: Path
    ) -> None:
        undisturbed, continued = small(), small()
        (tmp_path / "a").mkdir()
        (tmp_path / "b").mkdir()
        took(monkeypatch, 1.0, 0.5)
        run(undisturbed, tmp_path / "a")
        with pytest.raises(Killed):
            run(small(), tmp_path / "b", progress=kill_in(2, "epoch"))
        took(monkeypatch, 0.5, 1.0)
        for path in own_cache.rglob("*.json"):
            path.unlink()
        run(continued, tmp_path / "b")
        assert identical(continued, undisturbed)
        kept = json.loads((tmp_path / "b" / "checkpoint.speed.json").read_text())
        assert kept["choice"]["precision"] == "bfloat16"


def test_short_trainings_measure_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = took(monkeypatch, 1.0, 1.0)
    assert not chosen(tmp_path, steps=10).compiled
    assert asked == []


class TestCompiled:
    def test_an_exported_graph_is_refused(self, tmp_path: Path) -> None:
        graph = torch.export.export(small(), (workload().example(2),)).module()
        with pytest.raises(StageError, match="can't be compiled") as error:
            run(graph, tmp_path, config(compile="always"))
        assert "compile" in error.value.where

    def test_what_the_compiler_refuses_is_an_error(self, monkeypatch: pytest.MonkeyPatch) -> None:
        from torch._dynamo.exc import Unsupported

        def refuse(inputs: Tensor) -> Tensor:
            raise Unsupported("this op")

        forward = Forward(nn.Linear(2, 2))
        forward.compiled = refuse
        with pytest.raises(StageError, match="can't be compiled") as error:
            forward(torch.zeros(1, 2))
        assert "this op" in error.value.got
        with torch.no_grad():
            assert forward(torch.zeros(1, 2)).shape == (1, 2)

    def test_what_stands_in_for_a_model_takes_all_calls(self) -> None:
        forward = Forward(nn.Linear(2, 2))
        forward.through = lambda inputs: inputs + 1
        assert torch.equal(forward(torch.zeros(1, 2)), torch.ones(1, 2))
        with torch.no_grad():
            assert torch.equal(forward(torch.zeros(1, 2)), torch.ones(1, 2))

    def test_compiling_must_pay(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(speed, "_MEASURE_FROM", 1)
        monkeypatch.setattr(speed, "can_compile", lambda model: True)
        taken = {"float32": 10.0, "plain": 10.0, "compiled": 9.8}
        monkeypatch.setattr(speed, "_in_turns", lambda steps: {name: taken[name] for name in steps})
        settings = config(precision="float32")
        assert not chosen(tmp_path, settings).compiled
        taken["compiled"] = 7.0
        assert not chosen(tmp_path, settings).compiled  # remembered
        choice = chosen(tmp_path, settings, steps=600)
        assert choice.compiled
        assert choice.measured == {"float32": 10.0, "float32 compiled": 7.0}
        taken.update(dict.fromkeys(("float32", "plain"), 0.001))
        assert not chosen(tmp_path, settings, steps=700).compiled  # too short to try

    @pytest.mark.slow
    def test_a_compiled_training_continues_bit_equal(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        if not speed.can_compile(small()):
            pytest.skip("no C++ compiler")
        settings = config(compile="always", epochs=3)
        for name in "ab":
            (tmp_path / name).mkdir()
        compiled: list[nn.Module] = []
        compile_ = torch.compile
        monkeypatch.setattr(
            torch, "compile", lambda model, **how: compiled.append(model) or compile_(model, **how)
        )
        undisturbed, continued = small(), small()
        run(undisturbed, tmp_path / "a", settings)
        with pytest.raises(Killed):
            run(small(), tmp_path / "b", settings, progress=kill_in(2, "epoch"))
        run(continued, tmp_path / "b", settings)
        assert identical(continued, undisturbed)
        assert compiled[0] is undisturbed
        assert compiled[-1] is continued


class TestTeacher:
    @staticmethod
    def asked(model: nn.Module) -> list[int]:
        """Sizes of the batches that a model is asked about."""
        sizes: list[int] = []
        model.register_forward_hook(lambda module, inputs, outputs: sizes.append(len(inputs[0])))
        return sizes

    def test_fixed_views_are_answered_once(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        calls: list[int] = []
        ask = Teacher._ask

        def counted(self: Teacher, inputs: Tensor) -> Tensor:
            calls.append(len(inputs))
            return ask(self, inputs)

        monkeypatch.setattr(Teacher, "_ask", counted)
        still = workload(augmentation=None)
        with_cache, without = small(), small()
        (tmp_path / "a").mkdir()
        (tmp_path / "b").mkdir()
        run(with_cache, tmp_path / "a", workload=still)
        assert sum(calls) == 2 + 70
        monkeypatch.setattr("edgekit.training.teachers.teacher._MOST_BYTES", 100)
        calls.clear()
        run(without, tmp_path / "b", workload=still)
        assert sum(calls) == 2 + 4 * 64
        for one, other in zip(with_cache.parameters(), without.parameters(), strict=True):
            assert torch.allclose(one, other, atol=1e-4)

    @pytest.mark.parametrize("settings", [config(), config(mixup=0.5)])
    def test_changing_views_are_not_remembered(self, settings: TrainingConfig) -> None:
        moved = workload() if not settings.mixup else workload(augmentation=None)
        assert not Batches(moved, 16, 0, "prune", settings).deterministic
        assert Batches(workload(augmentation=None), 16, 0, "prune", config()).deterministic

    def test_remembered_answers_belong_to_their_rows(self) -> None:
        teacher, given = Teacher(small(9), speed.autocast_of("float32")), workload(augmentation=None)
        batches = Batches(given, 16, 0, "prune", config())
        batch = next(batches.of_epoch(0))
        fresh = teacher(batch)
        assert teacher.remember(70, lambda a, b: given.preprocessing(given.train.inputs[a:b]), 16)
        assert torch.allclose(teacher(batch), fresh, atol=1e-5)
        teacher(batch).requires_grad_()  # not an inference tensor

    def test_a_continued_training_finds_the_same_answers(self, tmp_path: Path) -> None:
        still = workload(augmentation=None)
        undisturbed, continued = small(), small()
        (tmp_path / "a").mkdir()
        (tmp_path / "b").mkdir()
        run(undisturbed, tmp_path / "a", workload=still)
        with pytest.raises(Killed):
            run(small(), tmp_path / "b", workload=still, progress=kill_in(2, "epoch"))
        run(continued, tmp_path / "b", workload=still)
        assert identical(continued, undisturbed)

    def test_the_fused_form_teaches_the_same(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        plain, fused = small(), small()
        (tmp_path / "a").mkdir()
        (tmp_path / "b").mkdir()
        events: list[Event] = []
        settings = config(precision="float32")  # bfloat16, which a CPU with AMX takes, rounds more coarsely
        run(plain, tmp_path / "a", settings)
        monkeypatch.setattr(speed, "_FUSE_FROM", 1)
        run(fused, tmp_path / "b", settings, progress=events.append)
        assert not [event.message for event in events if event.message]
        for one, other in zip(plain.parameters(), fused.parameters(), strict=True):
            assert torch.allclose(one, other, atol=1e-4)

    def test_a_teacher_without_a_fused_form_is_told(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(speed, "_FUSE_FROM", 1)
        linear = nn.Sequential(nn.Flatten(), nn.Linear(64, 3))
        events: list[Event] = []
        run(small(), tmp_path, config(epochs=1), teacher=linear, progress=events.append)
        assert events[0].kind == "note"
        assert "no fused form" in events[0].message
