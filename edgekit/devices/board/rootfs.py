"""The board's root file system: Debian for arm64 with sshd, adbd and Python, put together without running it.

No code for arm64 runs while it is built, so what the packages' own scripts would do is done here: accounts,
/bin/sh, the servers' configuration, and a first process that mounts, connects and starts them.
"""

from __future__ import annotations

import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

from edgekit.devices.board import host
from edgekit.devices.board.packages import BACKPORTS, unpack
from edgekit.errors import DeviceError

ARCHITECTURE = "arm64"
ADB_PORT = 5555
READY = "edgekit-board ready"
FAILED = "edgekit-board failed"
SITE = Path(
    "usr/local/lib/python3.11/dist-packages"
)  # where Debian's Python looks, by whichever way it starts

PACKAGES = (
    *("base-files", "base-passwd", "usr-is-merged", "libc-bin"),
    *("bash", "busybox-static", "coreutils", "dash", "findutils", "grep", "gzip", "sed", "tar", "util-linux"),
    *("python3", "libgomp1", "libstdc++6"),
    *("openssh-server", "openssh-sftp-server"),
    # Debian 12 itself has an adbd that only serves as an example; its successor needs its own libraries.
    *(
        f"{name}/{BACKPORTS}"
        for name in ("adbd", "android-libbase", "android-libcutils", "android-liblog", "android-libboringssl")
    ),
)
# Dependencies that only their scripts need, which don't run.
UNUSED = ("adduser", "debconf", "dpkg", "init-system-helpers", "passwd", "perl-base", "runit-helper", "ucf")

# Commands that no package above brings and that people and edgekit's transports ask for.
APPLETS = (
    *("awk", "clear", "dmesg", "free", "hostname", "ifconfig", "ip", "kill", "killall", "less"),
    *(
        "more",
        "mount",
        "pgrep",
        "pidof",
        "ping",
        "pkill",
        "poweroff",
        "ps",
        "reset",
        "top",
        "umount",
        "uptime",
    ),
    *("vi", "watch", "which", "xxd"),
)
# Modules of the kernel that the first process loads, below lib/modules/VERSION/kernel.
MODULES = (
    "drivers/char/hw_random/virtio-rng",
    "net/core/failover",
    "drivers/net/net_failover",
    "drivers/net/virtio_net",
)
_FOLDERS = ("proc", "sys", "dev", "run", "tmp", "var/tmp", "data/local/tmp", "root/.ssh", "lib/modules")

_SSHD = """\
HostKey /etc/ssh/ssh_host_ed25519_key
PermitRootLogin prohibit-password
PasswordAuthentication no
KbdInteractiveAuthentication no
UsePAM no
UseDNS no
# Its clock counts instructions, and stands almost still while little is to be done.
LoginGraceTime 0
MaxSessions 100
MaxStartups 100
Subsystem sftp /usr/lib/openssh/sftp-server
"""

_INIT = f"""\
#!/bin/busybox sh
export PATH=/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin HOME=/root
busybox=/bin/busybox
failed() {{
  echo "{FAILED}: $*"
  for log in /run/sshd.log /run/adbd.log; do [ -f $log ] && $busybox tail -n 5 $log; done
  $busybox poweroff -f
}}
$busybox mount -t proc proc /proc
$busybox mount -t sysfs sys /sys
$busybox mkdir -p /dev/pts /dev/shm
$busybox mount -t devpts devpts /dev/pts
$busybox mount -t tmpfs shm /dev/shm
$busybox mount -t tmpfs run /run
# Whoever built the disk without root owns what is on it; sshd trusts root's alone.
$busybox chown 0:0 /
$busybox chown -R 0:0 /root /etc/ssh
for module in {" ".join(Path(name).name for name in MODULES)}; do
  $busybox insmod /lib/modules/$module.ko || failed "module $module"
done
$busybox hostname edgekit-board
$busybox ip link set lo up
$busybox ip address add 10.0.2.15/24 dev eth0 || failed "no network interface"
$busybox ip link set eth0 up
$busybox ip route add default via 10.0.2.2
$busybox mkdir -p /run/sshd
/usr/sbin/sshd -E /run/sshd.log || failed sshd
ADBD_PORT={ADB_PORT} TMPDIR=/data/local/tmp /usr/lib/android-sdk/platform-tools/adbd >/run/adbd.log 2>&1 &
tries=0
until $busybox grep -q ':{ADB_PORT:04X} .* 0A ' /proc/net/tcp /proc/net/tcp6; do
  tries=$((tries + 1))
  [ $tries -lt 100 ] || failed adbd
  $busybox sleep 0.1
done
echo "{READY}"
while :; do $busybox sleep 3600; done
"""


def populate(root: Path, packages: Sequence[Path]) -> None:
    """Unpack Debian packages below ``root``, and link what their scripts would have linked."""
    for package in packages:
        if package.name.partition("_")[0] not in UNUSED:
            unpack(package, root)
    if not (root / "bin/sh").exists():
        (root / "bin/sh").symlink_to("dash")
    for applet in APPLETS:
        if not any(
            (root / folder / applet).is_symlink() or (root / folder / applet).exists()
            for folder in ("bin", "usr/bin", "sbin", "usr/sbin")
        ):
            (root / "usr/bin" / applet).symlink_to("/bin/busybox")


def configure(root: Path, *, public_key: Path, host_key: Path) -> None:
    """Write accounts, the configuration of sshd, and the first process (/sbin/board-init)."""
    for name in _FOLDERS:
        (root / name).mkdir(parents=True, exist_ok=True)
    etc = root / "etc"
    master = root / "usr/share/base-passwd"
    accounts = (master / "passwd.master").read_text()
    accounts = "".join(
        line.replace("root:*:", "root:x:", 1) if line.startswith("root:") else line
        for line in accounts.splitlines(keepends=True)
    )
    _write(etc / "passwd", accounts + "sshd:x:101:65534::/run/sshd:/usr/sbin/nologin\n")
    _write(etc / "group", (master / "group.master").read_text())
    # No password opens this account, but it isn't locked either, or sshd would refuse its key.
    _write(etc / "shadow", "root:*:19000:0:99999:7:::\n", mode=0o600)
    _write(etc / "hostname", "edgekit-board\n")
    _write(etc / "hosts", "127.0.0.1 localhost edgekit-board\n")
    _write(etc / "nsswitch.conf", "passwd: files\ngroup: files\nhosts: files\n")
    _write(etc / "ssh/sshd_config", _SSHD)
    _write(etc / "ssh/ssh_host_ed25519_key", host_key.read_text(encoding="utf-8"), mode=0o600)
    _write(root / "root/.ssh/authorized_keys", public_key.read_text(encoding="utf-8"), mode=0o600)
    for private in ("root", "root/.ssh"):
        (root / private).chmod(0o700)
    for open_to_all in ("tmp", "var/tmp", "data/local/tmp"):
        (root / open_to_all).chmod(0o1777)
    _write(root / "sbin/board-init", _INIT, mode=0o755)


def add_modules(root: Path, kernel_tree: Path) -> None:
    """Put the modules that the first process loads into ``root``."""
    for name in MODULES:
        shutil.copy(module(kernel_tree, name), root / "lib/modules")


def module(kernel_tree: Path, name: str) -> Path:
    """A module's file in an unpacked kernel package. Raises DeviceError: this kernel has none."""
    found = sorted(kernel_tree.glob(f"lib/modules/*/kernel/{name}.ko"))
    if not found:
        raise DeviceError(
            "Debian's kernel lacks a module that the board needs", where=f"{name}.ko", got="no such file"
        )
    return found[0]


def compile_python(root: Path) -> bool:
    """Compile the standard library and the wheels to bytecode, which halves the time of imports.

    Returns False, and leaves it, where this machine's Python is of another version than the board's: their
    bytecode differs.
    """
    if sys.version_info[:2] != (3, 11):
        return False
    folders = [root / SITE, root / "usr/lib/python3.11"]
    # Never checked against the source: the image is built once, and no two imports differ.
    options = ("-q", "-s", root, "-p", "/", "--invalidation-mode", "unchecked-hash")
    host.run(
        # Some of the packages' own tests don't compile on purpose.
        [
            sys.executable,
            "-P",
            "-W",
            "ignore",
            "-m",
            "compileall",
            *options,
            "-x",
            "/tests?/|lib2to3",
            *folders,
        ],
        what="the board's Python packages can't be compiled",
        failure=DeviceError,
    )
    return True


def _write(path: Path, text: str, mode: int = 0o644) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.unlink(missing_ok=True)
    path.write_text(text, encoding="utf-8")
    path.chmod(mode)
