from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from edgekit.devices.board import CPUS, booted, qemu, running, start, stop
from edgekit.devices.board.boards import RunningBoard
from edgekit.errors import DeviceError, MeasurementError
from edgekit.progress import Event
from tests.devices.board.conftest import StandIn


def test_a_board_is_started_once_found_and_stopped(stand_in: StandIn, cache: Path) -> None:
    events: list[Event] = []
    board = start("cortex-a76", events.append)
    assert events[0].message == "booting cortex-a76"
    assert start("cortex-a76") == board
    assert stand_in.calls == 1
    assert running() == [board]
    assert board.known_hosts.read_text() == f"[127.0.0.1]:{board.ssh_port} ssh-ed25519 AAAAboard\n"
    assert stop("cortex-a76")
    assert not qemu.is_ours(board.pid, board.console)
    assert running() == []
    assert not stop("cortex-a76")


def test_boards_of_several_cpus_run_side_by_side(stand_in: StandIn) -> None:
    boards = [start(cpu) for cpu in ("cortex-a53", "cortex-a76")]
    assert running() == boards
    assert len({port for board in boards for port in (board.ssh_port, board.adb_port)}) == 4
    assert boards[0].adb_env["ADB_SERVER_SOCKET"] != boards[1].adb_env["ADB_SERVER_SOCKET"]


_STARTS = """
import sys
from pathlib import Path
from edgekit.devices.board import BoardFiles, boards, start
from edgekit.devices.board.tools import Tool
folder = Path(sys.argv[1])
files = BoardFiles(folder, Tool([sys.executable, "-S", str(folder / "qemu.py")]), Tool(["true"]), 1.0)
boards.ensure_built = lambda progress: files
print(start("cortex-a53").pid)
"""


def test_a_board_outlives_the_process_that_started_it(stand_in: StandIn) -> None:
    done = subprocess.run(
        [sys.executable, "-c", _STARTS, str(stand_in.folder)], capture_output=True, text=True, check=True
    )
    (board,) = running()
    assert board.pid == int(done.stdout)
    assert os.getsid(board.pid) == board.pid  # no signal to the terminal reaches it
    assert start("cortex-a53") == board


def test_a_board_that_died_is_forgotten_and_started_anew(stand_in: StandIn) -> None:
    first = start("cortex-a72")
    os.kill(first.pid, signal.SIGKILL)
    while qemu.is_ours(first.pid, first.console):
        pass
    assert running() == []
    second = start("cortex-a72")
    assert second.pid != first.pid
    assert running() == [second]


def test_a_process_that_got_the_number_is_neither_taken_for_the_board_nor_killed(
    stand_in: StandIn, cache: Path
) -> None:
    board = start("cortex-a72")
    path = cache / "running/cortex-a72.json"
    with subprocess.Popen(["sleep", "600"]) as other:
        path.write_text(json.dumps({**board.to_json(), "pid": other.pid}))
        assert running() == []
        qemu.terminate(other.pid, board.console)
        assert other.poll() is None
        other.kill()
    qemu.terminate(board.pid, board.console)


def test_ports_that_are_taken_are_left_for_others(stand_in: StandIn, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        offers = iter([qemu.Ports(taken.getsockname()[1], qemu.free_ports().adb), free := qemu.free_ports()])
        pid, ports = qemu.launch(
            stand_in.files, "cortex-a53", tmp_path / "console", choose=lambda: next(offers)
        )
    assert ports == free
    assert stand_in.calls == 2
    qemu.terminate(pid, tmp_path / "console")


def test_ports_that_are_always_taken_end_in_qemus_words(stand_in: StandIn, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(MeasurementError, match=f"forwarding rule.*{port}"):
            qemu.launch(
                stand_in.files, "cortex-a53", tmp_path / "console", choose=lambda: qemu.Ports(port, port)
            )


@pytest.mark.parametrize(
    ("behaviour", "words"), [("failed", "libc\\+\\+.so: cannot open"), ("panic", "got: +Kernel panic")]
)
def test_a_board_that_does_not_come_up_is_told_with_its_consoles_words(
    behaviour: str, words: str, stand_in: StandIn, cache: Path
) -> None:
    stand_in.behaves(behaviour)
    with pytest.raises(MeasurementError, match=words):
        start("cortex-a53")
    assert running() == []
    assert not list(cache.glob("running/*.json"))


def test_a_qemu_that_does_not_know_the_cpu_is_too_old(stand_in: StandIn) -> None:
    stand_in.behaves("old")
    with pytest.raises(DeviceError, match="knows no cortex-a55"):
        start("cortex-a55")


def test_a_qemu_that_does_not_start_is_told(stand_in: StandIn) -> None:
    stand_in.behaves("broken")
    with pytest.raises(MeasurementError, match="no such machine"):
        start("cortex-a55")
    assert stand_in.calls == 1


@pytest.mark.parametrize("use", [start, stop])
def test_an_unknown_cpu_gets_a_suggestion(use: object) -> None:
    assert callable(use)
    with pytest.raises(DeviceError, match="did you mean 'cortex-a76'"):
        use("cortex-a77")


def test_a_board_while_it_is_needed(stand_in: StandIn) -> None:
    with booted("cortex-a53") as board:
        assert running() == [board]
        with booted("cortex-a53") as same:
            assert same == board
        assert running() == [board]  # the first user still has it
    assert running() == []


def test_a_board_that_was_started_to_stay_stays(stand_in: StandIn) -> None:
    board = start("cortex-a53")
    with booted("cortex-a53") as same:
        assert same == board
    assert running() == [board]


def test_a_board_that_somebody_wants_to_keep_meanwhile_stays(stand_in: StandIn) -> None:
    with booted("cortex-a53") as board:
        assert not board.keep
        kept = start("cortex-a53")
        assert kept.pid == board.pid
    assert running() == [kept]


def test_a_failure_inside_stops_the_board_too(stand_in: StandIn) -> None:
    with pytest.raises(ValueError, match="measuring failed"), booted("cortex-a53"):
        raise ValueError("measuring failed")
    assert running() == []


def test_what_is_written_of_a_board_reads_back(stand_in: StandIn) -> None:
    board = start("cortex-a53")
    assert RunningBoard.from_json(json.loads(json.dumps(board.to_json()))) == board


def test_a_note_of_another_edgekit_is_no_crash(stand_in: StandIn, cache: Path) -> None:
    (cache / "running").mkdir(parents=True)
    (cache / "running/cortex-a53.json").write_text('{"schema": 2}')
    with pytest.raises(MeasurementError, match=r"cortex-a53\.json"):
        running()
    (cache / "running/cortex-a53.json").unlink()


def test_ssh_checks_the_host_and_offers_one_key(stand_in: StandIn) -> None:
    board = start("cortex-a53")
    argv = ["ssh", "-G", *board.ssh_options(), "-p", str(board.ssh_port), "root@127.0.0.1"]
    done = subprocess.run(argv, capture_output=True, text=True, check=True)
    seen = dict(line.split(" ", 1) for line in done.stdout.splitlines())
    assert seen["stricthostkeychecking"] in ("true", "yes")
    assert seen["identitiesonly"] == "yes"
    assert seen["userknownhostsfile"].replace("%%", "%") == str(board.known_hosts)
    assert seen["identityfile"].replace("%%", "%") == str(board.key)


@pytest.mark.parametrize("cpu", CPUS)
def test_the_clock_counts_instructions_and_the_disk_stays_as_it_is(cpu: str, stand_in: StandIn) -> None:
    words = qemu.argv(stand_in.files, cpu, qemu.Ports(1, 2), Path("/c/console"), Path("/c/pid"))
    assert words[words.index("-icount") + 1] == "shift=0"
    assert words[words.index("-accel") + 1] == "tcg,thread=single"
    assert words[words.index("-smp") + 1] == "1"
    assert "snapshot=on" in words[words.index("-drive") + 1]
    assert "restrict=on" in words[words.index("-netdev") + 1]
    model = words[words.index("-cpu") + 1]
    assert model == ("max,sme=off" if cpu == "max" else cpu)
