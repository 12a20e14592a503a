"""The worker as a process of its own, which is how it runs: the conversation, loading, profiling."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.bench.worker_process import QUICK, Process, copied, load, started


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., Process]]:
    yield from started(tmp_path)


def test_it_says_that_it_is_ready_and_who_it_is(start: Callable[..., Process]) -> None:
    worker = start()
    assert worker.ready["ready"] is True
    assert worker.ready["pid"] == worker.popen.pid
    assert worker.ready["python"] == sys.version.split()[0]


def test_it_answers_what_was_asked_before_the_input_ended(conv: Path, tmp_path: Path) -> None:
    """With "quit" at the end: all requests in one go are a way to use it from a shell."""
    requests = [load(conv, random=0), QUICK, {"do": "quit"}]
    text = "".join(json.dumps(one) + "\n" for one in requests)
    done = subprocess.run(
        [sys.executable, copied(tmp_path)], input=text, capture_output=True, text=True, check=True
    )
    ready, loaded, timed = map(json.loads, done.stdout.splitlines())
    assert (ready["ready"], loaded["shape"]) == (True, [3, 8, 6])
    assert len(timed["samples_ns"]) >= 5


def test_it_ends_when_its_input_ends_at_rest(start: Callable[..., Process], conv: Path) -> None:
    worker = start()
    worker.ask(load(conv, random=0))
    worker.stdin.close()
    assert worker.popen.wait() == 0
    assert worker.popen.stderr is not None
    assert worker.popen.stderr.read() == b""


def test_it_leaves_native_code_when_the_host_is_gone(start: Callable[..., Process], endless: Path) -> None:
    worker = start()
    worker.send(load(endless, random=0))
    status = Path(f"/proc/{worker.popen.pid}/stat")
    while int(status.read_text().rsplit(")", 1)[1].split()[11]) < 100:  # user time: a second of inference
        time.sleep(0.05)
    worker.stdin.close()
    assert worker.popen.wait() == 3


def test_it_leaves_quietly_when_nobody_reads_its_answers(start: Callable[..., Process], conv: Path) -> None:
    worker = start()
    worker.stdout.close()
    worker.send(load(conv, random=0))
    assert worker.popen.wait() == 3
    assert worker.popen.stderr is not None
    assert b"Traceback" not in worker.popen.stderr.read()


@pytest.mark.parametrize(
    ("line", "says"),
    [
        (b"{", "no JSON"),
        (b"[1]", "JSON object"),
        (b"{}", "JSON object"),
        (b"\xff\xfe", "no JSON"),
        (b'{"do": "dance"}', "unknown request 'dance'; known: load, time, profile, evaluate, quit"),
        (b'{"do": "time"}', "min_ns"),
        (b'{"do": "time", "min_ns": 1, "min_runs": 1}', "nothing to run"),
        (b'{"do": "profile", "runs": 1}', "nothing to run"),
        (b'{"do": "evaluate", "inputs": "x", "outputs": "y", "batch": 1}', "no file is loaded"),
        (b'{"do": "load", "runtime": "abacus", "artifact": "x", "threads": 1}', "unknown runtime 'abacus'"),
    ],
)
def test_a_request_that_is_wrong_is_answered_and_the_next_one_too(
    start: Callable[..., Process], line: bytes, says: str
) -> None:
    worker = start()
    worker.stdin.write(line + b"\n")
    worker.stdin.flush()
    assert says in worker.receive()["error"]
    assert "unknown request" in worker.ask({"do": "again"})["error"]


def test_what_native_code_prints_is_no_answer(start: Callable[..., Process], tmp_path: Path) -> None:
    """A file that can't be read makes ONNX Runtime complain; the answers stay JSON."""
    (tmp_path / "junk.onnx").write_bytes(b"junk")
    worker = start()
    assert "error" in worker.ask(load(tmp_path / "junk.onnx", random=0))
    assert "unknown request" in worker.ask({"do": "again"})["error"]


# --- load -------------------------------------------------------------------------------------------------


def test_a_random_input_has_the_files_own_shape_and_type(
    start: Callable[..., Process], conv: Path, tokens: Path, integer: Path
) -> None:
    worker = start()
    for path, shape, dtype in (
        (conv, [3, 8, 6], "float32"),
        (tokens, [None], "int64"),
        (integer, [6], "int8"),
    ):
        loaded = worker.ask(load(path, random=7))
        assert (loaded["shape"], loaded["dtype"], loaded["batch"], loaded["backend"]) == (shape, dtype, 1, "")
        assert loaded["first_ns"] > 0
        assert len(worker.ask(QUICK)["samples_ns"]) >= 5


def test_a_sample_and_a_random_input_exclude_each_other(
    start: Callable[..., Process], conv: Path, images: Path
) -> None:
    worker = start()
    assert "not on both" in worker.ask(load(conv, sample=str(images), random=0))["error"]
    assert worker.ask(load(conv))["first_ns"] == 0
    assert "nothing to run" in worker.ask(QUICK)["error"]


def test_a_file_that_was_refused_leaves_none_loaded(start: Callable[..., Process], conv: Path) -> None:
    worker = start()
    worker.ask(load(conv, random=0))
    assert "error" in worker.ask(load(conv, sample="/nowhere.npy"))
    assert "nothing to run" in worker.ask(QUICK)["error"]


@pytest.mark.skipif(not hasattr(os, "sched_getaffinity"), reason="this system binds no process to cores")
def test_all_of_the_runtimes_threads_keep_to_the_cores(start: Callable[..., Process], conv: Path) -> None:
    core = max(os.sched_getaffinity(0))
    worker = start()
    worker.ask(load(conv, random=0, affinity=[core]) | {"threads": 3})
    threads = sorted(int(one.name) for one in Path(f"/proc/{worker.popen.pid}/task").iterdir())
    made = [one for one in threads if os.sched_getaffinity(one) == {core}]
    assert worker.popen.pid in made
    assert len(made) >= 3


@pytest.mark.skipif(not hasattr(os, "sched_getaffinity"), reason="this system binds no process to cores")
@pytest.mark.parametrize("cores", [[4095], [-1]])
def test_cores_that_are_not_there_are_refused(
    start: Callable[..., Process], conv: Path, cores: list[int]
) -> None:
    some = [*cores, min(os.sched_getaffinity(0))]
    worker = start()
    for wrong in (cores, some):
        answer = worker.ask(load(conv, random=0, affinity=wrong))
        assert f"can't be bound to cores {wrong}" in answer["error"]
        assert f"usable: {sorted(os.sched_getaffinity(0))}" in answer["error"]


# --- profile ----------------------------------------------------------------------------------------------


def test_onnx_runtime_tells_what_each_op_takes(start: Callable[..., Process], conv: Path) -> None:
    worker = start()
    worker.ask(load(conv, random=0))
    rows = worker.ask({"do": "profile", "runs": 4})["ops"]
    assert {row["kind"] for row in rows} >= {"Conv", "ReduceMean"}
    assert all(row["calls"] == 4 and row["integer"] is False for row in rows)
    assert sum(row["share"] for row in rows) == pytest.approx(1)
    assert [row["share"] for row in rows] == sorted((row["share"] for row in rows), reverse=True)


def test_litert_says_why_it_has_no_profile(start: Callable[..., Process], integer: Path) -> None:
    worker = start()
    worker.ask(load(integer, random=0))
    answer = worker.ask({"do": "profile", "runs": 4})
    assert answer["ops"] == []
    assert "benchmark_model" in answer["reason"]
    assert "at least one run" in worker.ask({"do": "profile", "runs": 0})["error"]
