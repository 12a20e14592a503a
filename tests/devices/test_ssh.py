"""Boards over ssh, against a real sshd on loopback; a proxy in between breaks the connection."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgekit.bench import Candidate, Measurement, evaluate, measure
from edgekit.bench.roundtrip import FILES, REFERENCE, check_device
from edgekit.devices.device import Device, load_device
from edgekit.devices.shell import ShellTransport
from edgekit.devices.ssh import open_ssh
from edgekit.errors import DeviceError, UnreachableError
from edgekit.progress import Event
from tests.devices.conftest import Proxy, Sshd

SAMPLES = REFERENCE / "samples.npy"


def board(port: int, python: str, work: Path, **values: Any) -> Device:
    return Device(
        name="board",
        transport="ssh",
        address="127.0.0.1",
        port=port,
        python=python,
        work_folder=str(work),
        timeout_seconds=30,
        **values,
    )


@pytest.fixture
def python() -> str:
    import sys

    return sys.executable


@pytest.fixture
def work(tmp_path: Path) -> Path:
    return tmp_path / "on the device"


@pytest.fixture
def device(proxy: Proxy, python: str, work: Path) -> Device:
    return board(proxy.port, python, work)


@pytest.fixture
def link(device: Device, sshd: Sshd) -> Iterator[ShellTransport]:
    with open_ssh(device, options=sshd.options()) as opened:
        yield opened


def test_the_whole_round_trip(device: Device, link: ShellTransport, work: Path) -> None:
    steps = check_device(device, transport=link)
    assert [step for step in steps if not step.passed] == []
    assert [step.name for step in steps if "answers" in step.name] == [
        "onnxruntime: right answers",
        "litert: right answers",
    ]
    link.close()
    assert list(work.iterdir()) == []


def test_a_connection_that_drops_mid_push_goes_on(link: ShellTransport, proxy: Proxy, tmp_path: Path) -> None:
    source = tmp_path / "model.onnx"
    source.write_bytes(os.urandom(6_000_000))
    link.run(["true"], timeout_seconds=10)
    proxy.cut_after(2_000_000)
    there = link.push(source)
    assert proxy.cuts == 1
    assert Path(there).read_bytes() == source.read_bytes()
    assert not list(Path(link.folder).rglob("*.part"))


def test_a_connection_that_drops_mid_run_goes_on(device: Device, link: ShellTransport, proxy: Proxy) -> None:
    events: list[Event] = []

    def progress(event: Event) -> None:
        events.append(event)
        if event.kind == "step" and event.done == 3 and proxy.cuts == 0:
            proxy.cut()

    candidates = [Candidate(REFERENCE / FILES[name], name, 1) for name in ("onnxruntime", "litert")]  # type: ignore[arg-type]
    found = measure(
        candidates, device, sample=SAMPLES, min_seconds=0.1, min_runs=40, progress=progress, transport=link
    )
    assert proxy.cuts == 1
    for one in found:
        assert isinstance(one, Measurement), one
        assert len(one.result.rounds) == 20
        assert one.result.restarts == 1
    assert any("was lost" in event.message for event in events)


def test_a_connection_that_drops_while_evaluating_goes_on(
    device: Device, link: ShellTransport, proxy: Proxy, tmp_path: Path
) -> None:
    samples = np.concatenate([np.load(SAMPLES)] * 40)
    np.save(tmp_path / "many.npy", samples)

    def progress(event: Event) -> None:
        if event.kind == "step" and proxy.cuts == 0:
            proxy.cut()

    outputs = evaluate(
        REFERENCE / "check.onnx",
        "onnxruntime",
        device,
        tmp_path / "many.npy",
        batch=1,
        part_bytes=200_000,
        progress=progress,
        transport=link,
    )
    assert proxy.cuts == 1
    np.testing.assert_array_equal(outputs, np.concatenate([np.load(REFERENCE / "onnxruntime.npy")] * 40))


def test_a_host_key_that_isnt_the_known_one_is_refused(device: Device, sshd: Sshd, tmp_path: Path) -> None:
    other = tmp_path / "known_hosts"
    key = "AAAAC3NzaC1lZDI1NTE5AAAAIJ1qXn1sN1pSr1G0vTPDn1W5m4cQ0c8m3v7y0xWf9o2b"
    other.write_text(f"edgekit-test ssh-ed25519 {key}\n")
    options = [one.replace(str(sshd.known_hosts), str(other)) for one in sshd.options()]
    with pytest.raises(UnreachableError) as caught:
        open_ssh(device, options=options)
    assert f"ssh -p {device.port} 127.0.0.1" in caught.value.next


def test_a_key_that_isnt_accepted_is_told(device: Device, sshd: Sshd) -> None:
    options = [one.replace(str(sshd.key), "/dev/null") for one in sshd.options()]
    with pytest.raises(UnreachableError, match="lets nobody in") as caught:
        open_ssh(device, options=options)
    assert "ssh-copy-id" in caught.value.next


def test_nobody_at_home_is_unreachable(python: str, work: Path, sshd: Sshd, monkeypatch: Any) -> None:
    monkeypatch.setattr("edgekit.devices.shell.BACK_OFF_SECONDS", (0.01,))
    with pytest.raises(UnreachableError, match="refused"):
        open_ssh(board(1, python, work), options=sshd.options())


def test_a_profile_without_an_address_says_how_to_get_one() -> None:
    with pytest.raises(DeviceError) as caught:
        open_ssh(Device(name="raspberry-pi-5", transport="ssh"))
    assert "edgekit device add my-board --like raspberry-pi-5" in caught.value.next


def test_options_cant_come_in_as_an_address() -> None:
    with pytest.raises(DeviceError, match="begin with"):
        open_ssh(Device(name="x", transport="ssh", address="-oProxyCommand=touch pwned"))


def test_a_board_of_another_architecture_is_refused(device: Device, link: ShellTransport) -> None:
    wrong = device.model_copy(update={"arch": "riscv64"})
    steps = check_device(wrong, transport=link)
    assert (steps[-1].name, steps[-1].passed) == ("identity", False)
    assert "expected: riscv64" in steps[-1].detail


def test_a_board_without_python_says_so(device: Device, link: ShellTransport) -> None:
    bare = device.model_copy(update={"python": "/nowhere/python3"})
    (found,) = measure(
        [Candidate(REFERENCE / "check.onnx", "onnxruntime", 1)], bare, sample=SAMPLES, transport=link
    )
    assert found.error is not None
    assert "/nowhere/python3" in str(found.error)


def test_this_machine_has_a_profile() -> None:
    assert load_device("local").transport == "local"
