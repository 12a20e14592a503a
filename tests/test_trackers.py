from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import pytest

from edgekit.errors import InputError, MissingExtraError
from edgekit.monitor.trackers import MLflow, require, tracked
from edgekit.progress import Event, silent

ABOUT = {"name": "tiny-run", "seed": 3, "prune.speedup": 2.0, "long": "x" * 900}


def epoch(number: int, stage: str = "prune") -> Event:
    return Event("epoch", stage, epoch=number, epochs=3, loss=1 / number, accuracy=0.5, lr=0.1 * number)


def test_unknown_and_missing_ones_are_told_before_work(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InputError, match="did you mean 'tensorboard'"):
        require(["tensorbord"])
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    for name in ("tensorboard", "mlflow"):
        with pytest.raises(MissingExtraError) as error:
            require([name])
        assert error.value.next == f'pip install "edgekit-toolkit[{name}]"'
    require([])


def test_a_run_asks_for_them_before_anything_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import edgekit

    with pytest.raises(InputError, match="there is no log to 'paper'"):
        edgekit.compress(recipe="quick", out=tmp_path / "run", log=["paper"])
    assert not (tmp_path / "run").exists()


def scalars(folder: Path) -> dict[str, list[tuple[int, float]]]:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    found = EventAccumulator(str(folder))
    found.Reload()
    return {tag: [(one.step, one.value) for one in found.Scalars(tag)] for tag in found.Tags()["scalars"]}


@pytest.mark.skipif(importlib.util.find_spec("tensorboard") is None, reason="tensorboard isn't installed")
def test_tensorboard_shows_every_epoch_once_after_a_kill(tmp_path: Path) -> None:
    events: list[Event] = []

    def killed() -> None:
        with tracked(["tensorboard"], tmp_path, ABOUT, events.append) as progress:
            progress(epoch(1))
            progress(Event("step", "prune", loss=7.0))
            progress(epoch(2))
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        killed()
    with tracked(["tensorboard"], tmp_path, ABOUT, events.append) as progress:
        progress(epoch(2))  # its checkpoint was not written yet
        progress(epoch(3))
        progress(epoch(1, "qat"))
    found = scalars(tmp_path / "tensorboard" / "prune")
    assert set(found) == {"loss", "accuracy", "lr"}
    assert [step for step, _ in found["loss"]] == [1, 2, 3]
    assert found["loss"] == [(n, pytest.approx(1 / n)) for n in (1, 2, 3)]
    assert [step for step, _ in scalars(tmp_path / "tensorboard" / "qat")["lr"]] == [1]
    assert [event.kind for event in events] == ["epoch", "step", "epoch", "epoch", "epoch", "epoch"]


@pytest.mark.skipif(importlib.util.find_spec("mlflow") is None, reason="mlflow isn't installed")
@pytest.mark.filterwarnings("ignore:::(mlflow|alembic|sqlalchemy)")
def test_mlflow_has_one_run_that_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("MLFLOW_TRACKING_URI", "MLFLOW_EXPERIMENT_NAME"):
        monkeypatch.delenv(name, raising=False)

    def killed() -> None:
        with tracked(["mlflow"], tmp_path, ABOUT, silent) as progress:
            progress(epoch(1))
            raise ValueError("killed")

    with pytest.raises(ValueError, match="killed"):
        killed()
    one = MLflow(tmp_path, ABOUT)
    client = one.client
    assert client.get_run(one.run).info.status == "RUNNING"
    one.close(failed=True)
    assert client.get_run(one.run).info.status == "FAILED"
    with tracked(["mlflow"], tmp_path, ABOUT, silent) as progress:
        progress(epoch(2))
    run = client.get_run(one.run)
    assert run.info.status == "FINISHED"
    assert run.info.run_name == "tiny-run"
    assert run.data.params["prune.speedup"] == "2.0"
    assert len(run.data.params["long"]) == 500
    assert [metric.step for metric in client.get_metric_history(one.run, "prune/loss")] == [1, 2]
    (experiment,) = [e for e in client.search_experiments() if e.name == "edgekit"]
    assert len(client.search_runs([experiment.experiment_id])) == 1


def test_one_that_fails_is_told_once_and_the_run_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Failing:
        needs = ()

        def __init__(self, folder: Path, about: Any) -> None: ...

        def epoch(self, event: Event) -> None:
            raise ConnectionError("gone\nfor good")

        def close(self, failed: bool) -> None:
            raise AssertionError("was dropped")

    monkeypatch.setattr("edgekit.monitor.trackers.TRACKERS", {"server": Failing})
    events: list[Event] = []
    with tracked(["server"], tmp_path, ABOUT, events.append) as progress:
        progress(epoch(1))
        progress(epoch(2))
    assert [event.kind for event in events] == ["epoch", "warning", "epoch"]
    assert events[1].message == "no more logs to server: ConnectionError: gone"
