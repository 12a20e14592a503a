"""WebDataset shards: tar files in which a sample is a few members of one name, ``000123.jpg`` and
``000123.cls`` (https://github.com/webdataset/webdataset).

Nothing is unpacked. A member is read where it lies in its shard (``content.py``), so its name leads nowhere:
neither out of a folder nor to a link.
"""

from __future__ import annotations

import json
import os
import re
import tarfile
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from edgekit.errors import DataError
from edgekit.files import opened
from edgekit.media.content import member_path
from edgekit.media.rows import SPLIT_NAMES, label_of
from edgekit.media.sorts import Sort

__all__ = ["Member", "archives_in", "members", "shards_in"]

_SUFFIX = ".tar"
_COMPRESSED = (".tar.gz", ".tgz", ".tar.bz2", ".tar.xz", ".tar.zst")
_UNPACKED = {
    ".gz": "gunzip",
    ".tgz": "gunzip",
    ".bz2": "bunzip2",
    ".xz": "unxz",
    ".zst": "zstd -d",
}
_MOST_LABEL = 64 << 10  # bytes of a .cls or .json


@dataclass(frozen=True)
class Member:
    """A sample: ``path`` says where it lies; ``why``: it can't be used, "" for one that can."""

    path: str
    split: str
    label: str
    size_bytes: int
    changed: int
    why: str = ""


def shards_in(root: Path, suffixes: Collection[str]) -> dict[str, list[Path]]:
    """Shards by split, "train" alone where nobody says which are which; {} where there are none.

    They are said by a folder above them, or a word of their names: ``train-000.tar``, ``digits_val.tar``.
    Beside folders of classes, two or more that hold files of these ``suffixes``, archives are no shards: they
    are what these came in. Raises DataError: compressed ones, where there is nothing else.
    """
    found = archives_in(root)
    if not found or (root.is_dir() and _has_classes(root, suffixes)):
        return {}
    if packed := next((one for one in found if not one.name.lower().endswith(_SUFFIX)), None):
        raise DataError(
            "a compressed shard can't be read where its samples lie",
            where=str(packed),
            expected="a plain .tar: pictures and sounds are compressed already",
            next=f"decompress it: {_UNPACKED[packed.suffix.lower()]} {packed}",
        )
    by_split: dict[str, list[Path]] = {}
    for one in found:
        inner = one.parent.name if one.parent != root and one != root else ""
        by_split.setdefault(_said(inner) or _said(one.stem) or "train", []).append(one)
    return by_split


def archives_in(root: Path) -> list[Path]:
    """Tar files, compressed or not: ``root`` itself, or those in it and in its folders of splits."""
    if root.is_file():
        return [root] if _is_archive(root) else []
    if not root.is_dir():
        return []
    folders = [root, *(one for one in sorted(root.iterdir()) if one.is_dir() and _said(one.name))]
    return [one for folder in folders for one in sorted(folder.iterdir()) if _is_archive(one)]


def _is_archive(path: Path) -> bool:
    name = path.name.lower()
    return not name.startswith(".") and name.endswith((_SUFFIX, *_COMPRESSED)) and path.is_file()


def _has_classes(root: Path, suffixes: Collection[str]) -> bool:
    """Whether several folders below hold files of these kinds."""
    holding = 0
    for folder, below, names in os.walk(root):
        below[:] = [one for one in below if not one.startswith(".")]
        holding += Path(folder) != root and any(
            not one.startswith(".") and Path(one).suffix.lower() in suffixes for one in names
        )
        if holding > 1:
            return True
    return False


def _said(name: str) -> str:
    """The split that a name tells, "" for none."""
    words = re.split(r"[-_. ]+", name.lower())
    return next((split for split, names in SPLIT_NAMES.items() if any(one in names for one in words)), "")


def members(shard: Path, split: str, sort: Sort) -> Iterator[Member]:
    """All samples of a kind in a shard, in order; only headers and labels are read.

    Raises DataError: it is no tar file, or damaged.
    """
    known = shard.stat()
    sample: list[tarfile.TarInfo] = []
    key = None
    try:
        with opened(shard) as stream, tarfile.open(fileobj=stream, mode="r:") as archive:
            for one in archive:
                own = _key(one.name)
                if own != key:
                    yield from _of(shard, split, sort, sample, stream, known)
                    key, sample = own, []
                sample.append(one)
            yield from _of(shard, split, sort, sample, stream, known)
    except (tarfile.TarError, ValueError, OverflowError, EOFError) as error:
        raise DataError("a damaged shard", where=str(shard), got=" ".join(str(error).split())[:200]) from None
    except OSError as error:
        raise DataError("a shard can't be read", where=str(shard), got=error.strerror or str(error)) from None


def _key(name: str) -> str:
    """What the members of a sample have in common: all up to the first dot of the last part."""
    folder, slash, last = name.rpartition("/")
    return f"{folder}{slash}{last.partition('.')[0]}"


def _of(
    shard: Path,
    split: str,
    sort: Sort,
    sample: list[tarfile.TarInfo],
    stream: BinaryIO,
    known: os.stat_result,
) -> Iterator[Member]:
    """The sample of these members, if it has one of the kind."""
    for one in sample:
        if Path(one.name).suffix.lower() not in sort.suffixes:
            continue
        path = member_path(str(shard), one.offset_data, one.size, one.name)
        label, why = _label(sample, stream, known.st_size)
        if not one.isreg() or one.issparse():
            why = "a link, a device or a sparse file, not a plain one"
        elif one.offset_data + one.size > known.st_size:
            why = "cut off: the shard ends before it"
        yield Member(path, split, label, one.size, known.st_mtime_ns, why)


def _label(sample: list[tarfile.TarInfo], stream: BinaryIO, end: int) -> tuple[str, str]:
    """The label that ``.cls`` or ``.json`` says, and why there is none."""
    for one in sample:
        suffix = Path(one.name).suffix.lower()
        if suffix not in (".cls", ".json") or not one.isreg() or one.issparse():
            continue
        if one.size > _MOST_LABEL or one.offset_data + one.size > end:
            return "", f"a label of {one.size:,} bytes"
        at = stream.tell()
        stream.seek(one.offset_data)
        content = stream.read(one.size)
        stream.seek(at)  # where the archive goes on
        try:
            text = content.decode("utf-8")
            told = text if suffix == ".cls" else json.loads(text)
        except (ValueError, RecursionError):
            return "", f"a label that can't be read, in {suffix}"
        if isinstance(told, dict):
            told = next((told[key] for key in ("cls", "label", "class") if key in told), None)
        if (label := label_of(told)) is not None:
            return label, ""
    return "", "no label: neither .cls nor a .json with cls or label"
