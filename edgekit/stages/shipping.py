"""How a stage's model will be shipped: what its settings leave open is taken from the recipe and the run."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from edgekit.stages.base import Shipping, StageContext
from edgekit.stages.targets import TargetConfig

if TYPE_CHECKING:
    from edgekit.devices.device import Device
    from edgekit.pruning.goals.shipped import Precision, Shipped

__all__ = ["identity", "shipped_for", "unused"]


def identity(config: object, shipping: Shipping | None) -> dict[str, Any]:
    """What a stage's result depends on besides its settings, as JSON; empty for most.

    Raises DeviceError if the settings name a device that there is no profile of.
    """
    if not isinstance(config, TargetConfig) or not config.needs_files:
        return {}
    runtime, precision = _file(config, shipping)
    found: dict[str, Any] = {"runtime": runtime, "precision": precision}
    if config.needs_time:
        found["device"] = _device(config, shipping).model_dump(mode="json")
    return {"shipped": found}


def unused(config: object) -> tuple[str, ...]:
    """What a stage with these settings doesn't execute, as "module:name": writing files, and timing them."""
    needed = isinstance(config, TargetConfig) and config.needs_files
    return () if needed else (f"{shipped_for.__module__}:{shipped_for.__qualname__}",)


def shipped_for(config: TargetConfig, context: StageContext) -> Shipped | None:
    """None where the goal needs no files. A context manager: a way to the device of its own is closed.

    Raises:
        DeviceError: no such device.
        MeasurementError: it can't be reached.
        PruneError: time can't be measured there.
    """
    if not config.needs_files:
        return None
    from edgekit.devices.asking import probe
    from edgekit.pruning.goals.shipped import Shipped

    shipping = context.shipping
    runtime, precision = _file(config, shipping)
    device = _device(config, shipping)
    if not config.needs_time:
        # Only how it is spelled is asked of this machine's profile: sizes are the same everywhere.
        return Shipped(runtime=runtime, precision=precision, about=probe(), progress=context.progress)
    Shipped(device, runtime, precision).refuse_untimed()
    if shipping is not None and device in shipping.devices:
        return Shipped(
            device,
            runtime,
            precision,
            about=shipping.about(device),
            link=shipping.link(device),
            threads=config.threads,
            progress=context.progress,
        )
    return Shipped.to(
        device, runtime=runtime, precision=precision, threads=config.threads, progress=context.progress
    )


def _file(config: TargetConfig, shipping: Shipping | None) -> tuple[str, Precision]:
    formats = shipping.formats if shipping is not None else ()
    precisions = shipping.precisions if shipping is not None else ()
    runtime = config.runtime or ("litert" if "litert" in formats else "onnxruntime")
    return runtime, config.precision or ("int8" if "int8" in precisions else "fp32")


def _device(config: TargetConfig, shipping: Shipping | None) -> Device:
    """The one that is named, else the run's first on which time can be measured, else this machine."""
    from edgekit.devices.device import Device, load_device

    devices = shipping.devices if shipping is not None else ()
    if config.device:
        named = [device for device in devices if device.name == config.device]
        return named[0] if named else load_device(config.device)
    timed = [device for device in devices if not device.emulated and device.kind.reachable]
    return (*timed, *devices, Device(name="local", transport="local"))[0]
