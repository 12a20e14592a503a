"""Runtimes for boards: this machine as the board, and wheels that are made here."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from edgekit.cli.device_install import device_install
from edgekit.config.configfile import parse_yaml
from edgekit.devices import installing, site_folder, wheels
from edgekit.devices.device import Device, load_device
from edgekit.devices.installing import install, remove
from edgekit.devices.shell import ShellTransport
from edgekit.devices.transport import Transport
from edgekit.devices.wheels import Board, download, requirements
from edgekit.errors import DeviceError, DiskFullError, EdgekitError, MeasurementError, MissingExtraError


class Shell:
    """A shell of this machine as a device."""

    def __init__(self) -> None:
        self.name = "sh"
        self.env: dict[str, str] = {}

    def argv(self, line: str) -> list[str]:
        return ["sh", "-c", line]

    def lost(self, returncode: int, stderr: str) -> str | None:
        return None

    def revive(self) -> None:
        pass

    def close(self) -> None:
        pass


def wheel(folder: Path, name: str = "tiny", code: str = "HERE = 7\n", **more: str) -> Path:
    """A wheel of one package. ``more``: further files, with "__" for "/"."""
    path = folder / f"{name}-1.0-py3-none-any.whl"
    info = f"{name}-1.0.dist-info"
    files = {
        f"{name}/__init__.py": code,
        **{key.replace("__", "/"): value for key, value in more.items()},
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    files[f"{info}/RECORD"] = "".join(f"{one},,\n" for one in [*files, f"{info}/RECORD"])
    with zipfile.ZipFile(path, "w") as archive:
        for one, content in files.items():
            archive.writestr(one, content)
    return path


@dataclass
class Place:
    """A board: its home, its profile, the folder of wheels that pip is told of, and the way to it."""

    home: Path
    profile: Path
    index: Path
    link: ShellTransport

    def python(self, code: str) -> str:
        """What the board's Python prints, with the profile as it is now."""
        setup = load_device(self.profile).setup
        done = subprocess.run(
            ["env", *setup, sys.executable, "-c", code], capture_output=True, text=True, check=True
        )
        return done.stdout.strip()

    @property
    def folders(self) -> list[Path]:
        site = self.home / "edgekit-site"
        return sorted(site.iterdir()) if site.is_dir() else []


HEAD = "# My board, by the window.\nname: my-board\ntransport: ssh\naddress: pi@window # upstairs\n"


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Place]:
    home, index = tmp_path / "home", tmp_path / "index"
    config = tmp_path / "config/edgekit/devices"
    for folder in (home, index, config):
        folder.mkdir(parents=True)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(index))
    monkeypatch.chdir(tmp_path)
    profile = config / "my-board.yaml"
    profile.write_text(f"{HEAD}python: {sys.executable}\nsetup: [HOME={home}]\n")
    device = load_device(profile)
    with ShellTransport(Shell(), device, str(tmp_path / "there")).connect() as link:
        yield Place(home, profile, index, link)


def test_a_wheel_goes_there_and_can_be_imported(place: Place) -> None:
    wheel(place.index)
    done = install("my-board", ["tiny"], transport=place.link)
    (folder,) = place.folders
    assert folder.name.startswith(f"cp{sys.version_info[0]}{sys.version_info[1]}-")
    assert (done.folder, done.versions, done.was_there) == (str(folder), {"tiny": "1.0"}, False)
    assert done.profile == place.profile
    assert place.python("import tiny; print(tiny.HERE)") == "7"


def test_the_profile_keeps_everything_else(place: Place) -> None:
    wheel(place.index)
    install("my-board", ["tiny"], transport=place.link)
    text = place.profile.read_text()
    assert text.startswith(HEAD)
    assert load_device(place.profile).setup == (f"HOME={place.home}", f"PYTHONPATH={place.folders[0]}")


def test_what_is_there_is_not_put_there_again(place: Place) -> None:
    wheel(place.index)
    install("my-board", ["tiny"], transport=place.link)
    (folder,) = place.folders
    (folder / "mark").touch()
    assert install("my-board", ["tiny"], transport=place.link).was_there
    assert place.folders == [folder]
    assert (folder / "mark").exists()


def test_another_version_takes_its_place_in_the_profile(place: Place) -> None:
    wheel(place.index)
    install("my-board", ["tiny"], transport=place.link)
    wheel(place.index, code="HERE = 8\n")
    install("my-board", ["tiny"], transport=place.link)
    assert len(place.folders) == 2
    assert place.python("import tiny; print(tiny.HERE)") == "8"
    assert load_device(place.profile).setup[-1].count("edgekit-site") == 1


def test_remove_takes_all_of_it_away(place: Place) -> None:
    before = parse_yaml(place.profile.read_text())
    wheel(place.index)
    install("my-board", ["tiny"], transport=place.link)
    removed, setup, profile = remove("my-board", transport=place.link)
    assert (removed, profile) == ([str(place.home / "edgekit-site")], place.profile)
    assert setup == (f"HOME={place.home}",)
    assert not (place.home / "edgekit-site").exists()
    assert parse_yaml(place.profile.read_text()) == before
    assert remove("my-board", transport=place.link) == ([], setup, None)


def test_profiles_that_are_not_the_user_s_stay_as_they_are(place: Place, tmp_path: Path) -> None:
    wheel(place.index)
    other = tmp_path / "other.yaml"
    other.write_bytes(place.profile.read_bytes())
    done = install(other, ["tiny"], transport=place.link)
    assert done.profile is None
    assert other.read_text() == place.profile.read_text()
    assert parse_yaml(done.line) == {"setup": [f"HOME={place.home}", f"PYTHONPATH={place.folders[0]}"]}


def test_what_can_not_be_imported_there_is_not_left_there(place: Place) -> None:
    wheel(place.index, code="import absent_module\n")
    before = place.profile.read_bytes()
    with pytest.raises(MeasurementError, match="can't import") as caught:
        install("my-board", ["tiny"], transport=place.link)
    assert "absent_module" in caught.value.got
    assert place.folders == []
    assert place.profile.read_bytes() == before


def test_a_native_crash_says_its_signal(place: Place) -> None:
    wheel(place.index, code="import os\nos.kill(os.getpid(), 4)\n")
    with pytest.raises(MeasurementError, match="SIGILL") as caught:
        install("my-board", ["tiny"], transport=place.link)
    assert "-4" in caught.value.got
    assert place.folders == []


def test_without_space_there_it_says_how_much_is_missing(place: Place, tmp_path: Path) -> None:
    wheel(place.index)
    full = tmp_path / "full"
    full.mkdir()
    (full / "sitecustomize.py").write_text(
        "import collections, shutil\n"
        "shutil.disk_usage = lambda path: collections.namedtuple('Usage', 'total used free')(100, 90, 10)\n"
    )
    text = place.profile.read_text().replace("setup: [", f"setup: [PYTHONPATH={full}, ")
    place.profile.write_text(text)
    place.link.device = load_device(place.profile)
    with pytest.raises(MeasurementError, match="disk is full") as caught:
        install("my-board", ["tiny"], transport=place.link)
    assert "10" in caught.value.got
    assert place.folders == []


def test_no_such_wheel_names_what_was_looked_for(place: Place) -> None:
    with pytest.raises(DeviceError, match="no such wheels") as caught:
        install("my-board", ["tiny==9"], transport=place.link)
    error = caught.value
    assert "tiny==9" in error.what
    assert f"CPython {sys.version_info[0]}.{sys.version_info[1]}" in error.expected
    assert "manylinux_2_" in error.expected
    assert "tiny" in error.got


def test_no_pip_and_no_space_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    board = Board((3, 11), "aarch64", 36, "/home/pi")
    full = SimpleNamespace(returncode=1, stdout="", stderr="ERROR: [Errno 28] No space left on device")
    with monkeypatch.context() as patch:
        patch.setattr(wheels.subprocess, "run", lambda *args, **kwargs: full)
        with pytest.raises(DiskFullError, match="no space"):
            download(["numpy"], board, tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(wheels, "has_pip", lambda: False)
        with pytest.raises(MissingExtraError, match="not installed here") as caught:
            download(["numpy"], board, tmp_path)
    assert "ensurepip" in caught.value.next


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        ({}, Board((3, 9), "aarch64", 31, "/home/pi")),
        ({"bits": 32}, Board((3, 9), "armv7l", 31, "/home/pi")),
        ({"machine": "x86_64"}, Board((3, 9), "x86_64", 31, "/home/pi")),
        ({"libc": ["", ""]}, "none of glibc"),
        ({"libc": ["glibc", "2.12"]}, "glibc 2.12"),
        ({"implementation": "pypy"}, "pypy"),
        ({"writable": False}, "/home/pi"),
    ],
)
def test_what_a_board_says_decides(
    said: dict[str, Any], expected: Board | str, monkeypatch: pytest.MonkeyPatch
) -> None:
    answer = {
        "version": [3, 9, 2],
        "machine": "aarch64",
        "bits": 64,
        "implementation": "cpython",
        "libc": ["glibc", "2.31"],
        "home": "/home/pi",
        "writable": True,
        **said,
    }
    monkeypatch.setattr(installing, "_run", lambda *args: answer)
    device, link = Device(name="board", transport="ssh"), None
    if isinstance(expected, Board):
        assert installing.ask(device, link) == expected  # type: ignore[arg-type]
        return
    with pytest.raises(EdgekitError, match="no wheels for such a Python|can't be written") as caught:
        installing.ask(device, link)  # type: ignore[arg-type]
    assert expected in caught.value.got


def test_runtimes_by_profile_and_architecture() -> None:
    both = Device(name="board", transport="ssh")
    old = load_device("armv7l-linux")
    assert requirements(both, Board((3, 11), "aarch64", 36, "/")) == [
        "numpy",
        "onnxruntime",
        "ai-edge-litert",
    ]
    assert requirements(old, Board((3, 11), "armv7l", 36, "/")) == ["numpy<2", "tflite-runtime==2.14.0"]


def test_platforms_are_those_that_the_c_library_can_load() -> None:
    platforms = Board((3, 9), "aarch64", 19, "/").platforms
    assert platforms == [
        *(f"manylinux_2_{minor}_aarch64" for minor in (19, 18, 17)),
        "manylinux2014_aarch64",
        "linux_aarch64",
    ]


@pytest.mark.parametrize("name", ["local", "emulated-cortex-a76", "mcu-cortex-m4"])
def test_only_boards_are_installed_on(name: str) -> None:
    for verb in (install, remove):
        with pytest.raises(DeviceError, match="boards only"):
            verb(name)  # type: ignore[operator]


def test_wheels_unpack_to_what_belongs_on_the_path(tmp_path: Path) -> None:
    made = wheel(
        tmp_path,
        **{
            "tiny-1.0.data__purelib__pure__deep.py": "A = 1",
            "tiny-1.0.data__platlib__native.so": "x",
            "tiny-1.0.data__scripts__tool": "x",
            "..__..__outside.py": "x",
        },
    )
    folder = tmp_path / "a/b/site"
    assert site_folder.main("unpack", str(folder), str(made)) == {"folder": str(folder), "was_there": False}
    found = {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}
    assert {"tiny/__init__.py", "pure/deep.py", "native.so"} <= found
    assert not [name for name in found if "tool" in name]
    assert not (folder.parent / "outside.py").exists()


def test_a_wheel_that_is_none_leaves_nothing(tmp_path: Path) -> None:
    bad = tmp_path / "bad-1.0-py3-none-any.whl"
    bad.write_bytes(b"no zip")
    answer = site_folder.main("unpack", str(tmp_path / "site"), str(bad))
    assert "BadZipFile" in str(answer["error"])
    assert sorted(path.name for path in tmp_path.iterdir()) == [bad.name]


def test_what_runs_on_the_board_is_python_3_8_and_needs_nothing() -> None:
    tree = ast.parse(Path(site_folder.__file__).read_text(), feature_version=(3, 8))
    plain = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    froms = {str(node.module) for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    assert plain | froms <= set(sys.stdlib_module_names)


def test_removing_a_link_leaves_what_it_leads_to(tmp_path: Path) -> None:
    (tmp_path / "kept").mkdir()
    (tmp_path / "kept/file").touch()
    (tmp_path / "link").symlink_to(tmp_path / "kept")
    assert site_folder.main("remove", str(tmp_path / "link")) == {"removed": [str(tmp_path / "link")]}
    assert (tmp_path / "kept/file").exists()


def test_the_command_tells_what_it_did(place: Place, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    wheel(place.index)
    app = typer.Typer()
    app.command("install")(device_install)
    reached: list[Device] = []

    def linked(device: Device, transport: Transport | None) -> Any:
        reached.append(device)
        return ShellTransport(Shell(), device, str(tmp_path / "there")).connect()

    monkeypatch.setattr(installing, "linked", linked)
    done = CliRunner().invoke(app, ["my-board", "--package", "tiny", "--json", "--quiet"])
    assert done.exit_code == 0, done.output
    told = json.loads(done.stdout)
    assert (told["versions"], told["folder"]) == ({"tiny": "1.0"}, str(place.folders[0]))
    done = CliRunner().invoke(app, ["my-board", "--remove"])
    assert "removed" in done.stdout
    assert place.folders == []
    done = CliRunner().invoke(app, ["my-board", "--package", "absent"])
    assert done.exit_code == 2
    assert "no such wheels" in done.output
    assert len(reached) == 3


@pytest.mark.slow
def test_real_wheels_for_this_machine_and_for_boards(
    place: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Needs the network, or an index that pip's settings name."""
    monkeypatch.delenv("PIP_NO_INDEX")
    done = install("my-board", ["flatbuffers", "numpy<2.5"], transport=place.link)
    assert done.versions.keys() == {"flatbuffers", "numpy"}
    where = place.python("import numpy; print(numpy.__file__)")
    assert where.startswith(str(place.folders[0]))
    for board, wanted, tag in (
        (Board((3, 11), "aarch64", 36, "/"), ["onnxruntime", "ai-edge-litert"], "aarch64"),
        (Board((3, 11), "armv7l", 36, "/"), ["--no-deps", "tflite-runtime==2.14.0"], "armv7l"),
    ):
        folder = tmp_path / tag
        folder.mkdir()
        names = [path.name for path in download(wanted, board, folder)]
        assert [name for name in names if tag in name], names
        assert not [name for name in names if "x86_64" in name]
