"""Bundles that somebody else made, or changed: compared, and not run."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from edgekit.bundle.writing import bundle
from edgekit.cli import app as cli
from edgekit.files import sha256
from tests.torture.conftest import Forge


def call(*arguments: object) -> Result:
    return CliRunner().invoke(cli.app, [str(one) for one in arguments], prog_name="edgekit")


@pytest.fixture(scope="module")
def written(finished: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return bundle(finished, "python", out=tmp_path_factory.mktemp("bundles") / "digits-python")


@pytest.fixture
def theirs(written: Path, tmp_path: Path, forge: Forge) -> Path:
    """With code that makes a folder, and a record that fits it."""
    folder = Path(shutil.copytree(written, tmp_path / "theirs"))
    (code,) = folder.glob("*/__main__.py")
    own = code.read_text().replace("from __future__ import annotations\n", "")
    code.write_text(f"import os\nos.mkdir({str(tmp_path / 'executed')!r})\n{own}")
    name = code.relative_to(folder).as_posix()
    forge(folder / "bundle.json", lambda record: record["files"].update({name: sha256(code)}))
    return folder


def told(result: Result) -> dict[str, object]:
    assert result.exit_code == 0, result.output
    found: dict[str, object] = json.loads(result.stdout)["golden_test"]
    return found


def test_the_golden_test_of_others_runs_only_with_an_option(theirs: Path, tmp_path: Path) -> None:
    found = told(call("bundle", theirs, "--check", "--json"))
    assert found["passed"] is None
    assert "--allow-code" in str(found["told"])
    assert not (tmp_path / "executed").exists()
    assert call("bundle", theirs, "--check", "--allow-code", "--quiet").exit_code in (0, 1)
    assert (tmp_path / "executed").exists()


def test_that_of_ones_own_runs_and_what_was_added_has_no_part_in_it(written: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(written, tmp_path / "mine"))
    (code,) = folder.glob("*/__main__.py")
    (code.parent / "json.py").write_text(f"import os\nos.mkdir({str(tmp_path / 'executed')!r})\n")
    (folder / "sitecustomize.py").write_text(f"import os\nos.mkdir({str(tmp_path / 'executed')!r})\n")
    assert told(call("bundle", folder, "--check", "--json"))["passed"] is True
    assert not (tmp_path / "executed").exists()


@pytest.mark.parametrize(
    "change",
    [
        lambda record: record.update(files=[]),
        lambda record: record.update(model={}),
        lambda record: record.update(target="../x"),
        lambda record: record["files"].update({"../../etc/passwd": "0" * 64}),
        lambda record: record.update(activation_bytes="many"),
    ],
)
def test_a_record_that_holds_something_else_is_an_error(theirs: Path, change: object, forge: Forge) -> None:
    forge(theirs / "bundle.json", change)  # type: ignore[arg-type]
    result = call("bundle", theirs, "--check", "--allow-code")
    assert result.exit_code in (1, 2)
    assert "Traceback" not in result.output
    assert result.stderr.strip()


@pytest.mark.parametrize("to", ["itself", "nowhere", "/etc/passwd"])
def test_a_link_in_the_place_of_a_file_is_told_to_be_damage(written: Path, tmp_path: Path, to: str) -> None:
    folder = Path(shutil.copytree(written, tmp_path / "theirs"))
    (path,) = folder.glob("*/data/model.json")
    path.unlink()
    path.symlink_to(path.name if to == "itself" else to)
    result = call("bundle", folder, "--check")
    assert result.exit_code == 1  # as of a gate: the answer of the check
    assert "the bundle isn't what was written" in result.stderr
    assert "data/model.json" in result.stderr


def test_a_bundle_that_was_never_finished_is_no_bundle(written: Path, tmp_path: Path) -> None:
    """A kill leaves what was written of it beside the place where it would have been."""
    shutil.copytree(written, tmp_path / ".mine.0123abcd.tmp")
    result = call("bundle", tmp_path / "mine", "--check")
    assert result.exit_code == 2
    assert "never finished" in result.stderr
    nothing = call("bundle", tmp_path / "other", "--check")
    assert "this is no bundle" in nothing.stderr


def test_arduino_in_its_default_folder_and_in_a_relative_one(
    finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for out in ((), ("--out", "there/it")):
        made = call("bundle", finished, "--target", "arduino", *out, "--json")
        assert made.exit_code == 0, made.output
        assert json.loads(made.stdout)["golden_test"]["passed"] is not False
        assert call("bundle", json.loads(made.stdout)["folder"], "--check", "--quiet").exit_code == 0
    assert sorted(one.name for one in (tmp_path / "bundles").iterdir()) == ["digits-arduino"]
