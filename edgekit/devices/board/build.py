"""Build the board once: kernel, initial RAM disk and disk in a folder of the cache."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from edgekit.devices.board import host, image, packages, rootfs, tools, wheels
from edgekit.devices.board.cache import built, cache_folder, say
from edgekit.files import sha256_of, write_json
from edgekit.progress import Event, Progress, silent

KERNEL = "linux-image-cloud-arm64"
_STEPS = 7
_CODE = (image, packages, rootfs, wheels)


@dataclass(frozen=True)
class BoardFiles:
    """A board that was built, and the programs that run it."""

    folder: Path
    qemu: tools.Tool
    adb: tools.Tool
    build_seconds: float  # what building it took, whenever that was, without the programs

    @property
    def kernel(self) -> Path:
        """Linux, uncompressed or not as Debian packs it."""
        return self.folder / "vmlinuz"

    @property
    def initrd(self) -> Path:
        """The initial RAM disk, a cpio archive."""
        return self.folder / "initrd.cpio"

    @property
    def disk(self) -> Path:
        """The root file system, ext4; never written to after it was built."""
        return self.folder / "disk.img"

    @property
    def key(self) -> Path:
        """The private key that sshd on the board accepts."""
        return self.folder / "key"

    @property
    def host_key(self) -> str:
        """The board's public host key: type and base64, as in known_hosts."""
        return " ".join((self.folder / "host_key.pub").read_text().split()[:2])


def recipe_hash() -> str:
    """Hex digest of all that decides what a board contains: packages, versions, the code that builds it."""
    code = [
        Path(one).read_text(encoding="utf-8") for one in (__file__, *(str(one.__file__) for one in _CODE))
    ]
    return sha256_of([KERNEL, packages.SUITE, rootfs.PACKAGES, wheels.requirements(), code])[:16]


def ensure_built(progress: Progress = silent) -> BoardFiles:
    """The board's files; builds them if the cache has none of this recipe.

    About 60 MB of Debian packages and 50 MB of wheels are fetched; an image serves every CPU.

    Raises:
        MissingExtraError: a command or package that building needs is missing on this machine.
        DeviceError: no mirror, no network, or no machine that can build it.
        MeasurementError: another edgekit builds it and doesn't end.
    """
    host.architecture()
    folder = cache_folder() / f"image-{recipe_hash()}"
    started = time.monotonic()
    new = built(folder, lambda target: _build(target, progress), progress)
    facts = json.loads((folder / "board.json").read_text())
    files = BoardFiles(folder, tools.qemu(progress), tools.adb(progress), float(facts["build_seconds"]))
    if new:
        progress(Event("note", "board", f"built in {time.monotonic() - started:.0f} s"))
    return files


def _build(target: Path, progress: Progress) -> None:
    started = time.monotonic()
    for name in ("mke2fs", "ssh-keygen", "dpkg-deb", "apt-get"):
        host.command(name)
    step = _counted(progress)
    root, kernel_tree = target / "root", target / "kernel-tree"
    for folder in (root / rootfs.SITE, kernel_tree):
        folder.mkdir(parents=True)
    with ThreadPoolExecutor(1) as beside:
        wheels_done = beside.submit(
            wheels.install, wheels.requirements(), root / rootfs.SITE, cache_folder() / "wheels"
        )
        step("asking Debian's mirror for package lists")
        apt = packages.Apt(cache_folder() / "apt", rootfs.ARCHITECTURE)
        apt.update()
        step("fetching Debian packages for arm64")
        fetched = apt.fetch(rootfs.PACKAGES)
        kernel = apt.fetch_kernel(KERNEL)
        step("unpacking them")
        rootfs.populate(root, fetched)
        packages.unpack(kernel, kernel_tree)
        step("fetching and unpacking wheels for aarch64")
        wheels_done.result()
    for name in ("key", "host_key"):
        _new_key(target / name)
    rootfs.configure(root, public_key=target / "key.pub", host_key=target / "host_key")
    rootfs.add_modules(root, kernel_tree)
    step("compiling Python packages")
    if not rootfs.compile_python(root):
        progress(Event("note", "board", "this is no Python 3.11: the board's Python imports slower"))
    step("writing the initial RAM disk")
    _write_kernel(root, kernel_tree, target)
    step("writing the disk")
    image.write_disk(root, target / "disk.img")
    for leftover in (root, kernel_tree):
        shutil.rmtree(leftover)
    write_json(target / "board.json", {"build_seconds": round(time.monotonic() - started, 1)})


def _write_kernel(root: Path, kernel_tree: Path, target: Path) -> None:
    (linux,) = (kernel_tree / "boot").glob("vmlinuz-*")
    shutil.copy(linux, target / "vmlinuz")
    entries = image.initial_entries(root / "bin/busybox", kernel_tree)
    (target / "initrd.cpio").write_bytes(image.newc(entries))


def _new_key(path: Path) -> None:
    host.run(
        [host.command("ssh-keygen"), "-q", "-t", "ed25519", "-N", "", "-C", "edgekit-board", "-f", path],
        what="a key for the board can't be made",
    )


def _counted(progress: Progress) -> Callable[[str], None]:
    numbers = iter(range(1, _STEPS + 1))
    return lambda text: say(progress, text, next(numbers), _STEPS)
