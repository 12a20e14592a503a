"""``edgekit device ls|show|probe|check|add|install|start|stop``."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from edgekit.cli.choices import TableCommand
from edgekit.cli.common import DeviceName, Json, Quiet, complete, exits, named, print_json, run_view, shown
from edgekit.cli.device_install import device_install
from edgekit.cli.streams import say

devices = typer.Typer(
    help="Devices: where models run, and how they are reached.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


@devices.command("ls")
@exits
def device_ls(as_json: Json = False) -> None:
    """List the devices that have a name."""
    from edgekit.devices.catalogue import catalogue

    rows = catalogue()
    if as_json:
        print_json(rows)
    else:
        from edgekit.cli.views.console import console_on, plain
        from edgekit.cli.views.device import devices_view

        console_on(sys.stdout).print(devices_view(plain(rows)))


@devices.command("show")
@exits
def device_show(name: DeviceName, as_json: Json = False) -> None:
    """Print a device's profile."""
    from edgekit.devices.device import find_device, load_device

    device = load_device(name)  # a wrong one isn't shown as if it could be used
    if as_json:
        print_json(device.model_dump(mode="json"))
    else:
        say(shown(find_device(name)), nl=False)


@devices.command("probe")
@exits
def device_probe(name: DeviceName = "local", as_json: Json = False) -> None:
    """Ask a device what it is: CPU, instruction sets, cores, governor, sensors, runtimes."""
    from edgekit.devices.asking import probe
    from edgekit.devices.device import load_device

    about = probe(load_device(name), providers=True)
    if as_json:
        print_json(about)
    else:
        from edgekit.cli.views.console import console_on, plain
        from edgekit.cli.views.device import probe_view

        console_on(sys.stdout).print(probe_view(name, plain(about)))


@devices.command("check")
@exits
def device_check(name: DeviceName = "local", as_json: Json = False, quiet: Quiet = False) -> None:
    """Prove that a device can do the whole round trip: there, run, and back, in each of its runtimes."""
    with run_view(quiet=quiet) as progress:
        from edgekit.bench.roundtrip import check_device
        from edgekit.devices.device import load_device

        steps = check_device(load_device(name), progress=progress)
    if as_json:
        print_json([step.to_json() for step in steps])
    else:
        from edgekit.cli.views.console import console_on
        from edgekit.cli.views.device import check_view

        console_on(sys.stdout).print(check_view(name, steps))
    if not all(step.passed for step in steps):
        raise typer.Exit(1)


@devices.command("add", cls=TableCommand)
@exits
def device_add(
    name: Annotated[
        str, typer.Argument(metavar="NAME", help="What you want to call it.", show_default=False)
    ],
    address: Annotated[
        str,
        typer.Option(
            "--address",
            "-a",
            metavar="WHERE",
            help="{addresses}.",
            show_default=False,
        ),
    ],
    like: Annotated[
        str,
        typer.Option(
            "--like",
            metavar="NAME|FILE",
            help="The profile to start from, such as raspberry-pi-5.",
            autocompletion=complete("devices"),
            callback=named("devices"),
        ),
    ] = "aarch64-linux",
    port: Annotated[int | None, typer.Option("--port", help="If it isn't ssh's.", show_default=False)] = None,
    python: Annotated[
        str, typer.Option("--python", metavar="PATH", help="The Python there that has the runtimes.")
    ] = "",
    probe: Annotated[
        bool, typer.Option("--probe/--no-probe", help="Ask the device, and write down what it says.")
    ] = True,
    as_json: Json = False,
) -> None:
    """Make a profile of your own device, in your configuration folder. Never overwrites."""
    from edgekit.devices.catalogue import add

    path, device = add(name, address=address, like=like, port=port, python=python, ask=probe)
    if as_json:
        print_json({"path": str(path), "profile": device.model_dump(mode="json", exclude_defaults=True)})
    else:
        say(f"wrote {path}; try it with: edgekit device check {name}")


devices.command("install")(device_install)


@devices.command("start")
@exits
def device_start(name: DeviceName, as_json: Json = False, quiet: Quiet = False) -> None:
    """Boot an emulated board and leave it running, such as emulated-cortex-a76. The first time builds it."""
    with run_view(quiet=quiet) as progress:
        from edgekit.devices import emulated

        board = emulated.start(name, progress=progress)
    if as_json:
        print_json(emulated.facts(board))
    else:
        say(emulated.told(board))


@devices.command("stop")
@exits
def device_stop(name: DeviceName, as_json: Json = False) -> None:
    """Switch an emulated board off."""
    from edgekit.devices import emulated

    stopped = emulated.stop(name)
    if as_json:
        print_json({"stopped": stopped})
    else:
        say(f"{name}: {'switched off' if stopped else 'was not running'}")
