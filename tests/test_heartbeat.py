"""Nothing is silent for long: a thread tells what is being done where no event comes."""

from __future__ import annotations

import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path

import pytest

from edgekit.monitor.heartbeat import Heartbeat
from edgekit.progress import Event

EVERY = 0.2


class Lines:
    """What was shown, and when."""

    def __init__(self) -> None:
        self.events: list[Event] = []
        self.times = [time.monotonic()]
        self.threads: set[str] = set()

    def __call__(self, event: Event) -> None:
        self.events.append(event)
        self.times.append(time.monotonic())
        self.threads.add(threading.current_thread().name)

    def largest_gap(self) -> float:
        return max(b - a for a, b in zip(self.times, [*self.times[1:], time.monotonic()], strict=True))


@pytest.mark.parametrize("sparing", [True, False])
def test_a_silent_step_is_told_again_and_again_with_its_name(sparing: bool) -> None:
    lines = Lines()
    with Heartbeat(lines, sparing=sparing, every=EVERY) as told:
        told(Event("stage-start", "export", total=2))
        told(Event("step", "export", "net_int8.tflite", done=1, total=2))
        time.sleep(5 * EVERY)
        assert lines.largest_gap() < 3 * EVERY
    signs = [event for event in lines.events if "so far" in event.message]
    assert len(signs) >= 3
    assert all(event.stage == "export" and "net_int8.tflite, " in event.message for event in signs)
    assert all((event.done, event.total) == (1, 2) for event in signs)


def test_before_the_first_event_and_between_two_parts() -> None:
    lines = Lines()
    with Heartbeat(lines, every=EVERY) as told:
        time.sleep(3 * EVERY)
        told(Event("epoch", "prune", epoch=1, epochs=2, done=9, total=9, loss=0.5))
        time.sleep(3 * EVERY)
        (after,) = [event for event in lines.events if event.kind == "step" and event.stage == "prune"][:1]
        assert after.message.startswith("epoch 1/2 is done; what follows, 0.")
        assert (after.epochs, after.loss) == (0, None)
        told(Event("stage-end", "prune"))
        time.sleep(3 * EVERY)
    messages = [event.message for event in lines.events]
    assert messages[0].startswith("getting ready, 0.")
    assert messages[-1].startswith("prune is done; what follows, 0.")


def test_many_steps_become_few_lines_and_lose_nothing_else() -> None:
    lines = Lines()
    with Heartbeat(lines, sparing=True, every=EVERY) as told:
        for done in range(100):
            told(Event("step", "prune", epoch=1, epochs=2, done=done, total=100))
            if done % 10 == 0:
                told(Event("warning", "prune", "mind the gap"))
            time.sleep(EVERY / 20)
        told(Event("epoch", "prune", epoch=1, epochs=2))
    kinds = [event.kind for event in lines.events]
    assert kinds.count("warning") == 10
    assert kinds.count("epoch") == 1
    assert 0 <= kinds.count("step") <= 6
    assert not any("so far" in event.message for event in lines.events)


def test_in_a_live_view_every_step_passes_and_nothing_is_added() -> None:
    lines = Lines()
    with Heartbeat(lines, every=EVERY) as told:
        for done in range(20):
            told(Event("step", "prune", done=done, total=20))
            time.sleep(EVERY / 10)
    assert [event.done for event in lines.events] == list(range(20))
    assert lines.threads == {threading.current_thread().name}


def test_an_interrupt_out_of_the_view_passes_and_the_thread_ends() -> None:
    def show(event: Event) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt), Heartbeat(show, every=EVERY) as told:
        told(Event("note", "prune", "x"))
    assert "edgekit-heartbeat" not in [thread.name for thread in threading.enumerate()]


def test_a_view_that_fails_ends_the_signs_alone() -> None:
    def show(event: Event) -> None:
        raise ValueError("closed")

    with Heartbeat(show, every=EVERY / 4):
        time.sleep(EVERY)


CODE = """
import sys, time
from edgekit.cli.common import run_view
from edgekit.monitor import heartbeat
from edgekit.progress import Event
heartbeat.EVERY = 0.3
heartbeat.Heartbeat.__init__.__kwdefaults__["every"] = 0.3
with run_view(quiet="-q" in sys.argv) as progress:
    progress(Event("stage-start", "export"))
    progress(Event("step", "export", "net.tflite", done=0, total=2))
    time.sleep(1)
    if "die" in sys.argv:
        raise SystemExit(3)
print("result")
"""


@pytest.mark.parametrize(("arguments", "told"), [([], True), (["-q"], False), (["die"], True)])
def test_without_a_terminal_too_and_never_when_quiet(arguments: list[str], told: bool) -> None:
    code = textwrap.dedent(CODE)
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode == (3 if "die" in arguments else 0), done.stderr
    assert done.stdout == ("" if "die" in arguments else "result\n")
    assert ("0/2  net.tflite, " in done.stderr) is told
    assert "\x1b" not in done.stderr
    assert (done.stderr == "") is not told


def test_the_end_of_the_command_does_not_look_for_cycles_but_closes_what_is_registered() -> None:
    code = """
import atexit, gc, sys
atexit.register(lambda: print(gc.isenabled(), gc.get_freeze_count() > 0))
sys.argv = ["edgekit", "--version"]
from edgekit.cli.app import main
main()
"""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode == 0
    assert done.stdout.splitlines()[1:] == ["False True"]


HELD = """
import ctypes, sys
from edgekit.monitor.bystander import Bystander
from edgekit.monitor.heartbeat import Heartbeat
from edgekit.progress import Event

def show(event):
    print("here:", event.message, flush=True)

beside = Bystander(sys.stdout.fileno(), 0.5)
with Heartbeat(show, every=0.3, beside=beside, line=lambda event: "beside: " + event.message) as told:
    told(Event("step", "export", "net.tflite"))
    ctypes.PyDLL(None).usleep(2_500_000)  # with Python's lock, as converters do
    told(Event("stage-end", "export", "done"))
"""


@pytest.mark.skipif(sys.platform == "win32", reason="no pipe can be waited for with a clock")
def test_a_step_that_holds_all_threads_up_is_told_by_another_process() -> None:
    done = subprocess.run(
        [sys.executable, "-c", HELD], capture_output=True, text=True, timeout=60, check=True
    )
    lines = done.stdout.splitlines()
    held = [line for line in lines if line.startswith("beside: net.tflite, ")]
    assert len(held) >= 3
    assert all(line.endswith(" s so far") for line in held)
    assert lines[-1] == "here: done"


@pytest.mark.skipif(sys.platform == "win32", reason="no pipe can be waited for with a clock")
def test_the_process_beside_ends_with_the_one_that_it_belongs_to(tmp_path: Path) -> None:
    script = """
import os, signal, sys
from edgekit.monitor.bystander import Bystander
beside = Bystander(os.open(sys.argv[1], os.O_WRONLY | os.O_CREAT), 30)
print(beside._process.pid, flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""
    command = [sys.executable, "-c", script, str(tmp_path / "out")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    beside = int(done.stdout)
    for _ in range(100):
        state = Path(f"/proc/{beside}/stat")
        if not state.exists() or state.read_text().rpartition(")")[2].split()[0] == "Z":
            return
        time.sleep(0.1)
    pytest.fail("it is still there")
