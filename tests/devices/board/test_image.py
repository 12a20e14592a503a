from __future__ import annotations

import stat
import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgekit.devices.board.image import MODULES, Entry, initial_entries, newc, write_disk
from edgekit.errors import DeviceError
from tests.devices.board.conftest import needs


def read_newc(archive: bytes) -> list[tuple[Entry, int]]:
    """A second reading of the format: entries with their inode, up to the trailer."""
    entries, position = [], 0
    while True:
        assert position % 4 == 0
        assert archive[position : position + 6] == b"070701"
        fields = [int(archive[at : at + 8], 16) for at in range(position + 6, position + 110, 8)]
        inode, mode, uid, gid, _links, mtime, size, *_, major, minor, name_size, check = fields
        assert (uid, gid, mtime, check) == (0, 0, 0, 0)
        name = archive[position + 110 : position + 110 + name_size]
        assert name.endswith(b"\0")
        start = (position + 110 + name_size + 3) & ~3
        data = archive[start : start + size]
        assert len(data) == size
        position = (start + size + 3) & ~3
        if name == b"TRAILER!!!\0":
            assert position == len(archive)
            return entries
        entries.append((Entry(name[:-1].decode(), mode, data, (major, minor)), inode))


_entries = st.builds(
    Entry,
    name=st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), min_size=1, max_size=20),
    mode=st.sampled_from([stat.S_IFREG | 0o644, stat.S_IFLNK | 0o777, stat.S_IFDIR | 0o755, stat.S_IFCHR]),
    data=st.binary(max_size=40),
    device=st.tuples(st.integers(0, 4095), st.integers(0, 1 << 20)),
).filter(lambda entry: entry.name != "TRAILER!!!")


@given(st.lists(_entries, max_size=5))
def test_an_archive_reads_back(entries: list[Entry]) -> None:
    read = read_newc(newc(entries))
    assert [entry for entry, _ in read] == entries
    assert len({inode for _, inode in read}) == len(entries)


@needs("cpio")
def test_cpio_unpacks_it(tmp_path: Path) -> None:
    entries = [
        Entry("folder", stat.S_IFDIR | 0o755),
        Entry("folder/file", stat.S_IFREG | 0o640, b"content"),
        Entry("link", stat.S_IFLNK | 0o777, b"folder/file"),
    ]
    subprocess.run(
        ["cpio", "-i", "--no-preserve-owner"],
        input=newc(entries),
        cwd=tmp_path,
        check=True,
        capture_output=True,
    )
    assert (tmp_path / "link").readlink() == Path("folder/file")
    assert (tmp_path / "link").read_bytes() == b"content"
    assert stat.S_IMODE((tmp_path / "folder/file").stat().st_mode) == 0o640


@pytest.fixture
def kernel_tree(tmp_path: Path) -> Path:
    """The modules of a kernel's package, as far as the first step needs them."""
    tree = tmp_path / "kernel"
    for name in MODULES:
        path = tree / f"lib/modules/6.1.0-1-cloud-arm64/kernel/{name}.ko"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(name)
    return tree


def test_the_first_step_holds_what_its_script_loads(kernel_tree: Path, tmp_path: Path) -> None:
    (tmp_path / "busybox").write_text("busybox")
    entries = {entry.name: entry for entry in initial_entries(tmp_path / "busybox", kernel_tree)}
    script = entries["init"].data.decode()
    assert stat.S_IMODE(entries["init"].mode) == 0o755
    assert entries["dev/console"].device == (5, 1)
    assert stat.S_ISCHR(entries["dev/console"].mode)
    loop = next(line for line in script.splitlines() if line.startswith("for module in "))
    loaded = loop.removeprefix("for module in ").partition(";")[0].split()
    assert {f"lib/{name}.ko" for name in loaded} == {name for name in entries if name.endswith(".ko")}
    assert loaded.index("virtio") < loaded.index("virtio_pci")
    assert subprocess.run(["sh", "-n"], input=script, text=True, check=False).returncode == 0


def test_a_kernel_without_a_module_is_refused(kernel_tree: Path, tmp_path: Path) -> None:
    (tmp_path / "busybox").write_text("busybox")
    next(kernel_tree.rglob("virtio_blk.ko")).unlink()
    with pytest.raises(DeviceError, match="virtio_blk.ko"):
        initial_entries(tmp_path / "busybox", kernel_tree)


@needs("mke2fs", "debugfs")
def test_a_disk_holds_the_folder_and_belongs_to_root(tmp_path: Path) -> None:
    root = tmp_path / "a root, 100%"
    (root / "etc").mkdir(parents=True)
    (root / "etc/file").write_text("content\n")
    (root / "etc/link").symlink_to("file")
    (root / "etc/secret").write_text("x")
    (root / "etc/secret").chmod(0o600)
    write_disk(root, tmp_path / "disk.img")

    def ask(question: str) -> str:
        debugfs = next(p for p in ("/usr/sbin/debugfs", "/sbin/debugfs") if Path(p).exists())
        argv = [debugfs, "-R", question, str(tmp_path / "disk.img")]
        return subprocess.run(argv, capture_output=True, text=True, check=True).stdout

    assert ask("cat /etc/file") == "content\n"
    assert "symlink" in ask("stat /etc/link")
    assert "Mode:  0600" in ask("stat /etc/secret")
    assert "User:     0" in ask("stat /")


@needs("mke2fs")
def test_a_disk_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    with pytest.raises(DeviceError, match="disk can't be written"):
        write_disk(tmp_path, tmp_path / "no such folder/disk.img")
