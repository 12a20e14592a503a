"""Device profiles: a board, how it is reached, and what runs on it.

A profile is one YAML file. Names are looked up in the user's configuration folder, in the package, and then
in ``./devices``; a path is a path. Reading one needs no torch.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ModelWrapValidatorHandler, ValidationError, model_validator
from pydantic_core import InitErrorDetails, PydanticCustomError

from edgekit.config import configfile
from edgekit.devices.transports import TRANSPORTS, TransportKind, TransportName, TransportSettings
from edgekit.errors import DeviceError, did_you_mean
from edgekit.runtimes import RuntimeName

Arch = Literal["x86_64", "aarch64", "armv7l", "armv6l", "riscv64", "cortex-m"]


class Cluster(BaseModel):
    """Cores of one kind. ``cores`` are their numbers, as the operating system counts them."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    name: str = ""  # "Cortex-A76"
    cores: tuple[int, ...] = Field(min_length=1)
    max_mhz: int | None = Field(default=None, gt=0)


class Device(BaseModel):
    """One place where models run: what it is, how it is reached, how it is measured.

    What is None or empty is asked of the device instead (see ``probe``). There is no field for a secret: keys
    and passwords belong into ssh_config, the agent, or adb's own pairing.

    ``transport`` "none" is a class of device that can't be reached, such as a microcontroller: its memory is
    a budget that files are checked against. A transport may have settings of its own, beside these (see
    ``settings``); others are refused.
    """

    model_config = ConfigDict(frozen=True, extra="allow", allow_inf_nan=False)

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")  # files of results are named like it
    description: str = ""
    like: str = ""  # the profile that this one was made from, with `edgekit device add --like`

    # How it is reached.
    transport: TransportName
    address: str = ""  # ssh: [user@]host or an alias of ssh_config; adb: a serial or host:port
    port: int | None = Field(default=None, ge=1, le=65535)
    python: str = ""  # the interpreter there; empty: python3, and on this machine the one that runs edgekit
    setup: tuple[str, ...] = ()  # variables for everything that runs there, NAME=VALUE
    work_folder: str = ""  # where edgekit may write; empty: /tmp, on Android /data/local/tmp
    keep: bool = False  # leave what was uploaded on the device, so that the next benchmark needn't
    connect_timeout_seconds: float = Field(default=15.0, gt=0, le=3600)
    timeout_seconds: float = Field(default=120.0, gt=0, le=86_400)  # how long it may be silent

    # What it is.
    arch: Arch | None = None
    isa: tuple[str, ...] = ()  # flags as in /proc/cpuinfo
    cores: int | None = Field(default=None, ge=1, le=4096)
    clusters: tuple[Cluster, ...] = ()
    memory_bytes: int | None = Field(default=None, gt=0)
    flash_bytes: int | None = Field(default=None, gt=0)  # microcontrollers: what the file has to fit in
    gpu: str = ""  # the accelerator's name, where that is what is measured

    # What runs there, and how it is measured.
    runtimes: tuple[RuntimeName, ...] = Field(default=("onnxruntime", "litert"), min_length=1)
    versions: dict[str, str] = Field(default_factory=dict)  # package: version, as `device probe` saw them
    providers: tuple[str, ...] = ()  # ONNX Runtime's execution providers to measure besides the CPU's
    delegates: tuple[str, ...] = ()  # LiteRT's delegates to measure besides its default
    benchmark_model: str = ""  # path of LiteRT's benchmark_model on the device, for phones without Python
    threads: int | Literal["all"] | None = Field(default=None)  # instead of the recipe's
    affinity: tuple[int, ...] = ()  # cores that the worker is bound to; empty: the system chooses
    cooldown_seconds: float = Field(default=0.0, ge=0, le=3600)  # rest before a round, where it got too hot
    temperature_limit_celsius: float | None = Field(default=None, gt=0, le=150)
    quirks: tuple[str, ...] = ()  # what its users should know, one sentence each

    @model_validator(mode="wrap")
    @classmethod
    def _with_settings(cls, data: Any, handler: ModelWrapValidatorHandler[Device]) -> Device:
        """All faults together: those of the fields above, and those of the transport's own settings."""
        faults: list[InitErrorDetails] = []
        device = None
        try:
            device = handler(data)
        except ValidationError as error:
            faults += _details(error)
        if isinstance(data, Mapping):
            faults += _faults_of_settings(data, cls.model_fields)
        if faults or device is None:
            raise ValidationError.from_exception_data(cls.__name__, faults)
        return device

    @model_validator(mode="after")
    def _agrees(self) -> Device:
        for one in self.setup:
            if not re.match(r"^[A-Za-z_][A-Za-z0-9_]*=", one):
                raise ValueError(f"setup: {one!r} is no NAME=VALUE")
        if isinstance(self.threads, int) and self.threads < 1:
            raise ValueError("threads must be at least 1")
        return self

    @property
    def interpreter(self) -> str:
        """Path or name of the Python that runs on the device."""
        return self.python or (sys.executable if self.here else "python3")

    @property
    def kind(self) -> TransportKind:
        """The row of its transport."""
        return TRANSPORTS[self.transport]

    @property
    def settings(self) -> TransportSettings:
        """What its profile says for its transport alone."""
        return self.kind.settings.model_validate(self.model_extra or {})

    @property
    def here(self) -> bool:
        """Whether it is the machine that edgekit runs on."""
        return self.kind.here

    @property
    def starts_programs(self) -> bool:
        """Whether the profile says which program runs, or loads a library, or whom to connect to."""
        named = self.python or self.setup or self.delegates or self.benchmark_model
        return bool(named) or self.transport in ("ssh", "adb")

    @property
    def emulated(self) -> bool:
        """Whether its clock counts instructions: exact, and no measure of time."""
        return self.kind.counts_instructions

    @property
    def unit(self) -> Literal["ns", "instructions"]:
        """What a timing on it is in."""
        return "instructions" if self.emulated else "ns"


def find_device(name: str | Path) -> Path:
    """The file of the profile of this name. Raises DeviceError: unknown name."""
    path = configfile.find("devices", name)
    if path is None:
        raise _unknown(name)
    return path


def load_device(name: str | Path) -> Device:
    """Read the profile of this name, or from this path.

    Raises DeviceError: unknown name, unreadable file, unknown keys and wrong values (all at once).
    """
    path = find_device(name)
    try:
        content = configfile.read_yaml(path)
    except (OSError, ValueError) as error:
        raise DeviceError("this device profile can't be read", where=str(path), got=str(error)) from None
    if not isinstance(content, dict):
        raise DeviceError(
            "this is no device profile",
            where=str(path),
            got=type(content).__name__,
            expected="a mapping with at least `name` and `transport`",
        )
    try:
        return Device.model_validate(content)
    except ValidationError as error:
        faults = configfile.faults_of(error, Device, content, known=_keys(content.get("transport")))
        raise DeviceError(
            "\n".join(["wrong device profile", *(f"  - {fault}" for fault in faults)]), where=str(path)
        ) from None


def list_devices() -> dict[str, Path]:
    """Name → file of every profile that can be named; of two with one name, the one that is found first."""
    return configfile.listing("devices")


def _settings(transport: Any) -> type[TransportSettings]:
    known = isinstance(transport, str) and transport in TRANSPORTS
    return TRANSPORTS[transport].settings if known else TransportSettings


def _keys(transport: Any) -> tuple[str, ...]:
    return (*Device.model_fields, *_settings(transport).model_fields)


def _faults_of_settings(data: Mapping[Any, Any], common: Collection[str]) -> Iterator[InitErrorDetails]:
    own = {key: value for key, value in data.items() if key not in common}
    settings = _settings(data.get("transport"))
    for key in own.keys() - settings.model_fields.keys():
        others = [row.title for row in TRANSPORTS.values() if key in row.settings.model_fields]
        if others:
            fault = PydanticCustomError(
                "other_transport", "is for {others} alone", {"others": " and ".join(others)}
            )
            yield InitErrorDetails(type=fault, loc=(key,), input=own.pop(key))
    try:
        settings.model_validate(own)
    except ValidationError as error:
        yield from _details(error)


def _details(error: ValidationError) -> Iterator[InitErrorDetails]:
    """Its faults, to be raised together with others."""
    for fault in error.errors(include_url=False):
        told = PydanticCustomError(fault["type"], fault["msg"])
        yield InitErrorDetails(type=told, loc=fault["loc"], input=fault["input"])


def _unknown(name: str | Path) -> DeviceError:
    if configfile.is_path(name):
        return DeviceError("no such device profile", where=str(name))
    return DeviceError(
        f"unknown device {str(name)!r}",
        next=f"{did_you_mean(str(name), list_devices())}; or give the path of a profile (.yaml)",
    )
