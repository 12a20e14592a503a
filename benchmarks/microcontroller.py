"""Instructions of the generated C99 on an emulated Cortex-M7 and M4, by how it is compiled.

    apt install gcc-arm-none-eabi qemu-system-arm     # on Debian
    python benchmarks/microcontroller.py              # or some of its networks, by name

Networks with random weights (networks.py), calibrated on random pictures, as int8 LiteRT files and then as
`edgekit bundle --target arduino` writes them. Compiled with -O2, with -Os (what the Arduino IDE takes) and
with -Os to the letter (``NET_AS_ASKED``), one sample is run on QEMU's MPS2 boards, which count (``-icount
shift=0``: a nanosecond of the board's clock for each instruction; its timer has 25 MHz, 40 of them a tick).
Instructions are no cycles: a Cortex-M7 issues up to two at a time, and flash makes it wait.
The answer must be LiteRT's reference kernels', to the last bit, or the row is a failure.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import networks
import numpy as np
import torch
from numpy.typing import NDArray
from provenance import surroundings

from edgekit.bundle.c99 import generate
from edgekit.formats.exporting import export
from edgekit.graph.capture import capture
from edgekit.int8.calibration import calibrate
from edgekit.macs import count

OUT = Path(__file__).resolve().parent / "results" / "microcontroller.json"
NAMES = ("resnet8", "mobilenetv1-0.25", "mobilenetv2")
COMPILER, EMULATOR = "arm-none-eabi-gcc", "qemu-system-arm"
BOARDS = {"cortex-m7": "mps2-an500", "cortex-m4": "mps2-an386"}
COMPILED = {"-O2": ("-O2",), "-Os": ("-Os",), "-Os to the letter": ("-Os", "-DNET_AS_ASKED")}
TICK = 40  # instructions

LINKER = """
MEMORY { code (rx) : ORIGIN = 0, LENGTH = 4M  data (rwx) : ORIGIN = 0x20000000, LENGTH = 4M }
ENTRY(reset)
SECTIONS {
    .text : { KEEP(*(.vectors)) *(.text*) *(.rodata*) } > code
    .data : { *(.data*) *(.bss*) *(COMMON) } > data
    /DISCARD/ : { *(.ARM.exidx*) *(.comment) }
}
"""
PROGRAM = """
#include "net.h"
#include "sample.h"
#define TIMER(offset) (*(volatile uint32_t *)(0x40000000u + (offset)))

static void semihost(int operation, const void *argument)
{
    register int r0 __asm__("r0") = operation;
    register const void *r1 __asm__("r1") = argument;
    __asm__ volatile("bkpt 0xab" : "+r"(r0) : "r"(r1) : "memory");
}

void *memcpy(void *to, const void *from, unsigned count)
{
    for (unsigned i = 0; i < count; i++) ((volatile char *)to)[i] = ((const char *)from)[i];
    return to;
}

void *memset(void *to, int value, unsigned count)
{
    for (unsigned i = 0; i < count; i++) ((volatile char *)to)[i] = (char)value;
    return to;
}

static int8_t arena[NET_ARENA_BYTES];
static union { int8_t bytes[NET_OUTPUT_BYTES]; float align; } output;

static void say(uint32_t number)
{
    char text[10];
    for (int i = 0; i < 8; i++) text[i] = "0123456789abcdef"[number >> (28 - 4 * i) & 15];
    text[8] = '\\n', text[9] = 0;
    semihost(4, text);
}

void reset(void);
void fault(void);

void fault(void)
{
    semihost(0x18, (void *)0x20023);
    for (;;) { }
}

void reset(void)
{
    *(volatile uint32_t *)0xE000ED88u |= 0xFu << 20; /* CPACR: floating point on */
    TIMER(8) = TIMER(4) = 0xffffffffu; /* reload and value; it counts down */
    TIMER(0) = 1;
    const uint32_t before = TIMER(4);
    net_run((const void *)sample.bytes, (void *)output.bytes, arena);
    say(before - TIMER(4));
    uint32_t wrong = 0;
    for (int i = 0; i < NET_OUTPUT_BYTES; i++) wrong += output.bytes[i] != (int8_t)wanted[i];
    say(wrong);
    semihost(0x18, (void *)0x20026);
    for (;;) { }
}

__attribute__((section(".vectors"), used)) static void (*const vectors[16])(void) = {
    (void (*)(void))0x20400000, reset, fault, fault, fault, fault, fault,
};
"""


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"networks, instead of {', '.join(NAMES)}")
    parser.add_argument("--out", type=Path, default=OUT)
    options = parser.parse_args(arguments)
    if missing := [tool for tool in (COMPILER, EMULATOR) if shutil.which(tool) is None]:
        needed = "apt install gcc-arm-none-eabi qemu-system-arm"
        print(f"not found: {', '.join(missing)}; {needed}", file=sys.stderr)
        return 2
    torch.set_num_threads(1)
    rows: list[dict[str, Any]] = []
    for name in options.names or NAMES:
        with tempfile.TemporaryDirectory(prefix="edgekit-benchmark-") as place:
            rows += counted(name, Path(place))
        about = surroundings(("torch", "ai-edge-litert", "litert-torch"))
        about |= {"compiler": _first(COMPILER), "emulator": _first(EMULATOR), "rows": rows}
        options.out.write_text(json.dumps(about, indent=1) + "\n")
    return 0


def counted(name: str, folder: Path) -> list[dict[str, Any]]:
    """A row for each board."""
    network = networks.NETWORKS[name]
    model = networks.make(network)
    pictures = networks.images(32, network.size, torch.Generator().manual_seed(1))
    graph = calibrate(capture(model, pictures[:1]), [pictures])
    file = folder / "net.tflite"
    export(graph, pictures[:1], file, format="litert", precision="int8", metadata={})
    made = generate(file, prefix="net")
    (folder / "net.h").write_text(made.header)
    (folder / "net.c").write_text(made.source)
    _write_sample(folder, file, pictures[:1].numpy())
    macs = count(model, pictures[:1]).macs
    rows = []
    for cpu in BOARDS:
        runs = {how: _run(folder, cpu, flags) for how, flags in COMPILED.items()}
        row = {
            "network": name,
            "cpu": cpu,
            "macs": macs,
            "instructions": {how: one["instructions"] for how, one in runs.items()},
            "code_bytes": {how: one["code_bytes"] for how, one in runs.items()},
            "instructions_per_mac": round(runs["-Os"]["instructions"] / macs, 2),
            "os_over_o2": round(runs["-Os"]["instructions"] / runs["-O2"]["instructions"], 3),
            "constant_bytes": made.constant_bytes,
            "arena_bytes": made.arena_bytes,
        }
        rows.append(row)
        print(json.dumps(row), flush=True)
    return rows


def _write_sample(folder: Path, file: Path, sample: NDArray[np.float32]) -> None:
    """One input, and LiteRT's answer by its reference kernels, as C arrays."""
    from ai_edge_litert.interpreter import Interpreter, OpResolverType

    interpreter = Interpreter(str(file), experimental_op_resolver_type=OpResolverType.BUILTIN_REF)
    interpreter.allocate_tensors()
    (given,), (made,) = interpreter.get_input_details(), interpreter.get_output_details()
    values = sample if tuple(given["shape"]) == sample.shape else sample.transpose(0, 2, 3, 1)
    values = np.ascontiguousarray(values).astype(given["dtype"])
    interpreter.set_tensor(given["index"], values)
    interpreter.invoke()
    answer = interpreter.get_tensor(made["index"])
    bytes_of = [",".join(map(str, np.frombuffer(one.tobytes(), np.int8))) for one in (values, answer)]
    (folder / "sample.h").write_text(
        f"static const union {{ signed char bytes[{values.nbytes}]; float align; }} sample = "
        f"{{{{{bytes_of[0]}}}}};\nstatic const signed char wanted[{answer.nbytes}] = {{{bytes_of[1]}}};\n"
    )


def _run(folder: Path, cpu: str, flags: Sequence[str]) -> dict[str, int]:
    """Instructions of one answer. Raises RuntimeError for a wrong one."""
    (folder / "program.c").write_text(PROGRAM)
    (folder / "board.ld").write_text(LINKER)
    target = (f"-mcpu={cpu}", "-mthumb", "-ffreestanding")
    net, program, whole = (str(folder / name) for name in ("net.o", "program.o", "net.elf"))
    link = ("-nostdlib", "-T", str(folder / "board.ld"), program, net, "-lgcc")
    _call([COMPILER, *target, "-std=c99", *flags, "-c", str(folder / "net.c"), "-o", net])
    how = ("-std=gnu11", "-O1", "-fno-tree-loop-distribute-patterns")
    _call([COMPILER, *target, *how, "-c", str(folder / "program.c"), "-o", program])
    _call([COMPILER, *target, *link, "-o", whole])
    board = ("-M", BOARDS[cpu], "-display", "none", "-monitor", "none", "-serial", "none")
    counting = ("-icount", "shift=0", "-semihosting-config", "enable=on,target=native", "-kernel", whole)
    said = _call([EMULATOR, *board, *counting]).split()
    if len(said) != 2 or int(said[1], 16):
        raise RuntimeError(f"{cpu}, {' '.join(flags)}: not LiteRT's answer: {said}")
    return {"instructions": int(said[0], 16) * TICK, "code_bytes": _text_bytes(net)}


def _text_bytes(path: str) -> int:
    """Of code alone: constants are the same however it is compiled."""
    rows = _call(["arm-none-eabi-size", "-A", path]).splitlines()
    return sum(int(row.split()[1]) for row in rows if row.startswith(".text"))


def _call(command: Sequence[str]) -> str:
    done = subprocess.run(command, capture_output=True, text=True, timeout=600, check=False)
    if done.returncode:
        raise RuntimeError(f"{command[0]}: {(done.stdout + done.stderr)[-2000:]}")
    return done.stdout + done.stderr


def _first(tool: str) -> str:
    return _call([tool, "--version"]).splitlines()[0]


if __name__ == "__main__":
    sys.exit(main())
