"""Answers of a file, written part by part, also after an attempt that was cut off."""

from __future__ import annotations

import errno
import hashlib
import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgekit.bench.answers import Answers, sha256
from tests.bench.worker_process import Process, direct, load, started


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., Process]]:
    yield from started(tmp_path)


@pytest.mark.parametrize("fixed", ["n", 3])
@pytest.mark.parametrize("begin", [0, 1, 3, 6, 7])
def test_an_evaluation_goes_on_where_it_was(
    start: Callable[..., Process], make_conv: Any, images: Path, tmp_path: Path, fixed: int | str, begin: int
) -> None:
    path, outputs = make_conv(fixed), tmp_path / "y.npy"
    worker = start()
    worker.ask(load(path))
    request = {"do": "evaluate", "inputs": str(images), "outputs": str(outputs), "batch": 2}
    worker.ask(request)
    wanted = np.load(outputs)
    np.testing.assert_allclose(wanted, direct(make_conv("n"), np.load(images)), rtol=1e-5, atol=1e-6)
    marked = wanted.copy()
    marked[:begin] += 100  # rows that are there already stay as they are, except for the last of all of them
    np.save(outputs, marked)
    held = outputs.read_bytes()
    outputs.write_bytes(held[: len(held) - (len(wanted) - begin) * wanted[0].nbytes])
    answer = worker.ask(request | {"start": begin})
    np.testing.assert_array_equal(np.load(outputs)[:begin][:6], marked[:begin][:6])
    np.testing.assert_allclose(np.load(outputs)[begin:], wanted[begin:], rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(np.load(outputs)[6], wanted[6], rtol=1e-5, atol=1e-6)
    assert answer["shape"] == [7, 4]
    assert answer["sha256"] == hashlib.sha256(outputs.read_bytes()).hexdigest()


def test_rows_that_are_told_are_on_the_disk(
    start: Callable[..., Process], conv: Path, tmp_path: Path
) -> None:
    np.save(tmp_path / "x.npy", np.ones((200_000, 3, 8, 6), dtype=np.float32))
    outputs = tmp_path / "y.npy"
    worker = start()
    worker.ask(load(conv))
    worker.send({"do": "evaluate", "inputs": str(tmp_path / "x.npy"), "outputs": str(outputs), "batch": 1})
    told = worker.receive()["done"]
    worker.popen.send_signal(signal.SIGKILL)
    worker.popen.wait()
    header = 128
    assert 0 < told < 200_000
    assert outputs.stat().st_size >= header + told * 4 * 4
    rows = np.frombuffer(outputs.read_bytes()[header : header + told * 16], np.float32)
    (wanted,) = direct(conv, np.ones((1, 3, 8, 6), dtype=np.float32))
    np.testing.assert_allclose(rows.reshape(told, 4), np.tile(wanted, (told, 1)), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("content", "start_at", "says"),
    [
        (b"", 3, "can't be continued"),
        (b"no array at all", 3, "can't be continued"),
        (np.zeros((7, 5), np.float32), 3, "holds float32[7, 5], expected float32[7, 4]"),
        (np.zeros((8, 4), np.float32), 3, "holds float32[8, 4], expected float32[7, 4]"),
        (np.zeros((7, 4), np.float64), 3, "holds float64[7, 4], expected float32[7, 4]"),
        (np.zeros((7, 4), np.float32), 8, "start is 8, of 7 samples"),
        (np.zeros((7, 4), np.float32), -1, "start is -1, of 7 samples"),
        (2, 3, "can't be continued at row 3: it holds 2 rows"),
        (None, 3, "No such file"),
    ],
)
def test_a_file_that_is_none_of_these_rows_is_not_continued(
    start: Callable[..., Process],
    conv: Path,
    images: Path,
    tmp_path: Path,
    content: Any,
    start_at: int,
    says: str,
) -> None:
    outputs = tmp_path / "y.npy"
    if isinstance(content, bytes):
        outputs.write_bytes(content)
    elif content is not None:
        np.save(outputs, np.zeros((7, 4), np.float32) if isinstance(content, int) else content)
        if isinstance(content, int):
            outputs.write_bytes(outputs.read_bytes()[: 128 + content * 16])
    before = outputs.read_bytes() if content is not None else None
    worker = start()
    worker.ask(load(conv))
    request = {
        "do": "evaluate",
        "inputs": str(images),
        "outputs": str(outputs),
        "batch": 2,
        "start": start_at,
    }
    assert says in worker.ask(request)["error"]
    assert (outputs.read_bytes() if outputs.exists() else None) == before


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no /dev/full")
def test_a_full_disk_is_told(start: Callable[..., Process], conv: Path, images: Path) -> None:
    worker = start()
    worker.ask(load(conv))
    answer = worker.ask({"do": "evaluate", "inputs": str(images), "outputs": "/dev/full", "batch": 64})
    assert answer["kind"] == "OSError"
    assert os.strerror(errno.ENOSPC) in answer["error"]
    assert "unknown request" in worker.ask({"do": "again"})["error"]  # still alive: no SIGBUS


@given(
    st.lists(st.integers(1, 5), min_size=1, max_size=6),
    st.sampled_from(["float32", "int8", "float16"]),
    st.lists(st.integers(1, 3), max_size=2),
)
def test_what_is_written_in_parts_is_the_whole(
    tmp_path_factory: pytest.TempPathFactory, parts: list[int], dtype: str, shape: list[int]
) -> None:
    path = tmp_path_factory.mktemp("answers") / "y.npy"
    total = sum(parts)
    whole = np.random.default_rng(0).integers(-9, 9, (total, *shape)).astype(dtype)
    done = 0
    for count in parts:  # each part by a process of its own, so to speak
        with Answers(str(path), total, done, whole[:1]) as file:
            file.write(whole[done : done + count])
        done += count
    written = np.load(path)
    assert written.dtype == whole.dtype
    np.testing.assert_array_equal(written, whole)
    assert sha256(str(path)) == hashlib.sha256(path.read_bytes()).hexdigest()
