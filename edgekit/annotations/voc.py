"""Pascal VOC's XML: one file for each picture. Nothing that a document declares is ever looked at."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Literal
from xml.parsers import expat

from edgekit.annotations.labelled import Faults, Found, Labelled, found_in
from edgekit.annotations.pictures import Pictures
from edgekit.errors import DataError
from edgekit.files import read_bytes

__all__ = ["find_voc", "read_voc"]

_MOST_BYTES = 16 << 20
_DEEPEST = 20
_SIDES = ("xmin", "ymin", "xmax", "ymax")


def read_voc(
    annotations: Path | str,
    pictures: Path | str,
    size: tuple[int, int],
    *,
    classes: Sequence[str] | None = None,
    fit: str = "letterbox",
    faults: Literal["refuse", "leave out"] = "refuse",
) -> Pictures:
    """Pictures and boxes, an XML file for each picture, whose name it says.

    VOC counts pixels from 1 and takes the last one in, so that a box's left upper corner is one less here.
    Objects marked ``difficult`` are taken as any other. Documents that declare a type or entities are
    refused.

    Args:
        annotations, pictures: the folders.
        classes: names in the order of the labels; None: all that occur, in the order of their names.
        size, fit, faults: see ``read_coco``.

    Raises DataError: no such folder, or see ``faults``.
    """
    told = find_voc(annotations, pictures)
    return Pictures(
        told.pictures, size, where=str(annotations), classes=classes, fit=fit, faults=faults, seen=told.seen
    )


def find_voc(annotations: Path | str, pictures: Path | str, wanted: Collection[str] | None = None) -> Found:
    """What a folder of VOC's files says, its pictures not looked at; ``wanted``: names of files without their
    suffix. Raises DataError: no such folder.
    """
    folder, seen = Path(annotations), Faults()
    if not folder.is_dir():
        raise DataError("no folder of annotations", where=str(folder), got="nothing there")
    found = []
    for path in sorted(folder.glob("*.xml")):
        if wanted is not None and path.stem not in wanted:
            continue
        try:
            found.append(_read(path, Path(pictures), seen))
        except (OSError, ValueError, expat.ExpatError) as error:
            seen.add("annotations that can't be read", f"{path.name}: {error}")
    return Found(found, None, seen)


def _read(path: Path, pictures: Path, seen: Faults) -> Labelled:
    """Raises OSError, ValueError, expat.ExpatError."""
    told = _Document()
    told.parse(read_bytes(path, _MOST_BYTES))
    name = told.texts.get("annotation/filename") or f"{path.stem}.jpg"
    one = Labelled(name, found_in(pictures, name))
    if height := told.texts.get("annotation/size/height"):
        one.size = int(height), int(told.texts.get("annotation/size/width", ""))
    for found in told.objects:
        try:
            x1, y1, x2, y2 = (float(found[f"bndbox/{side}"]) for side in _SIDES)
        except (KeyError, ValueError):
            seen.add("boxes that are no numbers", path.name)
            continue
        one.boxes.append((x1 - 1, y1 - 1, x2, y2))
        one.labels.append(found.get("name"))
    return one


class _Document:
    """The texts of a document, by the path of their elements; those of each object apart."""

    def __init__(self) -> None:
        self.texts: dict[str, str] = {}
        self.objects: list[dict[str, str]] = []
        self.path: list[str] = []
        self.text: list[str] = []

    def parse(self, content: bytes) -> None:
        """Raises ValueError, expat.ExpatError."""
        parser = expat.ParserCreate()
        parser.StartDoctypeDeclHandler = self._refuse
        parser.EntityDeclHandler = self._refuse
        parser.StartElementHandler = self._start
        parser.EndElementHandler = self._end
        parser.CharacterDataHandler = self.text.append
        parser.Parse(content, True)

    def _refuse(self, *_: object) -> None:
        raise ValueError("it declares a document type or entities")

    def _start(self, name: str, _: object) -> None:
        if len(self.path) >= _DEEPEST:
            raise ValueError("nested too deeply")
        self.path.append(name)
        self.text.clear()
        if self.path == ["annotation", "object"]:
            self.objects.append({})

    def _end(self, _: str) -> None:
        text = "".join(self.text).strip()
        self.text.clear()
        if self.path[:2] == ["annotation", "object"] and len(self.path) > 2:
            self.objects[-1].setdefault("/".join(self.path[2:]), text)
        else:
            self.texts.setdefault("/".join(self.path), text)
        self.path.pop()
