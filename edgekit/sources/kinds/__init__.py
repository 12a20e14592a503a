"""Kinds of data, and what each becomes in a workload.

base.py      what a row says
sniffing.py  which kind a folder or file holds
of_pictures.py  of_texts.py  of_sounds.py  of_boxes.py: a row each
"""

from __future__ import annotations

from typing import Any

from edgekit.sources.kinds.base import Kind
from edgekit.sources.kinds.of_boxes import OfBoxes
from edgekit.sources.kinds.of_pictures import OfPictures
from edgekit.sources.kinds.of_sounds import OfSounds
from edgekit.sources.kinds.of_texts import OfTexts

__all__ = ["KINDS", "Kind"]

KINDS: dict[str, Kind[Any, Any]] = {
    "pictures": OfPictures(),
    "texts": OfTexts(),
    "sounds": OfSounds(),
    "boxes": OfBoxes(),
}
