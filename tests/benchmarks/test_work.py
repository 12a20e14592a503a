from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from edgekit.progress import Event
from edgekit.zoo import digits

Load = Callable[[str], Any]


@pytest.fixture
def calls() -> list[Path]:
    return []


def maker(calls: list[Path], value: int = 1) -> Callable[[Path], dict[str, Any]]:
    def make(folder: Path) -> dict[str, Any]:
        calls.append(folder)
        return {"value": value}

    return make


def test_a_finished_part_is_not_done_again(script: Load, tmp_path: Path, calls: list[Path]) -> None:
    for _ in range(2):
        place = script("work").Work(tmp_path / "w")
        assert place.part("one", {"lr": 0.1}, maker(calls)) == {"value": 1}
    assert len(calls) == 1
    assert place.part("one", {"lr": 0.2}, maker(calls, 2)) == {"value": 2}
    assert len(calls) == 2


def test_a_killed_part_goes_on_in_its_folder_and_other_settings_empty_it(
    script: Load, tmp_path: Path, calls: list[Path]
) -> None:
    place = script("work").Work(tmp_path / "w")

    def killed(folder: Path) -> dict[str, Any]:
        (folder / "checkpoint.pt").write_text("half")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        place.part("one", {"lr": 0.1}, killed)
    place.part("one", {"lr": 0.1}, maker(calls))
    assert (calls[0] / "checkpoint.pt").read_text() == "half"
    place.part("one", {"lr": 0.2}, maker(calls))
    assert not (calls[1] / "checkpoint.pt").exists()


def test_a_part_depends_on_code_and_files(
    script: Load, tmp_path: Path, calls: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    work = script("work")
    place = work.Work(tmp_path / "w")
    place.part("one", {}, maker(calls), files=["rows.py"])
    place.part("one", {}, maker(calls), files=["rows.py"])
    assert len(calls) == 1
    place.part("one", {}, maker(calls), files=["rows.py", "work.py"])
    assert len(calls) == 2
    monkeypatch.setattr(work, "code_version", lambda part: "other")
    place.part("one", {}, maker(calls), files=["rows.py", "work.py"])
    assert len(calls) == 3


def test_a_clock_goes_on_after_a_kill(script: Load, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    work, now = script("work"), [100.0]
    monkeypatch.setattr(work.time, "monotonic", lambda: now[0])
    clock = work.Clock(tmp_path / "clock.json")
    now[0] += 1
    clock.tick()
    assert not (tmp_path / "clock.json").exists()  # noted at most every two seconds
    now[0] += 9
    clock.tick(Event("step", "prune"))
    now[0] += 500  # killed soon after the note, and started again much later
    again = work.Clock(tmp_path / "clock.json")
    now[0] += 5
    again.tick(at_once=True)
    assert again.seconds == pytest.approx(15)
    assert json.loads((tmp_path / "clock.json").read_text()) == {"seconds": 15.0, "starts": 2}


def test_events_in_words(script: Load) -> None:
    told = script("work").told
    step = Event("step", "prune", "", 2, 8, 1280, 50_000, 0.5, 0.91, 512.4, 130.0)
    expected = "prune epoch 2/8, 1,280/50,000, loss 0.500, 91.00%, 512 images/s, ETA 2:10"
    assert told(step) == expected
    assert told(Event("warning", "qat", "starting over")) == "qat starting over"
    assert told(Event("stage-start", "qat")) == ""


def test_steps_are_told_now_and_then_and_all_else_always(
    script: Load, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    work, now, heard = script("work"), [100.0], []
    monkeypatch.setattr(work.time, "monotonic", lambda: now[0])
    teller = work.Teller("x", also=[heard.append])
    step = Event("step", "kd", done=1, total=2, images_per_second=10.0)
    for _ in range(3):
        teller(step)
    teller(Event("warning", "kd", "careful"))
    now[0] += work.SECONDS_BETWEEN_LINES
    teller(step)
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 3
    assert "careful" in lines[1]
    assert len(heard) == 5


def test_smaller_keeps_the_first_samples_of_each_split(script: Load) -> None:
    whole = digits.untrained()
    part = script("work").smaller(whole, 10, 4)
    assert (len(part.train), len(part.validation)) == (10, 4)
    assert part.train.inputs.equal(whole.train.inputs[:10])
    assert part.validation.targets.equal(whole.validation.targets[:4])
    assert part.augmentation == whole.augmentation


def test_a_smoke_test_leaves_nothing(script: Load, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    work = script("work")
    monkeypatch.setenv("EDGEKIT_DATA", "elsewhere")
    monkeypatch.setattr("torch.set_num_threads", lambda count: None)
    options = work.parser("", "x").parse_args(["--smoke", "--data", str(tmp_path)])
    with work.workplace(options) as place:
        assert place.path.is_dir()
        assert work.os.environ["EDGEKIT_DATA"] == str(tmp_path)
    assert not place.path.exists()


def test_errors_of_the_user_are_told_without_a_traceback(
    script: Load, capsys: pytest.CaptureFixture[str]
) -> None:
    from edgekit.errors import WorkloadError

    def fails() -> int:
        raise WorkloadError("no data", next="set EDGEKIT_DATA")

    assert script("work").guarded(fails) == 1
    assert "set EDGEKIT_DATA" in capsys.readouterr().err
    assert script("work").guarded(lambda: 0) == 0


def test_a_better_docstring_costs_no_training(script: Load) -> None:
    statements = script("work").statements
    one = '"""Doc."""\nX = 1  # why\n\ndef f(a):\n    """Say."""\n    return "a text"\n'
    other = 'X = 1\n\n\ndef f(a):\n    """Say more."""\n    return "a text"\n'
    assert statements(one) == statements(other)
    assert statements(one) != statements(one.replace("a text", "another"))
    assert statements(one) != statements(one.replace("X = 1", "X = 2"))
    assert statements('def f():\n    """Only this."""\n') == statements('def f():\n    """Or that."""\n')


def test_a_finished_stage_is_read_not_run_again(
    script: Load, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from edgekit.stages import STAGES
    from edgekit.stages.base import StageContext, TrainingConfig
    from edgekit.stages.prune_config import PruneConfig

    work, made = script("work"), digits.untrained()
    part = work.smaller(made, 32, 8)
    config = PruneConfig(speedup=1.3, training=TrainingConfig(epochs=1, batch_size=16))
    context = StageContext(part, part.model, tmp_path / "stage")
    first = work.run_stage("prune", part.model, config, context)
    unable = dataclasses.replace(STAGES["prune"], run=lambda *_: pytest.fail("it was run again"))
    monkeypatch.setattr("edgekit.stages.STAGES", {**STAGES, "prune": unable})
    again = work.run_stage("prune", part.model, config, context)
    assert again.details["history"] == first.details["history"]
    for name, value in first.model.state_dict().items():
        assert again.model.state_dict()[name].equal(value)
