"""Ways to a device that need none: a shell on this machine, and an sshd of the tests' own on loopback."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from edgekit.devices.device import Device
from edgekit.devices.shell import ShellTransport
from edgekit.errors import InputError, MissingExtraError


@dataclass
class ShellChannel:
    """A "remote" shell on this machine. ``cut_after``: commands after which the connection breaks, once."""

    cut_after: int | None = None
    limit_bytes: int | None = None  # of what goes in with the command that is cut
    lines: list[str] = field(default_factory=list)
    name: str = "sh"
    env: dict[str, str] = field(default_factory=dict)
    revived: int = 0

    def argv(self, line: str) -> list[str]:
        self.lines.append(line)
        if self.cut_after is not None and len(self.lines) > self.cut_after:
            self.cut_after = None
            if self.limit_bytes is None:
                return ["sh", "-c", "exit 255"]
            # As when the network goes: what has arrived is there, the rest isn't, and the client says 255.
            return ["sh", "-c", f'head -c {self.limit_bytes} | sh -c "$1"; exit 255', "sh", line]
        return ["sh", "-c", line]

    def lost(self, returncode: int, stderr: str) -> str | None:
        return "unplugged" if returncode == 255 else None

    def revive(self) -> None:
        self.revived += 1

    def close(self) -> None:
        pass


@pytest.fixture
def base(tmp_path: Path) -> Path:
    """The work folder of the device."""
    folder = tmp_path / "it's a device's $(folder)"
    folder.mkdir()
    return folder


@pytest.fixture
def shell(base: Path) -> Iterator[ShellTransport]:
    """A device behind a shell of this machine."""
    with ShellTransport(ShellChannel(), Device(name="board", transport="ssh"), str(base)).connect() as link:
        yield link


class Proxy:
    """Forwards connections to a port of this machine, until it is told to cut them."""

    def __init__(self, port: int) -> None:
        self._target = port
        self._server = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._server.getsockname()[1]
        self.cut_after_bytes: int | None = None  # sent to the device, by all connections together
        self.cuts = 0
        self._sent = 0
        self._pairs: list[tuple[socket.socket, socket.socket]] = []
        self._lock = threading.Lock()
        threading.Thread(target=self._serve, daemon=True).start()

    def cut(self) -> None:
        """Break every connection that is open; new ones work."""
        with self._lock:
            self.cuts += 1
            for pair in self._pairs:
                for end in pair:
                    _reset(end)
            self._pairs.clear()

    def cut_after(self, count: int) -> None:
        """Break everything once so many more bytes went to the device."""
        self._sent, self.cut_after_bytes = 0, count

    def close(self) -> None:
        self._server.close()
        self.cut()

    def _serve(self) -> None:
        while True:
            try:
                client, _ = self._server.accept()
                device = socket.create_connection(("127.0.0.1", self._target))
            except OSError:
                return
            with self._lock:
                self._pairs.append((client, device))
            for source, sink, counted in ((client, device, True), (device, client, False)):
                threading.Thread(target=self._copy, args=(source, sink, counted), daemon=True).start()

    def _copy(self, source: socket.socket, sink: socket.socket, counted: bool) -> None:
        try:
            while chunk := source.recv(1 << 14):
                sink.sendall(chunk)
                if counted:
                    self._sent += len(chunk)
                    if self.cut_after_bytes is not None and self._sent > self.cut_after_bytes:
                        self.cut_after_bytes = None
                        self.cut()
                        return
            sink.shutdown(socket.SHUT_WR)
        except OSError:
            return


def _reset(end: socket.socket) -> None:
    with contextlib.suppress(OSError):
        end.shutdown(socket.SHUT_RDWR)
    end.close()


@dataclass(frozen=True)
class Sshd:
    """A running sshd: what a client needs to get in."""

    port: int
    key: Path
    known_hosts: Path

    def options(self, port: int | None = None) -> list[str]:
        """ssh's arguments that use this key and these host keys, and nothing of the user's."""
        return [
            *("-F", "none", "-i", str(self.key)),
            *("-o", "IdentitiesOnly=yes", "-o", f"UserKnownHostsFile={self.known_hosts}"),
            *("-o", "StrictHostKeyChecking=yes", "-o", "HostKeyAlias=edgekit-test"),
        ]


@pytest.fixture(scope="session")
def sshd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sshd]:
    """An sshd on a free port of loopback, with keys of its own."""
    program = shutil.which("sshd", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin")
    if program is None or shutil.which("ssh") is None:
        pytest.skip("no sshd and ssh here (Debian: apt install openssh-server openssh-client)")
    # sshd refuses keys below folders that others may write to, as a test's own are not.
    folder = Path(tempfile.mkdtemp(prefix="edgekit-sshd-"))
    for name in ("host", "user"):
        argv = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(folder / name)]
        subprocess.run(argv, check=True)
    (folder / "authorized").write_bytes((folder / "user.pub").read_bytes())
    known = folder / "known_hosts"
    known.write_text("edgekit-test " + (folder / "host.pub").read_text())
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    settings = {
        "Port": port,
        "ListenAddress": "127.0.0.1",
        "HostKey": folder / "host",
        "AuthorizedKeysFile": folder / "authorized",
        "PidFile": "none",
        "UsePAM": "no",
        "StrictModes": "no",
        "PasswordAuthentication": "no",
        "PermitRootLogin": "prohibit-password",
        "MaxSessions": 50,
    }
    (folder / "config").write_text("".join(f"{key} {value}\n" for key, value in settings.items()))
    if os.geteuid() == 0:
        Path("/run/sshd").mkdir(exist_ok=True)
    log = (folder / "log").open("wb")
    process = subprocess.Popen([program, "-D", "-e", "-f", str(folder / "config")], stderr=log)
    try:
        for _ in range(200):
            with socket.socket() as client:
                if client.connect_ex(("127.0.0.1", port)) == 0:
                    break
            if process.poll() is not None:
                pytest.fail(f"sshd didn't start: {(folder / 'log').read_text()}")
            time.sleep(0.05)
        yield Sshd(port, folder / "user", known)
    finally:
        process.terminate()
        process.wait()
        log.close()
        shutil.rmtree(folder)


@pytest.fixture
def proxy(sshd: Sshd) -> Iterator[Proxy]:
    made = Proxy(sshd.port)
    yield made
    made.close()


def skip_where_there_is_nothing_to_build_from(error: InputError) -> None:
    """Skip if the emulated board lacks what no change here could mend: Debian's tools, or the network."""
    if isinstance(error, MissingExtraError) or any(
        word in error.next for word in ("network", "apt-get update")
    ):
        pytest.skip(f"the board can't be built here: {error}")
