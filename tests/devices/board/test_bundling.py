from __future__ import annotations

import subprocess
from pathlib import Path

from edgekit.devices.board import rootfs
from edgekit.devices.board.bundling import assemble


def _root(folder: Path) -> Path:
    """What of a root file system is looked at; its loader is a script that tells how it was called."""
    files = {
        "usr/bin/python3.11": "python",
        "usr/bin/vi": "not needed",
        "lib/aarch64-linux-gnu/libc.so.6": "libc",
        "usr/lib/aarch64-linux-gnu/libz.so.1.2.13": "libz",
        "usr/lib/python3.11/os.py": "",
        f"{rootfs.SITE}/onnxruntime/__init__.py": "",
        f"{rootfs.SITE}/onnxruntime/capi/libonnxruntime.so.1.31": "for C programs",
    }
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(content)
    (folder / "usr/lib/aarch64-linux-gnu/libz.so.1").symlink_to("libz.so.1.2.13")
    loader = folder / "lib/aarch64-linux-gnu/ld-linux-aarch64.so.1"
    loader.write_text('#!/bin/sh\necho "$PYTHONHOME|$PYTHONPATH|$LD_PRELOAD"\nprintf "%s\\n" "$@"\n')
    loader.chmod(0o755)
    return folder


def test_a_runner_holds_libraries_by_the_name_that_programs_ask_for(tmp_path: Path) -> None:
    runner = tmp_path / "runner"
    runner.mkdir()
    assemble(_root(tmp_path / "root"), runner)
    files = {str(path.relative_to(runner)) for path in runner.rglob("*") if path.is_file()}
    assert files == {
        "python3",
        "bin/python3.11",
        "lib/ld-linux-aarch64.so.1",
        "lib/libc.so.6",
        "lib/libz.so.1",
        "lib/python3.11/os.py",
        "site/onnxruntime/__init__.py",
    }
    assert (runner / "lib/libz.so.1").read_text() == "libz"
    assert not any(path.is_symlink() for path in runner.rglob("*"))


def test_a_runner_starts_python_from_wherever_it_stands(tmp_path: Path) -> None:
    runner = tmp_path / "it's a $(folder)"
    runner.mkdir()
    assemble(_root(tmp_path / "root"), runner)
    env = {"PATH": "/usr/bin:/bin", "PYTHONPATH": "/mine", "LD_PRELOAD": ""}
    argv = ["sh", str(runner / "python3"), "-c", "print('a  b')", ""]
    said = subprocess.run(argv, env=env, capture_output=True, text=True, check=True).stdout.split("\n")
    assert said == [
        f"{runner}|{runner}/site:/mine|",
        "--library-path",
        f"{runner}/lib",
        "--argv0",
        f"{runner}/python3",
        f"{runner}/bin/python3.11",
        "-c",
        "print('a  b')",
        "",
        "",
    ]
