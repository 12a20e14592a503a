"""What ssh and adb have in common, over a shell of this machine: quoting, uploads, locks, cleaning up."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgekit.devices.device import Device
from edgekit.devices.shell import ShellTransport, quoted, script
from edgekit.errors import MeasurementError, UnreachableError
from edgekit.progress import Event
from tests.devices.conftest import ShellChannel

NASTY = [
    "two words",
    "it's",
    'say "so"',
    "line\nbreak",
    "$(touch pwned)",
    "`id`",
    "-rf",
    "*",
    "tab\there",
    "é ü 漢",
]


def board(**values: Any) -> Device:
    return Device(name="board", transport="ssh", timeout_seconds=20, **values)


@given(st.lists(st.text(st.characters(blacklist_characters="\0", blacklist_categories=("Cs",))), min_size=1))
def test_quoting_survives_any_string(words: list[str]) -> None:
    argv = [sys.executable, "-c", "import sys, json; print(json.dumps(sys.argv[1:]))", *words]
    done = subprocess.run(["sh", "-c", script(quoted(argv))], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) == words


def test_a_nul_byte_is_refused() -> None:
    with pytest.raises(MeasurementError, match="NUL"):
        quoted(["a\0b"])


@pytest.mark.parametrize("name", NASTY)
def test_files_of_any_name_go_there_and_back(shell: ShellTransport, tmp_path: Path, name: str) -> None:
    source = tmp_path / name
    source.write_bytes(os.urandom(1000))
    there = shell.push(source)
    assert Path(there).name == name
    shell.pull(there, tmp_path / "back")
    assert (tmp_path / "back").read_bytes() == source.read_bytes()
    assert not list(tmp_path.rglob("pwned"))


def test_run_says_what_the_command_said(shell: ShellTransport) -> None:
    done = shell.run(["sh", "-c", "pwd; echo err >&2; exit 3"], timeout_seconds=10)
    assert (done.returncode, done.stdout, done.stderr) == (3, f"{shell.folder}\n", "err\n")


def test_a_signal_is_told_from_the_connection(shell: ShellTransport) -> None:
    assert shell.run(["sh", "-c", "kill -SEGV $$"], timeout_seconds=10).returncode == -signal.SIGSEGV


def test_a_command_that_ends_with_255_is_no_lost_connection(shell: ShellTransport) -> None:
    assert shell.run(["sh", "-c", "exit 255"], timeout_seconds=10).returncode != 0


def test_what_isnt_there_cant_be_started(shell: ShellTransport) -> None:
    with pytest.raises(MeasurementError, match="can't be started"):
        shell.run(["no-such-program"], timeout_seconds=10)


def test_a_command_that_says_nothing_is_given_up(shell: ShellTransport) -> None:
    with pytest.raises(MeasurementError, match="took too long"):
        shell.run(["sleep", "30"], timeout_seconds=0.3)


def test_variables_of_the_profile_are_set(base: Path) -> None:
    device = board(setup=("GREETING=it's $(me)", "OTHER=1"))
    with ShellTransport(ShellChannel(), device, str(base)).connect() as link:
        assert link.run(["sh", "-c", 'printf %s "$GREETING"'], timeout_seconds=10).stdout == "it's $(me)"


def test_a_file_that_is_there_is_not_sent_again(shell: ShellTransport, tmp_path: Path) -> None:
    source = tmp_path / "model.onnx"
    source.write_bytes(os.urandom(100_000))
    there = shell.push(source)
    stamp = Path(there).stat().st_mtime_ns
    assert shell.push(source) == there
    assert Path(there).stat().st_mtime_ns == stamp


def test_a_file_that_was_spoilt_there_is_sent_again(shell: ShellTransport, tmp_path: Path) -> None:
    source = tmp_path / "model.onnx"
    source.write_bytes(b"right" * 1000)
    there = shell.push(source)
    Path(there).write_bytes(b"wrong")
    assert Path(shell.push(source)).read_bytes() == source.read_bytes()


def test_a_damaged_upload_is_refused(base: Path, tmp_path: Path) -> None:
    """A device whose sha256 is another one never gets to run the file."""

    class Liar(ShellChannel):
        def argv(self, line: str) -> list[str]:
            return super().argv(line.replace("cat >>", "tr a b >>"))

    source = tmp_path / "model.onnx"
    source.write_bytes(b"abc" * 1000)
    with ShellTransport(Liar(), board(), str(base)).connect() as link:
        with pytest.raises(MeasurementError, match="sha256"):
            link.push(source)
        assert not list(Path(link.folder).rglob("model.onnx"))
        assert not list(Path(link.folder).rglob("*.part"))


def test_an_upload_that_was_cut_goes_on_where_it_was(base: Path, tmp_path: Path) -> None:
    source = tmp_path / "model.onnx"
    source.write_bytes(os.urandom(3_000_000))
    channel = ShellChannel()
    with ShellTransport(channel, board(), str(base)).connect() as link:
        channel.cut_after, channel.limit_bytes = len(channel.lines) + 1, 1_234_567
        sizes = []
        send = link._send
        link._send = lambda *given: (sizes.append(given[-1]), send(*given))[1]  # type: ignore[method-assign]
        there = link.push(source)
        assert Path(there).read_bytes() == source.read_bytes()
    assert sizes == [0, 1_234_567]
    assert channel.cut_after is None  # it was cut


def test_a_device_that_stays_away_is_unreachable(base: Path, tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setattr("edgekit.devices.shell.BACK_OFF_SECONDS", (0.01, 0.01))

    class Dead(ShellChannel):
        def argv(self, line: str) -> list[str]:
            return ["sh", "-c", "exit 255"]

    channel = Dead()
    with pytest.raises(UnreachableError, match="unplugged"):
        ShellTransport(channel, board(), str(base)).connect()
    assert channel.revived == 2


def test_a_full_disk_is_told(tmp_path: Path) -> None:
    full = tmp_path / "full"
    full.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=1m", "none", full], capture_output=True, check=False
    )
    if mounted.returncode:
        pytest.skip("a small file system can't be mounted here")
    try:
        source = tmp_path / "model.onnx"
        source.write_bytes(os.urandom(3_000_000))
        with ShellTransport(ShellChannel(), board(), str(full)).connect() as link:
            with pytest.raises(MeasurementError, match="disk is full") as caught:
                link.push(source)
            assert "work_folder" in caught.value.next
            small = tmp_path / "small"
            small.write_bytes(b"fits")  # nothing of the large one is left
            assert Path(link.push(small)).read_bytes() == b"fits"
    finally:
        subprocess.run(["umount", full], check=True)


def test_nothing_stays_on_the_device(base: Path, tmp_path: Path) -> None:
    source = tmp_path / "model.onnx"
    source.write_bytes(b"x")
    with ShellTransport(ShellChannel(), board(), str(base)).connect() as link:
        link.push(source)
        link.push(source, "code.py")
        process = link.spawn(["sleep", "100"])
        assert process.pid
    assert list(base.iterdir()) == []


def test_what_is_asked_to_stay_stays_and_is_found_again(base: Path, tmp_path: Path) -> None:
    source = tmp_path / "model.onnx"
    source.write_bytes(b"x" * 1000)
    with ShellTransport(ShellChannel(), board(keep=True), str(base)).connect() as link:
        there = Path(link.push(source))
    assert there.read_bytes() == source.read_bytes()
    stamp = there.stat().st_mtime_ns
    with ShellTransport(ShellChannel(), board(keep=True), str(base)).connect() as link:
        assert link.push(source) == str(there)
    assert there.stat().st_mtime_ns == stamp
    assert [path.name for path in base.iterdir()] == ["edgekit-store"]


def test_a_process_talks_and_is_ended_even_if_it_hangs(shell: ShellTransport) -> None:
    stuck = "import os, time\nprint('{\"pid\": %d}' % os.getpid(), flush=True)\nwhile True: time.sleep(1)"
    process = shell.spawn([sys.executable, "-c", stuck])
    pid = process.receive(10)["pid"]
    with pytest.raises(MeasurementError, match="no answer in time"):
        process.receive(0.2)
    process.close()
    for _ in range(200):
        if not Path(f"/proc/{pid}").exists():
            break
        time.sleep(0.05)
    assert not Path(f"/proc/{pid}").exists()


def test_a_process_that_crashes_says_by_what(shell: ShellTransport) -> None:
    process = shell.spawn(["sh", "-c", "kill -SEGV $$"])
    with pytest.raises(MeasurementError, match="SIGSEGV") as caught:
        process.receive(10)
    assert not isinstance(caught.value, UnreachableError)


def test_a_process_whose_connection_broke_is_another_thing(base: Path) -> None:
    channel = ShellChannel()
    with ShellTransport(channel, board(), str(base)).connect() as link:
        process = link.spawn(["sh", "-c", "read line; exit 255"])
        process.send({})
        with pytest.raises(MeasurementError, match="exit code 254"):
            process.receive(10)
        channel.cut_after = len(channel.lines)
        with pytest.raises(UnreachableError):
            link.spawn(["cat"])


def test_two_edgekits_take_turns(base: Path) -> None:
    """Timing excludes everybody; computing excludes only timing."""
    order: list[str] = []
    told: list[Event] = []

    def second(link: ShellTransport) -> None:
        with link.lock(exclusive=True, progress=told.append):
            order.append("second")

    one = ShellTransport(ShellChannel(), board(), str(base)).connect()
    two = ShellTransport(ShellChannel(), board(), str(base)).connect()
    with one, two:
        with one.lock(exclusive=False), two.lock(exclusive=False):
            pass
        with one.lock(exclusive=True):
            thread = threading.Thread(target=second, args=(two,))
            thread.start()
            while not told:
                time.sleep(0.01)
            order.append("first")
        thread.join()
    assert order == ["first", "second"]
    assert "another edgekit" in told[0].message


def test_a_lock_is_free_when_its_holder_is_killed(base: Path) -> None:
    one = ShellTransport(ShellChannel(), board(), str(base)).connect()
    with one, ShellTransport(ShellChannel(), board(), str(base)).connect() as two:
        holder = one._holder(f"{base}/edgekit.lock", exclusive=True)
        assert holder.line(10) == b"held"
        os.killpg(holder.pid, signal.SIGKILL)
        with two.lock(exclusive=True):
            pass
        holder.close()


def test_what_a_killed_edgekit_left_is_swept(base: Path) -> None:
    abandoned, young = base / "edgekit-AAAAAA", base / "edgekit-BBBBBB"
    for folder in (abandoned, young):
        folder.mkdir()
        (folder / "alive").touch()
    old = time.time() - 3600
    os.utime(abandoned, (old, old))
    with ShellTransport(ShellChannel(), board(), str(base)).connect() as one:
        os.utime(one.folder, (old, old))  # it is alive, however old
        with ShellTransport(ShellChannel(), board(), str(base)).connect():
            assert Path(one.folder).is_dir()
    assert [path.name for path in base.iterdir()] == ["edgekit-BBBBBB"]
