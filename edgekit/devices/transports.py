"""The transports, one row each: how devices are reached; docs/adding-a-transport.md says how one is added.

A row says what a profile of it has to say and what follows from it. What it does stands in a module of its
own, which is imported when a device is opened.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING, Annotated, Literal, NoReturn, TypeAlias

from pydantic import AfterValidator, BaseModel, ConfigDict, model_validator

from edgekit.errors import DeviceError
from edgekit.tables import Table

if TYPE_CHECKING:
    from edgekit.devices.device import Device
    from edgekit.devices.transport import Transport

__all__ = [
    "TRANSPORTS",
    "EmulatedSettings",
    "TransportKind",
    "TransportName",
    "TransportSettings",
    "addressed",
]


class TransportSettings(BaseModel):
    """What a profile has to say for one transport alone, beside what all profiles may say."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    @property
    def place(self) -> str:
        """Where the device is, in a list of devices without an address; "" where there is nothing to say."""
        return ""


class EmulatedSettings(TransportSettings):
    """Of a board that qemu emulates."""

    cpu: str = ""  # the CPU model, such as cortex-a76
    via: Literal["ssh", "adb"] = "ssh"  # by which way the board is reached

    @model_validator(mode="after")
    def _has_a_cpu(self) -> EmulatedSettings:
        if not self.cpu:
            raise ValueError("an emulated device needs `cpu`, such as cortex-a76")
        return self

    @property
    def place(self) -> str:
        return self.cpu


@dataclass(frozen=True)
class TransportKind:
    """One row of the table of transports.

    Args:
        name: as it stands in profiles.
        title: what is reached by it, for messages.
        open: makes the connection. Raises DeviceError if the profile lacks something, UnreachableError if
            nobody answers.
        settings: what else a profile has to say for it.
        address: what its addresses look like, for help. Only of devices that have one own profiles are added,
            and runtimes put there.
        shown: instead of its name, where devices are listed.
        here: whether it reaches the machine that edgekit runs on: files aren't copied, and all samples asked.
        reachable: False: there is nothing to open, profiles are budgets.
        counts_instructions: whether the clock there counts them: exact, and no measure of time.
        made_up: whether its answers aren't those of any file.
        python_optional: whether a device whose profile names LiteRT's benchmark_model is measured with it.
    """

    name: str
    title: str
    open: Callable[[Device], Transport]
    settings: type[TransportSettings] = TransportSettings
    address: str = ""
    shown: str = ""
    here: bool = False
    reachable: bool = True
    counts_instructions: bool = False
    made_up: bool = False
    python_optional: bool = False


def _in(module: str, name: str) -> Callable[[Device], Transport]:
    """The opener of this name, imported when it is called."""

    def opened(device: Device) -> Transport:
        opener: Callable[[Device], Transport] = getattr(import_module(f"edgekit.devices.{module}"), name)
        return opener(device)

    return opened


def _nowhere(device: Device) -> NoReturn:
    raise DeviceError(
        "nothing can be run on this device: its profile is a memory budget",
        where=device.name,
        next=f"edgekit inspect FILE --device {device.name} says if a file fits; compress without it, "
        "for a microcontroller with --recipe microcontroller",
    )


TRANSPORTS: Table[TransportKind] = Table(
    "transport",
    (
        TransportKind("local", "this machine", _in("local", "open_local"), here=True),
        TransportKind(
            "ssh",
            "boards over ssh",
            _in("ssh", "open_ssh"),
            address="[user@]host or a name in ssh_config",
        ),
        TransportKind(
            "adb",
            "phones and boards over adb",
            _in("adb", "open_adb"),
            address="a serial or host:port",
            python_optional=True,
        ),
        TransportKind(
            "emulated",
            "emulated devices",
            _in("emulated", "open_emulated"),
            settings=EmulatedSettings,
            counts_instructions=True,
        ),
        TransportKind("fake", "devices in memory", _in("fake", "open_fake"), made_up=True),
        TransportKind("none", "budgets", _nowhere, reachable=False, shown="nothing: a budget"),
    ),
)
TransportName: TypeAlias = Annotated[str, AfterValidator(TRANSPORTS.check)]


def addressed() -> str:
    """The names of those whose devices have an address, for messages."""
    return " or ".join(name for name, row in TRANSPORTS.items() if row.address)
