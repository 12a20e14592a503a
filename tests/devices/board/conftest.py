"""A cache of the test's own, packages made on the spot, and a program that stands in for QEMU."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from edgekit.devices.board import BoardFiles, running, stop
from edgekit.devices.board.tools import Tool


def needs(*commands: str) -> pytest.MarkDecorator:
    """Skip where this machine lacks one of these commands."""
    missing = [name for name in commands if shutil.which(name, path=f"{_path()}:/usr/sbin:/sbin") is None]
    return pytest.mark.skipif(bool(missing), reason=f"no {', '.join(missing)} here")


def _path() -> str:
    import os

    return os.environ.get("PATH", "")


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The board's folder in a cache of the test's own."""
    monkeypatch.setenv("EDGEKIT_CACHE", str(tmp_path / "a cache, 100%"))
    monkeypatch.delenv("EDGEKIT_DEBIAN_MIRROR", raising=False)
    return tmp_path / "a cache, 100%" / "board"


@pytest.fixture
def deb(tmp_path: Path) -> Callable[..., Path]:
    """Make a Debian package: its name, and path → content of its files; "-> x" is a link to x."""

    def make(name: str, files: dict[str, str]) -> Path:
        tree = tmp_path / f"{name}-tree"
        (tree / "DEBIAN").mkdir(parents=True)
        (tree / "DEBIAN/control").write_text(
            f"Package: {name}\nVersion: 1\nArchitecture: all\nMaintainer: x <x@example.org>\nDescription: x\n"
        )
        for path, content in files.items():
            (tree / path).parent.mkdir(parents=True, exist_ok=True)
            if content.startswith("-> "):
                (tree / path).symlink_to(content.removeprefix("-> "))
            else:
                (tree / path).write_text(content)
        package = tmp_path / f"{name}_1_all.deb"
        subprocess.run(["dpkg-deb", "--build", tree, package], check=True, capture_output=True)
        return package

    return make


# Takes QEMU's options; its ports are bound as QEMU binds them, and a console is written. What it does after
# that is the content of the file "behaviour" beside it.
_QEMU = """
import os, pathlib, signal, socket, sys, time
here = pathlib.Path(sys.argv[0]).parent
words = sys.argv[1:]
behaviour = (here / "behaviour").read_text()
with (here / "calls").open("a") as calls:
    calls.write("call\\n")
if behaviour == "old":
    sys.exit("qemu-system-aarch64: unable to find CPU model '%s'" % words[words.index("-cpu") + 1])
if behaviour == "broken":
    sys.exit("qemu-system-aarch64: no such machine")
held = []
for rule in words[words.index("-netdev") + 1].split("hostfwd=tcp:127.0.0.1:")[1:]:
    held.append(socket.socket())
    try:
        held[-1].bind(("127.0.0.1", int(rule.split("-:")[0])))
    except OSError:
        sys.exit("qemu-system-aarch64: -netdev user: Could not set up host forwarding rule 'tcp:%s'" % rule)
pid_file = pathlib.Path(words[words.index("-pidfile") + 1])
console = pathlib.Path(words[words.index("-serial") + 1][len("file:"):])
console.write_text("")
read, write = os.pipe()
if os.fork():
    os.close(write)
    os.read(read, 1)
    os._exit(0)
os.setsid()
pid_file.write_text("%d\\n" % os.getpid())
os.write(write, b"x")
for number in (0, 1, 2):
    os.dup2(os.open(os.devnull, os.O_RDWR), number)
os.close(write)
if behaviour == "ready":
    console.write_text("edgekit-board ready\\n")
    time.sleep(600)
elif behaviour == "failed":
    console.write_text("edgekit-board failed: adbd\\nlibc++.so: cannot open\\n")
    time.sleep(600)
elif behaviour == "panic":
    console.write_text("booting\\nKernel panic - not syncing: no root\\n" + "a call\\n" * 30)
"""


class StandIn:
    """A board's files whose QEMU is the program above."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir()
        (folder / "qemu.py").write_text(_QEMU)
        (folder / "host_key.pub").write_text("ssh-ed25519 AAAAboard edgekit-board\n")
        self.files = BoardFiles(
            folder, Tool([sys.executable, "-S", str(folder / "qemu.py")]), Tool(["true"]), 1.0
        )
        self.behaves("ready")

    def behaves(self, how: str) -> None:
        """What it does after its start: "ready", "failed", "panic"; or instead of it: "old", "broken"."""
        (self.folder / "behaviour").write_text(how)

    @property
    def calls(self) -> int:
        """How often it was started."""
        path = self.folder / "calls"
        return len(path.read_text().splitlines()) if path.exists() else 0


@pytest.fixture
def stand_in(tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[StandIn]:
    """Boards that start at once; all that run at the end are stopped."""
    made = StandIn(tmp_path / "stand-in")
    monkeypatch.setattr("edgekit.devices.board.boards.ensure_built", lambda progress: made.files)
    yield made
    for board in running():
        stop(board.cpu)
