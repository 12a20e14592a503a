from __future__ import annotations

import pickle
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from edgekit.pipeline import compress
from edgekit.progress import Event
from edgekit.report import Report
from edgekit.workload import Workload
from tests.once import once
from tests.pipeline import tiny


class Run:
    """Calls ``compress`` on one folder, and keeps the events of the last call."""

    def __init__(self, folder: Path, recipe: Path, workload: Workload) -> None:
        self.folder, self.recipe, self.workload = folder, recipe, workload
        self.events: list[Event] = []

    def __call__(self, *overrides: str, on: Callable[[Event], None] | None = None) -> Report:
        self.events = []

        def progress(event: Event) -> None:
            self.events.append(event)
            if on is not None:
                on(event)

        return compress(self.workload, self.recipe, out=self.folder, overrides=overrides, progress=progress)

    def told(self, kind: str) -> list[str]:
        return [f"{event.stage}: {event.message}" for event in self.events if event.kind == kind]

    def parts(self, kind: str) -> list[str]:
        return [event.stage for event in self.events if event.kind == kind]


@pytest.fixture(scope="session")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("recipe") / "tiny.yaml"
    path.write_text(tiny.RECIPE)
    return path


@pytest.fixture(scope="session")
def undisturbed(recipe: Path) -> tuple[Run, Report]:
    """A finished run that nobody may change, with its events, and its report."""

    def make(folder: Path) -> None:
        run = Run(folder / "run", recipe, tiny.workload())
        run()
        (folder / "events").write_bytes(pickle.dumps(run.events))

    made = once("undisturbed", make)
    run = Run(made / "run", recipe, tiny.workload())
    run.events = pickle.loads((made / "events").read_bytes())
    return run, Report.load(run.folder)


@pytest.fixture
def without_preflight(monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs that begin with their stages: for tests of what comes later, and of settings that change nothing
    about what can be written. The preflight is a third of a run this small.
    """
    monkeypatch.setattr("edgekit.pipeline.preflight.rehearse", lambda job: None)


@pytest.fixture
def fresh(tmp_path: Path, recipe: Path) -> Run:
    """A run that hasn't begun."""
    return Run(tmp_path / "run", recipe, tiny.workload())


@pytest.fixture
def finished(fresh: Run, undisturbed: tuple[Run, Report]) -> Run:
    """A copy of the finished run."""
    shutil.copytree(undisturbed[0].folder, fresh.folder)
    return fresh
