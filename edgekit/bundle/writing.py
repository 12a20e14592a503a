"""A bundle's folder: written whole or not at all, with ``bundle.json`` that names every file's sha256."""

from __future__ import annotations

import re
import secrets
import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from edgekit.bundle import common, gathering
from edgekit.bundle.contents import Contents
from edgekit.bundle.targets import NAMES, load
from edgekit.bundle.targets.base import Files, Settings, Target
from edgekit.errors import InputError
from edgekit.files import disk_full, sha256, sha256_of_bytes
from edgekit.made import remember_made
from edgekit.progress import Event, Progress, silent
from edgekit.runs.folder import Damaged, check_files, read_record, write_record

__all__ = ["MADE", "RECORD", "bundle", "default_folder", "write"]

RECORD = "bundle.json"
MADE = "bundle"  # see ``made.remember_made``
_BUNDLES = Path("bundles")  # below the current folder
_SAFE = re.compile(r"[A-Za-z0-9._+-]+(/[A-Za-z0-9._+-]+)*")


def bundle(
    run: str | Path,
    target: str,
    workload: str | Path | None = None,
    *,
    artifact: str = "",
    device: str | Path | None = None,
    name: str = "",
    version: str = "1.0.0",
    out: str | Path | None = None,
    force: bool = False,
    progress: Progress = silent,
) -> Path:
    """Make a bundle of a run's file. Returns its folder.

    Args:
        run: folder of a finished run.
        target: "python", "cpp", "android", "ios" or "arduino".
        workload: the file that the run was made from; a run of the embedded demo needs none.
        artifact: which of the run's files, by its name; by default the recommended one, if the target takes
            it, else the nearest to it.
        device: a profile whose memory is a budget.
        name: of the bundle, by default the workload's.
        version: of the bundle.
        out: the folder; by default ``bundles/NAME-TARGET``.
        force: replace a bundle there even if its files were changed by hand.
        progress: told what happens.

    Raises:
        InputError: what was given doesn't fit together, or the folder holds something else.
        ExportError: the target can't be made of this file, or it doesn't fit the device.
    """
    chosen = load(target)
    profile = None
    if device is not None:
        from edgekit.devices.device import load_device

        profile = load_device(device)
    contents = gathering.gather(
        Path(run),
        workload,
        artifact=artifact,
        formats=chosen.formats,
        precisions=chosen.precisions,
        name=name,
        version=version,
        progress=progress,
    )
    folder = Path(out) if out is not None else default_folder(contents.name, target)
    progress(Event("note", "bundle", f"{target}: {folder}"))
    return write(contents, chosen, Settings(profile), folder, force=force)


def default_folder(name: str, target: str) -> Path:
    """Where a bundle goes that wasn't given a folder."""
    return _BUNDLES / f"{name}-{target}"


def write(contents: Contents, target: Target, settings: Settings, out: Path, *, force: bool = False) -> Path:
    """Write a bundle. What lies at ``out`` is replaced if it is a bundle that nobody changed, or ``force``.

    Raises as ``bundle``, and DiskFullError.
    """
    if contents.several and not target.several:
        raise _one_alone(contents, target)
    common.check_version(contents.version)
    _refuse(out, force)
    safe = replace(contents, model=replace(contents.model, name=_plain(contents.model.name)))
    files = {**common.documents(safe), **target.files(safe, settings)}
    fresh = out.with_name(f".{out.name}.{secrets.token_hex(4)}.tmp")
    try:
        fresh.mkdir(parents=True)
        _fill(fresh, files)
        write_record(fresh / RECORD, safe.model.sha256, _about(safe, target), _digests(files))
        remember_made(MADE, sha256(fresh / RECORD))
        _put(fresh, out)
        _remove_leftovers(out)
    except OSError as error:
        full = disk_full(error, out, refused=True)
        if full is None:
            raise
        raise full from error
    finally:
        shutil.rmtree(fresh, ignore_errors=True)
    return out


def _one_alone(contents: Contents, target: Target) -> InputError:
    able = ", ".join(name for name in NAMES if load(name).several)
    inputs, outputs = (
        ", ".join(one.end.name for one in ends) for ends in (contents.inputs, contents.outputs)
    )
    return InputError(
        "this target takes models with one input and one output",
        where=f"--target {target.name}",
        got=f"{contents.model.name}: inputs {inputs}; outputs {outputs}",
        expected=f"one tensor in and one out, or a target that takes several: {able}",
        next="or take the file itself: its inputs and outputs have these names",
    )


def _about(contents: Contents, target: Target) -> dict[str, object]:
    model = contents.model
    return {
        "schema": 1,
        "target": target.name,
        "name": contents.name,
        "version": contents.version,
        "edgekit": contents.edgekit_version,
        "model": {
            "file": model.name,
            "format": model.format,
            "precision": model.precision,
            "sha256": model.sha256,
            "size_bytes": len(model.content),
            "accuracy": contents.accuracy,
            "metric": contents.task["metric"],
        },
        "activation_bytes": contents.activation_bytes,
    }


def _digests(files: Files) -> dict[str, str]:
    return {name: sha256_of_bytes(content) for name, content in sorted(files.items())}


def _plain(name: str) -> str:
    """A file name that needs no quoting in any build tool."""
    return re.sub(r"[^A-Za-z0-9._-]+", "_", name).lstrip("-.") or "model"


def _fill(folder: Path, files: Files) -> None:
    for name, content in files.items():
        # A target is edgekit's own code; but what it writes must never leave the folder.
        if not _SAFE.fullmatch(name) or ".." in name.split("/"):
            raise InputError(
                "a file name that no bundle has", got=repr(name), expected="plain relative paths"
            )
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)


def _put(fresh: Path, out: Path) -> None:
    """Two renames where something was there: a kill in between leaves the old one beside it."""
    old = out.with_name(f".{out.name}.{secrets.token_hex(4)}.old")
    if out.exists():
        out.rename(old)
    try:
        fresh.rename(out)
    except OSError:
        if old.exists():
            old.rename(out)
        raise
    shutil.rmtree(old, ignore_errors=True)


def _remove_leftovers(out: Path) -> None:
    """What a killed attempt left beside the bundle that is whole now."""
    pattern = re.compile(re.escape(f".{out.name}.") + r"[0-9a-f]{8}\.(tmp|old)")
    for path in out.parent.iterdir():
        if pattern.fullmatch(path.name):
            shutil.rmtree(path, ignore_errors=True)


def _refuse(out: Path, force: bool) -> None:
    """Raise InputError unless ``out`` is free, or an earlier bundle that may be replaced."""
    here = Path.cwd()
    if out.resolve() in (here, *here.parents):  # it is put there whole, by a rename
        raise InputError(
            "the folder that you are in can't be replaced",
            where=f"--out {out}",
            got=str(out.resolve()),
            expected="another folder, such as one in it",
            next=f"--out {out / 'bundle'}",
        )
    if not out.exists() or (out.is_dir() and not any(out.iterdir())):
        return
    if not (out / RECORD).is_file():
        raise InputError(
            "the output folder holds something else",
            where=str(out),
            got="a file" if out.is_file() else _some(sorted(one.name for one in out.iterdir())),
            expected="an empty folder, or an earlier bundle",
            next="choose another one with --out",
        )
    if force:
        return
    if changed := _changed(out):
        raise InputError(
            "the bundle there was changed by hand",
            where=str(out),
            got=_some(changed),
            next="choose another folder with --out, or replace it with --force",
        )


def _changed(out: Path) -> list[str]:
    """Files of a bundle that aren't what was written, and those that somebody added."""
    try:
        record = read_record(out / RECORD)
        assert record is not None
        names: dict[str, str] = record["files"]
    except (Damaged, KeyError) as damage:
        return [str(damage)]
    found = []
    for name, digest in names.items():
        try:
            check_files(out, {name: digest})
        except Damaged as damage:
            found.append(str(damage))
    there = {str(one.relative_to(out)) for one in out.rglob("*") if one.is_file()}
    return found + [f"{name} was added" for name in sorted(there - names.keys() - {RECORD})]


def _some(names: Sequence[str], most: int = 5) -> str:
    return ", ".join(names[:most]) + (", …" if len(names) > most else "")
