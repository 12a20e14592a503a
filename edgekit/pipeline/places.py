"""Which file a name stands for: told where it may not be the one that was meant."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgekit.config import configfile
from edgekit.errors import DeviceError
from edgekit.progress import Event, Progress

if TYPE_CHECKING:
    from edgekit.devices.device import Device

__all__ = ["profiles", "tell_place"]


def tell_place(progress: Progress, kind: configfile.Kind, name: Any) -> None:
    """A warning, where the current folder has a recipe or a device of this name. Others are passed over."""
    if isinstance(name, str) and (said := configfile.told(kind, name)):
        progress(Event("warning", "", said))


def profiles(
    given: Sequence[str | Path], by_recipe: Sequence[str | Path], progress: Progress
) -> tuple[Device, ...]:
    """The devices that the user named, else those of the recipe.

    A recipe may be somebody else's, and lie in his folder beside a profile that says which program runs. So
    what it names is taken from the user's own profiles, those that edgekit ships, and those that name no
    program and nobody to connect to.

    Raises DeviceError: no such device, a faulty one, or one that the user has to name himself.
    """
    from edgekit.devices.device import find_device, load_device

    found = []
    for name in given or by_recipe:
        tell_place(progress, "devices", name)
        path, device = find_device(name), load_device(name)
        if not given and device.starts_programs and not configfile.is_own("devices", path):
            raise DeviceError(
                "the recipe names a device whose profile says what to run, and it isn't one of yours",
                where=str(path),
                got=f"{device.name}: {device.transport} {device.address} {device.python}".rstrip(),
                expected="a profile that edgekit ships, or one in your configuration folder",
                next=f"if you trust it, name it yourself: --device {path}",
            )
        found.append(device)
    return tuple({device.name: device for device in found}.values())
