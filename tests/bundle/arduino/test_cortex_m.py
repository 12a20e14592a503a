"""The bundle's plain C on a Cortex-M4 that qemu emulates, with the self-test that it brings along.

Needs a cross compiler with its C library, and qemu, on Debian: gcc-arm-none-eabi, libnewlib-arm-none-eabi,
qemu-system-arm.
"""

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from edgekit.formats.litert import tflm
from tests.bundle.arduino.compiling import STRICT, run

BOARD = Path(__file__).with_name("board")
CPU = ("-mcpu=cortex-m4", "-mthumb", "-mfloat-abi=hard", "-mfpu=fpv4-sp-d16")
QEMU = ("qemu-system-arm", "-M", "mps2-an386", "-cpu", "cortex-m4", "-nographic", "-monitor", "none")


def _missing():
    """Whatever isn't here: the specs are where the C library is."""
    for tool in ("arm-none-eabi-gcc", "qemu-system-arm"):
        if shutil.which(tool) is None:
            return tool
    found = subprocess.run(
        ["arm-none-eabi-gcc", "-print-file-name=rdimon.specs"], capture_output=True, text=True, check=True
    )
    return "" if Path(found.stdout.strip()).is_absolute() else "newlib for arm-none-eabi"


@pytest.fixture
def program(folder, tmp_path):
    """The self-test for the board, compiled as strictly as on a computer."""
    if missing := _missing():
        pytest.skip(f"no {missing}")
    if not tflm.available():
        pytest.skip("tflite-micro is not installed")
    sources = [path for path in (folder / "src").glob("*.c") if "model_data" not in path.name]
    includes = [f"-I{folder / name}" for name in ("src", "extras/host")]
    objects = []
    for source in (*sources, folder / "extras/host/check.c"):
        objects.append(tmp_path / f"{source.stem}.o")
        command = ["arm-none-eabi-gcc", *CPU, *STRICT, "--specs=rdimon.specs", *includes, "-c"]
        run([*command, "-o", objects[-1], source], tmp_path)
    crt = run(["arm-none-eabi-gcc", *CPU, "-print-file-name=rdimon-crt0.o"], tmp_path).strip()
    link = ["arm-none-eabi-gcc", *CPU, "-O2", "--specs=rdimon.specs", "-nostartfiles"]
    link += ["-T", BOARD / "board.ld", "-Wl,--gc-sections,--no-warn-rwx-segments"]
    run([*link, "-o", "program.elf", BOARD / "start.c", crt, *objects, "-lm"], tmp_path)
    return tmp_path / "program.elf"


@pytest.mark.slow
def test_the_self_test_passes_on_a_cortex_m4(program, tmp_path):
    said = run([*QEMU, "-serial", "none", "-semihosting", "-kernel", program], tmp_path)
    assert "OK: 4 of 4 samples" in said


@pytest.mark.slow
def test_the_model_has_no_writable_memory_of_its_own(program, tmp_path):
    """Its arena is the caller's; what else a board needs of RAM is the C library's."""
    sizes = run(["arm-none-eabi-size", "nasty_names_2_0_c99.o"], tmp_path).splitlines()[1].split()
    assert re.fullmatch(r"\d+", sizes[0])
    assert sizes[1:3] == ["0", "0"]
