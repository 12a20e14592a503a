"""Standard streams that are closed, full, or spell less than Unicode: no command fails on them."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from edgekit.cli.streams import Output

EDGEKIT = f"'{sys.executable}' -m edgekit"


def shell(line: str, **environment: str) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(
        ["bash", "-c", line],
        capture_output=True,
        env={**os.environ, **environment},
        timeout=120,
        check=False,
    )


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full here")
def test_a_full_standard_output_is_told_once_at_the_end(tmp_path: Path) -> None:
    done = shell(f"{EDGEKIT} recipe cp quick '{tmp_path}/mine.yaml' > /dev/full")
    assert done.returncode == 2
    assert done.stderr.decode().startswith("error: standard output can't be written")
    assert b"No space left on device" in done.stderr
    assert (tmp_path / "mine.yaml").stat().st_size > 100  # the work is done all the same


@pytest.mark.parametrize("end", [">&-", "2>&-", "<&- >&- 2>&-", "| true", "2>/dev/full"])
def test_closed_streams_cost_what_is_not_shown(tmp_path: Path, end: str) -> None:
    done = shell(f"{EDGEKIT} recipe cp quick '{tmp_path}/mine.yaml' {end}")
    assert done.returncode == 0, done.stderr
    assert b"error" not in done.stderr
    assert (tmp_path / "mine.yaml").read_bytes().endswith(b"\n")


@pytest.mark.parametrize(
    "environment",
    [
        {"PYTHONIOENCODING": "latin-1"},
        {"PYTHONIOENCODING": "ascii:strict"},
        {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
    ],
    ids=str,
)
def test_a_terminal_that_is_not_utf_8_is_given_what_it_has(environment: dict[str, str]) -> None:
    done = shell(f"{EDGEKIT} recipe check mobile; {EDGEKIT} recipe show mobile --json", **environment)
    line, _, text = done.stdout.decode("ascii").partition("\n")
    assert line == "mobile: can be used (distill -> prune -> qat)"
    assert json.loads(text)["name"] == "mobile"
    assert done.stderr == b""


def test_what_an_encoding_lacks_is_spelled(tmp_path: Path) -> None:
    with (tmp_path / "out").open("wb") as file, Output(file.fileno(), "latin-1") as output:
        output.write("2 × faster → 3 µs ✓ … 日 \ud800\n")
    assert (tmp_path / "out").read_bytes() == b"2 \xd7 faster -> 3 \xb5s + ... \\u65e5 \\ud800\n"


def test_a_reader_that_goes_away_is_remembered_and_nothing_raises() -> None:
    reader, writer = os.pipe()
    with Output(writer, "utf-8", line_buffering=True) as output:
        output.write("heard\n")
        os.close(reader)
        for _ in range(3):
            output.write("not heard\n" * 10_000)
        output.flush()
        assert output.failure is not None
        assert output.failure.errno == errno.EPIPE
    os.close(writer)
