"""``torchrun … -m edgekit compress``: one run, whose training two processes share."""

from __future__ import annotations

import json
import os
import signal
import time
from pathlib import Path
from typing import Any

import pytest

from tests.e2e import torchrun
from tests.pipeline import tiny

pytestmark = pytest.mark.slow

FAILING = """
import os
from tests.pipeline import tiny

def workload():
    given = tiny.workload()
    if os.environ["RANK"] == "1":
        forward = type(given.model).forward
        def failing(self, x):
            if self.training:
                raise ValueError("out of luck")
            return forward(self, x)
        type(given.model).forward = failing
    return given
"""


@pytest.fixture
def recipe(tmp_path: Path) -> str:
    path = tmp_path / "tiny.yaml"
    path.write_text(tiny.RECIPE)
    return str(path)


def compress(recipe: str, out: Path, *more: str, workload: Path = torchrun.TINY) -> tuple[str, ...]:
    return ("compress", str(workload), "--recipe", recipe, "--out", str(out), *more)


def result(report: dict[str, Any]) -> list[Any]:
    return [(stage["kind"], stage["macs"], stage["parameters"]) for stage in report["stages"]]


def test_one_run_that_either_can_go_on_with(recipe: str, tmp_path: Path) -> None:
    call = compress(recipe, tmp_path / "run", "--json")
    output, told = torchrun.start(2, *call).communicate(timeout=180)
    report = json.loads(output)  # printed once
    assert report == json.loads((tmp_path / "run" / "report.json").read_text())
    assert told.count("recommended") <= 1
    _, told = torchrun.start(1, *call).communicate(timeout=180)
    assert told.count("kept from before") >= 3, told
    alone, _ = torchrun.start(1, *compress(recipe, tmp_path / "alone", "--json")).communicate(timeout=180)
    assert result(json.loads(alone)) == result(report)


def test_a_failure_in_one_ends_all_with_its_message(recipe: str, tmp_path: Path) -> None:
    workload = tmp_path / "failing.py"
    workload.write_text(FAILING)
    process = torchrun.start(
        2, *compress(recipe, tmp_path / "run", workload=workload), PYTHONPATH=str(torchrun.ROOT)
    )
    _, told = process.communicate(timeout=120)
    assert process.returncode != 0
    assert "ValueError: out of luck" in told


@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGKILL])
def test_stopped_and_continued(sent: signal.Signals, recipe: str, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    call = compress(recipe, folder, "--set", "stages.prune.training.epochs=400")
    process = torchrun.start(2, *call)
    waited = time.monotonic()
    while not (folder / "stages" / "2-prune" / "checkpoint.pt").exists():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() - waited < 90
        time.sleep(0.1)
    # Ctrl-C, which torchrun hands on; or a machine that is switched off.
    for pid in [process.pid, *(torchrun.descendants(process.pid) if sent is signal.SIGKILL else ())]:
        os.kill(pid, sent)
    _, told = process.communicate(timeout=60)
    assert process.returncode != 0
    if sent is signal.SIGINT:
        assert told.count("all that was finished is kept") == 1, told
    assert not (folder / "report.json").exists()
    output, told = torchrun.start(2, *call, "--json").communicate(timeout=180)
    assert "continuing after epoch" in told
    assert json.loads(output)["stages"]
