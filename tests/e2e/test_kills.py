"""kill -9 at random moments in every stage: the run that goes on ends with the same files, bit for bit."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.e2e import torchrun
from tests.leftovers import results

pytestmark = pytest.mark.slow

RECIPE = """
name: killed
stages:
  - {kind: distill, student: width, width: 0.75, channel_multiple: 4,
     training: {epochs: 20, batch_size: 32, lr: 0.02, ema_decay: 0.99}}
  - {kind: prune, speedup: 1.3, channel_multiple: 4,
     training: {epochs: 20, batch_size: 32, lr: auto}}
  - {kind: qat, calibration_samples: 64,
     training: {epochs: 10, batch_size: 32, lr: 1.0e-4, early_stopping: {patience: 4, held_out: 0.2}}}
exports: {formats: [onnx, litert], precisions: [fp32, int8]}
benchmark: {threads: [1], min_seconds: 0.0, min_runs: 1}
recommend: {max_accuracy_drop: 100}
"""
STAGES = ("distill", "prune", "qat")
REPEATS = 20


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("recipe") / "killed.yaml"
    path.write_text(RECIPE)
    return path


class Forks:
    """The process in forks.py."""

    def __init__(self, recipe: Path) -> None:
        self.recipe = recipe
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tests.e2e.forks"],
            cwd=torchrun.ROOT,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )

    def run(self, out: Path, kill: tuple[str, float] | None = None) -> tuple[str, dict[str, float]]:
        """Compress, and kill some seconds after a stage has begun (or was found finished).

        Returns the last that was heard ("end", "gone", an error), and when each stage began and ended.
        """
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(json.dumps({"recipe": str(self.recipe), "out": str(out)}) + "\n")
        self.process.stdin.flush()
        pid = int(self.process.stdout.readline())
        times: dict[str, float] = {}
        last, timer = "", None
        for line in self.process.stdout:
            text = line.strip()
            if text == "gone":
                break
            if not text.startswith("["):
                last = text
                continue
            kind, stage, _ = json.loads(text)
            times.setdefault(f"{kind} {stage}", time.monotonic())
            if kill and stage == kill[0] and kind == "stage-start" and timer is None:
                timer = threading.Timer(kill[1], os.kill, (pid, signal.SIGKILL))
                timer.start()
        if timer is not None:
            timer.cancel()
        return last or "killed", times

    def close(self) -> None:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.close()
        self.process.wait(timeout=30)
        self.process.stdout.close()


@pytest.fixture(scope="module")
def forks(recipe: Path) -> Iterator[Forks]:
    server = Forks(recipe)
    yield server
    server.close()


@pytest.fixture(scope="module")
def undisturbed(forks: Forks, tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, str], Any]:
    """What an undisturbed run leaves, and the seconds that each stage takes."""
    folder = tmp_path_factory.mktemp("undisturbed") / "run"
    last, times = forks.run(folder)
    assert last == "end"
    took = {stage: times[f"stage-end {stage}"] - times[f"stage-start {stage}"] for stage in STAGES}
    return results(folder), took


@pytest.mark.parametrize("repeat", range(REPEATS))
def test_killed_once_in_every_stage(
    repeat: int, forks: Forks, undisturbed: tuple[dict[str, str], Any], tmp_path: Path
) -> None:
    expected, took = undisturbed
    drawn = random.Random(repeat)
    killed = []
    for stage in STAGES:
        last, _ = forks.run(tmp_path / "run", (stage, drawn.uniform(0, took[stage])))
        assert last in ("killed", "end"), last
        killed.append(last == "killed")
    last, _ = forks.run(tmp_path / "run")
    assert last == "end"
    assert any(killed)  # a stage may have been quicker this time
    assert results(tmp_path / "run") == expected
    assert len(expected) >= 5


def test_two_runs_are_bit_equal(recipe: Path, tmp_path: Path) -> None:
    """Two processes whose sets and dictionaries are ordered differently."""
    found = []
    for seed in ("1", "2"):
        folder = tmp_path / seed
        call = ("compress", str(torchrun.TINY), "--recipe", str(recipe), "--out", str(folder), "--quiet")
        process = torchrun.start(1, *call, PYTHONHASHSEED=seed)
        _, told = process.communicate(timeout=180)
        assert process.returncode == 0, told
        found.append(results(folder))
    assert found[0] == found[1]
    assert len(found[0]) >= 5
