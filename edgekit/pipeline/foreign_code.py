"""Files that would execute something, refused before a process is started for them."""

from __future__ import annotations

import warnings
from pathlib import Path

from edgekit.errors import InputError
from edgekit.runtimes import native
from edgekit.runtimes.device import program_file

__all__ = ["refuse_code"]


def refuse_code(path: Path, allow_compiled: bool = False) -> None:
    """Raise InputError for a ``.pt2`` that isn't data alone.

    Args:
        path: of a file of any kind; of the others none can execute anything.
        allow_compiled: the user said that compiled code may run, whoever compiled it.
    """
    if path.suffix != ".pt2":
        return
    if native.is_native(path):
        if not allow_compiled and not native.is_ours(path):
            raise InputError(
                "this file is compiled code, and wasn't compiled by your edgekit",
                where=str(path),
                got="an AOTInductor package: loading it executes whatever is in it",
                expected="a package that `edgekit export` or `edgekit compress` wrote here",
                next=f"if you trust whoever made it: edgekit bench {path} --allow-compiled",
            )
        return
    import torch

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            program_file.safe(torch, str(path))
    except program_file.Refused as error:
        raise InputError(
            "this file isn't a program alone, and nothing of it was executed",
            where=str(path),
            got=str(error),
            expected="what torch.export.save writes of a model of torch's own operators",
            next="if you trust it, load it where it was made, and export it anew from there",
        ) from None
    except Exception:  # damaged: its runtime says how
        return
