"""``make audit`` never takes packages that nobody could look up for audited ones."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

SCRIPT = Path(__file__).resolve().parents[1] / "scripts" / "audit.py"
SOUND = {"name": "a", "version": "1", "vulns": []}
SKIPPED = {"name": "b", "skip_reason": "Dependency not found on PyPI and could not be audited: b (1)"}
OURS = {"name": "edgekit-toolkit", "skip_reason": "Dependency not found on PyPI"}
HOLED = {"name": "c", "version": "1", "vulns": [{"id": "CVE-1", "fix_versions": ["2"]}]}


def audit(tmp_path: Path, said: str, *more: str) -> tuple[int, str]:
    """With a pip-audit that says this, and ends with 0, as the real one does for packages that it skips."""
    tool = tmp_path / "pip-audit"
    tool.write_text(f"#!/bin/sh\ncat <<'END'\n{said}\nEND\n")
    tool.chmod(0o755)
    done = subprocess.run(
        [sys.executable, str(SCRIPT), str(tool), *more], capture_output=True, text=True, check=False
    )
    assert done.stderr == ""
    return done.returncode, done.stdout


@pytest.mark.parametrize(
    ("rows", "codes", "said"),
    [
        ([SOUND, OURS], (0, 0), "audited: 1 packages, 0 with"),
        ([SOUND, SKIPPED], (0, 1), "NOT AUDITED: 1 of 2 packages: b"),
        ([SKIPPED], (0, 1), "NOT AUDITED: 1 of 1 packages"),
        ([], (0, 1), "audited: 0 packages"),
        ([SOUND, HOLED, SKIPPED], (1, 1), "c 1: CVE-1, mended in 2"),
    ],
)
def test_what_was_looked_up(tmp_path: Path, rows: list[Any], codes: tuple[int, int], said: str) -> None:
    text = json.dumps({"dependencies": rows, "fixes": []})
    for code, more in zip(codes, ((), ("--strict",)), strict=True):
        assert audit(tmp_path, text, *more) == (code, audit(tmp_path, text)[1])
        assert said in audit(tmp_path, text, *more)[1]


@pytest.mark.parametrize("said", ["", "Traceback (most recent call last):", "[]", "{}"])
def test_a_service_that_cant_be_reached(tmp_path: Path, said: str) -> None:
    code, text = audit(tmp_path, said)
    assert (code, text[:12]) == (0, "NOT AUDITED:")
    assert audit(tmp_path, said, "--strict")[0] == 1


def test_no_tool(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, str(SCRIPT), str(tmp_path / "none")], capture_output=True, check=False
    )
    assert done.returncode == 0
    assert done.stdout.startswith(b"NOT AUDITED:")
