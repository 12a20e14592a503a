from __future__ import annotations

import os
import resource
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgekit.devices.local import LocalProcess, LocalTransport
from edgekit.errors import MeasurementError
from tests.bench.worker_process import copied

ECHO = "import sys\nfor line in sys.stdin:\n    sys.stdout.write(line); sys.stdout.flush()"


@pytest.fixture(scope="module")
def link() -> Iterator[LocalTransport]:
    with LocalTransport() as opened:
        yield opened


@pytest.fixture(scope="module")
def echo(link: LocalTransport) -> LocalProcess:
    return link.spawn([sys.executable, "-c", ECHO])


def talk(link: LocalTransport, code: str) -> LocalProcess:
    return link.spawn([sys.executable, "-c", code])


def test_run_gives_code_and_both_outputs(link: LocalTransport) -> None:
    code = "import sys; print('out'); print('err', file=sys.stderr); sys.exit(3)"
    done = link.run([sys.executable, "-c", code], timeout_seconds=20)
    assert (done.returncode, done.stdout, done.stderr) == (3, "out\n", "err\n")


def test_arguments_arrive_as_they_are(link: LocalTransport) -> None:
    hard = ["a b", "$HOME", "'\"", "*", "", "é\n;ls"]
    done = link.run(
        [sys.executable, "-c", "import sys; print(ascii(sys.argv[1:]))", *hard], timeout_seconds=20
    )
    assert done.stdout.strip() == ascii(hard)


def test_run_has_a_timeout(link: LocalTransport) -> None:
    start = time.monotonic()
    with pytest.raises(MeasurementError, match=r"no end after 0\.3 s"):
        link.run([sys.executable, "-c", "import time; time.sleep(60)"], timeout_seconds=0.3)
    assert time.monotonic() - start < 10


def test_a_command_that_is_not_there_is_reported(link: LocalTransport) -> None:
    with pytest.raises(MeasurementError, match="/nowhere/tool"):
        link.run(["/nowhere/tool"], timeout_seconds=1)
    with pytest.raises(MeasurementError, match="/nowhere/tool"):
        link.spawn(["/nowhere/tool"])


def test_want_of_descriptors_is_blamed_on_no_command(link: LocalTransport) -> None:
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    free = os.dup(0)
    os.close(free)
    resource.setrlimit(resource.RLIMIT_NOFILE, (free, before[1]))
    try:
        for start in (lambda: link.run(["true"], timeout_seconds=5), lambda: LocalProcess(["true"])):
            with pytest.raises(OSError, match="Too many open files"):
                start()
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)


def test_push_and_pull_keep_the_content(link: LocalTransport, tmp_path: Path) -> None:
    source = tmp_path / "a.bin"
    source.write_bytes(bytes(range(256)))
    link.pull(link.push(source, "b.bin"), tmp_path / "c.bin")
    assert (tmp_path / "c.bin").read_bytes() == source.read_bytes()
    with pytest.raises(MeasurementError, match="no such file"):
        link.push(tmp_path / "absent")


json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=5,
)


@given(st.dictionaries(st.text(max_size=5), json_values, max_size=3))
def test_messages_come_back_whole(echo: LocalProcess, message: dict[str, object]) -> None:
    echo.send(message)
    assert echo.receive(20) == message


def test_a_message_larger_than_a_pipe_comes_back_whole(echo: LocalProcess) -> None:
    message = {"samples_ns": list(range(200_000))}
    echo.send(message)
    assert echo.receive(20) == message


def test_several_messages_in_one_piece_come_one_by_one(link: LocalTransport) -> None:
    process = talk(link, r"""print('{"a": 1}\n{"a": 2}\n{"a": 3}', flush=True); input()""")
    assert [process.receive(20)["a"] for _ in range(3)] == [1, 2, 3]


def test_silence_times_out_even_within_a_line(link: LocalTransport) -> None:
    process = talk(link, "print('{\"half', end='', flush=True); input()")
    with pytest.raises(MeasurementError, match=r"silence for 0\.5 s"):
        process.receive(0.5)


@pytest.mark.parametrize(
    ("code", "says"),
    [
        ("import os; os.abort()", "killed by SIGABRT"),
        ("raise SystemExit('no runtime here')", "exit code 1: no runtime here"),
        ("import os; os.kill(os.getpid(), 9)", "memory runs out"),
        ("print('hello', flush=True); input()", "spoke no JSON"),
        ("print('[1]', flush=True); input()", "spoke no JSON"),
    ],
)
def test_a_process_that_fails_says_how(link: LocalTransport, code: str, says: str) -> None:
    with pytest.raises(MeasurementError, match=says):
        talk(link, code).receive(20)


def test_sending_to_a_dead_process_is_reported(link: LocalTransport) -> None:
    process = talk(link, "import sys; sys.exit(7)")
    process._popen.wait(timeout=20)
    with pytest.raises(MeasurementError, match="exit code 7"):
        process.send({"a": 1})


def test_only_the_last_words_of_a_long_complaint_are_kept(link: LocalTransport) -> None:
    code = "import sys; sys.stderr.write('x' * 300_000 + 'the end'); sys.exit(1)"
    with pytest.raises(MeasurementError, match="the end") as caught:
        talk(link, code).receive(20)
    assert len(str(caught.value)) < 3000


def test_close_ends_processes_that_do_not_listen_and_removes_the_folder() -> None:
    link = LocalTransport()
    code = "import time, signal; signal.signal(15, signal.SIG_IGN); print('{}', flush=True); time.sleep(60)"
    process = talk(link, code)
    process.receive(20)
    assert Path(link.folder).is_dir()
    start = time.monotonic()
    link.close()
    link.close()
    assert time.monotonic() - start < 10
    assert process._popen.returncode is not None
    assert not Path(link.folder).exists()


def test_a_worker_leaves_when_its_host_is_gone(tmp_path: Path) -> None:
    """The end of its input is how a worker learns that edgekit was killed."""
    process = LocalProcess([sys.executable, copied(tmp_path)])
    assert process.receive(20)["ready"]
    process._stdin.close()
    assert process._popen.wait(timeout=20) == 0
    process.close()
