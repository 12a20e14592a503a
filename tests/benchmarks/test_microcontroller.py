"""Generated C99 is as fast with -Os as with -O2: instructions on an emulated Cortex-M."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("litert_torch", reason="needs the extra litert")

MISSING = [tool for tool in ("arm-none-eabi-gcc", "qemu-system-arm") if shutil.which(tool) is None]

pytestmark = [
    pytest.mark.device,
    pytest.mark.skipif(bool(MISSING), reason=f"needs {' and '.join(MISSING)}"),
]


def test_the_arduino_default_costs_no_more_than_a_tenth(script: Callable[[str], Any], tmp_path: Path) -> None:
    for row in script("microcontroller").counted("resnet8", tmp_path):
        found = row["instructions"]
        assert found["-Os"] <= 1.1 * found["-O2"]
        assert found["-Os to the letter"] > 1.1 * found["-O2"]  # or there is nothing to look at
        assert row["instructions_per_mac"] < 6
