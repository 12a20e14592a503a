"""YOLO's text files: one for each picture, a line for each box: class, middle and size in shares of the
picture.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from edgekit.annotations.labelled import Faults, Found, Labelled
from edgekit.annotations.pictures import Pictures
from edgekit.errors import DataError
from edgekit.files import read_text

__all__ = ["find_yolo", "read_yolo"]

_ENDINGS = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff")
_MOST_BYTES = 16 << 20


def read_yolo(
    pictures: Path | str,
    labels: Path | str,
    size: tuple[int, int],
    *,
    classes: Sequence[str],
    fit: str = "letterbox",
    faults: Literal["refuse", "leave out"] = "refuse",
) -> Pictures:
    """Pictures and boxes, a text file of the same name for each picture; one without is background alone.

    Args:
        pictures, labels: the folders.
        classes: names, by the numbers in the files.
        size, fit, faults: see ``read_coco``.

    Raises DataError: no such folders, or see ``faults``.
    """
    told = find_yolo(pictures, labels, classes)
    return Pictures(
        told.pictures, size, where=str(labels), classes=told.classes, fit=fit, faults=faults, seen=told.seen
    )


def find_yolo(pictures: Path | str, labels: Path | str, classes: Sequence[str]) -> Found:
    """What folders of YOLO's files say, the pictures not looked at. Raises DataError: no such folders."""
    folder, texts, seen = Path(pictures), Path(labels), Faults()
    for given in (folder, texts):
        if not given.is_dir():
            raise DataError("no folder of pictures or labels", where=str(given), got="nothing there")
    if isinstance(classes, str):
        raise DataError("one name where several go", where="classes=…", got=repr(classes))
    names = tuple(classes)
    paths = sorted(path for path in folder.iterdir() if path.suffix.lower() in _ENDINGS)
    found = []
    for path in paths:
        one = Labelled(path.name, path if path.is_file() else None, shares=True)
        text = texts / f"{path.stem}.txt"
        if text.exists():
            _read(text, one, names, seen)
        found.append(one)
    known = {path.stem for path in paths}
    for text in sorted(texts.glob("*.txt")):
        if text.stem not in known and text.stem != "classes":
            seen.add("labels whose picture isn't there", text.name)
    return Found(found, names, seen)


def _read(path: Path, one: Labelled, names: Sequence[str], seen: Faults) -> None:
    try:
        lines = read_text(path, _MOST_BYTES).splitlines()
    except (OSError, ValueError):
        seen.add("labels that can't be read", path.name)
        return
    for number, line in enumerate(lines, 1):
        if not (fields := line.split()):
            continue
        try:
            kind, values = int(fields[0]), [float(value) for value in fields[1:]]
        except ValueError:
            kind, values = -1, []
        if len(values) != 4:
            seen.add("lines that are no class and four numbers", f"{path.name}:{number}")
            continue
        x, y, width, height = values
        one.boxes.append((x - width / 2, y - height / 2, x + width / 2, y + height / 2))
        one.labels.append(names[kind] if 0 <= kind < len(names) else None)
