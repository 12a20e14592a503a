"""Generated C on an emulated Cortex-M4: no operating system, no C library, answers over semihosting.

qemu's board mps2-an386 is ARM's AN386 image: code at 0, data at 0x20000000, 4 MB each. Semihosting
(ARM IHI 0100) writes a text and ends the emulator.
"""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgekit.bundle.c99 import CSource
from tests.bundle.c99.running import STRICT, written

COMPILER, EMULATOR = "arm-none-eabi-gcc", "qemu-system-arm"
MISSING = [tool for tool in (COMPILER, EMULATOR) if shutil.which(tool) is None]

LINKER_SCRIPT = """
MEMORY { code (rx) : ORIGIN = 0, LENGTH = 4M  data (rwx) : ORIGIN = 0x20000000, LENGTH = 4M }
ENTRY(reset)
SECTIONS {
    .text : { KEEP(*(.vectors)) *(.text*) *(.rodata*) } > code
    .data : { *(.data*) *(.bss*) *(COMMON) } > data
    /DISCARD/ : { *(.ARM.exidx*) *(.comment) }
}
"""
START = """
#include <stddef.h>
#include <stdint.h>
%(includes)s

static void semihost(int operation, const void *argument)
{
    register int r0 __asm__("r0") = operation;
    register const void *r1 __asm__("r1") = argument;
    __asm__ volatile("bkpt 0xab" : "+r"(r0) : "r"(r1) : "memory");
}

void *memcpy(void *to, const void *from, size_t count)
{
    for (size_t i = 0; i < count; i++) ((volatile char *)to)[i] = ((const char *)from)[i];
    return to;
}

void *memset(void *to, int value, size_t count)
{
    for (size_t i = 0; i < count; i++) ((volatile char *)to)[i] = (char)value;
    return to;
}

static int8_t arena[%(arena)d];
static union { int8_t bytes[%(output)d]; float align; } output;

%(tables)s

void reset(void);
void fault(void);

void fault(void)
{
    semihost(4, "fault\\n");
    semihost(0x18, (void *)0x20023);
    for (;;) { }
}

void reset(void)
{
    int wrong = 0;
%(calls)s
    semihost(4, wrong ? "wrong\\n" : "same\\n");
    semihost(0x18, (void *)0x20026);
    for (;;) { }
}

__attribute__((section(".vectors"), used)) static void (*const vectors[16])(void) = {
    (void (*)(void))0x20400000, reset, fault, fault, fault, fault, fault,
};
"""
CALL = """    for (int n = 0; n < %(count)d; n++) {
        const void *sample = %(prefix)s_in.bytes + n * %(upper)s_INPUT_BYTES;
        %(prefix)s_run(sample, (void *)output.bytes, arena);
        for (int i = 0; i < %(upper)s_OUTPUT_BYTES; i++) {
            wrong += output.bytes[i] != (int8_t)%(prefix)s_out[n * %(upper)s_OUTPUT_BYTES + i];
        }
    }
"""


def run(
    folder: Path, nets: Mapping[str, tuple[CSource, list[NDArray[Any]], list[NDArray[Any]]]], *options: str
) -> str:
    """What the board says: "same" if all answers are the wanted ones.

    nets: prefix → source, samples, wanted answers.
    """
    tables, calls, sources = [], [], []
    for prefix, (made, given, wanted) in nets.items():
        sources.append(str(written(folder, made, prefix)))
        table = "static const union {{ unsigned char bytes[{}]; float align; }} {}_in = {{{{{}}}}};"
        data = np.frombuffer(b"".join(sample.tobytes() for sample in given), np.uint8)
        tables.append(table.format(len(data), prefix, ",".join(map(str, data))))
        data = np.frombuffer(b"".join(answer.tobytes() for answer in wanted), np.uint8)
        tables.append(
            f"static const unsigned char {prefix}_out[{len(data)}] = {{{','.join(map(str, data))}}};"
        )
        calls.append(CALL % {"count": len(given), "prefix": prefix, "upper": prefix.upper()})
    text = START % {
        "includes": "\n".join(f'#include "{prefix}.h"' for prefix in nets),
        "arena": max(made.arena_bytes for made, _, _ in nets.values()),
        "output": max(made.output.nbytes for made, _, _ in nets.values()),
        "tables": "\n".join(tables),
        "calls": "".join(calls),
    }
    (folder / "start.c").write_text(text)
    (folder / "board.ld").write_text(LINKER_SCRIPT)
    board = ("-mcpu=cortex-m4", "-mthumb", "-ffreestanding", *options)
    objects = []
    for source in (*sources, str(folder / "start.c")):
        strict = STRICT if source in sources else ("-std=gnu11", "-fno-tree-loop-distribute-patterns")
        objects.append(f"{source}.o")
        _call([COMPILER, *board, *strict, "-c", source, "-o", objects[-1]], 120)
    _call(
        [
            COMPILER,
            *board,
            "-nostdlib",
            "-T",
            str(folder / "board.ld"),
            *objects,
            "-lgcc",
            "-o",
            str(folder / "net.elf"),
        ],
        120,
    )
    emulate = [EMULATOR, "-M", "mps2-an386", "-display", "none", "-monitor", "none", "-serial", "none"]
    semihosting = ["-semihosting-config", "enable=on,target=native", "-kernel", str(folder / "net.elf")]
    return _call([*emulate, *semihosting], 300).strip()


def _call(command: list[str], seconds: float) -> str:
    done = subprocess.run(command, capture_output=True, text=True, timeout=seconds, check=False)
    assert done.returncode == 0, (done.stdout + done.stderr)[:3000]
    return done.stdout + done.stderr
