"""Files that are either whole or not there: temporary name, fsync, rename; their hashes; and what is read.

Everything that somebody else may have made is opened here: a pipe, a device or a socket where a file should
be is refused at once, and a text has a largest size.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import math
import os
import secrets
import shutil
import stat
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, BinaryIO

from edgekit.caching import cache_folder
from edgekit.errors import DiskFullError, InputError

_TEMPORARY = ".*.????????.tmp"  # what a kill may leave behind; see _temporary
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_ENOUGH = 1 << 20  # bytes: a disk with less is taken for a full one
_REFUSED = (errno.EROFS, errno.EACCES, errno.EPERM)


def atomic_write(path: Path, content: bytes | Callable[[Path], None]) -> None:
    """Write ``path`` so that a kill at any moment leaves the old file or the new one, never a part.

    ``content`` is the bytes, or a function that writes them to the temporary path it is given.

    Raises:
        DiskFullError: no space left, or the folder can't be written; what was there before is untouched.
        InputError: a folder that isn't empty is there.
    """
    temporary = _temporary(path)
    try:
        # Created here, for the user's umask to hold, and so that two writers never share a name.
        os.close(os.open(temporary, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666))
        if callable(content):
            content(temporary)
        else:
            temporary.write_bytes(content)
        with temporary.open("rb+") as stream:
            os.fsync(stream.fileno())
        if path.is_dir() and not path.is_symlink():
            _give_way(path)
        temporary.replace(path)
        _sync_folder(path.parent)
    except Exception as error:
        full = disk_full(error, path, refused=True)
        if full is None:
            raise
        raise full from error
    finally:
        temporary.unlink(missing_ok=True)


def atomic_create(path: Path, content: bytes) -> None:
    """Write a file that isn't there yet, whole or not at all.

    Raises:
        FileExistsError: it is there, and is left as it is.
        FileNotFoundError: its folder isn't there.
        DiskFullError: no space left, or the folder can't be written.
    """
    if os.path.lexists(path):
        raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(path))
    temporary = _temporary(path)
    try:
        temporary.write_bytes(content)
        with temporary.open("rb") as stream:
            os.fsync(stream.fileno())
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise disk_full(error, path, refused=True) or error from error
    try:
        os.link(temporary, path)  # unlike a rename it never takes the place of a file
    except FileExistsError:
        raise
    except OSError:  # a file system without links: whoever is as quick as this loses
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def refuse_unwritable(path: Path) -> None:
    """Find out before the work whether its result can be written. Makes the folder of ``path``.

    Raises InputError: it is a folder, or no name for a file; DiskFullError: nothing can be written there.
    """
    try:
        if path.is_dir():
            raise InputError("a file is needed here", where=str(path), got="a folder")
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = _temporary(path)
        try:
            temporary.write_bytes(b"x")
        finally:
            temporary.unlink(missing_ok=True)
    except (OSError, ValueError) as error:
        full = disk_full(error, path, refused=True)
        got = error.strerror if isinstance(error, OSError) else str(error)
        raise full or InputError("this file can't be written", where=str(path), got=got or "") from error


class NotAFile(OSError):
    """Something else than a regular file, or more of it than there may be; ``strerror`` says what."""


def opened(path: Path) -> BinaryIO:
    """A regular file, open for reading. Unlike ``open`` it never waits for whoever writes into a pipe.

    Raises OSError: it can't be read, or is no file (NotAFile).
    """
    # Without O_NONBLOCK opening a pipe waits for its other end; regular files don't know it.
    with _names(path):
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        _require_regular(os.fstat(descriptor), path)
        return os.fdopen(descriptor, "rb")
    except BaseException:
        os.close(descriptor)
        raise


def require_file(path: Path) -> None:
    """Raise OSError unless this is a regular file: for those that libraries open themselves."""
    with _names(path):
        found = path.stat()
    _require_regular(found, path)


@contextlib.contextmanager
def _names(path: Path) -> Iterator[None]:
    """Raise NotAFile, which is an OSError, for what can't be the name of any file: NUL, half a surrogate."""
    try:
        yield
    except ValueError as error:
        raise NotAFile(errno.EINVAL, f"no name of a file: {error}", repr(str(path))) from None


def read_bytes(path: Path, most: int = 256 << 20) -> bytes:
    """The content of a file of at most so many bytes. Raises OSError: see ``opened``; NotAFile: larger."""
    with opened(path) as stream:
        size = os.fstat(stream.fileno()).st_size
        if size > most:
            raise NotAFile(errno.EFBIG, f"{size} bytes, more than the {most} that it may have", str(path))
        return stream.read()


def read_text(path: Path, most: int = 64 << 20) -> str:
    """The same as UTF-8. Raises OSError: see ``read_bytes``; UnicodeDecodeError (a ValueError)."""
    return read_bytes(path, most).decode("utf-8")


def inside(folder: Path, name: str) -> Path:
    """A file of a folder, by the name that a record has for it. Raises ValueError if that leads out of it."""
    path = folder / name
    if not name or Path(name).is_absolute() or ".." in Path(name).parts:
        raise ValueError(f"{name!r} leads out of the folder")
    # Unlike Path.resolve, which raises RuntimeError for it, this leaves a link to itself to whoever opens it.
    if not Path(os.path.realpath(path)).is_relative_to(os.path.realpath(folder)):
        raise ValueError(f"{name!r} leads out of the folder, through a link")
    return path


def _require_regular(found: os.stat_result, path: Path) -> None:
    if not stat.S_ISREG(found.st_mode):
        raise NotAFile(errno.EINVAL, f"{kind_of(found.st_mode)}, not a file", str(path))


def what_is(path: Path) -> str:
    """What lies at a path, for messages: "a pipe", "nothing there"."""
    try:
        with _names(path):
            return kind_of(path.stat().st_mode)
    except OSError as error:
        missing = isinstance(error, FileNotFoundError | NotADirectoryError)
        return "nothing there" if missing else str(error.strerror)


def kind_of(mode: int) -> str:
    """What a mode is that of, with its article: "a pipe"."""
    kinds = {
        stat.S_IFREG: "a file",
        stat.S_IFDIR: "a folder",
        stat.S_IFLNK: "a link",
        stat.S_IFIFO: "a pipe",
        stat.S_IFSOCK: "a socket",
    }
    return kinds.get(stat.S_IFMT(mode), "a device")


def write_json(path: Path, value: Any, *, indent: int | None = 2) -> None:
    """A JSON value, written atomically; by default for a person to read. Raises DiskFullError."""
    text = json.dumps(value, indent=indent, ensure_ascii=False) + "\n"
    atomic_write(path, text.encode("utf-8", "backslashreplace"))  # halves of surrogates, as JSON spells them


def parse_json(content: bytes | str, *, finite: bool = False) -> Any:
    """A JSON value. Raises ValueError for whatever is none, nesting that no reader takes included.

    ``finite``: NaN and infinity, which Python reads and JSON doesn't have, are refused as well.
    """
    try:
        return (
            json.loads(content, parse_constant=_refused, parse_float=_finite)
            if finite
            else json.loads(content)
        )
    except RecursionError:
        raise ValueError("nested too deeply") from None


def read_json(path: Path, *, finite: bool = False) -> Any:
    """A file's JSON value. Raises OSError: see ``read_bytes``; ValueError: see ``parse_json``."""
    return parse_json(read_bytes(path), finite=finite)


def _refused(name: str) -> float:
    raise ValueError(f"{name} is no number")


def _finite(text: str) -> float:
    value = float(text)
    return value if math.isfinite(value) else _refused(text)


def remove_leftovers(folder: Path) -> None:
    """Remove the temporary files that a killed ``atomic_write`` left in a folder or below it."""
    for path in folder.rglob(_TEMPORARY):
        path.unlink(missing_ok=True)


def disk_full(error: BaseException, where: Path | str = "", *, refused: bool = False) -> DiskFullError | None:
    """What to raise instead of ``error`` if it comes from a full disk; else None.

    The place that it names is the one that is full: ``where`` was being written, but files that are needed
    meanwhile lie elsewhere.

    ``refused``: a missing permission counts as well, for errors that are known to come from writing. Writers
    in C++ and Rust (torch, safetensors, onnx) raise errors of their own, which hold the text alone.
    """
    numbers = _FULL + (_REFUSED if refused else ())
    link: BaseException | None = error
    while link is not None:
        if isinstance(link, DiskFullError):
            return link
        if isinstance(link, InputError):
            return None
        number = link.errno if isinstance(link, OSError) else None
        if number in numbers or "No space left on device" in str(link):
            place = _place(link, str(where), full=number not in _REFUSED)
            return DiskFullError(
                "can't write", where=place, got=os.strerror(number or errno.ENOSPC), next=_next(place)
            )
        if number == errno.ENOENT and "No usable temporary directory" in str(link):
            return DiskFullError(
                "there is no folder for files that are needed for a while",
                got=str(link.strerror if isinstance(link, OSError) else link),
                next="name one that can be written, with free space, in TMPDIR",
            )
        link = link.__cause__ or (None if link.__suppress_context__ else link.__context__)
    return None


def _place(error: BaseException, where: str, *, full: bool) -> str:
    """What couldn't be written: the error's own file, unless that is a temporary one beside ``where``."""
    # Of a copy or a rename, that is the second: the first can be read.
    name = getattr(error, "filename2", None) or getattr(error, "filename", None)
    own = os.fsdecode(name) if isinstance(name, str | bytes) else ""
    if own and not (where and (Path(own).parent == Path(where).parent or Path(own).is_relative_to(where))):
        return own
    if full and not own:  # the error of a write doesn't know its file
        places = [where, tempfile.gettempdir(), str(cache_folder())]
        free = {place: _free(Path(place)) for place in places if place}
        if free.get(where, _ENOUGH) >= _ENOUGH:
            return next((place for place, left in free.items() if left < _ENOUGH), where)
    return where


def _next(place: str) -> str:
    temporary = tempfile.gettempdir()
    if place == temporary or place.startswith(f"{temporary}/edgekit-work-"):
        other = f"name another folder than {temporary} in TMPDIR"
    else:
        other = "choose another output folder"
    return f"free some space or {other}, then run the same command again: it goes on where it was"


def _free(path: Path) -> int:
    """Bytes that are free where a file is, or would be."""
    for one in (path, *path.absolute().parents):
        with contextlib.suppress(OSError):
            return shutil.disk_usage(one).free
    return _ENOUGH


def sha256(path: Path) -> str:
    """Hex digest of a file's content."""
    digest = hashlib.sha256()
    with opened(path) as stream:
        while block := stream.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def sha256_of_bytes(content: bytes) -> str:
    """Hex digest of a file's content that is in memory."""
    return hashlib.sha256(content).hexdigest()


def sha256_of(value: Any) -> str:
    """Hex digest of a JSON value in one canonical spelling."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def _give_way(folder: Path) -> None:
    """Remove a folder where a file has to go, if nothing is in it."""
    try:
        folder.rmdir()
    except OSError as error:
        raise InputError(
            "a folder is where a file has to go", where=str(folder), next="move it away, and try again"
        ) from error


def _temporary(path: Path) -> Path:
    return path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")


def _sync_folder(folder: Path) -> None:
    """Make a rename last through a power cut; not every file system lets a folder be synced."""
    with contextlib.suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
