"""Every command, killed, signalled and starved at random moments: given again it ends with the same files.

``make torture``; EDGEKIT_TORTURE_TRIALS=200 for more, EDGEKIT_TORTURE_SEED=1 for others. Kills in chosen
stages are in tests/e2e/test_kills.py.
"""

from __future__ import annotations

import dataclasses
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.torture import trials as trials_module
from tests.torture.trials import MOUNTED, can_mount, left_behind, trials, tried
from tests.torture.trouble import COMMANDS, Machine

pytestmark = [pytest.mark.torture, pytest.mark.skipif(sys.platform != "linux", reason="limits of Linux")]
COUNT = int(os.environ.get("EDGEKIT_TORTURE_TRIALS", "24"))
SEED = int(os.environ.get("EDGEKIT_TORTURE_SEED", "0"))
TRIALS = list(trials(SEED, COUNT // 3, COUNT // 2, mounts=True))


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machine]:
    one = Machine(tmp_path_factory.mktemp("machine") / "here")
    yield one
    one.close()


@pytest.fixture(scope="module")
def mounts(tmp_path_factory: pytest.TempPathFactory) -> bool:
    return can_mount(tmp_path_factory.mktemp("mounts"))


@pytest.mark.parametrize("name", COMMANDS)
def test_two_undisturbed_commands_leave_the_same(machine: Machine, name: str, tmp_path: Path) -> None:
    """Or else the trials below would show nothing."""
    machine.undisturbed(name)
    machine.prepare(name, tmp_path / "again")
    assert machine.run(name, tmp_path / "again").code == 0
    assert COMMANDS[name].result(tmp_path / "again") == machine.expected[name]
    assert left_behind(tmp_path / "again") == []


@pytest.mark.parametrize(("kind", "name", "seed"), TRIALS, ids=[f"{one[2]} {one[1]}" for one in TRIALS])
def test_disturbed(machine: Machine, mounts: bool, kind: str, name: str, seed: str) -> None:
    if kind in MOUNTED and not mounts:
        pytest.skip("mounting a disk takes root")
    trial = tried(machine, kind, name, seed)
    assert not trial.faults, "\n".join(trial.faults)


@pytest.mark.parametrize("what", ["other files", "left behind", "exit code"])
def test_a_trial_notices_what_went_wrong(
    machine: Machine, what: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Or else those above would show nothing."""
    machine.undisturbed("prune")
    if what == "other files":
        monkeypatch.setitem(machine.expected, "prune", {"out/pruned/plan.json": "0" * 64})
    elif what == "left behind":
        monkeypatch.setattr(trials_module, "left_behind", lambda folder: ["tmp/edgekit-work-x"])
    else:
        arguments = ("prune", "--nonsense")
        monkeypatch.setitem(COMMANDS, "prune", dataclasses.replace(COMMANDS["prune"], arguments=arguments))
    trial = tried(machine, "SIGKILL", "prune", "noticed")
    assert any(what in fault for fault in trial.faults)


# At some size Python's own Thread.start never comes back: the thread ended before its first line.
SCARCE = """
import os, re, resource, signal
from edgekit.monitor.heartbeat import Heartbeat
for extra in range(8_000_000, 12_000_000, 20_000):
    if os.fork() == 0:
        with open("/proc/self/status") as stream:
            size = (int(re.search(r"VmSize:\\s+(\\d+)", stream.read())[1]) << 10) + extra
        resource.setrlimit(resource.RLIMIT_AS, (size, size))
        signal.alarm(5)
        try:
            with Heartbeat(lambda event: None):
                pass
        except MemoryError:
            pass
        os._exit(0)
    code = os.waitstatus_to_exitcode(os.wait()[1])
    assert code == 0, (extra, code)
"""


def test_a_command_begins_at_any_size_of_memory() -> None:
    done = subprocess.run(
        [sys.executable, "-c", SCARCE], capture_output=True, text=True, check=False, timeout=300
    )
    assert done.returncode == 0, done.stderr
