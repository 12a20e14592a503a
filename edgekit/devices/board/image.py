"""The two files that a virtual machine boots from besides the kernel: an initial RAM disk and a disk."""

from __future__ import annotations

import stat
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from edgekit.devices.board import host
from edgekit.devices.board.rootfs import FAILED, module
from edgekit.errors import DeviceError

DISK_BYTES = 2 << 30  # sparse: only what is used takes space
# In the order in which they depend on each other.
MODULES = (
    "drivers/virtio/virtio_ring",
    "drivers/virtio/virtio",
    "drivers/virtio/virtio_pci_legacy_dev",
    "drivers/virtio/virtio_pci_modern_dev",
    "drivers/virtio/virtio_pci",
    "drivers/block/virtio_blk",
)

_INIT = f"""\
#!/bin/busybox sh
busybox=/bin/busybox
$busybox mount -t devtmpfs dev /dev
for module in {" ".join(Path(name).name for name in MODULES)}; do $busybox insmod /lib/$module.ko; done
tries=0
while [ ! -b /dev/vda ] && [ $tries -lt 100 ]; do $busybox sleep 0.1; tries=$((tries + 1)); done
$busybox mount -t ext4 -o rw,noatime /dev/vda /root || {{
  echo "{FAILED}: the disk can't be mounted"
  $busybox poweroff -f
}}
$busybox mount --move /dev /root/dev
exec $busybox switch_root /root /sbin/board-init
"""


@dataclass(frozen=True)
class Entry:
    """One entry of a cpio archive.

    ``mode`` holds type and permissions (``stat.S_IFREG | 0o755``), ``data`` a file's content or a link's
    target, ``device`` the major and minor number of a device node.
    """

    name: str
    mode: int
    data: bytes = b""
    device: tuple[int, int] = (0, 0)


def newc(entries: Iterable[Entry]) -> bytes:
    """A cpio archive in the "new ASCII" format, which Linux unpacks as its initial RAM disk.

    Everything belongs to root and is of 1970, so that equal entries give equal archives. Format: the kernel's
    Documentation/driver-api/early-userspace/buffer-format.rst.
    """
    parts = [_record(number, entry) for number, entry in enumerate(entries, 1)]
    parts.append(_record(0, Entry("TRAILER!!!", 0)))
    return b"".join(parts)


def _record(inode: int, entry: Entry) -> bytes:
    name = entry.name.encode() + b"\0"
    links = 2 if stat.S_ISDIR(entry.mode) else 1
    # inode, mode, uid, gid, links, mtime, size, device of the file (major, minor), device that it is (major,
    # minor), length of the name, checksum (of another format).
    fields = (inode, entry.mode, 0, 0, links, 0, len(entry.data), 0, 0, *entry.device, len(name), 0)
    head = b"070701" + b"".join(b"%08X" % field for field in fields) + name
    return _padded(head) + _padded(entry.data)


def _padded(data: bytes) -> bytes:
    return data + b"\0" * (-len(data) % 4)


def initial_entries(busybox: Path, kernel_tree: Path) -> list[Entry]:
    """What finds the disk and goes on there: busybox, the modules for it, and the first script."""
    folders = [Entry(name, stat.S_IFDIR | 0o755) for name in ("bin", "dev", "lib", "proc", "root")]
    files = [
        Entry("init", stat.S_IFREG | 0o755, _INIT.encode()),
        Entry("bin/busybox", stat.S_IFREG | 0o755, busybox.read_bytes()),
        *(
            Entry(f"lib/{Path(name).name}.ko", stat.S_IFREG | 0o644, module(kernel_tree, name).read_bytes())
            for name in MODULES
        ),
    ]
    # Made here, because a user without root can't make a device node on the host.
    console = Entry("dev/console", stat.S_IFCHR | 0o600, device=(5, 1))
    return [*folders, console, *files]


def write_disk(root: Path, target: Path) -> None:
    """Write the folder ``root`` into a new ext4 image. Raises DeviceError: no space, or no mke2fs.

    Owners are those of the files here; the board's first process gives root what has to be root's.
    """
    host.run(
        [
            *(host.command("mke2fs"), "-q", "-F", "-t", "ext4", "-O", "^has_journal,^metadata_csum"),
            *("-E", "root_owner=0:0", "-d", root, target, f"{DISK_BYTES >> 10}k"),
        ],
        what="the board's disk can't be written",
        failure=DeviceError,
        next="look whether the disk is full",
    )
