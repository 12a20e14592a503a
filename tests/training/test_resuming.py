"""A training that was killed goes on to the same weights, bit for bit."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from edgekit.progress import Event
from edgekit.stages.base import DistillationConfig
from tests.training.small import Killed, Small, config, identical, kill_in, run, small, without_times

NO_TEACHER = DistillationConfig(loss="none")


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
            "import sys, time; sys.path.insert(0, sys.argv[2]); from tests.training.small import *\n"
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
