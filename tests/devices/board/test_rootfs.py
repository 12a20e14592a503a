from __future__ import annotations

import importlib.metadata
import stat
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from edgekit.devices.board import build, rootfs, tools, wheels
from edgekit.errors import DeviceError, MissingExtraError
from tests.devices.board.conftest import needs


@needs("dpkg-deb", "tar")
def test_links_are_made_only_for_commands_that_are_missing(deb: Callable[..., Path], tmp_path: Path) -> None:
    root = tmp_path / "root"
    root.mkdir()
    packages = [
        deb("dash", {"bin/dash": "dash"}),
        deb("procps", {"usr/bin/ps": "a better one", "sbin/ip": "-> /nowhere"}),
        deb("perl-base", {"usr/bin/perl": "perl"}),
    ]
    rootfs.populate(root, packages)
    assert (root / "bin/sh").resolve().read_text() == "dash"
    assert (root / "usr/bin/ps").read_text() == "a better one"
    assert not (root / "usr/bin/ip").is_symlink()
    assert (root / "usr/bin/which").readlink() == Path("/bin/busybox")
    assert not (root / "usr/bin/perl").exists()  # only packages' scripts want it


@pytest.fixture
def configured(tmp_path: Path) -> Path:
    """A root whose configuration was written."""
    root = tmp_path / "root"
    base = root / "usr/share/base-passwd"
    base.mkdir(parents=True)
    (base / "passwd.master").write_text("root:*:0:0:root:/root:/bin/bash\nbin:*:2:2::/:/usr/sbin/nologin\n")
    (base / "group.master").write_text("root:*:0:\n")
    (tmp_path / "key.pub").write_text("ssh-ed25519 AAAAuser\n")
    (tmp_path / "host_key").write_text("the host's private key\n")
    rootfs.configure(root, public_key=tmp_path / "key.pub", host_key=tmp_path / "host_key")
    return root


def test_sshd_lets_in_our_key_and_nothing_else(configured: Path) -> None:
    keys = configured / "root/.ssh/authorized_keys"
    assert keys.read_text() == "ssh-ed25519 AAAAuser\n"
    for path, mode in ((keys, 0o600), (keys.parent, 0o700), (configured / "root", 0o700)):
        assert stat.S_IMODE(path.stat().st_mode) == mode
    assert stat.S_IMODE((configured / "etc/ssh/ssh_host_ed25519_key").stat().st_mode) == 0o600
    settings = dict(
        line.split(" ", 1)
        for line in (configured / "etc/ssh/sshd_config").read_text().splitlines()
        if not line.startswith("#")
    )
    assert settings["PasswordAuthentication"] == "no"
    assert settings["KbdInteractiveAuthentication"] == "no"


def test_accounts_are_debians_and_sshds(configured: Path) -> None:
    accounts = (configured / "etc/passwd").read_text().splitlines()
    assert accounts[0] == "root:x:0:0:root:/root:/bin/bash"
    assert accounts[1].startswith("bin:*:")
    assert accounts[-1].startswith("sshd:x:")
    assert (configured / "etc/shadow").read_text().startswith("root:*:")


def test_the_first_process_is_a_script_that_loads_what_is_there(configured: Path, tmp_path: Path) -> None:
    for name in rootfs.MODULES:
        path = tmp_path / f"kernel/lib/modules/6.1.0-1/kernel/{name}.ko"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("module")
    rootfs.add_modules(configured, tmp_path / "kernel")
    script = configured / "sbin/board-init"
    assert stat.S_IMODE(script.stat().st_mode) == 0o755
    assert subprocess.run(["sh", "-n", script], check=False).returncode == 0
    loop = next(line for line in script.read_text().splitlines() if line.startswith("for module in "))
    loaded = set(loop.removeprefix("for module in ").partition(";")[0].split())
    assert loaded == {path.stem for path in (configured / "lib/modules").iterdir()}


def test_bytecode_needs_no_source_check_and_names_the_boards_paths(tmp_path: Path) -> None:
    (tmp_path / rootfs.SITE).mkdir(parents=True)
    (tmp_path / "usr/lib/python3.11").mkdir(parents=True)
    source = tmp_path / rootfs.SITE / "toy.py"
    source.write_text("def f(): pass\n")
    compiled = rootfs.compile_python(tmp_path)
    assert compiled == (sys.version_info[:2] == (3, 11))
    if compiled:
        (bytecode,) = source.parent.glob("__pycache__/*.pyc")
        content = bytecode.read_bytes()
        assert content[4:8] == b"\x01\0\0\0"  # by hash, unchecked: PEP 552
        assert f"/{rootfs.SITE}/toy.py".encode() in content
        assert str(tmp_path).encode() not in content


def test_the_recipe_is_its_packages_and_versions(monkeypatch: pytest.MonkeyPatch) -> None:
    hashes = {build.recipe_hash()}
    assert hashes == {build.recipe_hash()}
    with monkeypatch.context() as patch:
        patch.setattr(rootfs, "PACKAGES", (*rootfs.PACKAGES, "vim"))
        hashes.add(build.recipe_hash())
    with monkeypatch.context() as patch:
        patch.setattr(importlib.metadata, "version", lambda name: "1.30.0")
        hashes.add(build.recipe_hash())
    assert len(hashes) == 3


def test_runtimes_have_this_machines_version(monkeypatch: pytest.MonkeyPatch) -> None:
    assert f"onnxruntime=={importlib.metadata.version('onnxruntime')}" in wheels.requirements()

    def none(name: str) -> str:
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(importlib.metadata, "version", none)
    assert "ai-edge-litert>=2.3,<2.4" in wheels.requirements()


def _wheel(folder: Path, tag: str, platform: str) -> None:
    folder.mkdir(exist_ok=True)
    with zipfile.ZipFile(folder / f"toy-{tag}-py3-none-{platform}.whl", "w") as archive:
        archive.writestr("toy.py", f"version = {tag!r}\n")
        info = f"toy-{tag}.dist-info"
        archive.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: toy\nVersion: {tag}\n")
        archive.writestr(f"{info}/WHEEL", f"Wheel-Version: 1.0\nTag: py3-none-{platform}\n")
        archive.writestr(f"{info}/RECORD", "")


def test_wheels_that_were_downloaded_are_used_without_the_network(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    _wheel(tmp_path / "kept", "1.0", "manylinux_2_28_aarch64")
    _wheel(tmp_path / "kept", "2.0", "manylinux_2_28_x86_64")  # another machine's
    wheels.install(["toy"], tmp_path / "site", tmp_path / "kept")
    assert (tmp_path / "site/toy.py").read_text() == "version = '1.0'\n"


def test_a_wheel_that_is_nowhere_is_told_in_pips_words(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    with pytest.raises(DeviceError, match="toy==9") as caught:
        wheels.install(["toy==9"], tmp_path / "site", tmp_path / "kept")
    assert caught.value.got.startswith("ERROR:")


def test_a_missing_pip_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wheels, "has_pip", lambda: False)
    with pytest.raises(MissingExtraError, match="ensurepip"):
        wheels.install(["toy"], tmp_path / "site", tmp_path / "kept")


def test_programs_of_this_machine_are_preferred(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("adb", "qemu-system-aarch64"):
        (tmp_path / name).write_text("#!/bin/sh\n")
        (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert tools.qemu() == tools.Tool([str(tmp_path / "qemu-system-aarch64")])
    assert tools.adb() == tools.Tool([str(tmp_path / "adb")])


@pytest.mark.parametrize("found", [("glibc", "2.31"), ("", "")])
def test_a_c_library_that_is_too_old_is_told(
    found: tuple[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr("platform.libc_ver", lambda: found)
    with pytest.raises(DeviceError, match="apt install qemu-system-arm"):
        tools.qemu()
