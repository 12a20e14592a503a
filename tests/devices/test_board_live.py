"""The emulated board itself: built from nothing, booted, and asked. Needs the network and some minutes."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from edgekit.devices.board import (
    BoardFiles,
    RunningBoard,
    booted,
    bundle,
    ensure_built,
    qemu,
    rootfs,
    running,
    start,
    stop,
    tools,
)
from edgekit.errors import InputError, MeasurementError
from edgekit.progress import Event
from tests.devices.conftest import skip_where_there_is_nothing_to_build_from

pytestmark = pytest.mark.device

LOOP = """
import time
import numpy as np
a = np.arange(64 * 64, dtype=np.float32).reshape(64, 64) % 7
def work():
    for _ in range(20):
        a @ a
    return sum(i * i % 7 for i in range(2000))
work()
counts = []
for _ in range(5):
    before = time.perf_counter_ns()
    work()
    counts.append(time.perf_counter_ns() - before)
print(sorted(counts)[2])
"""


@pytest.fixture(scope="module", autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A fresh cache, whose path holds what a path may hold; its boards are stopped at the end."""
    folder = tmp_path_factory.mktemp("board") / "a cache, 100%"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("EDGEKIT_CACHE", str(folder))
        yield folder / "board"
        for board in running():
            stop(board.cpu)
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="module")
def events() -> list[Event]:
    """What was told while it was built."""
    return []


@pytest.fixture(scope="module")
def files(cache: Path, events: list[Event]) -> BoardFiles:
    """A board that was built from nothing."""
    try:
        return ensure_built(events.append)
    except InputError as error:
        skip_where_there_is_nothing_to_build_from(error)
        raise


@pytest.fixture(scope="module", params=["cortex-a53", "cortex-a72", "cortex-a76"])
def board(files: BoardFiles, request: pytest.FixtureRequest) -> Iterator[RunningBoard]:
    """One that runs, for each of the CPUs."""
    with booted(request.param) as one:
        yield one


def ssh(board: RunningBoard, line: str, text: str = "") -> str:
    argv = ["ssh", *board.ssh_options(), "-p", str(board.ssh_port), f"{board.user}@{board.host}", line]
    return subprocess.run(argv, input=text, capture_output=True, text=True, check=True).stdout


def adb(board: RunningBoard, *words: str) -> str:
    env = {**os.environ, **board.adb_env}
    argv = [*board.adb_argv, *words]
    return subprocess.run(
        argv, env=env, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=True
    ).stdout


def test_building_tells_its_steps_and_what_it_took(
    files: BoardFiles,
    events: list[Event],
    cache: Path,
    record_testsuite_property: Callable[[str, object], None],
) -> None:
    steps = [(event.done, event.total) for event in events if event.total]
    assert steps == [(n, 7) for n in range(1, 8)]
    assert any(event.kind == "note" and event.message.startswith("built in ") for event in events)
    assert files.build_seconds > 0
    record_testsuite_property("build_seconds", files.build_seconds)
    record_testsuite_property("disk_bytes", files.disk.stat().st_blocks * 512)
    assert not list(cache.glob(".*.partial"))


def test_what_was_built_is_used_again(files: BoardFiles) -> None:
    before = files.disk.stat().st_mtime_ns
    told: list[Event] = []
    assert ensure_built(told.append) == files
    assert told == []
    assert files.disk.stat().st_mtime_ns == before


def test_a_build_that_was_killed_is_done_again_from_what_was_downloaded(
    files: BoardFiles, cache: Path
) -> None:
    archives = cache / "apt/archives"
    before = {path.name: path.stat().st_mtime_ns for path in archives.glob("*.deb")}
    files.folder.rename(cache / f".{files.folder.name}.partial")
    again = ensure_built()
    assert again.folder == files.folder
    assert again.kernel.is_file()
    assert {path.name: path.stat().st_mtime_ns for path in archives.glob("*.deb")} == before


def test_over_ssh_it_is_an_arm_machine_with_the_runtimes(
    board: RunningBoard, record_testsuite_property: Callable[[str, object], None]
) -> None:
    record_testsuite_property(f"boot_seconds {board.cpu}", board.boot_seconds)
    assert ssh(board, "uname -m; id -u") == "aarch64\n0\n"
    code = (
        "import numpy, onnxruntime, ai_edge_litert.interpreter, sys; "
        "print(onnxruntime.__version__, *sys.version_info[:2])"
    )
    import onnxruntime

    assert ssh(board, f"python3 -c '{code}'") == f"{onnxruntime.__version__} 3 11\n"


def test_over_adb_it_is_the_same_one(board: RunningBoard) -> None:
    assert "connected to" in adb(board, "connect", board.adb_serial)
    there = ("-s", board.adb_serial, "shell", "-T", "-e", "none")
    assert adb(board, *there, "uname -m; cat /proc/sys/kernel/random/boot_id").splitlines() == [
        "aarch64",
        ssh(board, "cat /proc/sys/kernel/random/boot_id").strip(),
    ]
    assert adb(board, *there, "python3 -c 'import onnxruntime as o; print(o.get_device())'") == "CPU\n"
    assert adb(board, "devices").split()[-2:] == [board.adb_serial, "device"]  # and no other one


def test_another_host_key_is_refused(board: RunningBoard, tmp_path: Path) -> None:
    words = board.known_hosts.read_text().split()
    fake = words[2][:-8] + ("AAAAAAAA" if words[2][-8:] != "AAAAAAAA" else "BBBBBBBB")
    (tmp_path / "known_hosts").write_text(f"{words[0]} {words[1]} {fake}\n")
    options = [
        word.replace(str(board.known_hosts).replace("%", "%%"), str(tmp_path / "known_hosts"))
        for word in board.ssh_options()
    ]
    argv = ["ssh", *options, "-o", "BatchMode=yes", "-p", str(board.ssh_port), "root@127.0.0.1", "true"]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    assert done.returncode == 255
    assert "Host key verification failed" in done.stderr


def test_it_has_the_commands_that_transports_ask_for(board: RunningBoard) -> None:
    wanted = ("find", "flock", "head", "mktemp", "sha256sum", *rootfs.APPLETS)
    line = f"for c in {' '.join(wanted)}; do command -v $c >/dev/null || echo missing $c; done"
    assert ssh(board, line) == ""
    links = "ls -l /usr/bin | sed -n 's/.* \\([^ ]*\\) -> .bin.busybox$/\\1/p'"
    known = "/bin/busybox --list"
    assert set(ssh(board, links).split()) <= set(ssh(board, known).split())


def test_it_reaches_nothing(board: RunningBoard) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        code = (
            "import socket; s = socket.socket(); s.settimeout(3); "
            f'print(s.connect_ex(("10.0.2.2", {server.getsockname()[1]})) != 0)'
        )
        assert ssh(board, f"python3 -c '{code}'") == "True\n"


def test_its_clock_counts_instructions(board: RunningBoard) -> None:
    counts = [int(ssh(board, "python3 -", LOOP)) for _ in range(3)]
    assert max(counts) - min(counts) <= 0.01 * min(counts)
    # 20 products of 64 × 64 matrices are 5.2 million multiply-adds, at most 16 of which are one instruction.
    assert min(counts) > 20 * 64**3 / 16


def test_its_disk_is_as_new_after_each_boot(files: BoardFiles) -> None:
    before = files.disk.stat().st_mtime_ns
    with booted("neoverse-n1") as board:
        assert ssh(board, "echo x > /root/file; sync; cat /root/file") == "x\n"
    with booted("neoverse-n1") as board:
        assert ssh(board, "ls /root/file 2>/dev/null; true") == ""
    assert files.disk.stat().st_mtime_ns == before


def test_a_stopped_board_leaves_no_process(files: BoardFiles, cache: Path) -> None:
    board = start("neoverse-n1")
    adb(board, "connect", board.adb_serial)
    marks = (os.fsencode(f"file:{board.console}"), board.adb_env["ADB_SERVER_SOCKET"].encode())
    assert len(_with(marks)) == 2  # QEMU and adb's server
    assert stop("neoverse-n1")
    while _with(marks[1:]):  # the server answers before it ends
        time.sleep(0.05)
    assert _with(marks) == []
    assert not list(cache.glob("running/neoverse-n1.[!lu]*"))


def _with(marks: tuple[bytes, ...]) -> list[int]:
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = path.read_bytes().split(b"\0")
        except OSError:
            continue
        if any(mark in words for mark in marks):
            found.append(int(path.parent.name))
    return found


def test_ports_that_qemu_cannot_bind_are_left_for_others(files: BoardFiles, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        offers = iter([qemu.Ports(taken.getsockname()[1], qemu.free_ports().adb), free := qemu.free_ports()])
        pid, ports = qemu.launch(files, "cortex-a53", tmp_path / "console", choose=lambda: next(offers))
    assert ports == free
    qemu.terminate(pid, tmp_path / "console")
    assert not qemu.is_ours(pid, tmp_path / "console")


def test_a_board_without_a_disk_says_what_its_console_said(files: BoardFiles, tmp_path: Path) -> None:
    broken = BoardFiles(tmp_path, files.qemu, files.adb, 0.0)
    for path in (files.kernel, files.initrd):
        (tmp_path / path.name).symlink_to(path)
    (tmp_path / "disk.img").write_bytes(bytes(1 << 20))
    pid, _ = qemu.launch(broken, "cortex-a53", tmp_path / "console")
    with pytest.raises(MeasurementError, match="edgekit-board failed: the disk can't be mounted"):
        qemu.wait_until_ready(pid, tmp_path / "console")


def test_adb_out_of_debians_packages_talks_to_the_board(
    files: BoardFiles, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for path in Path("/usr/bin").iterdir():
        if path.name != "adb":
            (tmp_path / path.name).symlink_to(path)
    with booted("cortex-a76") as board:
        monkeypatch.setenv("PATH", str(tmp_path))
        unpacked = tools.adb()
        env = {
            **os.environ,
            **board.adb_env,
            **unpacked.env,
            "ADB_SERVER_SOCKET": f"localabstract:{tmp_path}",
        }
        try:
            connected = [*unpacked.argv, "connect", board.adb_serial]
            said = subprocess.run(connected, env=env, capture_output=True, text=True, check=True).stdout
            assert "connected to" in said
            shell = [*unpacked.argv, "-s", board.adb_serial, "shell", "-T", "-e", "none", "uname", "-m"]
            assert subprocess.run(shell, env=env, capture_output=True, check=True).stdout == b"aarch64\n"
        finally:
            subprocess.run([*unpacked.argv, "kill-server"], env=env, capture_output=True, check=True)


def test_the_bundle_runs_where_there_is_no_c_library(files: BoardFiles, tmp_path: Path) -> None:
    bundle(tmp_path / "runner.tar.gz")
    code = "import sys, ssl, ctypes, numpy, onnxruntime, ai_edge_litert.interpreter; print(sys.executable)"
    with booted("cortex-a53") as board:
        adb(board, "connect", board.adb_serial)
        adb(board, "-s", board.adb_serial, "push", str(tmp_path / "runner.tar.gz"), "/data/local/tmp/")
        # A root with a static shell and the kernel's folders, and nothing else: what a phone has in common.
        ssh(
            board,
            "set -e; r=/data/local/tmp/phone; mkdir -p $r/bin $r/proc $r/dev $r/tmp; "
            "cp /bin/busybox $r/bin/sh; "
            "mount -t proc proc $r/proc; mount --bind /dev $r/dev; "
            "tar -xf /data/local/tmp/runner.tar.gz -C $r; ! test -e $r/lib",
        )
        started = f"chroot /data/local/tmp/phone /bin/sh -c '/runner/python3 -c \"{code}\"'"
        assert ssh(board, started) == "/runner/python3\n"
