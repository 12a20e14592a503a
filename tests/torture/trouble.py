"""Commands that may be killed at any moment or given too little of something, and what they leave if not."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from edgekit.files import sha256
from tests.leftovers import results

ROOT = Path(__file__).resolve().parents[2]
WORKLOAD = str(ROOT / "tests/pipeline/tiny.py")
RECIPE = """
name: trouble
stages:
  - {kind: distill, student: width, width: 0.75, channel_multiple: 4,
     training: {epochs: 5, batch_size: 32, lr: 0.02, ema_decay: 0.99}}
  - {kind: prune, speedup: 1.3, channel_multiple: 4, training: {epochs: 5, batch_size: 32, lr: auto}}
  - {kind: qat, calibration_samples: 64,
     training: {epochs: 4, batch_size: 32, lr: 1.0e-4, early_stopping: {patience: 2, held_out: 0.2}}}
exports: {formats: [onnx, litert], precisions: [fp32, int8]}
benchmark: {threads: [1], min_seconds: 0.0, min_runs: 1}
recommend: {max_accuracy_drop: 100}
"""
SEARCH = """
name: search
stages:
  - {kind: prune, speedup: 1.3, channel_multiple: 4, importance: auto,
     training: {epochs: 3, batch_size: 32, lr: 0.02}}
  - {kind: qat, calibration_samples: 64, training: {epochs: 0}}
exports: {formats: [onnx], precisions: [int8]}
benchmark: {threads: [1], min_seconds: 0.0, min_runs: 1}
recommend: {max_accuracy_drop: 100}
"""
LONGEST = 240.0  # seconds for a command that takes some ten on a busy machine: far more is a hang


# --- commands --------------------------------------------------------------------------------------------


def of_run(folder: Path) -> dict[str, str]:
    """What the run in a folder left."""
    return results(folder / "run")


def of_folder(name: str) -> Callable[[Path], dict[str, str]]:
    """sha256 of every file in a folder."""

    def found(folder: Path) -> dict[str, str]:
        return {
            path.relative_to(folder).as_posix(): sha256(path)
            for path in sorted((folder / name).rglob("*"))
            if path.is_file()
        }

    return found


def of_bench(folder: Path) -> dict[str, str]:
    """What was measured; how long it took is another each time."""
    record = json.loads((folder / "out/bench.json").read_text())
    rows = [*record["results"], *record["failures"]]
    return {
        f"{one['artifact']} {one['runtime']}": f"{one['sha256']} {one.get('accuracy')} {one.get('error')}"
        for one in rows
    }


@dataclass(frozen=True)
class Command:
    """``result``: what its folder holds at the end that must be equal; ``place``: where in it it writes;
    ``on_run``: it works on a finished run.
    """

    arguments: tuple[str, ...]
    result: Callable[[Path], dict[str, str]]
    place: str
    on_run: bool = True


OUT = ("--out", "run")
COMMANDS = {
    "compress": Command(("compress", WORKLOAD, "--recipe", "trouble.yaml", *OUT), of_run, "run", False),
    "search": Command(("compress", WORKLOAD, "--recipe", "search.yaml", *OUT), of_run, "run", False),
    "export": Command(
        ("export", "run", WORKLOAD, "--format", "onnx,litert", "--precision", "fp16"), of_run, "run"
    ),
    "bundle": Command(
        ("bundle", "run", WORKLOAD, "--target", "python", "--out", "out/bundle"), of_folder("out"), "out"
    ),
    "bench": Command(
        ("bench", "run", "-w", WORKLOAD, "--min-seconds", "0", "--min-runs", "3", "--out", "out/bench.json"),
        of_bench,
        "out",
    ),
    "prune": Command(
        ("prune", WORKLOAD, "--speedup", "1.3", "--multiple", "4", "--out", "out/pruned"),
        of_folder("out"),
        "out",
        False,
    ),
}


@dataclass
class Ended:
    """How a command ended: ``code`` as a shell has it, negative for a signal; what it said."""

    code: int
    text: str
    seconds: float
    pid: int

    @property
    def hung(self) -> bool:
        """Whether it had to be ended."""
        return self.seconds >= LONGEST


class Machine:
    """Starts commands as forks of one process; keeps undisturbed results. ``folder`` is for all its files."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.cache = folder / "cache"
        self.expected: dict[str, dict[str, str]] = {}
        self.seconds: dict[str, float] = {}
        self.cache.mkdir(parents=True)
        self._server = subprocess.Popen(
            [sys.executable, "-m", "tests.torture.forks"],
            cwd=ROOT,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )

    def close(self) -> None:
        assert self._server.stdin is not None
        assert self._server.stdout is not None
        self._server.stdin.close()
        self._server.wait(timeout=60)
        self._server.stdout.close()

    def prepare(self, name: str, folder: Path) -> None:
        """A folder to give the command in."""
        folder.mkdir(parents=True)
        (folder / "trouble.yaml").write_text(RECIPE)
        (folder / "search.yaml").write_text(SEARCH)
        for inner in ("tmp", COMMANDS[name].place):
            (folder / inner).mkdir()
        if COMMANDS[name].on_run:
            shutil.copytree(self.undisturbed("compress"), folder / "run", dirs_exist_ok=True)

    def undisturbed(self, name: str) -> Path:
        """The folder that the command leaves if nobody disturbs it; made the first time that it is needed."""
        folder = self.folder / "undisturbed" / name
        if name not in self.expected:
            self.prepare(name, folder)
            ended = self.run(name, folder)
            assert ended.code == 0, ended.text
            self.expected[name] = COMMANDS[name].result(folder)
            self.seconds[name] = ended.seconds
            assert self.expected[name]
        return folder / "run"

    def run(
        self,
        name: str,
        folder: Path,
        *,
        limits: Mapping[str, int] | None = None,
        environment: Mapping[str, str] | None = None,
        kill: tuple[int, float] | None = None,
    ) -> Ended:
        """Give the command, and wait for its end. ``kill``: a signal, and after how many seconds."""
        surroundings = {"TMPDIR": str(folder / "tmp"), "XDG_CACHE_HOME": str(self.cache)}
        log = self.folder / "log"
        request = {
            "arguments": COMMANDS[name].arguments,
            "folder": str(folder),
            "log": str(log),
            "environment": {**surroundings, **(environment or {})},
            "limits": dict(limits or {}),
        }
        assert self._server.stdin is not None
        assert self._server.stdout is not None
        began = time.monotonic()
        self._server.stdin.write(json.dumps(request) + "\n")
        self._server.stdin.flush()
        pid = int(self._server.stdout.readline())
        # Before it is ended, a command that hangs says where (forks.py).
        timers = [
            threading.Timer(LONGEST, send, (pid, signal.SIGUSR1)),
            threading.Timer(LONGEST + 2, send, (pid, signal.SIGKILL)),
        ]
        if kill:
            timers.append(threading.Timer(kill[1], send, (pid, kill[0])))
        for timer in timers:
            timer.start()
        status = int(self._server.stdout.readline())
        for timer in timers:
            timer.cancel()
        seconds = time.monotonic() - began
        text = log.read_text(errors="replace")
        return Ended(os.waitstatus_to_exitcode(status), text, seconds, pid)


def send(pid: int, number: int) -> None:
    """A signal, to a process that may be gone."""
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        return
