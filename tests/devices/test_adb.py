"""Phones over adb, with a program in adb's place whose "phone" is a shell of this machine."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from edgekit.bench.roundtrip import check_device
from edgekit.devices.adb import open_adb
from edgekit.devices.device import Device
from edgekit.devices.shell import ShellTransport
from edgekit.errors import DeviceError, MissingExtraError, UnreachableError

# Says what adb says. PHONES: one "serial state" a line; `connect` adds one.
ADB = r"""#!/bin/sh
if [ "$1" = -s ]; then serial=$2; shift 2; fi
state=$(sed -n "s/^$serial //p" "$PHONES")
case $1 in
  devices) echo "List of devices attached"; sed 's/ /\t/' "$PHONES"; echo ;;
  connect) [ "$2" = 127.0.0.1:1 ] && { echo "failed to connect to '$2': Connection refused"; exit 0; }
           echo "$2 device" >> "$PHONES"; echo "connected to $2" ;;
  get-state) [ -n "$state" ] && echo "$state" || { echo "error: device '$serial' not found" >&2; exit 1; } ;;
  shell)
    [ -n "$state" ] || { echo "adb: device '$serial' not found" >&2; exit 1; }
    [ "$state" = device ] || { echo "error: device $state." >&2; exit 1; }
    shift; while [ "$1" = -T ] || [ "$1" = -e ] || [ "$1" = none ]; do shift; done
    exec sh -c "$1" ;;
esac
"""


@pytest.fixture
def phones(tmp_path: Path) -> Path:
    path = tmp_path / "phones"
    path.write_text("emu-1 device\n")
    return path


@pytest.fixture
def adb(tmp_path: Path) -> str:
    path = tmp_path / "adb"
    path.write_text(ADB)
    path.chmod(0o755)
    return str(path)


def phone(tmp_path: Path, address: str = "") -> Device:
    return Device(
        name="phone",
        transport="adb",
        address=address,
        python=sys.executable,
        work_folder=str(tmp_path / "there"),
    )


@pytest.fixture
def link(tmp_path: Path, adb: str, phones: Path) -> Iterator[ShellTransport]:
    with open_adb(phone(tmp_path), adb=[adb], env={"PHONES": str(phones)}) as opened:
        yield opened


def test_the_only_phone_is_taken_and_does_the_round_trip(link: ShellTransport, tmp_path: Path) -> None:
    assert link.channel.name == "adb emu-1"
    steps = check_device(phone(tmp_path), transport=link)
    assert [step for step in steps if not step.passed] == []


def test_of_several_one_has_to_be_named(tmp_path: Path, adb: str, phones: Path) -> None:
    phones.write_text("emu-1 device\nemu-2 device\n")
    with pytest.raises(DeviceError, match="emu-1, emu-2") as caught:
        open_adb(phone(tmp_path), adb=[adb], env={"PHONES": str(phones)})
    assert "--address emu-1" in caught.value.next
    with open_adb(phone(tmp_path, "emu-2"), adb=[adb], env={"PHONES": str(phones)}) as link:
        assert link.channel.name == "adb emu-2"


def test_a_phone_in_the_network_is_connected_to(tmp_path: Path, adb: str, phones: Path) -> None:
    with open_adb(phone(tmp_path, "10.0.0.9:5555"), adb=[adb], env={"PHONES": str(phones)}) as link:
        assert link.run(["echo", "hello"], timeout_seconds=10).stdout == "hello\n"
    with pytest.raises(UnreachableError, match="refused"):
        open_adb(phone(tmp_path, "127.0.0.1:1"), adb=[adb], env={"PHONES": str(phones)})


def test_no_phone_says_what_to_do(tmp_path: Path, adb: str, phones: Path) -> None:
    phones.write_text("")
    with pytest.raises(UnreachableError, match="none at all") as caught:
        open_adb(phone(tmp_path), adb=[adb], env={"PHONES": str(phones)})
    assert "USB debugging" in caught.value.next


def test_a_phone_that_trusts_nobody_yet_says_so(tmp_path: Path, adb: str, phones: Path) -> None:
    phones.write_text("emu-1 unauthorized\n")
    with pytest.raises(UnreachableError, match="doesn't trust this machine"):
        open_adb(phone(tmp_path, "emu-1"), adb=[adb], env={"PHONES": str(phones)})


def test_an_unplugged_phone_is_told_from_a_command_that_failed(
    link: ShellTransport, phones: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edgekit.devices.shell.BACK_OFF_SECONDS", (0.01,))
    assert link.run(["sh", "-c", "exit 1"], timeout_seconds=10).returncode == 1
    process = link.spawn(["sh", "-c", "read line; exit 1"])
    phones.write_text("")
    process.send({})
    with pytest.raises(UnreachableError):
        process.receive(10)
    with pytest.raises(UnreachableError, match="not found"):
        link.run(["true"], timeout_seconds=10)
    phones.write_text("emu-1 device\n")
    link.reconnect()
    assert link.run(["true"], timeout_seconds=10).returncode == 0


def test_without_adb_it_says_how_to_get_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", os.devnull)
    with pytest.raises(MissingExtraError, match="no adb here"):
        open_adb(phone(tmp_path))
