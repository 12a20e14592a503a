"""``edgekit bundle``: what it prints, and its exit codes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from edgekit.bundle import checking, writing
from edgekit.bundle.targets import base
from edgekit.cli.app import app
from tests.bundle import made


@pytest.fixture
def target(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """A target that needs no runtime; what its golden test finds can be set, or the test itself."""
    found: dict[str, Any] = {
        "tried": base.Tried(True, "3 samples, outputs off by 0", {"output_difference": 0})
    }
    found["try_out"] = lambda folder, scratch: found["tried"]
    plain = base.Target(
        name="python",
        about="",
        formats=("litert",),
        files=lambda contents, settings: {"m.tflite": contents.model.content, "README.md": b"read me\n"},
        try_out=lambda folder, scratch: found["try_out"](folder, scratch),
    )
    monkeypatch.setattr(writing, "load", lambda name: plain)
    monkeypatch.setattr(checking, "load", lambda name: plain)
    monkeypatch.setattr(writing.gathering, "gather", lambda *args, **settings: made.contents())
    return found


def call(*arguments: str) -> tuple[int, str, str]:
    result = CliRunner().invoke(app, ["bundle", *arguments])
    return result.exit_code, result.stdout, result.stderr


def test_a_bundle_is_made_and_tried(target: dict[str, Any], tmp_path: Path) -> None:
    code, out, _ = call("run", "--target", "python", "--out", str(tmp_path / "b"), "--quiet")
    assert code == 0
    assert "passed: 3 samples" in out
    assert (tmp_path / "b" / "bundle.json").is_file()
    code, out, _ = call("--check", str(tmp_path / "b"), "--json", "--quiet")
    told = json.loads(out)
    assert (code, told["golden_test"]["passed"], told["target"]) == (0, True, "python")


@pytest.mark.parametrize("out", ["", "some/bundle", "../beside"])
def test_a_golden_test_that_is_built_elsewhere_finds_the_bundle(
    target: dict[str, Any], out: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The folder by default and others that are relative, for making and for --check."""

    def elsewhere(folder: Path, scratch: Path) -> base.Tried:
        with monkeypatch.context() as there:
            there.chdir(scratch)
            return base.Tried((folder / "README.md").read_bytes() == b"read me\n", "read")

    target["try_out"] = elsewhere
    work = tmp_path / "work"
    work.mkdir()
    monkeypatch.chdir(work)
    code, told, err = call("run", "--target", "python", *(("--out", out) if out else ()), "--quiet")
    assert (code, err) == (0, "")
    assert "passed: read" in told
    folder = Path(out or f"bundles/{made.contents().name}-python")
    assert (work / folder / "bundle.json").is_file()
    code, told, _ = call("--check", str(folder), "--quiet")
    assert code == 0
    assert "passed: read" in told


@pytest.mark.parametrize("out", [".", "..", "../here"])
def test_the_folder_one_is_in_isnt_replaced(
    target: dict[str, Any], out: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = tmp_path / "here"
    here.mkdir()
    monkeypatch.chdir(here)
    code, _, err = call("run", "--target", "python", "--out", out, "--quiet", "--force")
    assert code == 2
    assert "can't be replaced" in err
    assert f"--out {Path(out) / 'bundle'}" in err
    assert not list(here.iterdir())


def test_a_failed_golden_test_is_an_error_and_keeps_the_bundle(
    target: dict[str, Any], tmp_path: Path
) -> None:
    target["tried"] = base.Tried(False, "outputs are off by 90, at most 2")
    code, _, err = call("run", "--target", "python", "--out", str(tmp_path / "b"), "--quiet")
    assert code == 1
    assert "off by 90" in err
    assert (tmp_path / "b" / "README.md").is_file()


def test_what_cant_run_here_is_said(target: dict[str, Any], tmp_path: Path) -> None:
    target["tried"] = base.Tried(None, "no Android SDK")
    code, out, _ = call("run", "--target", "python", "--out", str(tmp_path / "b"), "--quiet")
    assert code == 0
    assert "not run here: no Android SDK" in out


def test_a_tampered_bundle_exits_with_1(target: dict[str, Any], tmp_path: Path) -> None:
    call("run", "--target", "python", "--out", str(tmp_path / "b"), "--quiet")
    (tmp_path / "b" / "m.tflite").write_bytes(b"other")
    code, _, err = call("--check", str(tmp_path / "b"))
    assert code == 1
    assert "m.tflite was changed" in err


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("run",), "--target python, cpp, android, ios or arduino"),
        (("run", "--target", "pyton"), "did you mean 'python'"),
        (("run", "--target", "python"), "no run folder"),
        (("--check", "run", "--target", "python"), "looks at a bundle"),
        (("--check", "run"), "this is no bundle"),
        (("run", "--target", "python", "--device", "raspbery-pi-5"), "raspberry-pi-5"),
    ],
)
def test_input_that_is_wrong_exits_with_2(
    arguments: tuple[str, ...], told: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    code, _, err = call(*arguments)
    assert code == 2
    assert told in err
