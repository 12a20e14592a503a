"""What a runtime is to the rest: an engine that loads a file and runs it, here or on a device."""

from __future__ import annotations

import contextlib
import importlib.util
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from edgekit.devices.device import Device

__all__ = ["Runtime"]

_DEVICE = Path(__file__).parent / "device"


def _none(device: Device) -> tuple[str, ...]:
    return ()


@dataclass(frozen=True)
class Runtime:
    """One row of the table of runtimes.

    What it does with a file stands in ``device_file``, which goes to the device and knows nothing of edgekit:
    a subclass of ``device.runtimes.Model``, by the name of ``MODEL``.

    Args:
        name: in device profiles, on the command line and in reports.
        title: for people.
        packages: distributions that have it, the one that pip is asked for first.
        module: what Python imports.
        extra: of edgekit, that installs it; "" if it comes with edgekit.
        wheels: by architecture, what pip is asked for where the newest is not to be had.
        backends: what a device's profile has measured with it beside its default on the CPU: execution
            providers, delegates.
        on_gpu: the backends that are measured in its place on a device that is a GPU; None: ``backends``.
        depthwise_multiple: channels that its depthwise kernels for int8 take at a time, if the rest is slow.
        own_file: ``device_file``, if it is another than ``device/runtime_NAME.py``.
    """

    name: str
    title: str
    packages: tuple[str, ...]
    module: str
    extra: str = ""
    wheels: Mapping[str, str] = field(default_factory=dict)
    backends: Callable[[Device], tuple[str, ...]] = _none
    on_gpu: tuple[str, ...] | None = None
    depthwise_multiple: int = 1
    own_file: Path | None = None

    @property
    def device_file(self) -> Path:
        """What goes to a device and runs files there."""
        return self.own_file or _DEVICE / f"runtime_{self.name}.py"

    @property
    def package(self) -> str:
        """What pip is asked for."""
        return self.packages[0]

    def installed(self) -> bool:
        """Whether it is there, without importing it."""
        return importlib.util.find_spec(self.module) is not None

    def version(self) -> str:
        """Of the one that is installed here, "" if it doesn't say."""
        for name in self.packages:
            with contextlib.suppress(metadata.PackageNotFoundError):
                return metadata.version(name)
        return ""

    def install(self) -> str:
        """The command that installs it beside edgekit."""
        return f"pip install 'edgekit-toolkit{f'[{self.extra}]' if self.extra else ''}'"

    def backends_on(self, device: Device) -> tuple[str, ...]:
        """What is measured on a device; "" is the runtime's default on the CPU, which a GPU leaves out."""
        if not (device.gpu and device.providers):
            return ("", *self.backends(device))
        return self.backends(device) if self.on_gpu is None else self.on_gpu
