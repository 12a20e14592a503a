"""pip, by which wheels for other machines are chosen and fetched."""

from __future__ import annotations

from importlib import metadata


def has_pip() -> bool:
    """Whether this Python has it.

    Asked of its metadata: looking for the module has setuptools replace distutils in this process.
    """
    try:
        metadata.distribution("pip")
    except metadata.PackageNotFoundError:
        return False
    return True
