"""``edgekit device install``: runtimes for a board that can't get them itself."""

from __future__ import annotations

from typing import Annotated

import typer

from edgekit.cli.common import DeviceName, Json, Quiet, exits, print_json, run_view
from edgekit.cli.streams import say


@exits
def device_install(
    name: DeviceName,
    packages: Annotated[
        list[str] | None,
        typer.Option(
            "--package",
            metavar="REQUIREMENT",
            help="Instead of NumPy and the profile's runtimes, e.g. 'onnxruntime==1.22.0'. Repeatable.",
            show_default=False,
        ),
    ] = None,
    remove: Annotated[
        bool, typer.Option("--remove", help="Take away what was installed, for every Python there.")
    ] = False,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Put runtimes on a board without network or pip: wheels are downloaded here, and unpacked there."""
    if remove:
        _remove(name, as_json)
        return
    with run_view(quiet=quiet) as progress:
        from edgekit.devices.installing import install

        done = install(name, packages or (), progress=progress)
    if as_json:
        profile = str(done.profile) if done.profile else None
        print_json(
            {
                "folder": done.folder,
                "was_there": done.was_there,
                "versions": done.versions,
                "setup": list(done.setup),
                "profile": profile,
            }
        )
        return
    listed = ", ".join(f"{package} {version}" for package, version in done.versions.items())
    say(f"{name}: {listed}\n{'were there' if done.was_there else 'are now'} in {done.folder}")
    if done.profile:
        say(f"wrote `setup` into {done.profile}; try it with: edgekit device check {name}")
    else:
        say(f"put this line into a profile of your own (edgekit device add):\n{done.line}")


def _remove(name: str, as_json: bool) -> None:
    from edgekit.devices.installing import remove

    removed, setup, profile = remove(name)
    if as_json:
        wrote = str(profile) if profile else None
        print_json({"removed": removed, "setup": list(setup), "profile": wrote})
        return
    say(f"{name}: removed {', '.join(removed)}" if removed else f"{name}: nothing was installed")
    if profile:
        say(f"took it out of `setup` in {profile}")
