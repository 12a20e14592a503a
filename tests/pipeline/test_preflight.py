"""What can't be captured, converted or trained is refused before any training, and leaves nothing behind."""

from __future__ import annotations

import copy
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from edgekit.errors import ExportError, MeasurementError, WorkloadError
from edgekit.files import sha256
from edgekit.formats.litert import tflm
from edgekit.pipeline import artifacts
from edgekit.progress import Event
from edgekit.pruning import build
from edgekit.runs.folder import read_record
from tests.pipeline import tiny
from tests.pipeline.conftest import Run

ORIGINAL = "artifacts/original_fp32.onnx"


class Stop(Exception):
    """Where the run has come far enough."""


def until_trained(run: Run, *overrides: str) -> None:
    """Go on until the trained model is evaluated, which is the first thing behind the preflight."""

    def stop(event: Event) -> None:
        if (event.kind, event.stage) == ("stage-start", "baseline"):
            raise Stop

    with pytest.raises(Stop):
        run(*overrides, on=stop)


def parts(run: Run) -> list[str]:
    return list(dict.fromkeys(event.stage for event in run.events))


class TestWhatIsTried:
    @pytest.mark.wide
    def test_every_file_of_the_recipe_from_the_graph_of_its_own_stage(self, fresh: Run) -> None:
        until_trained(fresh, "exports.precisions=[fp32, int8]")
        steps = [event.message for event in fresh.events if event.kind == "step"]
        assert steps == ["train mode", "what can be cut", "original_fp32.onnx", "int8 graph", "onnx int8"]
        record = read_record(fresh.folder / "preflight.json")
        assert record is not None
        assert list(record["steps"]) == steps

    @pytest.mark.wide
    def test_the_original_s_file_is_the_one_of_the_finished_run(self, fresh: Run, undisturbed: Any) -> None:
        until_trained(fresh)
        kept = fresh.folder / ORIGINAL
        assert sha256(kept) == sha256(undisturbed[0].folder / ORIGINAL)
        assert [path.name for path in (fresh.folder / "artifacts").iterdir()] == [kept.name]

    def test_it_is_done_once_and_again_for_other_files(self, fresh: Run) -> None:
        until_trained(fresh, "exports.precisions=[fp32]", "stages.prune.training.epochs=0")
        assert "train mode" not in [event.message for event in fresh.events]
        until_trained(fresh, "exports.precisions=[fp32]", "stages.prune.training.epochs=0")
        assert "preflight" in fresh.parts("stage-skipped")
        until_trained(fresh, "exports.precisions=[fp16]", "stages.prune.training.epochs=0")
        assert "preflight" in fresh.parts("stage-start")

    def test_the_student_is_what_is_written(self, fresh: Run) -> None:
        class Small(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.only = nn.Linear(64, 4)

            def forward(self, x: Tensor) -> Tensor:
                return (
                    self.only(x.flatten(1)) if self.training else self.only(torch.where(x > 0, x, x)[:, 0, 0])
                )

        fresh.workload = replace(fresh.workload, student=lambda: Small().train())
        with pytest.raises(WorkloadError, match="fails on its own data"):
            fresh()


class Uncapturable(tiny.TinyNet):
    """Which way it goes depends on the numbers."""

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.norm(self.first(x)))
        if float(x.sum()) > 0:
            x = x * 1
        return self.head(F.relu(self.second(x)).mean((2, 3)))


class WithoutKernel(tiny.TinyNet):
    """With an op that ONNX has no form of."""

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.norm(self.first(x)))
        return self.head(torch.special.bessel_j0(self.second(x)).mean((2, 3)))


class TestRefusals:
    def test_a_converter_that_computes_something_else(
        self, fresh: Run, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Right in every kernel, wrong in what was written: seen by asking the file, before any training."""
        written = artifacts.export

        def broken(model: nn.Module, *arguments: Any, **options: Any) -> None:
            other = copy.deepcopy(model)
            with torch.no_grad():
                next(iter(other.parameters())).mul_(-1)
            written(other, *arguments, **options)

        monkeypatch.setattr(artifacts, "export", broken)
        with pytest.raises(WorkloadError, match="disagrees with the model"):
            fresh()
        assert "baseline" not in parts(fresh)

    @pytest.mark.parametrize(
        ("model", "told"), [(Uncapturable, "can't capture"), (WithoutKernel, "special_bessel_j0")]
    )
    def test_before_any_work_and_nothing_is_left(self, model: type[nn.Module], told: str, fresh: Run) -> None:
        bad = model().eval()
        fresh.workload = replace(fresh.workload, model=bad)
        with pytest.raises(WorkloadError, match=told) as caught:
            fresh()
        assert caught.value.exit_code == 2
        assert told in str(caught.value)
        assert "before any training" in caught.value.where
        assert caught.value.next
        assert parts(fresh) == ["preflight"]
        assert not fresh.folder.exists()

    @pytest.mark.wide
    def test_a_run_that_was_there_keeps_its_folder(self, fresh: Run, monkeypatch: pytest.MonkeyPatch) -> None:
        until_trained(fresh)
        kept = sorted(path.name for path in fresh.folder.iterdir())

        def refuse(*_: object, **__: object) -> None:
            raise ExportError("refused", where="layer 'first'", got="a reason", next="something else")

        monkeypatch.setattr("edgekit.pipeline.preflight.export", refuse)
        with pytest.raises(WorkloadError, match="refused") as caught:
            fresh("exports.precisions=[fp16]")
        assert "layer 'first'" in caught.value.where
        assert (caught.value.got, caught.value.next) == ("a reason", "something else")
        assert set(kept) - {"preflight.json"} <= {path.name for path in fresh.folder.iterdir()}

    def test_a_failure_without_words_gets_some(self, fresh: Run, monkeypatch: pytest.MonkeyPatch) -> None:
        def fail(*_: object, **__: object) -> None:
            raise AssertionError

        monkeypatch.setattr("edgekit.pipeline.preflight.export", fail)
        with pytest.raises(WorkloadError, match="onnx int8 fails") as caught:
            fresh()
        assert caught.value.got == "AssertionError: no message"

    def test_a_file_that_its_runtime_refuses(self, fresh: Run, monkeypatch: pytest.MonkeyPatch) -> None:
        asked: list[str] = []

        def refuse(path: Path, runtime: str, *_: object, **__: object) -> None:
            asked.append(path.name)
            raise MeasurementError("the runtime refused the file", got="no kernel for Conv")

        monkeypatch.setattr("edgekit.pipeline.preflight.evaluate", refuse)
        with pytest.raises(WorkloadError, match="refused the file") as caught:
            fresh()
        assert caught.value.got == "no kernel for Conv"
        assert asked == ["original_fp32.onnx"]
        assert not fresh.folder.exists()

    def test_a_network_without_anything_for_int8(self, fresh: Run) -> None:
        fresh.workload = replace(fresh.workload, model=OneCell(nn.RNN).eval())
        with pytest.raises(WorkloadError, match="nothing of this model can be computed in int8") as caught:
            fresh("stages=[{kind: qat}]")
        assert "before any training (int8 graph): stage qat" in caught.value.where
        assert "rnn_tanh (1)" in caught.value.got
        assert not fresh.folder.exists()

    def test_what_a_training_would_stumble_over(self, fresh: Run) -> None:
        class Strict(tiny.TinyNet):
            def forward(self, x: Tensor) -> Tensor:
                if self.training:
                    raise ValueError("give me targets")
                return super().forward(x)

        fresh.workload = replace(fresh.workload, model=Strict().eval())
        with pytest.raises(WorkloadError, match="fails in train mode: ValueError: give me targets"):
            fresh()
        assert not fresh.folder.exists()


class OneCell(nn.Module):
    """Nothing but a recurrent layer, whose state is what it gives."""

    def __init__(self, kind: type[nn.RNNBase] = nn.LSTM) -> None:
        super().__init__()
        self.cell = kind(8, 4, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        steps, _ = self.cell(x[:, 0])
        return steps[:, -1]


class TestWhatCanBeCut:
    """The trained model is distilled first in this recipe: a prune stage's own word would come too late."""

    def refused(self, run: Run, *overrides: str) -> WorkloadError:
        with pytest.raises(WorkloadError) as caught:
            run(*overrides)
        assert caught.value.exit_code == 2
        assert "tried before any training (what can be cut): stage prune" in caught.value.where
        assert parts(run) == ["preflight"]
        assert not run.folder.exists()
        return caught.value

    @pytest.mark.parametrize("setting", ["speedup=60", "shrink=60", "pruning_ratio=0.9"])
    def test_a_target_that_is_out_of_reach(self, setting: str, fresh: Run) -> None:
        error = self.refused(fresh, "stages.prune.speedup=null", f"stages.prune.{setting}")
        assert "reached" in error.what or "shrink" in error.what
        assert "at most" in error.got
        assert error.next.startswith(f"set {setting.partition('=')[0]} to")

    @pytest.mark.parametrize("target", ["speedup=1.3", "latency_ms=0.001", "size_kb=1"])
    def test_a_network_of_which_nothing_can_leave_whatever_is_aimed_at(self, target: str, fresh: Run) -> None:
        fresh.workload = replace(fresh.workload, model=OneCell().eval())
        error = self.refused(fresh, "stages.prune.speedup=null", f"stages.prune.{target}")
        assert "cell" in error.got
        assert error.next == "leave the prune stage out of the recipe"

    def test_a_limit_for_a_layer_that_there_is_not(self, fresh: Run) -> None:
        assert "'fist'" in self.refused(fresh, "stages.prune.ignore=[fist]").got

    def test_a_plan_that_is_not_there_or_is_of_another_network(self, fresh: Run, finished: Run) -> None:
        given = ("stages.prune.speedup=null", "stages.prune.channel_multiple=8")
        other = Run(fresh.folder.with_name("other"), fresh.recipe, fresh.workload)
        with pytest.raises(WorkloadError, match=r"no-plan\.json"):
            other(*given, "stages.prune.plan=no-plan.json")
        plan = next(finished.folder.rglob("plan.json"))
        other.workload = replace(fresh.workload, model=OneCell().eval())
        with pytest.raises(WorkloadError, match="before any training"):
            other(*given, f"stages.prune.plan={plan}")

    @pytest.mark.wide
    def test_what_was_found_serves_the_stage_that_gets_the_same_weights(
        self, fresh: Run, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        asked, prepare = [], build.prepare

        def counted(*arguments: Any, **options: Any) -> Any:
            asked.append(1)
            return prepare(*arguments, **options)

        monkeypatch.setattr(build, "prepare", counted)
        prune = "{kind: prune, speedup: 1.3, channel_multiple: 4, training: {epochs: 0}}"
        distill = "{kind: distill, student: born_again, training: {epochs: 0}}"

        def plan(name: str, stages: str) -> str:
            run = Run(fresh.folder.with_name(name), fresh.recipe, fresh.workload)
            run(f"stages=[{stages}]", "exports.precisions=[fp32]", "diagnose.samples=0")
            return next(run.folder.glob("stages/*-prune/plan.json")).read_text()

        handed_on = plan("alone", prune)
        assert len(asked) == 1
        plan("behind", f"{distill}, {prune}")
        assert len(asked) == 3  # behind another stage the weights are others
        monkeypatch.setattr("edgekit.pipeline.preflight.rehearse", lambda job: None)
        assert plan("again", prune) == handed_on  # as after a kill, where nothing is handed on
        assert len(asked) == 4

    def test_a_student_of_the_workload_s_own_is_what_is_looked_at(self, fresh: Run) -> None:
        fresh.workload = replace(fresh.workload, student=OneCell)
        assert "cell" in self.refused(fresh).got


class Recurrent(nn.Module):
    """An LSTM over 11 steps behind a convolution: TFLM joins ten tensors at most."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.front, self.memory = nn.Conv2d(1, 1, 3, padding=1), nn.LSTM(4, 8, batch_first=True)
        self.head = nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        steps, _ = self.memory(F.relu(self.front(x)).reshape(x.shape[0], 16, 4)[:, :11])
        return self.head(steps[:, -1])


class Signs(tiny.TinyNet):
    """With an op that LiteRT has, and LiteRT for Microcontrollers has not."""

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.second(F.relu(self.norm(self.first(x)))).sign().mean((2, 3)))


@pytest.mark.wide
class TestMicrocontrollers:
    ASKED = ("exports.formats=[litert]", "exports.precisions=[int8]", "exports.microcontroller=true")

    def refused(self, run: Run, model: nn.Module) -> WorkloadError:
        run.workload = replace(run.workload, model=model.eval())
        with pytest.raises(WorkloadError, match="a microcontroller can't run the file") as caught:
            run(*self.ASKED)
        assert "before any training (litert int8)" in caught.value.where
        assert parts(run) == ["preflight"]
        assert not run.folder.exists()
        return caught.value

    @pytest.mark.skipif(not tflm.available(), reason="tflite-micro is not installed")
    def test_a_recurrent_layer_is_refused_by_name_with_the_reason(self, fresh: Run) -> None:
        error = self.refused(fresh, Recurrent())
        assert error.where.endswith("layer 'memory'")
        assert "lstm: the converter unrolls it over time, in float" in error.got
        assert "num_inputs <= kMaxInputNum" in error.got  # in TFLM's own words
        assert error.next.startswith("replace layer 'memory' by layers that compute on integers")

    def test_an_op_that_is_missing_there_needs_no_interpreter(
        self, fresh: Run, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(tflm, "available", lambda: False)
        assert "it has no SIGN" in self.refused(fresh, Signs()).got

    def test_what_fits_goes_on_and_without_the_interpreter_that_is_told(
        self, fresh: Run, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        if tflm.available():
            until_trained(fresh, *self.ASKED)
            assert not [line for line in fresh.told("note") if "microcontroller" in line]
        monkeypatch.setattr(tflm, "available", lambda: False)
        until_trained(fresh, *self.ASKED, "exports.io=int8")  # other files: looked at again
        assert any("only the kinds of ops were looked up" in line for line in fresh.told("note"))

    def test_it_is_asked_only_where_the_recipe_says_so(self, fresh: Run) -> None:
        fresh.workload = replace(fresh.workload, model=Signs().eval())
        until_trained(fresh, *self.ASKED[:2])
