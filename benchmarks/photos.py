"""Pictures for benchmarks: JPEG files in folders of classes, each different, made once and kept."""

from __future__ import annotations

import os
import random
import sys
from multiprocessing import Pool
from pathlib import Path

from PIL import Image, ImageDraw

CLASSES = ("circles", "squares", "stripes")
LIKE_A_CAMERA = (240, 640)


def photos(folder: Path, count: int, sides: tuple[int, int] = LIKE_A_CAMERA) -> Path:
    """So many JPEG files in ``folder/CLASS``, of ``sides[0]`` to ``sides[1]`` pixels along a side; those that
    are there are kept.
    """
    for name in CLASSES:
        (folder / name).mkdir(parents=True, exist_ok=True)
    missing = [at for at in range(count) if not _path(folder, at).exists()]
    with Pool(len(os.sched_getaffinity(0))) as pool:
        asked = ((folder, at, sides) for at in missing)
        for done, _ in enumerate(pool.imap_unordered(_draw, asked, 32), 1):
            if done % 5000 == 0:
                print(f"made {done:,} of {len(missing):,} pictures", file=sys.stderr)
    return folder


def _path(folder: Path, at: int) -> Path:
    return folder / CLASSES[at % 3] / f"{at:06d}.jpg"


def _draw(asked: tuple[Path, int, tuple[int, int]]) -> None:
    folder, at, sides = asked
    draw = random.Random(at)
    width, height = draw.randint(*sides), draw.randint(*sides)
    shade = tuple(draw.randint(0, 255) for _ in range(3))
    grain = Image.frombytes("L", (width // 8, height // 8), draw.randbytes((width // 8) * (height // 8)))
    image = Image.blend(
        grain.resize((width, height)).convert("RGB"), Image.new("RGB", (width, height), shade), 0.6
    )
    pen, colour, side = ImageDraw.Draw(image), tuple(255 - one for one in shade), min(width, height) // 4
    left, top = draw.randint(0, width - 2 * side), draw.randint(0, height - 2 * side)
    box = (left, top, left + 2 * side, top + 2 * side)
    if at % 3 == 0:
        pen.ellipse(box, fill=colour)
    elif at % 3 == 1:
        pen.rectangle(box, fill=colour)
    else:
        for x in range(0, width, 24):
            pen.rectangle((x, 0, x + 11, height), fill=colour)
    path = _path(folder, at)
    image.save(path.with_suffix(".tmp"), "JPEG", quality=85)
    path.with_suffix(".tmp").rename(path)
