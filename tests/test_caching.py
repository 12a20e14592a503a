"""What lies in the cache, its bound, and ``edgekit cache``."""

from __future__ import annotations

import fcntl
import json
import os
import time
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from edgekit import caching
from edgekit.cli import app as cli
from edgekit.devices.board.cache import built
from edgekit.made import made_here, remember_made

MB = 1_000_000


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("EDGEKIT_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def put(path: Path, size: int, days: float = 0) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"x" * size)
    used = time.time() - days * 86_400
    os.utime(path.parent, (used, used))


def call(*arguments: str) -> Result:
    result = CliRunner().invoke(cli.app, ["cache", *arguments], prog_name="edgekit")
    assert result.exit_code == 0, result.stderr
    return result


def test_it_is_shown_the_largest_first_and_removed(cache: Path) -> None:
    put(cache / "vega/embed.js", 100_000)
    put(cache / "board/image-1/disk.img", 2 * MB)
    shown = call().stdout
    assert shown.index("board/image-1") < shown.index("vega") < shown.index(str(cache))
    rows = json.loads(call("--json").stdout)["entries"]
    assert [row["name"] for row in rows] == ["board/image-1", "vega"]
    assert rows[0]["bytes"] >= 2 * MB
    call("clear")
    assert caching.entries() == []
    assert "is empty" in call().stdout
    assert "is empty" in call("clear").stdout


def test_what_was_made_here_is_remembered_when_the_cache_is_removed(
    cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    remember_made("bundle", "0" * 64)
    monkeypatch.setattr("edgekit.made._now", set())  # as another process sees it
    put(cache / "vega/embed.js", 10)
    call("clear")
    assert not (cache / "vega").exists()
    assert made_here("bundle", "0" * 64)
    assert not made_here("bundle", "1" * 64)


@pytest.mark.parametrize("busy", ["switched on", "built"])
def test_a_board_that_is_used_now_stays(cache: Path, busy: str) -> None:
    put(cache / "board/image-1/disk.img", 10)
    put(cache / "latency/a.json", 10)
    lock = None
    if busy == "built":
        lock = (cache / "board/build.lock").open("w")
        fcntl.flock(lock, fcntl.LOCK_EX)
    else:
        put(cache / "board/running/cortex-a76.json", 2)
    call("clear")
    assert [one.name for one in caching.entries()] == ["board/image-1"]
    if lock is not None:
        lock.close()
        call("clear")
        assert caching.entries() == []


def test_what_was_used_last_stays_within_the_bound(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDGEKIT_CACHE_GB", "0.005")
    for name, days in (("image-1", 3), ("qemu-1", 2), ("image-2", 1)):
        put(cache / f"board/{name}/file", 2 * MB, days)
    assert not built(cache / "board/image-1", lambda folder: None)  # used again
    assert built(cache / "board/image-3", lambda folder: put(folder / "file", 2 * MB))
    assert {one.name for one in caching.entries()} == {"board/image-1", "board/image-3"}


def test_what_was_used_just_now_stays_beyond_the_bound(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDGEKIT_CACHE_GB", "0")
    put(cache / "board/image-1/file", MB)
    assert caching.trim() == []
    assert [one.name for one in caching.entries()] == ["board/image-1"]


@pytest.mark.parametrize("value", ["", "x", "inf", "nan", "1e400"])
def test_a_bound_that_is_none_is_the_usual_one(monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    monkeypatch.setenv("EDGEKIT_CACHE_GB", value)
    assert caching.most_bytes() == 4 << 30
