"""Names of recipes and devices, versions, and other texts of somebody else: they stay what they say."""

from __future__ import annotations

import stat
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from edgekit.bundle.common import check_version
from edgekit.cli import app as cli
from edgekit.config import configfile
from edgekit.devices.device import find_device, load_device
from edgekit.errors import DeviceError, InputError
from edgekit.pipeline import compress, places
from edgekit.progress import Event
from edgekit.recipe import find_recipe

ONNX = "check.onnx"


def call(*arguments: object) -> Result:
    return CliRunner().invoke(cli.app, [str(one) for one in arguments], prog_name="edgekit")


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A current folder that somebody else filled, and a program that its profiles name."""
    monkeypatch.chdir(tmp_path)
    for kind in ("devices", "recipes"):
        (tmp_path / kind).mkdir()
    program = tmp_path / "python"
    program.write_text(f'#!/bin/sh\nmkdir {tmp_path / "executed"}\nexec {sys.executable} "$@"\n')
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    return tmp_path


def profile(here: Path, name: str) -> Path:
    path = here / "devices" / f"{name}.yaml"
    path.write_text(f"name: {name}\ntransport: local\npython: {here / 'python'}\n")
    return path


def test_the_current_folder_takes_no_shipped_name(here: Path) -> None:
    profile(here, "local")
    assert load_device("local").python == ""
    result = call("device", "probe", "local", "--json")
    assert result.exit_code == 0, result.output
    assert not (here / "executed").exists()
    assert load_device("./devices/local.yaml").python == str(here / "python")


def test_nor_one_of_the_users(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(here / "config"))
    own = here / "config" / "edgekit" / "devices" / "board.yaml"
    own.parent.mkdir(parents=True)
    own.write_text("name: board\ntransport: none\n")
    profile(here, "board")
    assert find_device("board") == own


@pytest.mark.parametrize("name", ["mobile", "quick"])
def test_the_same_of_recipes(here: Path, name: str) -> None:
    shipped = find_recipe(name)
    (here / "recipes" / f"{name}.yaml").write_text("stages: []\n")
    assert find_recipe(name) == shipped
    assert find_recipe(f"./recipes/{name}.yaml") == Path("recipes") / f"{name}.yaml"


def test_new_names_are_found_in_the_current_folder_and_it_is_said(here: Path) -> None:
    profile(here, "mine")
    assert find_device("mine") == Path("devices/mine.yaml")
    assert configfile.told("devices", "mine") == "mine is devices/mine.yaml"


def test_what_is_used_instead_is_said(here: Path) -> None:
    profile(here, "local")
    said: list[Event] = []
    found = places.profiles(["local"], [], said.append)
    assert [one.python for one in found] == [""]
    assert [one.kind for one in said] == ["warning"]
    assert "devices/local.yaml isn't used" in said[0].message
    said.clear()
    places.profiles(
        ["emulated-cortex-a76"] if "emulated-cortex-a76" in configfile.listing("devices") else ["local"],
        [],
        said.append,
    )
    assert all("local.yaml" in one.message for one in said)


def test_a_recipe_makes_nobody_run_the_program_of_a_profile(here: Path) -> None:
    path = profile(here, "theirs")
    for name in ("theirs", "./devices/theirs.yaml"):
        (here / "evil.yaml").write_text(
            f"exports: {{precisions: [fp32]}}\nstages: []\nbenchmark: {{devices: [{name}]}}\n"
        )
        with pytest.raises(DeviceError, match="says what to run"):
            compress(None, here / "evil.yaml", out=here / "run")
    assert not (here / "executed").exists()
    assert not (here / "run").exists()
    assert places.profiles([str(path)], [], lambda event: None)[0].name == "theirs"  # named by the user


@pytest.mark.parametrize(
    "command",
    [
        ("recipe", "show", "quick"),
        ("recipe", "check", "quick"),
        ("recipe", "cp", "quick", "copy.yaml"),
        ("device", "show", "local"),
        ("device", "probe", "local"),
        ("inspect", "--device", "local", "nothing.onnx"),
        ("prune", "--device", "local", "--plan", "nothing.json", "--sensitivity"),
    ],
    ids=" ".join,
)
def test_commands_say_which_file_a_name_is(here: Path, command: tuple[str, ...]) -> None:
    profile(here, "local")
    (here / "recipes" / "quick.yaml").write_text("stages: []\n")
    other = f"{'recipes' if command[0] == 'recipe' else 'devices'}/"
    assert f"; {other}" in call(*command).stderr
    assert not (here / "executed").exists()


@pytest.mark.parametrize(
    "version", ["1.0.0", "1", "2026.11.30", "1.2.3.4", "1.0rc1", "1.0.0-beta.2", "1.0.post1"]
)
def test_versions(version: str) -> None:
    check_version(version)


@pytest.mark.parametrize(
    "version",
    [
        "",
        "1.0.0\n",
        "1.0\nincludes=../x",
        "../x",
        "$(x)",
        "1'",
        '1"',
        "v1",
        "1..0",
        "1.0 ",
        "１.0",
        "1.0-x",
        "1/2",
    ],
)
def test_what_is_no_version_reaches_no_file(version: str, finished: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no version"):
        check_version(version)
    result = call(
        "bundle", finished, "--target", "arduino", "--bundle-version", version, "--out", tmp_path / "b"
    )
    assert result.exit_code == 2
    assert "this is no version" in result.stderr
    assert not (tmp_path / "b").exists()
