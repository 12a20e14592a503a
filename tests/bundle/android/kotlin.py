"""A Kotlin compiler, if there is one: JetBrains' npm package has that for the JVM, too.

``npm install --global kotlin-compiler@2.2.21`` is all that it takes, beside Java. That version is the one
which the generated Gradle files name.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Sequence
from functools import cache
from pathlib import Path

STUBS = Path(__file__).parent / "stubs"

# What the compiler itself runs on, and what compiled code does.
_COMPILER = (
    "kotlin-compiler.jar",
    "kotlin-stdlib.jar",
    "kotlin-script-runtime.jar",
    "kotlin-reflect.jar",
    "kotlinx-coroutines-core-jvm.jar",
    "annotations-13.0.jar",
)
_RUNTIME = ("kotlin-stdlib.jar", "kotlinx-coroutines-core-jvm.jar")
_QUICK = ("-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC", "-Xmx1g")  # a start that lasts seconds


@cache
def libraries() -> Path | None:
    """The folder with the compiler's jars, or None: no compiler, or no Java."""
    if shutil.which("java") is None:
        return None
    for command in ("kotlinc", "kotlinc-js"):  # npm puts only the second one on the path
        if found := shutil.which(command):
            folder = Path(found).resolve().parent.parent / "lib"
            if all((folder / jar).is_file() for jar in _COMPILER):
                return folder
    return None


class Program:
    """``Run.kt`` in one process for many questions."""

    def __init__(self, classes: Path) -> None:
        command = ["java", *_QUICK, "-cp", _path([classes, *_jars(_RUNTIME)]), "RunKt"]
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, encoding="utf-8"
        )

    def ask(self, *words: object) -> str:
        """Its one line about a line of words."""
        process = self._process
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write("\t".join(map(str, words)) + "\n")
        process.stdin.flush()
        answer = process.stdout.readline()
        assert answer, "the process has ended"
        return answer.removesuffix("\n")

    def __enter__(self) -> Program:
        return self

    def __exit__(self, *_: object) -> None:
        with self._process as process:  # closes its ends of the pipes, upon which it exits
            process.stdin.close() if process.stdin is not None else None


def build(sources: Sequence[Path], classes: Path) -> None:
    """Sources together with the stubs of Android, into a folder of classes; a warning is an error."""
    main = "org.jetbrains.kotlin.cli.jvm.K2JVMCompiler"
    options = ["-Werror", "-no-stdlib", "-no-reflect", "-cp", _path(_jars(_RUNTIME)), "-d", str(classes)]
    files = [*map(str, sources), *map(str, sorted(STUBS.glob("*.kt")))]
    command = ["java", *_QUICK, "-cp", _path(_jars(_COMPILER)), main, *options, *files]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr


def _jars(names: Sequence[str]) -> list[Path]:
    folder = libraries()
    assert folder is not None
    return [folder / name for name in names]


def _path(entries: Sequence[Path]) -> str:
    return os.pathsep.join(map(str, entries))
