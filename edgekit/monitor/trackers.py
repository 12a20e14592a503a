"""Where a run's epochs are told besides: TensorBoard, MLflow. Both are extras, and asked for by name.

They listen to the events of progress, so nothing that is computed depends on them; one that fails on the way
is told as a warning, and the run goes on without it.
"""

from __future__ import annotations

import importlib.util
import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

from edgekit.errors import InputError, MissingExtraError, did_you_mean
from edgekit.files import write_json
from edgekit.progress import Event, Progress

__all__ = ["TRACKERS", "require", "tracked"]

_EXPERIMENT = "edgekit"
_LONGEST = 500  # characters of a parameter's value in MLflow


class TensorBoard:
    """Scalars in ``folder``/tensorboard/STAGE; ``tensorboard --logdir`` shows them."""

    needs = ("tensorboard",)

    def __init__(self, folder: Path, about: Mapping[str, Any]) -> None:
        self.folder = folder / "tensorboard"
        self.writers: dict[str, Any] = {}

    def epoch(self, event: Event) -> None:
        """One finished epoch."""
        from torch.utils.tensorboard import SummaryWriter

        if event.stage not in self.writers:
            # What a killed training had told of this epoch and later ones is hidden.
            place = str(self.folder / event.stage)
            self.writers[event.stage] = SummaryWriter(place, purge_step=event.epoch)
        writer = self.writers[event.stage]
        for name, value in _numbers(event).items():
            writer.add_scalar(name, value, event.epoch)
        writer.flush()

    def close(self, failed: bool) -> None:
        """At the end, good or bad."""
        for writer in self.writers.values():
            writer.close()


class MLflow:
    """One MLflow run for a run of edgekit, continued with it.

    The server is MLFLOW_TRACKING_URI, without it a database in ``folder``/mlflow.db; the experiment is
    MLFLOW_EXPERIMENT_NAME, or "edgekit".
    """

    needs = ("mlflow", "sqlalchemy", "alembic")

    def __init__(self, folder: Path, about: Mapping[str, Any]) -> None:
        os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")  # a run reports to nobody it wasn't told to
        from mlflow.tracking import MlflowClient

        folder.mkdir(parents=True, exist_ok=True)
        uri = os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{folder / 'mlflow.db'}"
        self.client: Any = MlflowClient(tracking_uri=uri, registry_uri=uri)
        note = folder / "mlflow.json"
        known = json.loads(note.read_text()) if note.exists() else {}
        if known.get("uri") == uri:
            self.run = known["run"]
            self.client.set_terminated(self.run, "RUNNING")
            return
        name = os.environ.get("MLFLOW_EXPERIMENT_NAME") or _EXPERIMENT
        found = self.client.get_experiment_by_name(name)
        experiment = found.experiment_id if found else self.client.create_experiment(name)
        self.run = self.client.create_run(experiment, run_name=str(about.get("name", ""))).info.run_id
        for key, value in about.items():
            self.client.log_param(self.run, key, str(value)[:_LONGEST])
        write_json(note, {"uri": uri, "run": self.run})

    def epoch(self, event: Event) -> None:
        """One finished epoch."""
        for name, value in _numbers(event).items():
            self.client.log_metric(self.run, f"{event.stage}/{name}", value, step=event.epoch)

    def close(self, failed: bool) -> None:
        """At the end, good or bad."""
        self.client.set_terminated(self.run, "FAILED" if failed else "FINISHED")


TRACKERS: Mapping[str, type[TensorBoard] | type[MLflow]] = {"tensorboard": TensorBoard, "mlflow": MLflow}


def require(names: Sequence[str]) -> None:
    """Look for what trackers need, before any work.

    Raises:
        InputError: an unknown name.
        MissingExtraError: a package is missing.
    """
    for name in names:
        if name not in TRACKERS:
            raise InputError(
                f"there is no log to {name!r}, {did_you_mean(name, TRACKERS)}",
                where="--log",
                next="training.csv is written in any case",
            )
        missing = [package for package in TRACKERS[name].needs if importlib.util.find_spec(package) is None]
        if missing:
            raise MissingExtraError(
                f"the log to {name} needs a package that isn't installed",
                where="--log",
                got=f"no {', '.join(missing)}",
                next=f'pip install "edgekit-toolkit[{name}]"',
            )


@contextmanager
def tracked(
    names: Sequence[str], folder: Path, about: Mapping[str, Any], progress: Progress
) -> Iterator[Progress]:
    """A ``progress`` that trackers listen to as well.

    Args:
        names: of trackers, see ``TRACKERS``.
        folder: where those write that write to files; made when needed.
        about: parameters of the run, JSON; "name" names it.
        progress: is told everything in any case, and of a tracker that fails.
    """
    listening: dict[str, Any] = {}

    def attempt(name: str, work: Callable[[], Any]) -> Any:
        try:
            return work()
        except Exception as error:  # a server that is gone, a full disk: whatever the tracker raises
            listening.pop(name, None)
            first = next(iter(str(error).splitlines()), "")
            progress(Event("warning", "log", f"no more logs to {name}: {type(error).__name__}: {first}"))
            return None

    def told(event: Event) -> None:
        progress(event)
        if event.kind == "epoch":
            for name, one in list(listening.items()):
                attempt(name, lambda one=one: one.epoch(event))  # type: ignore[misc]

    for name in dict.fromkeys(names):
        one = attempt(name, lambda name=name: TRACKERS[name](folder, about))  # type: ignore[misc]
        if one is not None:
            listening[name] = one
    failed = True
    try:
        yield told
        failed = False
    finally:
        for name, one in list(listening.items()):
            attempt(name, lambda one=one: one.close(failed))  # type: ignore[misc]


def _numbers(event: Event) -> dict[str, float]:
    keys: tuple[Literal["loss", "accuracy", "lr", "images_per_second"], ...]
    keys = ("loss", "accuracy", "lr", "images_per_second")
    return {key: value for key in keys if (value := getattr(event, key)) is not None}
