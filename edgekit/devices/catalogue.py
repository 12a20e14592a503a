"""The profiles that can be named, and new ones."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from edgekit.config import configfile
from edgekit.devices.asking import probe
from edgekit.devices.device import Device, list_devices, load_device
from edgekit.devices.transports import addressed
from edgekit.errors import DeviceError, EdgekitError
from edgekit.files import atomic_write


def catalogue() -> list[dict[str, Any]]:
    """name, transport, description, arch, path of every profile; ``fault`` for those that can't be used."""
    rows = []
    for name, path in list_devices().items():
        row: dict[str, Any] = {"name": name, "path": str(path)}
        try:
            device = load_device(path)
        except EdgekitError as error:
            rows.append({**row, "fault": str(error)})
            continue
        reach = device.address or device.settings.place
        about = {"transport": device.transport, "address": reach, "arch": device.arch}
        rows.append({**row, **about, "description": device.description})
    return rows


def add(
    name: str,
    *,
    address: str,
    like: str = "aarch64-linux",
    port: int | None = None,
    python: str = "",
    ask: bool = True,
) -> tuple[Path, Device]:
    """Write a profile into the user's configuration folder.

    Args:
        name: what it will be called.
        address: where it is; see ``Device.address``.
        like: the profile to start from.
        port: of ssh.
        python: the interpreter on the device.
        ask: connect, and write down what the device says of itself.

    Raises:
        DeviceError: there is one of this name already, or ``like`` can't be reached at any address.
        MeasurementError: the device can't be reached, or says nothing.
    """
    base = load_device(like)
    if not base.kind.address:
        raise DeviceError(
            "only boards and phones are added",
            where=like,
            got=f"transport {base.transport}",
            expected=addressed(),
        )
    path = configfile.user_folder("devices") / f"{name}.yaml"
    if path.exists():
        raise DeviceError("there is such a profile already, and it is left as it is", where=str(path))
    given = {"name": name, "like": base.name, "address": address, "port": port}
    values = {
        **base.model_dump(mode="json", exclude_defaults=True),
        **given,
        **({"python": python} if python else {}),
    }
    values = {key: value for key, value in values.items() if value is not None}
    device = Device.model_validate(values) if _named(name) else base
    if ask:
        device = fill_in(device, probe(device))
    content = device.model_dump(mode="json", exclude_defaults=True)
    path.parent.mkdir(parents=True, exist_ok=True)
    head = f"# Made by `edgekit device add {name} --like {base.name}`.\n"
    atomic_write(path, (head + configfile.dump_yaml(content)).encode())
    return path, device


def fill_in(device: Device, about: dict[str, Any]) -> Device:
    """The profile with what the device said of itself, over what was assumed."""
    machine = {"arm64": "aarch64", "armv8l": "armv7l"}.get(about["machine"], about["machine"])
    found = {
        "arch": machine,
        "isa": tuple(about["isa"]),
        "cores": len(about["affinity"]) or None,
        "memory_bytes": about["memory_bytes"],
        "versions": dict(about["runtimes"]),
        "clusters": tuple(about.get("clusters") or ()),
        "gpu": ", ".join(str(one) for one in about.get("gpus") or ()),
    }
    values = {**device.model_dump(mode="json"), **{key: value for key, value in found.items() if value}}
    return Device.model_validate(values)


def _named(name: str) -> bool:
    import re

    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}", name):
        raise DeviceError(
            "this can't be a name", got=repr(name), expected="at most 64 letters, digits, '.', '_' and '-'"
        )
    return True
