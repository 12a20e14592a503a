"""Python with the runtimes in one archive, for phones and boards that have none.

It brings its own C library and loader, so that nothing of the device is needed but a shell and a Linux kernel
for aarch64: Android's C library is another one, for which there are no wheels. The archive holds one folder
``runner``; ``runner/python3`` starts it from wherever it was unpacked.
"""

from __future__ import annotations

import shutil
import tarfile
from pathlib import Path

from edgekit.devices.board import host, rootfs, wheels
from edgekit.devices.board.cache import built, cache_folder, say
from edgekit.devices.board.packages import Apt, unpack
from edgekit.files import atomic_write, sha256_of
from edgekit.progress import Progress, silent

NAME = "runner"
PACKAGES = ("python3", "libgomp1", "libstdc++6", "libgcc-s1", "libc6")
_LOADER = "ld-linux-aarch64.so.1"
_LIBRARIES = ("lib/aarch64-linux-gnu", "usr/lib/aarch64-linux-gnu")
# ONNX Runtime for C programs, which its Python package doesn't load; GPU drivers, which are linked with
# Android's C library and can't be loaded here; the packages' own tests.
_LEFT_OUT = ("libonnxruntime.so.*", "libLiteRtWebGpuAccelerator.so", "tests")
_STDLIB = Path("usr/lib/python3.11")
# No "#!" line: a shell starts a script without one itself, and where a shell is, Android's releases disagree.
_LAUNCHER = f"""\
here=$(cd "${{0%/*}}" && pwd)
unset LD_PRELOAD LD_LIBRARY_PATH
export PYTHONHOME="$here" PYTHONPATH="$here/site${{PYTHONPATH:+:$PYTHONPATH}}"
exec "$here/lib/{_LOADER}" --library-path "$here/lib" --argv0 "$0" "$here/bin/python3.11" "$@"
"""


def bundle(target: Path, progress: Progress = silent) -> None:
    """Write the archive (tar, gzip) to ``target``; built once, and kept in the cache.

    Raises what ``ensure_built`` raises; DiskFullError: ``target`` can't be written.
    """
    host.architecture()
    code = [
        Path(str(one)).read_text(encoding="utf-8") for one in (__file__, wheels.__file__, rootfs.__file__)
    ]
    recipe = sha256_of([PACKAGES, wheels.requirements(), code])[:16]
    folder = cache_folder() / f"{NAME}-{recipe}"
    built(folder, lambda partial: _build(partial, progress), progress)

    def copy(temporary: Path) -> None:
        shutil.copyfile(folder / f"{NAME}.tar.gz", temporary)

    atomic_write(target, copy)


def _build(partial: Path, progress: Progress) -> None:
    root, runner = partial / "root", partial / NAME
    for one in (root, runner):
        one.mkdir()
    say(progress, "fetching Python for aarch64", 1, 3)
    apt = Apt(cache_folder() / "apt", rootfs.ARCHITECTURE)
    apt.update()
    for package in apt.fetch(PACKAGES):
        if package.name.partition("_")[0] not in rootfs.UNUSED:
            unpack(package, root)
    say(progress, "fetching and unpacking wheels for aarch64", 2, 3)
    wheels.install(wheels.requirements(), root / rootfs.SITE, cache_folder() / "wheels")
    rootfs.compile_python(root)
    assemble(root, runner)
    say(progress, "packing", 3, 3)
    with tarfile.open(partial / f"{NAME}.tar.gz", "w:gz", compresslevel=6) as archive:
        archive.add(runner, NAME, filter=_nobodys)
    for leftover in (root, runner):
        shutil.rmtree(leftover)


def assemble(root: Path, runner: Path) -> None:
    """Take out of a root file system what Python needs to run without the rest."""
    (runner / "bin").mkdir()
    shutil.copy(root / "usr/bin/python3.11", runner / "bin")
    (runner / "lib").mkdir()
    for folder in _LIBRARIES:
        # Flat, and links as files: one folder is all that the loader is told, and programs ask by the link's
        # name. So a file that a link leads to isn't needed under its own.
        found = [path for path in sorted((root / folder).glob("*.so*")) if path.is_file()]
        full_names = {path.readlink().name for path in found if path.is_symlink()}
        for path in found:
            if path.name not in full_names:
                shutil.copy(path, runner / "lib")
    shutil.copytree(root / _STDLIB, runner / "lib/python3.11", ignore_dangling_symlinks=True)
    shutil.copytree(root / rootfs.SITE, runner / "site", ignore=shutil.ignore_patterns(*_LEFT_OUT))
    launcher = runner / "python3"
    launcher.write_text(_LAUNCHER)
    launcher.chmod(0o755)


def _nobodys(entry: tarfile.TarInfo) -> tarfile.TarInfo:
    entry.uid = entry.gid = entry.mtime = 0
    entry.uname = entry.gname = ""
    return entry
