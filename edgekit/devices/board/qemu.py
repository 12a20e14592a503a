"""Boot the board in QEMU, with a clock that counts instructions, and wait until its servers answer.

With ``-icount shift=0`` the guest's clock advances by 1 ns for each instruction, so that any timing code
there counts instructions. Neither caches nor issue width are modelled: such a count is no time.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from edgekit.devices.board import host
from edgekit.devices.board.build import BoardFiles
from edgekit.devices.board.rootfs import ADB_PORT, FAILED, READY
from edgekit.errors import DeviceError, MeasurementError, did_you_mean

# Name → what QEMU is told. QEMU's model of SME computes wrongly in some versions, so "max" goes without.
CPUS = {
    "cortex-a53": "cortex-a53",
    "cortex-a55": "cortex-a55",
    "cortex-a72": "cortex-a72",
    "cortex-a76": "cortex-a76",
    "neoverse-n1": "neoverse-n1",
    "max": "max,sme=off",
}
MEMORY_BYTES = 1 << 30
BOOT_SECONDS = 120.0  # after which a board is given up that neither came up nor ended
STOP_SECONDS = 10.0
_ATTEMPTS = 5
_TAKEN = "Could not set up host forwarding"
_UNKNOWN_CPU = ("unable to find CPU model", "CPU model")
_KERNEL_OPTIONS = "console=ttyAMA0 quiet loglevel=3 mitigations=off norandmaps nokaslr panic=-1"


@dataclass(frozen=True)
class Ports:
    """Ports on this machine's loopback that lead to sshd and adbd on the board."""

    ssh: int
    adb: int


def cpu_option(cpu: str) -> str:
    """What QEMU is told for a CPU's name. Raises DeviceError: not in the table."""
    try:
        return CPUS[cpu]
    except KeyError:
        raise DeviceError(
            f"no board with the CPU {cpu!r} can be emulated", next=did_you_mean(cpu, CPUS)
        ) from None


def argv(files: BoardFiles, cpu: str, ports: Ports, console: Path, pid_file: Path) -> list[str]:
    """The command that boots a board and returns as soon as it runs in the background."""
    forwards = ",".join(
        f"hostfwd=tcp:127.0.0.1:{here}-:{there}" for here, there in ((ports.ssh, 22), (ports.adb, ADB_PORT))
    )
    return [
        *files.qemu.argv,
        *("-name", f"edgekit-{cpu}", "-machine", "virt", "-cpu", cpu_option(cpu), "-smp", "1"),
        *("-m", f"{MEMORY_BYTES >> 20}M"),
        *("-accel", "tcg,thread=single", "-icount", "shift=0"),
        *("-kernel", str(files.kernel), "-initrd", str(files.initrd), "-append", _KERNEL_OPTIONS),
        *("-drive", f"file={_escaped(files.disk)},format=raw,if=none,id=disk,snapshot=on"),
        *("-device", "virtio-blk-pci,drive=disk,romfile="),
        # restrict: the board reaches nothing, and is reached through the two ports alone.
        *("-netdev", f"user,id=net,restrict=on,{forwards}", "-device", "virtio-net-pci,netdev=net,romfile="),
        *("-object", "rng-random,filename=/dev/urandom,id=rng", "-device", "virtio-rng-pci,rng=rng"),
        *("-display", "none", "-monitor", "none", "-serial", f"file:{console}", "-no-reboot"),
        *("-daemonize", "-pidfile", str(pid_file)),
    ]


def _escaped(path: Path) -> str:
    return str(path).replace(",", ",,")  # a comma ends an option's value


def free_ports() -> Ports:
    """Two ports that are free now; another program may take them before QEMU does."""
    with socket.socket() as first, socket.socket() as second:
        for one in (first, second):
            one.bind(("127.0.0.1", 0))
        return Ports(first.getsockname()[1], second.getsockname()[1])


def launch(
    files: BoardFiles, cpu: str, console: Path, *, choose: Callable[[], Ports] = free_ports
) -> tuple[int, Ports]:
    """Start QEMU in the background, on ports that ``choose`` names; others, where those are taken.

    Returns its process id and the ports. Raises DeviceError: this QEMU has no such CPU; MeasurementError: it
    doesn't start.
    """
    pid_file = console.with_suffix(".pid")
    said = ""
    for _ in range(_ATTEMPTS):
        ports = choose()
        console.unlink(missing_ok=True)
        done = subprocess.run(
            argv(files, cpu, ports, console, pid_file),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            encoding="utf-8",
            errors="replace",
            env={**os.environ, **files.qemu.env},
            check=False,
        )
        if done.returncode == 0:
            pid = int(pid_file.read_text())
            pid_file.unlink()
            return pid, ports
        said = done.stderr
        if _TAKEN not in said:
            break
    if any(words in said for words in _UNKNOWN_CPU):
        raise DeviceError(
            f"this QEMU knows no {cpu}",
            where=files.qemu.argv[0],
            got=host.last_words(said),
            next="use a newer QEMU (10 knows them all), or another CPU",
        )
    raise MeasurementError("QEMU doesn't start", where=files.qemu.argv[0], got=host.last_words(said))


def wait_until_ready(pid: int, console: Path) -> None:
    """Wait for the line by which the board says that its servers listen.

    Raises MeasurementError with the console's last lines: it ended, said that it failed, or took too long.
    """
    end = time.monotonic() + BOOT_SECONDS
    while True:
        alive = is_ours(pid, console)  # asked before the console is read, so that its last words are seen
        said = console.read_text(encoding="utf-8", errors="replace") if console.exists() else ""
        if READY in said:
            return
        late = time.monotonic() > end
        if not alive or late or FAILED in said:
            terminate(pid, console)
            raise MeasurementError(
                "the emulated board doesn't come up",
                where=str(console),
                got=console_words(said),
                expected=f"{READY!r} on its console" + (f" within {BOOT_SECONDS:.0f} s" if late else ""),
                next="remove the folder `board` in edgekit's cache to build it anew",
            )
        time.sleep(0.02)


def console_words(said: str, lines: int = 12) -> str:
    """What a console says of a failure: from the line that tells it on, else the last lines."""
    written = [line.rstrip() for line in said.splitlines() if line.strip()]
    marks = [at for at, line in enumerate(written) if FAILED in line or "Kernel panic" in line]
    first = marks[0] if marks else max(0, len(written) - lines)
    return "\n".join(written[first : first + lines]) or "nothing"


def is_ours(pid: int, console: Path) -> bool:
    """Whether this process is the QEMU that writes this console, and not another that got its number."""
    try:
        words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
    except OSError:
        return False
    return os.fsencode(f"file:{console}") in words


def terminate(pid: int, console: Path) -> None:
    """End a board's QEMU; returns when it is gone. Nothing happens to a process that is none."""
    for kind in (signal.SIGTERM, signal.SIGKILL):
        end = time.monotonic() + STOP_SECONDS
        while is_ours(pid, console) and time.monotonic() < end:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, kind)
            time.sleep(0.05)
