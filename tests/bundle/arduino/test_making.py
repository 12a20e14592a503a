"""A bundle of a real int8 file: what is in it, what it does, and when there is none."""

import re
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from edgekit.bundle.targets import load
from edgekit.bundle.targets.arduino import making, trying
from edgekit.bundle.targets.base import Settings
from edgekit.devices.device import Device
from edgekit.errors import ExportError, MissingExtraError
from edgekit.formats.litert import tflm
from tests.bundle.arduino import stub_resolver
from tests.bundle.arduino.compiling import ID, NAME, STUBS, run, write

pytestmark = pytest.mark.skipif(not tflm.available(), reason="tflite-micro is not installed")


def test_it_is_an_arduino_library(files):
    assert {
        "library.properties",
        f"src/{ID}.h",
        f"src/{ID}_c99.c",
        f"src/{ID}_ops.h",
        "examples/SelfTest/SelfTest.ino",
        "examples/SelfTestC99/SelfTestC99.ino",
        "extras/host/Makefile",
        f"extras/model/{ID}.tflite",
        "model.json",
        "README.md",
    } <= set(files)
    properties = dict(line.split("=", 1) for line in files["library.properties"].decode().splitlines())
    assert properties["name"] == NAME
    assert properties["includes"] == f"{ID}.h"
    assert properties["architectures"] == "*"


def test_the_same_contents_give_the_same_files(contents, files):
    assert load("arduino").files(contents, Settings()) == files


def test_the_golden_test_passes_in_c_and_in_tflm(folder, tmp_path):
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    tried = load("arduino").try_out(folder, tmp_path)
    assert tried.passed, tried.told
    assert "plain C: 6 golden samples" in tried.told
    assert "TFLM: 6 golden samples" in tried.told
    assert before == {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_changed_answer_fails(files, tmp_path):
    outputs = np.frombuffer(files["extras/golden/outputs.bin"], np.int8).copy()
    outputs[0] = np.clip(int(outputs[0]) + 20, -128, 127) if outputs[0] < 100 else -20
    folder = write(tmp_path / "bundle", {**files, "extras/golden/outputs.bin": outputs.tobytes()})
    (tmp_path / "scratch").mkdir()
    assert load("arduino").try_out(folder, tmp_path / "scratch").passed is False


def test_every_c_file_is_strict_c99(folder, tmp_path):
    build = shutil.copytree(folder, tmp_path / "strict")
    strict = "-std=c99 -O2 -Wall -Wextra -pedantic -Werror"
    assert "OK: 4 of 4" in run(["make", f"CFLAGS={strict}", "check", "predict"], build / "extras/host")
    model = build / "src" / f"{ID}_model_data.c"
    for standard in ("c99", "c11"):
        run(["cc", *strict.replace("c99", standard).split(), "-c", "-o", "model.o", model], build)


def test_the_model_is_in_the_program_as_it_was_and_aligned(folder, tmp_path, contents):
    main = tmp_path / "main.c"
    main.write_text(
        f'#include <stdint.h>\n#include <stdio.h>\n#include "{ID}_model_data.h"\n'
        f"int main(void)\n{{\n    fwrite({ID}_model, 1, {ID}_model_bytes, stdout);\n"
        f"    return (int)((uintptr_t){ID}_model % 16);\n}}\n"
    )
    source = folder / "src" / f"{ID}_model_data.c"
    run(["cc", "-std=c99", f"-I{folder / 'src'}", "-o", "program", main, source], tmp_path)
    done = subprocess.run([str(tmp_path / "program")], capture_output=True, check=True)
    assert done.stdout == contents.model.content


@pytest.mark.parametrize("sketch", ["SelfTest", "SelfTestC99"])
def test_the_sketches_are_cpp(folder, tmp_path, sketch):
    """Against stand-ins for Arduino's core and TFLM, whose names are those of the public headers."""
    (header := tmp_path / "tensorflow/lite/micro/micro_mutable_op_resolver.h").parent.mkdir(parents=True)
    header.write_bytes(stub_resolver.header())
    run(
        [
            *("g++", "-std=c++17", "-Wall", "-Wextra", "-Werror", "-fsyntax-only", "-include", "Arduino.h"),
            *(f"-I{path}" for path in (folder / "src", tmp_path, STUBS)),
            *("-x", "c++", folder / f"examples/{sketch}/{sketch}.ino"),
        ],
        tmp_path,
    )


def test_the_resolver_holds_the_ops_of_the_model_and_no_others(files):
    text = files[f"src/{ID}_ops.h"].decode()
    assert re.findall(r"resolver\.(\w+)\(\)", text) == [
        "AddConv2D",
        "AddDepthwiseConv2D",
        "AddFullyConnected",
        "AddMean",
        "AddPad",
    ]
    assert "MicroMutableOpResolver<5>" in text


def test_the_arena_is_what_was_found_and_a_margin_for_arms_kernels(files, looked):
    text = files[f"src/{ID}_config.h"].decode()
    assert looked.margin == 144
    assert f"_ARENA_BYTES {looked.arena + 144}\n" in text
    assert f"{looked.arena} are what its reference kernels need" in text


def test_the_readme_is_one_page_and_says_what_was_not_done(files):
    text = files["README.md"].decode()
    assert len(text.splitlines()) < 85
    assert "No board was involved" in text
    assert "make -C extras/host check" in text
    assert "8 bytes, a microcontroller of 4" in text
    assert max(map(len, text.splitlines())) < 140


def test_a_device_bounds_memory_and_golden_samples(contents, known):
    device = Device(name="small", transport="none", arch="cortex-m", memory_bytes=20_000, flash_bytes=30_000)
    files = load("arduino").files(contents, Settings(device))
    assert f"define {ID.upper()}_GOLDEN_SAMPLES 1\n" in files[f"src/{ID}_golden.h"].decode()
    assert "`small`: it fits" in files["README.md"].decode()


def test_what_does_not_fit_is_not_made(contents, known):
    device = Device(name="smaller", transport="none", arch="cortex-m", memory_bytes=2_000, flash_bytes=30_000)
    with pytest.raises(ExportError, match="doesn't fit this device") as error:
        load("arduino").files(contents, Settings(device))
    assert re.search(r"TFLM: [\d,]+ bytes of RAM are [\d,]+ too many", error.value.got)


def test_without_plain_c_the_reason_is_told(contents, looked, tmp_path, monkeypatch):
    without = replace(looked, c=None, why_no_c="an op */ of no kernel")
    monkeypatch.setattr(making, "_look", lambda contents: without)
    files = load("arduino").files(contents, Settings())
    assert not any("c99" in path.lower() or path.endswith("predict.c") for path in files)
    assert "an op __ of no kernel" in files["README.md"].decode()
    folder = write(tmp_path / "bundle", files)
    (tmp_path / "scratch").mkdir()
    tried = load("arduino").try_out(folder, tmp_path / "scratch")
    assert tried.passed
    assert "plain C has preprocessing only (OK: 4 of 4" in tried.told


def test_without_tools_nothing_is_claimed(folder, tmp_path, monkeypatch):
    monkeypatch.setattr(tflm, "available", lambda: False)
    monkeypatch.setattr(trying.shutil, "which", lambda name: None)
    tried = load("arduino").try_out(folder, tmp_path)
    assert tried.passed is None
    assert (
        tried.told == "plain C was not tried: no C compiler; TFLM was not tried: tflite-micro isn't installed"
    )


def test_without_the_wheel_there_is_no_bundle(contents, monkeypatch):
    monkeypatch.setattr(tflm, "available", lambda: False)
    with pytest.raises(MissingExtraError, match="tflite-micro is not installed"):
        load("arduino").files(contents, Settings())


def test_templates_belong_to_the_package():
    assert (Path(making.__file__).parent / "templates" / "README.md.j2").exists()
