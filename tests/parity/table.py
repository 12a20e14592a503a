"""Which faults are caught, and named: ``python -m tests.parity.table [shallow] [deep]``."""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from tests.parity.faults import FAULTS
from tests.parity.judging import planted
from tests.parity.networks import DEPTHS

FORMATS: tuple[str, ...] = ("onnx", "litert")


def table(depths: Sequence[str]) -> str:
    """In Markdown: of each fault, what the gate said in each format and depth, and how near the file was."""
    columns = [(format, depth) for format in FORMATS for depth in depths]
    lines = [
        f"| fault | {' | '.join(f'{format}, {depth}' for format, depth in columns)} |",
        f"| --- |{' --- |' * len(columns)}",
    ]
    with tempfile.TemporaryDirectory() as folder:
        for name in FAULTS:
            cells = [_cell(name, depth, format, Path(folder)) for format, depth in columns]
            lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _cell(name: str, depth: str, format: str, folder: Path) -> str:
    layer, found = planted(name, depth, format, folder)
    if not found.refused:
        return f"missed at {found.snr_db:.0f} dB"
    named = "named" if found.blamed == layer else f"blamed {found.blamed or 'nothing'}, not {layer}"
    return f"{named} at {found.snr_db:.0f} dB"


if __name__ == "__main__":
    print(table(sys.argv[1:] or list(DEPTHS)))
