"""A device behind a POSIX shell: everything that ssh and adb have in common.

A ``Channel`` says how one line is run in a shell on the device, with its three streams connected; all else is
built on that. Nothing is needed there but a shell, ``sha256sum``, ``mktemp`` and the like, which coreutils,
busybox and Android's toybox have.

On the device, below the profile's work folder: ``edgekit-XXXXXX/`` is this session's and goes with it,
``edgekit-store/`` stays if the profile says ``keep: true``, ``edgekit.lock`` is what edgekits take turns by.
"""

from __future__ import annotations

import contextlib
import hashlib
import shlex
import tarfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Protocol, TypeVar

from edgekit.devices import locking
from edgekit.devices.device import Device
from edgekit.devices.piping import pipe
from edgekit.devices.remote_process import RemoteProcess
from edgekit.devices.transport import Completed
from edgekit.errors import MeasurementError, UnreachableError
from edgekit.files import sha256
from edgekit.progress import Event, Progress, silent
from edgekit.scratch import scratch

T = TypeVar("T")

BACK_OFF_SECONDS = (0.2, 0.5, 1.0, 2.0, 4.0, 8.0)  # between attempts to reach a device that is lost
_PUSHES = 4  # attempts for one file, each of which goes on where the last one ended
_DAMAGED = 65  # exit code of our own script: EX_DATAERR of sysexits.h
_ABANDONED_MINUTES = 10  # after which the folder of an edgekit that is gone is removed


class _Damaged(MeasurementError):
    """What arrived isn't what was sent."""


class Channel(Protocol):
    """How a line reaches a shell on the device."""

    name: str  # for messages: "ssh pi@raspberrypi"
    env: dict[str, str]  # variables for the local client

    def argv(self, line: str) -> list[str]:
        """The local command that has the device's shell run this line."""

    def lost(self, returncode: int, stderr: str) -> str | None:
        """Why the connection, and not the command, failed; None if the command ended by itself."""

    def revive(self) -> None:
        """Prepare for another attempt, after the connection was lost."""

    def close(self) -> None:
        """Let go of the connection."""


@dataclass
class _Lock:
    """A lock on the device, and the process there that holds it."""

    holder: RemoteProcess
    exclusive: bool
    progress: Progress


def quoted(argv: Sequence[str]) -> str:
    """One line of POSIX shell that runs exactly this. Raises MeasurementError: an argument holds a NUL."""
    for one in argv:
        if "\0" in one:
            raise MeasurementError("a NUL byte can't be part of a command", got=repr(one))
    return shlex.join(argv)


def script(body: str) -> str:
    """A line for whatever login shell the device has, that runs ``body`` in a POSIX one.

    ssh says 255 for itself and for a command that a signal ended: here 255 becomes 254, and a signal n
    becomes 128 + n, so that 255 can only mean the connection.
    """
    guarded = f"( {body}\n); c=$?; [ $c -eq 255 ] && c=254; exit $c"
    return "exec sh -c " + shlex.quote(guarded)


class ShellTransport:
    """A device behind a Channel. ``connect`` is called by the openers."""

    def __init__(self, channel: Channel, device: Device, base: str, shared: str = "") -> None:
        self.channel, self.device, self.base = channel, device, base
        # Where the lock is: of one device always the same place, wherever profiles let files go.
        self._shared = shared or base
        self.folder = ""
        self._processes: list[RemoteProcess] = []
        self._alive: RemoteProcess | None = None
        self._locks: list[_Lock] = []
        self._unpacked: set[str] = set()  # since the connection was made: a board may have been switched off

    # --- the connection ----------------------------------------------------------------------------------

    def connect(self) -> ShellTransport:
        """Make the session's folder; raises UnreachableError, after some attempts, if nobody answers."""
        q = shlex.quote
        template = q(f"{self.base}/edgekit-XXXXXX")
        self.folder = self._insist(
            lambda: self._sh(f"mkdir -p {q(self.base)} && mktemp -d {template}")
        ).strip()
        self._watch()
        self._sweep()
        return self

    def reconnect(self) -> None:
        # What was taken up again already, for another worker, isn't torn down: the first attempt is as it is.
        self._insist(lambda: self._sh(f"mkdir -p {shlex.quote(self.folder)}"))
        self._unpacked.clear()
        self._watch()
        for lock in self._locks:
            if not lock.holder.running:
                self._hold(lock)

    def _insist(self, attempt: Callable[[], T]) -> T:
        for pause in BACK_OFF_SECONDS:
            try:
                return attempt()
            except UnreachableError as error:
                if error.next:  # it says what to do: trying again changes nothing
                    raise
                time.sleep(pause)
                self.channel.revive()
        return attempt()

    def _watch(self) -> None:
        """Hold a lock in the session's folder for as long as edgekit is there, so that nobody sweeps it."""
        if self._alive is not None:
            if self._alive.running:
                return
            self._alive.close()
        self._alive = None
        with contextlib.suppress(MeasurementError):  # without flock there: nothing is swept either
            self._alive = self._holder(f"{self.folder}/alive", exclusive=True)
            self._alive.line(self.device.timeout_seconds)

    def _sweep(self) -> None:
        """Remove what an edgekit left that was killed: its lock is free, and nothing was new for a while."""
        base = shlex.quote(self.base)
        body = f"""command -v flock >/dev/null || exit 0
for d in {base}/edgekit-??????; do
  [ -O "$d" ] && [ -e "$d/alive" ] || continue
  [ -n "$(find "$d" -maxdepth 0 -mmin +{_ABANDONED_MINUTES} 2>/dev/null)" ] || continue
  ( flock -n -x 9 && rm -rf "$d" ) 9<"$d/alive"
done; true"""
        with contextlib.suppress(MeasurementError):
            self._sh(body)

    # --- the verbs ---------------------------------------------------------------------------------------

    def run(self, argv: Sequence[str], *, timeout_seconds: float) -> Completed:
        done = self._pipe(self._command(argv), timeout_seconds=timeout_seconds)
        code = 128 - done.returncode if done.returncode > 128 else done.returncode
        if code in (126, 127):
            raise MeasurementError(
                "a command can't be started",
                where=f"{argv[0]} on {self.device.name}",
                got=done.stderr.strip()[-300:],
            )
        return Completed(code, done.stdout, done.stderr)

    def push(self, source: Path, name: str = "") -> str:
        if not source.is_file():
            raise MeasurementError("no such file", where=str(source))
        digest = sha256(source)
        store = f"{self.base}/edgekit-store" if self.device.keep else f"{self.folder}/files"
        target = f"{self.folder}/{name}" if name else f"{store}/{digest[:24]}/{source.name}"
        part = f"{store}/{digest}.part"
        for attempt in range(_PUSHES):
            try:
                found = self._sh(_present(target, part, digest)).split()
                if found[0] == "there":
                    return target
                self._send(source, target, part, digest, int(found[1]))
                return target
            except UnreachableError:
                if attempt == _PUSHES - 1:
                    raise
                self.reconnect()
            except _Damaged:
                # Once it may be the rest of a connection that broke, which was still writing.
                if attempt:
                    raise
        raise AssertionError("unreachable")

    def push_all(self, sources: Sequence[Path]) -> str:
        with scratch() as folder:
            bundle = Path(folder) / "files.tar"
            _pack(sources, bundle)
            there = self.push(bundle)
        target = there.rpartition("/")[0]
        if target not in self._unpacked:
            self._sh(f"cd {shlex.quote(target)} && tar -xf files.tar")
            self._unpacked.add(target)
        return target

    def pull(self, source: str, target: Path) -> None:
        path = shlex.quote(source)
        for attempt in range(_PUSHES):
            try:
                done = self._pipe(
                    f"sha256sum < {path} && cat < {path}",
                    timeout_seconds=self.device.timeout_seconds,
                    target=target,
                )
                break
            except UnreachableError:
                if attempt == _PUSHES - 1:
                    raise
                self.reconnect()
        self._succeeded(done, f"fetching {source}")
        content = target.read_bytes()
        head, _, rest = content.partition(b"\n")
        if head[:64].decode(errors="replace") != hashlib.sha256(rest).hexdigest():
            target.unlink()
            raise MeasurementError("a file arrived damaged", where=f"{source} on {self.device.name}")
        target.write_bytes(rest)

    def spawn(self, argv: Sequence[str]) -> RemoteProcess:
        # The shell says its id and becomes the command: so a process that hangs can be ended.
        process = self._open(self._command(["sh", "-c", 'echo $$; exec "$@"', "sh", *argv]))
        self._processes.append(process)
        process.begin(self.device.timeout_seconds)
        return process

    @contextlib.contextmanager
    def lock(self, *, exclusive: bool, progress: Progress = silent) -> Iterator[None]:
        lock = _Lock(self._holder(f"{self._shared}/{locking.NAME}", exclusive=exclusive), exclusive, progress)
        self._locks.append(lock)
        try:
            self._wait(lock)
            yield
        finally:
            self._locks.remove(lock)
            lock.holder.close()

    def _hold(self, lock: _Lock) -> None:
        """Take a lock again whose holder went with the connection."""
        lock.holder.close()
        lock.holder = self._holder(f"{self._shared}/{locking.NAME}", exclusive=lock.exclusive)
        self._wait(lock)

    def _wait(self, lock: _Lock) -> None:
        word = lock.holder.line(self.device.timeout_seconds)
        if word == b"none":
            text = f"{self.device.name} has no flock: another edgekit may disturb this one"
            lock.progress(Event("warning", "benchmark", text))
        elif word == b"waiting":
            lock.progress(locking.waiting(self.device.name))
            lock.holder.line(locking.PATIENCE_SECONDS)

    def close(self) -> None:
        for process in [*self._processes, *([self._alive] if self._alive else [])]:
            process.close()
        self._processes.clear()
        self._alive = None
        if self.folder:
            with contextlib.suppress(MeasurementError):
                self._sh(f"rm -rf {shlex.quote(self.folder)}")
            self.folder = ""
        self.channel.close()

    def __enter__(self) -> ShellTransport:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    # --- how -----------------------------------------------------------------------------------------

    def kill(self, pid: int) -> None:
        """End a process on the device, if it is still there."""
        with contextlib.suppress(MeasurementError):
            self._sh(f"kill -9 {pid} 2>/dev/null; true")

    def _command(self, argv: Sequence[str]) -> str:
        # What runtimes write for themselves (ONNX Runtime leaves a file) goes with the session's folder.
        variables = [f"TMPDIR={self.folder}", *self.device.setup]
        return f"cd {shlex.quote(self.folder)} && exec {quoted(['env', *variables, *argv])}"

    def _open(self, body: str) -> RemoteProcess:
        return RemoteProcess(self.channel.argv(script(body)), self)

    def _holder(self, path: str, *, exclusive: bool) -> RemoteProcess:
        """A process that holds a lock until its standard input ends; says "held", or first "waiting"."""
        folder, own = path.rpartition("/")[0], f"{self.base}/{locking.NAME}"
        kind = "-x" if exclusive else "-s"
        return self._open(
            f"""command -v flock >/dev/null || {{ echo none; exec cat; }}
p={shlex.quote(path)}; [ -d {shlex.quote(folder)} ] || p={shlex.quote(own)}
[ -e "$p" ] || ( umask 0; : > "$p" )
exec 9<"$p"
flock -n {kind} 9 || {{ echo waiting; flock {kind} 9; }}
echo held; exec cat"""
        )

    def _send(self, source: Path, target: str, part: str, digest: str, offset: int) -> None:
        p, t = shlex.quote(part), shlex.quote(target)
        folder = shlex.quote(target.rpartition("/")[0])
        # Fewer bytes than there should be: the connection broke, and what has arrived is kept for next time.
        body = f"""cat >> {p} || {{ rm -f {p}; exit 74; }}
[ $(wc -c < {p}) -ge {source.stat().st_size} ] || exit 75
case $(sha256sum < {p}) in
  {digest}*) mkdir -p {folder} && mv -f {p} {t} ;;
  *) rm -f {p}; exit {_DAMAGED} ;;
esac"""
        done = self._pipe(body, timeout_seconds=self.device.timeout_seconds, source=source, offset=offset)
        if done.returncode == _DAMAGED:
            raise _Damaged(
                "a file arrived damaged: its sha256 is another one there",
                where=f"{source.name} on {self.device.name}",
                next="try again; if it stays so, the device's storage or the connection is faulty",
            )
        self._succeeded(done, f"sending {source.name}")

    def _sh(self, body: str) -> str:
        """Run a script of ours; its output."""
        done = self._pipe(body, timeout_seconds=self.device.timeout_seconds)
        self._succeeded(done, "a command of edgekit's own")
        return done.stdout

    def _pipe(
        self,
        body: str,
        *,
        timeout_seconds: float,
        source: Path | None = None,
        offset: int = 0,
        target: Path | None = None,
    ) -> Completed:
        argv = self.channel.argv(script(body))
        done = pipe(
            argv,
            self.channel.env,
            timeout_seconds=timeout_seconds,
            source=source,
            offset=offset,
            target=target,
        )
        if done.returncode and (reason := self.channel.lost(done.returncode, done.stderr)):
            raise self.unreachable(reason)
        return done

    def unreachable(self, reason: str) -> UnreachableError:
        """The error for a connection that failed for this reason."""
        return UnreachableError(
            "the device can't be reached", where=f"{self.device.name} ({self.channel.name})", got=reason
        )

    def _succeeded(self, done: Completed, what: str) -> None:
        if done.returncode == 0:
            return
        words = done.stderr.strip()[-500:]
        full = "No space left" in words or "Disk quota" in words
        raise MeasurementError(
            "the device's disk is full" if full else "the device refused",
            where=f"{what} on {self.device.name}",
            got=words or f"exit code {done.returncode}",
            next=f"free some space below {self.base}, or set work_folder in the profile" if full else "",
        )


def _pack(sources: Sequence[Path], bundle: Path) -> None:
    """The same files give the same bytes: their sha256 says whether they are there already."""

    def plain(member: tarfile.TarInfo) -> tarfile.TarInfo:
        member.mtime, member.uid, member.gid, member.mode = 0, 0, 0, 0o644
        member.uname = member.gname = ""
        return member

    with tarfile.open(bundle, "w", format=tarfile.USTAR_FORMAT) as tar:
        for source in sources:
            tar.add(source, source.name, filter=plain)


def _present(target: str, part: str, digest: str) -> str:
    """Says "there", or "part N": how many bytes have arrived already."""
    t, p = shlex.quote(target), shlex.quote(part)
    return f"""if [ -f {t} ]; then case $(sha256sum < {t}) in {digest}*) echo there; exit 0 ;; esac; fi
mkdir -p {shlex.quote(part.rpartition("/")[0])} || exit 1
if [ -f {p} ]; then echo part $(wc -c < {p}); else echo part 0; fi"""
