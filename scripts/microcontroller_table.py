"""Markdown of benchmarks/results/microcontroller.json: instructions of the generated C99."""

from __future__ import annotations

from typing import Any

_SHOWN = "cortex-m7"


def table(found: dict[str, Any]) -> str:
    """One row for each network."""
    lines = [
        "",
        "| network | MACs | -O2 | -Os | for each MAC, -Os | code, -Os |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for row in found["rows"]:
        if row["cpu"] != _SHOWN:
            continue
        fast, small = (row["instructions"][how] / 1e6 for how in ("-O2", "-Os"))
        lines.append(
            f"| {row['network']} | {row['macs'] / 1e6:.1f} M | {fast:,.1f} M | {small:,.1f} M | "
            f"{row['instructions_per_mac']} | {row['code_bytes']['-Os']:,} bytes |"
        )
    return "\n".join([*lines, "", ""])
