from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from edgekit.devices.board.cache import built, cache_folder, locked
from edgekit.errors import DiskFullError
from edgekit.progress import Event

_SLOW_BUILD = """
import sys, time
from pathlib import Path
from edgekit.devices.board.cache import built
def build(target):
    (target / "half").write_text("x")
    Path(sys.argv[2]).open("a").write("built\\n")
    print("building", flush=True)
    sys.stdin.read()
    (target / "whole").write_text("x")
print(built(Path(sys.argv[1]), build), flush=True)
"""


def _builder(folder: Path, log: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", _SLOW_BUILD, str(folder), str(log)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


def test_the_cache_is_where_the_variables_say(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("EDGEKIT_CACHE", str(tmp_path / "own"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert cache_folder() == tmp_path / "own/board"
    monkeypatch.delenv("EDGEKIT_CACHE")
    assert cache_folder() == tmp_path / "xdg/edgekit/board"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert cache_folder() == tmp_path / "home/.cache/edgekit/board"


def test_what_is_built_is_kept(tmp_path: Path) -> None:
    folder = tmp_path / "cache/thing"
    assert built(folder, lambda target: (target / "file").write_text("first") and None)
    assert not built(folder, lambda target: (target / "file").write_text("second") and None)
    assert (folder / "file").read_text() == "first"


def test_a_failed_build_leaves_nothing(tmp_path: Path) -> None:
    def build(target: Path) -> None:
        (target / "file").write_text("half")
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        built(tmp_path / "thing", build)
    assert [path.name for path in tmp_path.iterdir()] == ["build.lock"]


def test_a_full_disk_is_told_as_such(tmp_path: Path) -> None:
    def build(target: Path) -> None:
        raise OSError(28, "No space left on device")

    with pytest.raises(DiskFullError, match="No space left"):
        built(tmp_path / "thing", build)


def test_a_killed_build_is_started_anew(tmp_path: Path) -> None:
    folder, log = tmp_path / "thing", tmp_path / "log"
    with _builder(folder, log) as killed:
        assert killed.stdout is not None
        assert killed.stdout.readline() == "building\n"
        os.kill(killed.pid, signal.SIGKILL)
    assert (tmp_path / ".thing.partial/half").exists()
    assert not folder.exists()
    assert built(folder, lambda target: (target / "file").write_text(str(list(target.iterdir()))) and None)
    assert [path.name for path in folder.iterdir()] == ["file"]
    assert (folder / "file").read_text() == "[]"  # it found nothing of the killed one


def test_of_two_that_build_at_once_one_waits_and_takes_what_the_other_made(tmp_path: Path) -> None:
    folder, log = tmp_path / "thing", tmp_path / "log"
    with _builder(folder, log) as first:
        assert first.stdout is not None
        assert first.stdout.readline() == "building\n"
        with _builder(folder, log) as second:
            assert first.stdin is not None
            first.stdin.close()
            assert first.stdout.read() == "True\n"
            said, _ = second.communicate()
            assert said == "False\n"
    assert log.read_text() == "built\n"


def test_who_waits_is_told_why(tmp_path: Path) -> None:
    events: list[Event] = []
    holder = subprocess.Popen(
        [sys.executable, "-c", _HOLD, str(tmp_path / "lock")], stdout=subprocess.PIPE, stdin=subprocess.PIPE
    )

    def tell(event: Event) -> None:
        events.append(event)
        holder.communicate()  # only now does the holder let go

    assert holder.stdout is not None
    holder.stdout.readline()
    with locked(tmp_path / "lock", tell, what="builds the board"):
        pass
    assert [event.message for event in events] == ["waiting: another edgekit builds the board"]


_HOLD = """
import sys
from pathlib import Path
from edgekit.devices.board.cache import locked
with locked(Path(sys.argv[1]), what="x"):
    print("held", flush=True)
    sys.stdin.read()
"""
