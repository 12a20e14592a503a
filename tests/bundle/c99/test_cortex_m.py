"""The same bits on a microcontroller's CPU, emulated; apt: gcc-arm-none-eabi, qemu-system-arm."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("ai_edge_litert", reason="needs the extra litert")

from edgekit.bundle.c99 import generate
from tests.bundle.c99 import cortex_m
from tests.bundle.c99.running import Reference, samples
from tests.bundle.c99.strategies import DRAWS

pytestmark = [
    pytest.mark.device,
    pytest.mark.skipif(bool(cortex_m.MISSING), reason=f"needs {' and '.join(cortex_m.MISSING)}"),
]


def case(file: Path, prefix: str, count: int) -> tuple[Any, Any, Any]:
    made, reference = generate(file, prefix=prefix), Reference(file)
    given = samples(made.input.shape, made.input.dtype, count)
    return made, given, [reference(sample) for sample in given]


@pytest.mark.parametrize("optimisation", ["-O2", "-Os"])
def test_every_op_gives_the_same_bits(optimisation: str, tmp_path: Path) -> None:
    nets = {}
    for number, (kind, draw) in enumerate(sorted(DRAWS.items())):
        file = draw(np.random.default_rng(number), tmp_path / f"{kind}.tflite")
        nets[f"net{number}"] = case(file, f"net{number}", 6)
    assert cortex_m.run(tmp_path, nets, optimisation) == "same"


def test_a_wrong_answer_is_seen(tmp_path: Path) -> None:
    made, given, wanted = case(DRAWS["conv"](np.random.default_rng(0), tmp_path / "net.tflite"), "net", 4)
    wanted[-1].reshape(-1)[-1] ^= 1
    assert cortex_m.run(tmp_path, {"net": (made, given, wanted)}, "-O2") == "wrong"


def test_the_demo_gives_the_same_bits(tmp_path: Path) -> None:
    pytest.importorskip("litert_torch", reason="needs the extra litert")
    from tests.bundle.c99.test_networks import demo, noise, write

    file = write(tmp_path / "digits.tflite", demo(), noise(1, 32, 32))
    assert cortex_m.run(tmp_path, {"digits": case(file, "digits", 4)}, "-O2") == "same"
