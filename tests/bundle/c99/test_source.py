"""The text itself: clean for a strict compiler, writes only what the caller lends, and no name escapes."""

from __future__ import annotations

import re
import shutil
import subprocess
import threading
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip("ai_edge_litert", reason="needs the extra litert")

from edgekit.bundle.c99 import generate
from edgekit.bundle.c99.text import floating, plain
from edgekit.errors import ExportError
from tests.bundle.c99.files import File
from tests.bundle.c99.running import STRICT, Library, Reference, compile_, needs_gcc, samples, written
from tests.bundle.c99.strategies import DRAWS, network

SANITIZE = ("-fsanitize=undefined,address", "-fno-sanitize-recover=all", "-g", "-O1")
CALLS = """
#include <stdio.h>
#include <stdlib.h>
%(includes)s
int main(void)
{
%(body)s
    return 0;
}
"""
ONE = """    {
        FILE *in = fopen("%(folder)s/in%(n)d", "rb"), *out = fopen("%(folder)s/out%(n)d", "wb");
        void *x = malloc(NET%(n)d_INPUT_BYTES), *y = malloc(NET%(n)d_OUTPUT_BYTES);
        void *memory = malloc(NET%(n)d_ARENA_BYTES);
        while (fread(x, NET%(n)d_INPUT_BYTES, 1, in) == 1) {
            net%(n)d_run(x, y, memory);
            if (fwrite(y, NET%(n)d_OUTPUT_BYTES, 1, out) != 1) return 1;
        }
        fclose(in); fclose(out); free(x); free(y); free(memory);
    }
"""


@needs_gcc
def test_no_undefined_behaviour_and_no_byte_outside(tmp_path: Path) -> None:
    """Every kind of op under both sanitizers; input, output and arena are blocks of exactly their size."""
    files, sources, body = [], [], []
    for number, (kind, draw) in enumerate(sorted(DRAWS.items())):
        files.append(draw(np.random.default_rng(number), tmp_path / f"{kind}.tflite"))
        made = generate(files[-1], prefix=f"net{number}")
        sources.append(written(tmp_path, made, f"net{number}"))
        given = samples(made.input.shape, made.input.dtype, count=6)
        (tmp_path / f"in{number}").write_bytes(b"".join(sample.tobytes() for sample in given))
        body.append(ONE % {"folder": tmp_path, "n": number})
    includes = "\n".join(f'#include "net{number}.h"' for number in range(len(files)))
    (tmp_path / "main.c").write_text(CALLS % {"includes": includes, "body": "".join(body)})
    program = compile_(tmp_path, [tmp_path / "main.c", *sources], *SANITIZE, output="main")
    done = subprocess.run([program], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr[:3000]
    for number, file in enumerate(files):
        made, reference = generate(file, prefix="net"), Reference(file)
        given = samples(made.input.shape, made.input.dtype, count=6)
        wanted = b"".join(reference(sample).tobytes() for sample in given)
        assert (tmp_path / f"out{number}").read_bytes() == wanted, file.name


@needs_gcc
@pytest.mark.parametrize("options", [("-O2",), ("-Os", "-ffreestanding"), ("-O0",)])
def test_the_object_needs_nothing_and_writes_nothing_of_its_own(
    options: tuple[str, ...], tmp_path: Path
) -> None:
    made = generate(network(np.random.default_rng(5), tmp_path / "net.tflite"), prefix="net")
    source = written(tmp_path, made, "net")
    compiled = compile_(tmp_path, [source], *options, "-c", output="net.o")
    symbols = subprocess.run(["nm", compiled], capture_output=True, text=True, check=True).stdout.split("\n")
    kinds = {tuple(line.split()[-2:]) for line in symbols if line.strip()}
    undefined = {name for kind, name in kinds if kind == "U"}
    assert undefined <= {"memcpy", "memset", "memmove", "_GLOBAL_OFFSET_TABLE_"}
    assert {name for kind, name in kinds if kind == "T"} == {"net_run"}
    assert not {name for kind, name in kinds if kind in "DdBbCcSs"}
    included = set(re.findall(r"#include (\S+)", made.source + made.header))
    # arm_acle.h is the compiler's own, and there on ARM alone.
    assert included == {'"net.h"', "<stddef.h>", "<stdint.h>", "<arm_acle.h>"}
    assert not re.search(r"\b(float|double|malloc|printf)\b", made.source)


@needs_gcc
def test_constants_are_counted(tmp_path: Path) -> None:
    """Without optimisation all tables are there, and nothing else is read-only."""
    made = generate(network(np.random.default_rng(5), tmp_path / "net.tflite"), prefix="net")
    compiled = compile_(tmp_path, [written(tmp_path, made, "net")], "-O0", "-c", output="net.o")
    sized = subprocess.run(["nm", "-S", compiled], capture_output=True, text=True, check=True).stdout
    rows = [line.split() for line in sized.split("\n")]
    assert sum(int(row[1], 16) for row in rows if len(row) == 4 and row[2] in "rR") == made.constant_bytes


@needs_gcc
def test_the_header_is_cplusplus_too(tmp_path: Path) -> None:
    if shutil.which("g++") is None:
        pytest.skip("needs g++")
    made = generate(network(np.random.default_rng(5), tmp_path / "net.tflite"), prefix="net")
    written(tmp_path, made, "net")
    (tmp_path / "use.cpp").write_text(
        '#include "net.h"\nstatic const int shape[NET_INPUT_RANK] = NET_INPUT_SHAPE;\n'
        "int size() { return shape[1] + NET_OUTPUT_ZERO_POINT + static_cast<int>(NET_INPUT_SCALE); }\n"
    )
    command = [
        "g++",
        "-std=c++11",
        "-pedantic",
        "-Wall",
        "-Wextra",
        "-Werror",
        "-c",
        "use.cpp",
        "-o",
        "use.o",
    ]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@needs_gcc
def test_calls_at_the_same_time(tmp_path: Path) -> None:
    file = network(np.random.default_rng(5), tmp_path / "net.tflite")
    library, reference = Library(tmp_path, [file]), Reference(file)
    given = samples((1, 8, 8, 4), "int8", count=8)
    wanted, got = [reference(sample) for sample in given], {}

    def work(index: int) -> None:
        for _ in range(50):
            got[index] = library(given[index])

    threads = [threading.Thread(target=work, args=(index,)) for index in range(len(given))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for index, answer in enumerate(wanted):
        np.testing.assert_array_equal(got[index], answer)


def test_the_same_file_gives_the_same_text(tmp_path: Path) -> None:
    file = network(np.random.default_rng(5), tmp_path / "net.tflite")
    assert generate(file, prefix="net") == generate(file, prefix="net")


# --- names -----------------------------------------------------------------------------------------------

EVIL = (
    "*/ int x; /*",
    "a\\\nb",
    "??/",
    "??'",
    '"',
    "'",
    "\r\n",
    "\x00",
    "#error",
    "//",
    "é",
    "*/\n#include <x>",
    "%s",
)
names = st.lists(st.one_of(st.sampled_from(EVIL), st.text(max_size=8)), max_size=6).map("".join)


@given(names)
def test_names_stay_inside_their_comment(name: str) -> None:
    safe = plain(name)
    assert re.fullmatch(r"[A-Za-z0-9_.:;,+=()-]{0,60}", safe)


@needs_gcc
@settings(max_examples=6)
@given(inside=names, ends=names)
def test_names_change_nothing_but_comments(
    inside: str, ends: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("names")
    texts = []
    for name, end in (("a", "b"), (inside, ends)):
        file, grid = File(), (0.05, 3)
        x, a, y = (file.tensor((1, 8), grid, name=one) for one in (end, name, end + name))
        file.op("RELU", [x], [a])
        file.op("TANH", [a], [y])
        made = generate(file.write(folder / "net.tflite", [x], [y]), prefix="net")
        assert max(map(len, made.source.split("\n"))) <= 200
        stripped = re.sub(r"/\*.*?\*/", "", made.source, flags=re.DOTALL)
        texts.append(stripped)
        command = ["-fsyntax-only", "-trigraphs", "-Wcomment", "-x", "c", "-"]
        (folder / "net.h").write_text(made.header)
        done = subprocess.run(
            ["gcc", *STRICT, f"-I{folder}", *command],
            input=made.source,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
    assert texts[0] == texts[1]


@pytest.mark.parametrize(
    "prefix", ["", "1net", "net-2", "int", "a b", "_net", "net__x", "n" * 49, "é", "net\n"]
)
def test_prefixes_that_are_no_names(prefix: str, tmp_path: Path) -> None:
    with pytest.raises(ExportError, match="no prefix for C names"):
        generate(tmp_path / "absent.tflite", prefix=prefix)


@given(st.floats(width=32, allow_nan=False, allow_infinity=False))
def test_floats_read_back_to_the_same_bits(value: float) -> None:
    text = floating(value)
    assert text.endswith("f")
    assert np.float32(text[:-1]).tobytes() == np.float32(value).tobytes()


# --- refusals --------------------------------------------------------------------------------------------


def test_all_ops_that_have_no_kernel_are_named_at_once(tmp_path: Path) -> None:
    file, grid = File(), (0.05, 3)
    tensors = [file.tensor((1, 8), grid, name=name) for name in ("input", "first", "second", "output")]
    for kind, source, made in zip(("RSQRT", "RELU", "EXP"), tensors[:-1], tensors[1:], strict=True):
        file.op(kind, [source], [made])
    path = file.write(tmp_path / "net.tflite", tensors[:1], tensors[-1:])
    with pytest.raises(ExportError, match="2 of 3 ops") as caught:
        generate(path, prefix="net")
    assert "RSQRT (op 0, 'first')" in caught.value.got
    assert "EXP (op 2, 'output')" in caught.value.got
    assert "CONV_2D" in caught.value.expected


def test_sums_beyond_32_bits_are_refused(tmp_path: Path) -> None:
    file = File()
    x, y = file.tensor((1, 80_000), (0.05, 127)), file.tensor((1, 1), (10.0, 0))
    file.op("FULLY_CONNECTED", [x, file.constant(np.full((1, 80_000), 127, np.int8), (0.01, 0))], [y])
    with pytest.raises(ExportError, match="may not fit into 32 bits"):
        generate(file.write(tmp_path / "net.tflite", [x], [y]), prefix="net")


def test_ends_that_are_not_one_sample(tmp_path: Path) -> None:
    for shape, dynamic, wanted in (((2, 8), False, r"shape \[2, 8\]"), ((1, 8), True, "left open")):
        file = File()
        x, y = (file.tensor(shape, (0.05, 3)) for _ in range(2))
        if dynamic:
            file.graph.tensors[x].shapeSignature = [-1, 8]
        file.op("RELU", [x], [y])
        with pytest.raises(ExportError, match=f"one sample at a time(.|\n)*{wanted}"):
            generate(file.write(tmp_path / "net.tflite", [x], [y]), prefix="net")
    with pytest.raises(ExportError, match="2 outputs"):
        generate(file.write(tmp_path / "net.tflite", [x], [y, x]), prefix="net")


def test_floats_inside_are_refused(tmp_path: Path) -> None:
    file = File()
    x, a, y = (
        file.tensor((1, 8), (0.05, 3)),
        file.tensor((1, 8), None, "float32"),
        file.tensor((1, 8), (0.05, 3)),
    )
    file.op("DEQUANTIZE", [x], [a])
    file.op("QUANTIZE", [a], [y])
    with pytest.raises(ExportError, match="floats may stand at the two ends only"):
        generate(file.write(tmp_path / "net.tflite", [x], [y]), prefix="net")


@settings(max_examples=100)
@given(seed=st.integers(0, 2**32 - 1))
def test_damaged_files_are_refused_or_still_a_model(
    seed: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    random = np.random.default_rng(seed)
    folder = tmp_path_factory.mktemp("damaged")
    path = network(np.random.default_rng(seed % 5), folder / "net.tflite")
    content = bytearray(path.read_bytes())
    for place in random.integers(8, len(content), random.integers(1, 6)):
        content[place] = random.choice([0, 1, 255, random.integers(256)])
    path.write_bytes(content)
    try:
        assert "net_run" in generate(path, prefix="net").source
    except ExportError as error:
        assert "net.tflite" in error.where


@given(content=st.binary(max_size=200), marked=st.booleans())
def test_rubbish_is_no_model(content: bytes, marked: bool, tmp_path_factory: pytest.TempPathFactory) -> None:
    path = tmp_path_factory.mktemp("rubbish") / "net.tflite"
    path.write_bytes(content[:4] + b"TFL3" + content[4:] if marked else content)
    with pytest.raises(ExportError):
        generate(path, prefix="net")
