"""Folders for a while: gone at the end, and after a kill with the next one."""

from __future__ import annotations

import fcntl
import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import pytest

from edgekit.devices import locking
from edgekit.devices.device import Device
from edgekit.devices.local import open_local
from edgekit.devices.ssh import SshChannel
from edgekit.scratch import scratch


def test_it_is_removed_at_the_end(tmp_path: Path) -> None:
    with scratch(tmp_path) as one, scratch(tmp_path) as other:
        assert {path.name for path in tmp_path.iterdir()} == {Path(one).name, Path(other).name}
        (Path(one) / "file").touch()
    assert list(tmp_path.iterdir()) == []


def test_the_folder_of_a_killed_connection_goes_with_the_next() -> None:
    """That of ssh's sockets is in /tmp, whatever TMPDIR says."""
    code = (
        "import time; from edgekit.devices.ssh import SshChannel; from edgekit.devices.device import Device\n"
        "one = SshChannel(Device(name='x', transport='ssh', address='nowhere'), ())\n"
        "print(one._folder, flush=True); time.sleep(60)"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        left = Path(process.stdout.readline().strip())
        assert left.is_dir()
        process.kill()
    other = SshChannel(Device(name="x", transport="ssh", address="nowhere"), ())
    assert not left.exists()
    other.close()


def test_what_a_killed_process_left_goes_with_the_next(tmp_path: Path) -> None:
    code = (
        "import sys, time; from edgekit.scratch import scratch\n"
        "with scratch(sys.argv[1]) as folder:\n"
        "    open(folder + '/file', 'w').close(); print('there', flush=True); time.sleep(60)"
    )
    with subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"there\n"
        (left,) = tmp_path.iterdir()
        with scratch(tmp_path):
            assert (left / "file").exists()  # its process is alive
        process.send_signal(signal.SIGKILL)
        process.wait()
        assert (left / "file").exists()
        with scratch(tmp_path):
            assert not left.exists()


@pytest.mark.parametrize("held", [False, True])
def test_one_that_is_swept_before_it_is_locked_is_made_anew(
    held: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By another process, that came between its making and its lock: it is gone, or is just being removed."""
    made: list[str] = []
    original = tempfile.mkdtemp

    def swept(**settings: Any) -> str:
        made.append(original(**settings))
        if len(made) == 1 and held:
            lock = os.open(made[0], os.O_RDONLY)
            fcntl.flock(lock, fcntl.LOCK_EX)
            locks.append(lock)
        elif len(made) == 1:
            os.rmdir(made[0])  # noqa: PTH106
        return made[-1]

    locks: list[int] = []
    monkeypatch.setattr(tempfile, "mkdtemp", swept)
    with scratch(tmp_path) as folder:
        assert folder == made[1]
        assert Path(folder).is_dir()
    for lock in locks:
        os.close(lock)


def test_what_isn_t_ours_stays(tmp_path: Path) -> None:
    (tmp_path / "edgekit-work-file0000").touch()
    (tmp_path / "edgekit-tests-abcdefgh").mkdir()
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "edgekit-work-link0000").symlink_to(tmp_path / "elsewhere")
    before = sorted(tmp_path.iterdir())
    with scratch(tmp_path):
        pass
    assert sorted(tmp_path.iterdir()) == before


def test_one_lock_for_this_machine_wherever_its_files_go(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    taken: list[Path] = []
    monkeypatch.setattr(locking, "_open", lambda path: taken.append(path) or os.open(tmp_path, os.O_RDONLY))
    for name in ("one", "other"):
        (tmp_path / name).mkdir()
        monkeypatch.setenv("TMPDIR", str(tmp_path / name))
        profile = Device(name=name, transport="local", work_folder=str(tmp_path / name))
        with open_local(profile) as link, link.lock(exclusive=True):
            pass
    assert len(taken) == 2
    assert len(set(taken)) == 1
