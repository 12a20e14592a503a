"""COCO's JSON: images, annotations and categories in one file (cocodataset.org/#format-data)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from edgekit.annotations.labelled import Faults, Found, Labelled, found_in
from edgekit.annotations.pictures import Pictures
from edgekit.errors import DataError
from edgekit.files import parse_json, read_bytes

__all__ = ["find_coco", "read_coco"]

_MOST_BYTES = 1 << 30


def read_coco(
    path: Path | str,
    size: tuple[int, int],
    *,
    pictures: Path | str | None = None,
    classes: Sequence[str] | None = None,
    fit: str = "letterbox",
    faults: Literal["refuse", "leave out"] = "refuse",
) -> Pictures:
    """Pictures and boxes of a COCO file, at the size of a model's input.

    Boxes of crowds (``iscrowd``) are left out.

    Args:
        path: the JSON file.
        size: (height, width).
        pictures: the folder of their file names; the JSON file's own if None.
        classes: names of categories in the order of the labels; None: all, by their ids.
        fit: "letterbox" keeps the shape of pictures, with a grey border; "stretch" doesn't.
        faults: of boxes without area, outside of the picture or of unknown classes, of labels without picture
            and the like: "refuse" raises with all of them counted; "leave out" goes on without.

    Raises DataError: no COCO file, or see ``faults``.
    """
    told = find_coco(path, pictures)
    names = told.classes if classes is None else classes
    return Pictures(
        told.pictures, size, where=str(path), classes=names, fit=fit, faults=faults, seen=told.seen
    )


def find_coco(path: Path | str, pictures: Path | str | None = None) -> Found:
    """What a COCO file says, its pictures not looked at. Raises DataError: it is none."""
    path = Path(path)
    try:
        content = parse_json(read_bytes(path, _MOST_BYTES))
        images, annotations, categories = (
            _rows(content, key) for key in ("images", "annotations", "categories")
        )
    except (OSError, ValueError) as error:
        raise DataError("no COCO annotations", where=str(path), got=str(error)) from error
    folder, seen = path.parent if pictures is None else Path(pictures), Faults()
    names = {one.get("id"): one.get("name") for one in categories if _key(one.get("id"))}
    known = {key: name for key, name in names.items() if isinstance(name, str)}
    classes = tuple(dict.fromkeys(known[key] for key in sorted(known, key=lambda key: (str(type(key)), key))))
    found: dict[Any, Labelled] = {}
    for one in images:
        name, key = one.get("file_name"), one.get("id")
        if not _key(key) or key in found:
            seen.add("pictures without an id of their own", str(name))
            continue
        found[key] = Labelled(str(name), found_in(folder, name), _size(one))
    for at, one in enumerate(annotations):
        _annotate(one, at, found, names, seen)
    return Found(list(found.values()), classes, seen)


def _annotate(
    one: Mapping[str, Any], at: int, found: Mapping[Any, Labelled], names: Mapping[Any, Any], seen: Faults
) -> None:
    where, key, box = f"annotation {one.get('id', at)}", one.get("image_id"), one.get("bbox")
    if one.get("iscrowd"):
        return
    if not _key(key) or key not in found:
        seen.add("boxes of a picture that isn't listed", where)
        return
    if not isinstance(box, list) or len(box) != 4 or not all(_number(value) for value in box):
        seen.add("boxes that are no numbers", where)
        return
    x, y, width, height = map(float, box)
    kind = one.get("category_id")
    label = names.get(kind) if _key(kind) else None
    found[key].boxes.append((x, y, x + width, y + height))
    found[key].labels.append(label if isinstance(label, str) else None)


def _rows(content: Any, key: str) -> list[Mapping[str, Any]]:
    rows = content.get(key) if isinstance(content, dict) else None
    if not isinstance(rows, list) or not all(isinstance(one, dict) for one in rows):
        raise ValueError(f"no list of objects under {key!r}")
    return rows


def _key(value: Any) -> bool:
    """Whether it is something that one can look up."""
    return isinstance(value, int | str) and not isinstance(value, bool)


def _number(value: Any) -> bool:
    # An integer of hundreds of digits is no float.
    return isinstance(value, float) or (isinstance(value, int) and abs(value) < 1 << 53)


def _size(one: Mapping[str, Any]) -> tuple[int, int] | None:
    height, width = one.get("height"), one.get("width")
    return (height, width) if isinstance(height, int) and isinstance(width, int) else None
