"""Targets of unequal number for each sample, from the data to the report."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from edgekit import Classification, Outputs, Preprocessing, Ragged, Regression, Samples, Workload
from edgekit.bundle.gathering import gather
from edgekit.config.settings import TrainingConfig
from edgekit.diagnosis.judged import judge
from edgekit.diagnosis.record import Diagnosis
from edgekit.errors import DataError, WorkloadError
from edgekit.pipeline import compress
from edgekit.progress import silent
from edgekit.report import Report
from edgekit.training import TrainingHistory, train
from edgekit.training.data.batches import Batches
from edgekit.training.evaluation import evaluate
from tests.named import unequal
from tests.named.unequal import Letters, Points

RECIPE = """
description: targets of unequal number
stages:
  - {kind: prune, speedup: 1.2, training: {epochs: 3, batch_size: 32}}
  - {kind: qat, training: {epochs: 1, batch_size: 32}}
exports: {formats: [onnx, litert], precisions: [int8]}
benchmark: {threads: [1], min_seconds: 0.02, min_runs: 3}
diagnose: {samples: 16, corruptions: false}
recommend: {max_accuracy_drop: 100}
"""


@pytest.mark.wide
class TestTheWholeWay:
    @pytest.mark.parametrize("make", [unequal.points, unequal.letters])
    def test_files_are_scored_by_the_tasks_own_score(
        self, make: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        if make is unequal.letters:  # once is enough: it is a third of a run this small
            monkeypatch.setattr("edgekit.pipeline.preflight.rehearse", lambda job: None)
        workload: Workload = make()
        (tmp_path / "made.py").write_text(
            f"from tests.named import unequal\n\n\ndef workload():\n    return unequal.{make.__name__}()\n"
        )
        (tmp_path / "recipe.yaml").write_text(RECIPE)
        report = compress(tmp_path / "made.py", tmp_path / "recipe.yaml", out=tmp_path / "run")
        assert report.task["metric"] == workload.task.metric
        files = {Path(one.file).name: one for one in report.artifacts if one.precision == "int8"}
        assert {Path(one).suffix for one in files} == {".onnx", ".tflite"}
        for name, file in files.items():
            answers = torch.from_numpy(np.load(tmp_path / "run" / "answers" / f"{name}.npy"))
            own = workload.task.score(answers, workload.validation.targets)
            assert file.accuracy == pytest.approx(own)
            assert file.accuracy > 0.7
        found = Diagnosis.from_json(json.loads((tmp_path / "run/diagnosis.json").read_text())["diagnosis"])
        assert {file.scores.samples for file in found.files.values() if file.scores} == {128}
        assert found.attacked  # by the gradient of the task's own loss
        assert found.attacked[-1].before < found.clean_before
        assert "Mean score of a sample" in (tmp_path / "run/report.html").read_text()
        assert Report.load(tmp_path / "run").task["kind"] == workload.task.kind
        kept = gather(tmp_path / "run", tmp_path / "made.py", formats=("litert",), precisions=("int8",))
        assert kept.task["metric"] == workload.task.metric
        assert len(kept.outputs[0].answers) == len(kept.inputs[0].samples) > 2


class Both(nn.Module):
    """Points, and how many there are."""

    def __init__(self) -> None:
        super().__init__()
        self.finder, self.count = unequal.Finder(), nn.Linear(12, 5)

    def forward(self, picture: Tensor) -> dict[str, Tensor]:
        points = self.finder(picture)
        return {"points": points, "count": self.count(points.flatten(1))}


BOTH = Outputs({"points": Points(), "count": Classification(5)})


def both(train_data: Any, validation: Any) -> Workload:
    torch.manual_seed(0)
    return Workload("both", Both().eval(), BOTH, train_data, validation, Preprocessing(layout="NCHW"))


def data(count: int, seed: int) -> tuple[Tensor, dict[str, Any]]:
    images, points = unequal.pictures(count, seed)
    return images, {"points": points, "count": [len(one) for one in points]}


class Items:
    """The same, one by one."""

    def __init__(self, count: int, seed: int) -> None:
        self.images, self.targets = data(count, seed)

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> Any:
        return self.images[index], {name: one[index] for name, one in self.targets.items()}


def settings(**more: Any) -> TrainingConfig:
    return TrainingConfig.model_validate({"epochs": 1, "batch_size": 16, "lr": 1e-3, **more})


def learn(
    model: nn.Module,
    workload: Workload,
    checkpoint: Path,
    config: TrainingConfig,
    teacher: nn.Module | None = None,
) -> TrainingHistory:
    return train(
        model, teacher, workload, config, seed=0, checkpoint=checkpoint, stage="qat", progress=silent
    )


def weights(model: nn.Module) -> Tensor:
    return torch.cat([one.detach().reshape(-1) for one in model.parameters()])


class TestBesideOthers:
    def test_one_output_of_several_has_them(self) -> None:
        workload = both(data(40, 1), data(8, 2))
        workload.check()
        assert isinstance(workload.train.targets["points"], Ragged)  # type: ignore[call-overload,index]
        scores = BOTH.scores(evaluate(workload.model, workload).outputs, workload.validation.targets)
        assert scores.keys() == {"points", "count"}

    def test_arrays_and_items_train_to_the_same_weights(self, tmp_path: Path) -> None:
        found = []
        for at, made in enumerate((both(data(40, 1), data(8, 2)), both(Items(40, 1), Items(8, 2)))):
            before = weights(made.model)
            learn(made.model, made, tmp_path / f"{at}.pt", settings())
            found.append(weights(made.model))
            assert not torch.equal(before, found[-1])
        assert torch.equal(*found)
        assert both(data(40, 1), data(8, 2)).fingerprint() == both(Items(40, 1), Items(8, 2)).fingerprint()

    def test_without_labels_the_answers_are_targets(self, tmp_path: Path) -> None:
        workload = both((data(40, 1)[0], None), (data(8, 2)[0], None))
        workload.check()
        assert isinstance(workload.validation.targets["points"], Ragged)  # type: ignore[call-overload,index]
        assert evaluate(workload.model, workload).score == 1.0


@pytest.fixture(scope="module")
def workload() -> Workload:
    return unequal.points(48, steps=2)


class TestTraining:
    def test_a_batch_holds_the_targets_of_its_inputs(self, workload: Workload) -> None:
        for batch in Batches(workload, 16, 0, "qat").of_epoch(0):
            assert isinstance(batch.targets, Ragged)
            for row, entry in zip(batch.rows.tolist(), batch.targets, strict=True):
                assert torch.equal(entry, workload.train.targets[row])  # type: ignore[call-overload,arg-type]
            part = batch.part(4, 9)
            assert torch.equal(part.targets[0], batch.targets[4])  # type: ignore[call-overload,arg-type]

    def test_a_student_learns_from_labels_and_teacher(self, workload: Workload, tmp_path: Path) -> None:
        student = workload.build_student()
        assert student is not None
        config = settings(early_stopping={"patience": 2}, lr="auto", distillation={"weight": 0.5})
        history = learn(student, workload, tmp_path / "a.pt", config, workload.model)
        assert "held_out" in history.epochs[0]

    def test_a_bound_by_targets_is_refused_before_any_work(self, workload: Workload, tmp_path: Path) -> None:
        (tmp_path / "recipe.yaml").write_text(
            "description: x\nstages:\n"
            "  - {kind: qat, training: {epochs: 1, distillation: {continuous: bounded}}}\n"
        )
        with pytest.raises(WorkloadError, match="bounded") as error:
            compress(workload, tmp_path / "recipe.yaml", out=tmp_path / "run")
        assert "points" in str(error.value)
        assert not (tmp_path / "run").exists()


def test_a_file_is_judged_sample_by_sample() -> None:
    _, places = unequal.pictures(6, 3)
    targets = Ragged.of(places)
    right = torch.full((6, 3, 2, 2), -1.0)
    for row, one in enumerate(places):
        for place in one:
            quarter = (place * 2).long()
            right[row, :, quarter[0], quarter[1]] = torch.cat([torch.ones(1), place * 2 - quarter])
    wrong = right.clone()
    broken = next(row for row, one in enumerate(places) if len(one))
    wrong[broken, 0] *= -1
    judged = judge(Points(), targets, right, wrong)
    assert judged.scores is not None
    assert (judged.scores.mean_before, judged.scores.fell, judged.scores.rose) == (1.0, 1, 0)
    assert [one.row for one in judged.scores.worse] == [broken]
    assert judged.errors is None


class TestRefused:
    IMAGES, POINTS = unequal.pictures(8, 1)

    def refused(self, targets: Any, task: Any = None) -> str:
        with pytest.raises((DataError, WorkloadError)) as error:
            Workload(
                "points",
                unequal.Finder().eval(),
                task or Points(),
                (self.IMAGES, targets),
                (self.IMAGES, targets),
                Preprocessing(layout="NCHW"),
            ).check()
        return str(error.value)

    def test_another_number_than_inputs(self) -> None:
        assert "8 inputs, 7 targets" in self.refused(self.POINTS[:-1])

    def test_another_trailing_shape(self) -> None:
        told = self.refused([*self.POINTS[:-1], torch.zeros(2, 3)])
        assert "train targets, sample 7" in told
        assert "(n, 3)" in told
        assert "(n, 2)" in told

    def test_another_kind(self) -> None:
        whole = next(row for row, one in enumerate(self.POINTS) if len(one))
        told = self.refused([*self.POINTS[:-1], [[1, 0]]])
        assert "got:      integers" in told
        assert whole < 7

    def test_no_numbers(self) -> None:
        assert "targets are not numbers" in self.refused([*self.POINTS[:-1], "points"])

    def test_not_finite(self) -> None:
        told = self.refused([*self.POINTS[:-1], torch.full((1, 2), float("nan"))])
        assert "NaN or infinity" in told
        assert "sample 7" in told

    def test_one_number(self) -> None:
        assert "one number" in self.refused([1.0] * 8)

    def test_other_keys(self) -> None:
        entries = [{"boxes": one} for one in self.POINTS[:-1]]
        told = self.refused([*entries, {"points": self.POINTS[-1]}])
        assert "a dict of points" in told
        assert "a dict of boxes" in told

    def test_a_dict_of_lists_is_no_list_of_dicts(self) -> None:
        assert "are a list" in self.refused({"boxes": self.POINTS})

    def test_nothing_at_all(self) -> None:
        assert "0 targets" in self.refused(Ragged(torch.zeros(0, 2), torch.zeros(0)))

    def test_a_task_without_them_says_what_it_said(self) -> None:
        assert "samples don't stack to one array" in self.refused(self.POINTS, Regression())

    def test_splits_that_differ(self) -> None:
        with pytest.raises(DataError) as error:
            Workload(
                "points",
                unequal.Finder().eval(),
                Points(),
                (self.IMAGES, self.POINTS),
                (self.IMAGES, [{"points": one} for one in self.POINTS]),
                Preprocessing(layout="NCHW"),
            ).check()
        assert "train (n, 2) float32, validation {points (n, 2) float32}" in str(error.value)


@dataclass(frozen=True)
class Odd(Points):
    """Points, of which one method gives something else."""

    method: str = ""
    gives: Any = None
    label: ClassVar[str] = "odd"

    def describe(self) -> dict[str, Any]:
        return {"kind": self.kind, "metric": self.metric}

    def __getattribute__(self, name: str) -> Any:
        own = object.__getattribute__
        return (lambda *_, **__: own(self, "gives")) if name == own(self, "method") else own(self, name)


class TestOwnTasks:
    @pytest.mark.parametrize(
        ("method", "gives", "told"),
        [
            ("loss", 1.0, "a tensor of one finite number"),
            ("loss", torch.tensor(float("nan")), "a tensor of one finite number"),
            ("loss", torch.tensor(1.0), "without gradient"),
            ("score", 2.0, "a number of at most 1"),
            ("agreement", -1.0, "a number from 0 to 1"),
            ("logits", torch.zeros(3), "rows of class scores (M, C), or None"),
            ("describe", {"kind": {1}}, "JSON"),
        ],
    )
    def test_what_a_method_gives_is_looked_at_first(self, method: str, gives: Any, told: str) -> None:
        text = TestRefused().refused(TestRefused.POINTS, Odd(method, gives))
        assert f"{method}() gives something else" in text
        assert told in text

    def test_code_that_fails_is_told_as_its_own(self) -> None:
        class Failing(Points):
            def score(self, outputs: Any, targets: Any) -> float:
                raise KeyError("boxes")

        text = TestRefused().refused(TestRefused.POINTS, Failing())
        assert "task Failing: score" in text
        assert "boxes" in text

    def test_answers_have_to_be_targets(self) -> None:
        class Listed(Points):
            def answers(self, outputs: Any) -> Any:
                return outputs

        workload = Workload(
            "points",
            unequal.Finder().eval(),
            Listed(),
            (TestRefused.IMAGES, None),
            (TestRefused.IMAGES, None),
            Preprocessing(layout="NCHW"),
        )
        with pytest.raises(WorkloadError, match="answers\\(\\) gives something else"):
            workload.check()

    def test_results_depend_on_a_tasks_code_and_targets(self) -> None:
        class Other(Points):
            def score(self, outputs: Any, targets: Any) -> float:
                return 0.5

        def fingerprint(task: Any, targets: Any) -> str:
            torch.manual_seed(0)
            samples = Samples(TestRefused.IMAGES, targets)
            return Workload("points", unequal.Finder().eval(), task, samples, samples).fingerprint()

        places = TestRefused.POINTS
        targets = Ragged.of(places)
        moved = Ragged(targets.values, targets.lengths.flip(0))
        told = [
            fingerprint(Points(), places),
            fingerprint(Other(), places),
            fingerprint(Points(), moved),
        ]
        assert len(set(told)) == 3
        assert told[0] == fingerprint(Points(), targets)


def test_letters_teach_by_their_rows(tmp_path: Path) -> None:
    workload = unequal.letters(48, steps=2)
    taught = {}
    for kind in ("standardized", "dkd"):
        torch.manual_seed(5)
        student = unequal.Listener()
        config = settings(distillation={"loss": kind, "weight": 1.0})
        learn(student, workload, tmp_path / f"{kind}.pt", config, workload.model)
        taught[kind] = weights(student)
    assert not torch.equal(taught["standardized"], taught["dkd"])
    assert Letters(unequal.LETTERS).logits(torch.zeros(2, 3, 5)).shape == (6, 5)
