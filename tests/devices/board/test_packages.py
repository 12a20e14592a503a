from __future__ import annotations

import os
import stat
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from edgekit.devices.board import ensure_built, host, packages
from edgekit.devices.board.packages import Apt, Mirror, debian_mirror, parse_mirror, sources, unpack
from edgekit.errors import DeviceError, MissingExtraError
from tests.devices.board.conftest import needs


def test_the_mirror_is_the_hosts_own() -> None:
    listed = (
        "Docker|Docker CE|https://mirror.example/docker/\n"
        "Debian|Debian|http://mirror.example/repo/\n"
        "Debian|Debian-Security|http://secure.example/repo-security\n"
        "Debian|Debian|http://other.example/repo/\n"
    )
    assert parse_mirror(listed) == Mirror("http://mirror.example/repo", "http://secure.example/repo-security")
    assert parse_mirror("Debian|Debian|http://m.example/repo/\n").security == (
        "http://m.example/repo-security"
    )


def test_without_a_mirror_the_variable_is_named() -> None:
    with pytest.raises(DeviceError, match="EDGEKIT_DEBIAN_MIRROR"):
        parse_mirror("Ubuntu|Ubuntu|http://mirror.example/ubuntu/\n")


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("http://m.example/repo/", Mirror("http://m.example/repo", "http://m.example/repo-security")),
        ("http://m.example/d http://s.example/s/", Mirror("http://m.example/d", "http://s.example/s")),
    ],
)
def test_the_variable_wins(value: str, expected: Mirror, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDGEKIT_DEBIAN_MIRROR", value)
    assert debian_mirror() == expected


def test_every_source_is_checked_against_debians_keys() -> None:
    lines = sources(Mirror("http://m.example/repo", "http://s.example/security")).splitlines()
    assert all(line.startswith(f"deb [signed-by={packages.KEYRING}] http") for line in lines)
    assert [line.split()[-2] for line in lines] == [
        "bookworm",
        "bookworm-updates",
        "bookworm-security",
        "bookworm-backports",
    ]
    assert [line for line in lines if "s.example" in line] == [lines[2]]


@needs("apt-get", "apt-config")
@pytest.mark.skipif(not packages.KEYRING.is_file(), reason="Debian's keys are not installed")
def test_an_unreachable_mirror_is_told_in_apts_words_and_the_host_is_left_alone(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("EDGEKIT_DEBIAN_MIRROR", f"file:{tmp_path}/no-mirror")
    host_lists = Path("/var/lib/apt/lists")
    before = {path: path.stat().st_mtime_ns for path in [host_lists, *host_lists.rglob("*")]}
    with pytest.raises(DeviceError) as caught:
        Apt(tmp_path / "apt", "arm64").update()
    assert "no-mirror" in caught.value.got
    assert "E:" in caught.value.got
    assert "EDGEKIT_DEBIAN_MIRROR" in caught.value.next
    assert {path: path.stat().st_mtime_ns for path in [host_lists, *host_lists.rglob("*")]} == before
    assert stat.S_IMODE((tmp_path / "apt/arm64/apt.conf").stat().st_mode) == 0o600


def test_missing_keys_are_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(packages, "KEYRING", tmp_path / "none.gpg")
    with pytest.raises(MissingExtraError, match="apt install debian-archive-keyring"):
        Apt(tmp_path / "apt", "arm64").update()


@needs("dpkg-deb", "tar")
def test_a_package_is_unpacked_without_its_documentation(deb: Callable[..., Path], tmp_path: Path) -> None:
    package = deb(
        "toy",
        {
            "usr/bin/toy": "#!/bin/sh\n",
            "usr/bin/link": "-> toy",
            "usr/share/doc/toy/copyright": "x",
            "usr/share/man/man1/toy.1": "x",
            "usr/share/toy/doc/file": "x",
        },
    )
    root = tmp_path / "a root, 100%"
    root.mkdir()
    unpack(package, root)
    files = {str(path.relative_to(root)) for path in root.rglob("*") if not path.is_dir()}
    assert files == {"usr/bin/toy", "usr/bin/link", "usr/share/toy/doc/file"}
    assert (root / "usr/bin/link").readlink() == Path("toy")


@needs("dpkg-deb", "tar")
def test_a_damaged_package_is_named(deb: Callable[..., Path], tmp_path: Path) -> None:
    package = deb("toy", {"usr/bin/toy": "x" * 5000})
    package.write_bytes(package.read_bytes()[:-200])
    with pytest.raises(DeviceError, match=r"toy_1_all\.deb"):
        unpack(package, tmp_path)


@pytest.mark.parametrize(
    ("name", "package"),
    [("mke2fs", "e2fsprogs"), ("ssh-keygen", "openssh-client"), ("dpkg-deb", "dpkg"), ("apt-get", "apt")],
)
def test_a_missing_command_is_named_with_its_package(
    name: str, package: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(host, "_MORE", ())
    with pytest.raises(MissingExtraError, match=f"{name}.*not installed\n.*apt install {package}"):
        host.command(name)


def test_building_without_any_command_leaves_nothing(
    cache: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(host, "_MORE", ())
    with pytest.raises(MissingExtraError, match="apt install"):
        ensure_built()
    assert [path.name for path in cache.iterdir()] == ["build.lock"]


def test_a_machine_that_cannot_emulate_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "darwin")
    with pytest.raises(DeviceError, match="darwin"):
        ensure_built()


def test_last_words_are_the_errors_that_a_program_marks() -> None:
    said = "Reading...\nE: Failed to fetch x\nW: something else\nE: Some index files failed\n"
    assert host.last_words(said) == "E: Failed to fetch x\nE: Some index files failed"
    assert host.last_words("a\nb\n\n", lines=1) == "b"
    assert host.last_words("") == "nothing"


def test_a_failing_command_is_told_with_its_words() -> None:
    with pytest.raises(DeviceError) as caught:
        host.run(["sh", "-c", "echo no such thing >&2; exit 3"], what="it fails", failure=DeviceError)
    assert (caught.value.what, caught.value.got, caught.value.where) == ("it fails", "no such thing", "sh")
    assert host.run(["sh", "-c", "echo $A"], what="", env={"A": "1"}) == "1\n"
    assert "A" not in os.environ
