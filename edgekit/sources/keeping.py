"""What a run folder keeps of a model by name: the same as a workload file, and the split of its data."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from edgekit.files import atomic_write
from edgekit.sources.making import MADE
from edgekit.sources.writing import written

if TYPE_CHECKING:
    from edgekit.workload.workload import Workload

__all__ = ["keep_source"]

WORKLOAD, SPLIT = "workload.py", "data.csv"


def keep_source(workload: Workload, folder: Path) -> None:
    """Write ``workload.py`` and ``data.csv`` there, if the workload was made from a name and a folder.

    Raises DiskFullError.
    """
    made = MADE.get(workload)
    if made is None or made.files is None:
        return
    out = folder / WORKLOAD
    atomic_write(out, written(made, workload.model, out).encode())
    made.files.write(folder / SPLIT)
