"""What a run writes to standard output and standard error, and what libraries don't."""

from __future__ import annotations

import json
import subprocess
import sys

from tests.test_cli import python

# What a run may look like from outside: libraries that print as they like, at every level.
NOISY = """
import os, sys, types
from edgekit.progress import Event
from edgekit.report import Report
class Report:
    def to_json(self):
        return {"schema": 1}
def compress(workload, *, progress, **rest):
    print("the user's own print")
    progress(Event("stage-start", "prune", epochs=2))
    print("a library's print")
    os.write(1, b"written from C++\\n")
    os.system("echo from a child process")
    for epoch in (1, 2):
        progress(Event("step", "prune", epoch=epoch, epochs=2, done=1, total=2, loss=0.5))
        progress(Event("epoch", "prune", epoch=epoch, epochs=2, loss=0.25, accuracy=0.5))
    progress(Event("warning", "prune", "mind the gap"))
    progress(Event("stage-end", "prune", "half the MACs"))
    {end}
    return Report()
sys.modules["edgekit.pipeline"] = types.ModuleType("edgekit.pipeline")
sys.modules["edgekit.pipeline"].compress = compress
sys.argv = ["edgekit", "compress", *{arguments!r}]
from edgekit.cli.app import main
main()
"""


def noisy(*arguments: str, end: str = "pass", **environment: str) -> subprocess.CompletedProcess[str]:
    code = NOISY.replace("{end}", end).replace("{arguments!r}", repr(list(arguments)))
    return python(code, **environment)


def test_json_is_the_only_thing_on_stdout() -> None:
    done = noisy("--json")
    assert done.returncode == 0
    assert json.loads(done.stdout) == {"schema": 1}
    assert "the user's own print" in done.stderr
    assert "library" not in done.stderr
    assert "C++" not in done.stderr
    assert "child" not in done.stderr


def test_progress_is_plain_lines_where_there_is_no_terminal() -> None:
    stderr = noisy("--json").stderr
    assert "\x1b" not in stderr
    for part in ("epoch 1/2", "epoch 2/2  loss 0.250  train 50.0 %", "mind the gap", "half the MACs"):
        assert part in stderr


def test_quiet_leaves_the_warnings() -> None:
    stderr = noisy("--json", "--quiet").stderr
    assert "mind the gap" in stderr
    assert "epoch" not in stderr


def test_what_libraries_said_is_shown_when_a_run_fails() -> None:
    failed = noisy("--json", end="raise ValueError('a bug')")
    assert (failed.returncode, failed.stdout) == (1, "")
    assert "written from C++" in failed.stderr
    assert "Traceback" not in failed.stderr
    refused = noisy("--json", end="from edgekit.errors import DataError; raise DataError('no samples')")
    assert refused.returncode == 2
    assert "C++" not in refused.stderr


def test_debug_shows_libraries_and_tracebacks() -> None:
    done = noisy("--json", "--debug", end="raise ValueError('a bug')")
    assert done.returncode == 1
    assert "written from C++" in done.stderr
    assert "Traceback" in done.stderr
    assert not done.stdout


def test_a_reader_that_goes_away_is_no_error() -> None:
    done = subprocess.run(
        f"{sys.executable} -m edgekit recipe show mobile --json | head -c 1",
        shell=True,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.stdout == "{"
    assert "Traceback" not in done.stderr


def test_a_real_ctrl_c_ends_a_run_with_130() -> None:
    end = "import signal; os.kill(os.getpid(), signal.SIGINT); import time; time.sleep(30)"
    done = noisy("--json", end=end)
    assert (done.returncode, done.stdout) == (130, "")
    assert "the same command goes on" in done.stderr
    assert "Traceback" not in done.stderr
