"""In which form a file or folder holds boxes, and which of them are to train on. Imports no torch."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from edgekit.annotations.coco import find_coco
from edgekit.annotations.labelled import Found
from edgekit.annotations.voc import find_voc
from edgekit.annotations.yolo import find_yolo
from edgekit.errors import DataError
from edgekit.files import inside, parse_json, read_bytes, read_text
from edgekit.media.listing import SPLITS
from edgekit.media.rows import SPLIT_NAMES, some

__all__ = ["Layout", "layout_of"]

_MOST_BYTES = 1 << 30
_PARTS = (b'"images"', b'"annotations"', b'"categories"')
_YAML = (".yaml", ".yml")


@dataclass
class Layout:
    """Where boxes are.

    Attributes:
        form: COCO, YOLO or VOC.
        parts: what reads the labels of a split: of "train", and "validation" if the data say what that is.
        split_by: in words, what says so.
        notes: what a person should know.
    """

    form: str
    parts: dict[str, Callable[[], Found]]
    split_by: str = ""
    notes: list[str] = field(default_factory=list)


def layout_of(path: str | Path) -> Layout | None:
    """Of a COCO file, a YOLO data.yaml, or a folder of either kind or of VOC's; None: no boxes there.

    Raises DataError: boxes, and nothing says which are to train on; or a description that can't be read.
    """
    root = Path(path)
    if root.is_file():
        if root.suffix.lower() == ".json" and _is_coco(root):
            return Layout("COCO", {"train": lambda: _coco(root)})
        return _yolo_described(root) if root.suffix.lower() in _YAML else None
    if not root.is_dir():
        return None
    described = [one for one in _files(root) if one.suffix.lower() in _YAML and _described(one)]
    if described:
        return _yolo_described(described[0])
    return _coco_folder(root) or _voc_folder(root) or _yolo_folder(root)


def _files(folder: Path) -> list[Path]:
    if not folder.is_dir():
        return []
    return sorted(one for one in folder.iterdir() if one.is_file() and not one.name.startswith("."))


def _folder(root: Path, *names: str) -> Path | None:
    """The folder of one of these names, whatever its capitals."""
    known = {one.name.lower(): one for one in root.iterdir() if one.is_dir()}
    return next((known[name] for name in names if name in known), None)


def _split_of(*texts: str) -> str | None:
    """Which split words speak of, the first text first: ``instances_val2017`` of validation."""
    for text in texts:
        words = re.findall("[a-z]+", text.lower())
        for split in SPLITS:
            if any(name in words for name in SPLIT_NAMES[split]):
                return split
    return None


def _best(found: Mapping[Path, str], texts: Mapping[Path, str]) -> dict[str, Path]:
    """One for each split; of several for validation the one whose name comes first in ``SPLIT_NAMES``."""
    chosen: dict[str, Path] = {}
    for split in SPLITS:
        ranked = [
            (rank, path)
            for path, own in found.items()
            for rank, name in enumerate(SPLIT_NAMES[split])
            if own == split and name in re.findall("[a-z]+", texts[path].lower())
        ]
        if ranked:
            chosen[split] = min(ranked)[1]
    return chosen


# --- COCO ------------------------------------------------------------------------------------------------


def _is_coco(path: Path) -> bool:
    try:
        content = read_bytes(path, _MOST_BYTES)
    except OSError:
        return False
    return all(part in content for part in _PARTS)


def _coco_folder(root: Path) -> Layout | None:
    below = [one for one in sorted(root.iterdir()) if one.is_dir() and not one.name.startswith(".")]
    files = [*_files(root), *(file for one in below for file in _files(one))]
    files = [one for one in files if one.suffix.lower() == ".json" and _is_coco(one)]
    if not files:
        return None
    if len(files) == 1 and _split_of(files[0].stem) != "validation":
        return Layout("COCO", {"train": lambda: _coco(files[0])}, notes=[])
    texts = {one: f"{one.parent.name if one.parent != root else ''} {one.stem}" for one in files}
    named = {one: split for one in files if (split := _split_of(one.stem, texts[one]))}
    chosen = _best(named, texts)
    if "train" not in chosen:
        raise DataError(
            "several files of boxes, and nothing says which is to train on",
            where=str(root),
            got=some([str(one.relative_to(root)) for one in files]),
            expected="train.json and val.json, or one of them by its name",
        )
    left = [str(one.relative_to(root)) for one in files if one not in chosen.values()]
    return Layout(
        "COCO",
        {split: (lambda path=path: _coco(path)) for split, path in chosen.items()},  # type: ignore[misc]
        _and(chosen.values(), root) if "validation" in chosen else "",
        [f"left out of {root}: {some(left)}"] if left else [],
    )


def _and(paths: Any, root: Path) -> str:
    return " and ".join(str(one.relative_to(root)) for one in paths)


def _coco(path: Path) -> Found:
    """With its pictures' folder: the file's own, or one beside or above it where the first picture is."""
    try:
        content = parse_json(read_bytes(path, _MOST_BYTES))
    except (OSError, ValueError):
        return find_coco(path)  # tells it
    images = content.get("images") if isinstance(content, dict) else None
    listed = images if isinstance(images, list) else []
    first = next((one.get("file_name") for one in listed if isinstance(one, dict)), None)
    if not isinstance(first, str):
        return find_coco(path)
    for folder in _beside(path):
        try:
            if inside(folder, first).is_file():
                return find_coco(path, folder)
        except (ValueError, OSError):
            continue
    return find_coco(path)


def _beside(path: Path) -> Iterator[Path]:
    """Folders in which pictures of a COCO file use to be."""
    own = re.sub("^(instances|annotations)_", "", path.stem)
    for above in (path.parent, path.parent.parent):
        yield above
        yield from (above / "images", above / own, above / "images" / own)


# --- YOLO ------------------------------------------------------------------------------------------------


def _described(path: Path) -> dict[str, Any] | None:
    """A data.yaml's content, if it is one."""
    try:
        text = read_text(path, 1 << 20)
        found = yaml.safe_load(text)
    except (OSError, ValueError, yaml.YAMLError, RecursionError):
        return None
    return found if isinstance(found, dict) and {"names", "train"} <= found.keys() else None


def _yolo_described(path: Path) -> Layout:
    told = _described(path)
    if told is None:
        raise DataError(
            "no description of YOLO's", where=str(path), expected="a data.yaml: train, val, names"
        )
    names = told["names"]
    if isinstance(names, dict) and set(names) == set(range(len(names))):
        names = [names[at] for at in range(len(names))]
    if not isinstance(names, list) or not names or not all(isinstance(one, str) for one in names):
        raise DataError("no names of classes", where=f"{path}: names", got=repr(names)[:80])
    base = path.parent
    parts: dict[str, Callable[[], Found]] = {}
    for split in SPLITS:
        key = next((one for one in SPLIT_NAMES[split] if isinstance(told.get(one), str)), None)
        if key is None:
            continue
        pictures = _place(base, str(told.get("path") or ""), told[key])
        if pictures is None:
            raise DataError(
                "pictures of YOLO's that aren't there",
                where=f"{path}: {key}",
                got=told[key],
                expected=f"a folder inside of {base}",
            )
        parts[split] = _yolo(pictures, names)
    if "train" not in parts:
        raise DataError(
            "nothing to train on", where=str(path), got=repr(told["train"])[:80], expected="a folder"
        )
    return Layout("YOLO", parts, path.name if "validation" in parts else "")


def _place(base: Path, path: str, given: str) -> Path | None:
    """A folder that data.yaml names: from its ``path``, or from where it lies, as exporters write it."""
    given = given.removeprefix("../").removeprefix("./").rstrip("/")
    for one in (f"{path}/{given}".strip("/"), given, f"{given}/images"):
        try:
            folder = inside(base, one)
        except ValueError:
            continue
        if folder.is_dir() and any(file.is_file() for file in folder.iterdir()):
            return folder
    return None


def _yolo(pictures: Path, names: list[str]) -> Callable[[], Found]:
    """Labels are where ``images`` is called ``labels``, or beside the pictures."""
    parts = list(pictures.parts)
    at = max((at for at, one in enumerate(parts) if one == "images"), default=None)
    labels = Path(*parts[:at], "labels", *parts[at + 1 :]) if at is not None else pictures
    return lambda: find_yolo(pictures, labels, names)


def _yolo_folder(root: Path) -> Layout | None:
    """``images/`` and ``labels/`` without a description: names stand in classes.txt, or are numbers."""
    pictures, labels = _folder(root, "images"), _folder(root, "labels")
    if pictures is None or labels is None:
        return None
    known = [folder / "classes.txt" for folder in (root, labels) if (folder / "classes.txt").is_file()]
    if not known:
        raise DataError(
            "boxes of YOLO's, and no names of classes",
            where=str(root),
            expected="a data.yaml (train, val, names), or classes.txt with a name in each line",
        )
    names = _lines(known[0])
    folders = {
        split: pictures / name
        for split in SPLITS
        for name in reversed(SPLIT_NAMES[split])
        if (pictures / name).is_dir()
    }
    if "train" not in folders:
        folders = {"train": pictures}
    return Layout(
        "YOLO",
        {split: _yolo(folder, names) for split, folder in folders.items()},
        _and(folders.values(), root) if "validation" in folders else "",
    )


# --- VOC -------------------------------------------------------------------------------------------------


def _voc_folder(root: Path) -> Layout | None:
    annotations = _folder(root, "annotations")
    pictures = _folder(root, "jpegimages", "images")
    if annotations is not None and any(annotations.glob("*.xml")):
        lists = root / "ImageSets" / "Main"
        wanted = {
            split: _names(lists / f"{name}.txt")
            for split in SPLITS
            for name in reversed(SPLIT_NAMES[split])
            if (lists / f"{name}.txt").is_file()
        }
        parts = wanted if "train" in wanted else {"train": None}
        where, at = annotations, pictures or root
        return Layout(
            "VOC",
            {split: (lambda names=names: find_voc(where, at, names)) for split, names in parts.items()},  # type: ignore[misc]
            "ImageSets/Main" if "validation" in wanted and "train" in wanted else "",
        )
    beside = {
        split: root / name
        for split in SPLITS
        for name in reversed(SPLIT_NAMES[split])
        if (root / name).is_dir() and any((root / name).glob("*.xml"))
    }
    if "train" not in beside:
        beside = {"train": root} if any(root.glob("*.xml")) else {}
    if not beside:
        return None
    return Layout(
        "VOC",
        {split: (lambda folder=folder: find_voc(folder, folder)) for split, folder in beside.items()},  # type: ignore[misc]
        _and(beside.values(), root) if "validation" in beside else "",
    )


def _names(path: Path) -> frozenset[str]:
    return frozenset(line.split()[0] for line in _lines(path))


def _lines(path: Path) -> list[str]:
    """Of a small text file, those that aren't empty. Raises DataError."""
    try:
        text = read_text(path, 16 << 20)
    except (OSError, ValueError) as error:
        raise DataError("this file can't be read", where=str(path), got=str(error)) from error
    return [line.strip() for line in text.splitlines() if line.strip()]
