"""Pictures per second, decoded and augmented into batches: edgekit against a torch DataLoader.

    python benchmarks/data_throughput.py [--pictures 3000] [--rounds 9]        with torchvision beside

Both make the same batches of 64 from the same JPEG files: the shortest side resized to 256 (bicubic,
antialiased), the middle 224 x 224, half of them mirrored, moved by up to 16 pixels among zeros, float32,
normalised. The first epoch begins with nothing but the names of the files: edgekit decodes into its cache,
which it then reads; the DataLoader starts its workers. A later epoch is one that finds edgekit's cache, and
the DataLoader's workers alive (``persistent_workers``). No network is trained meanwhile.

The peer is torchvision's ``ImageFolder`` and ``transforms.v2`` in a DataLoader, as fast as it gets here: of
four orders of work (transforms on PIL images or on uint8 tensors; normalised in the workers or batch by batch
by who asks) and 0 to 4 workers, the one that is fastest on these files is looked for first, in this very run
(``details.tried``). Pillow decodes for both sides: the torchvision beside a torch for CPUs has no decoder of
its own. What both make of the same files differs by ``details.steps_apart`` of 255 at most.

They take turns, the next round the other way round. ``ratio``: median over the rounds of edgekit's speed over
the peer's, with the interval of the sign test at 99 % (edgekit/bench/stats.py).
"""

from __future__ import annotations

import itertools
import os
import shutil
import statistics
import sys
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import rows
import torch
import work
from photos import LIKE_A_CAMERA, photos
from provenance import PACKAGES, surroundings
from torch import Tensor, nn
from torch.utils.data import DataLoader

from edgekit import Augmentation, Classification, ImageFiles, ImageTransform, Workload
from edgekit.bench import stats
from edgekit.sources.base import imported
from edgekit.training.computing.memory import keeping_freed_memory
from edgekit.training.data.batches import Batches

BATCH, SIDE, WHOLE, SHIFT = 64, 224, 256, 16
TRANSFORM = ImageTransform(size=(SIDE, SIDE), resize=WHOLE, interpolation="bicubic")
REQUIRED = 1.0
WORKERS = (0, 1, 2, 3, 4)
KINDS = {"224 pixels": (224, 224), "240 to 640 pixels": LIKE_A_CAMERA}
EPOCHS = ("first epoch", "later epoch")


def main(arguments: Sequence[str] | None = None) -> int:
    parser = work.parser(__doc__, "data_throughput")
    parser.add_argument("--pictures", type=int, default=3000, help="of each kind")
    parser.add_argument("--rounds", type=int, default=9, help="an interval takes 8 or more")
    options = parser.parse_args(arguments)
    if options.smoke:
        options.pictures, options.rounds = 3 * BATCH, 2
    made = []
    with work.workplace(options) as place:
        about = surroundings((*PACKAGES, "torchvision", "pillow"))
        os.environ["EDGEKIT_CACHE"] = str(place.path / "cache")
        for name, sides in KINDS.items():
            folder = photos(place.path / f"{sides[0]}-{sides[1]}-{options.pictures}", options.pictures, sides)
            made += _compared(name, folder, options, about, place.path / "cache")
    print(rows.table(made))
    if not options.smoke:
        rows.write(options.out, made)
    return 0


def _compared(
    name: str, folder: Path, options: Any, about: dict[str, Any], cache: Path
) -> list[dict[str, Any]]:
    shutil.rmtree(cache, ignore_errors=True)
    apart = _steps_apart(folder)
    tried = _tried(folder, 2 if options.smoke else 12)
    best = max(tried, key=lambda one: tried[one])
    order, workers = best
    work.tell(f"{name}: the fastest DataLoader is {order} with {workers} workers")
    found: dict[str, dict[str, list[float]]] = {epoch: {"edgekit": [], "peer": []} for epoch in EPOCHS}
    sides: dict[str, Callable[[], tuple[float, float]]] = {
        "edgekit": lambda: _edgekit(folder, cache),
        "peer": lambda: _peer(folder, order, workers),
    }
    for turn in range(options.rounds):
        for side in list(sides) if turn % 2 == 0 else reversed(sides):
            for epoch, speed in zip(EPOCHS, sides[side](), strict=True):
                found[epoch][side].append(speed)
        told = ", ".join(
            f"{epoch} {found[epoch]['edgekit'][-1]:,.0f} to {found[epoch]['peer'][-1]:,.0f}"
            for epoch in EPOCHS
        )
        work.tell(f"{name}, round {turn + 1}/{options.rounds}: {told} pictures/s")
    details = {
        "steps_apart": apart,
        "tried": {f"{order}, {count} workers": speed for (order, count), speed in tried.items()},
    }
    return [_row(name, epoch, found[epoch], best, details, options, about) for epoch in EPOCHS]


def _row(
    name: str,
    epoch: str,
    found: dict[str, list[float]],
    best: tuple[str, int],
    details: dict[str, Any],
    options: Any,
    about: dict[str, Any],
) -> dict[str, Any]:
    ours, theirs = found["edgekit"], found["peer"]
    ratio = statistics.median(a / b for a, b in zip(ours, theirs, strict=True))
    interval = {}
    if len(ours) >= stats.rounds_needed():
        told = stats.ratio_of_rounds([[a] for a in ours], [[b] for b in theirs])
        interval = {"ratio_low": told.low, "ratio_high": told.high, "level": told.level}
    return rows.row(
        f"{name}, {epoch}",
        "pictures per second, decoded and augmented into batches",
        "pictures/s",
        edgekit=statistics.median(ours),
        peer=statistics.median(theirs),
        peer_name=f"torch DataLoader, {best[1]} workers, torchvision.transforms.v2 {best[0]}",
        ratio=ratio,
        ratio_is="median over the rounds of edgekit / peer",
        required=REQUIRED,
        samples=options.pictures,
        about=about,
        command=rows.command(),
        threads=options.threads,
        rounds=found,
        details=details,
        **interval,
    )


# --- edgekit -----------------------------------------------------------------------------------------------


def _edgekit(folder: Path, cache: Path) -> tuple[float, float]:
    """Pictures per second of an epoch that begins with an empty cache, and of the next one."""
    shutil.rmtree(cache, ignore_errors=True)
    began = time.perf_counter()
    data = ImageFiles(_list(folder))
    train, validation = data.read(TRANSFORM)
    workload = Workload(
        name="pictures",
        model=nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(3, len(data.classes))),
        task=Classification(num_classes=len(data.classes)),
        train=train,
        validation=validation,
        preprocessing=TRANSFORM.preprocessing,
        augmentation=Augmentation(horizontal_flip=True, shift=SHIFT),
    )
    batches = Batches(workload, BATCH, 0, "data")
    with keeping_freed_memory():  # as edgekit's engine does
        first = _taken(batch.inputs for batch in batches.of_epoch(0)) / (time.perf_counter() - began)
        began = time.perf_counter()
        taken = _taken(batch.inputs for batch in batches.of_epoch(1))
        return first, taken / (time.perf_counter() - began)


def _list(folder: Path) -> Path:
    """The pictures with their classes, all but one of each class to train on, as the peer has all of them."""
    path = folder.with_suffix(".csv")
    lines = ["path,label,split"]
    for one in sorted(folder.iterdir()):
        for at, picture in enumerate(sorted(one.iterdir())):
            lines.append(f"{folder.name}/{one.name}/{picture.name},{one.name},{'train' if at else 'val'}")
    path.write_text("\n".join(lines) + "\n")
    return path


def _taken(batches: Iterator[Any]) -> int:
    count = 0
    for batch in batches:
        assert batch.shape[1:] == (3, SIDE, SIDE)
        assert batch.dtype == torch.float32
        count += len(batch)
    return count


# --- the peer ----------------------------------------------------------------------------------------------


def _v2() -> Any:
    def load() -> Any:
        from torchvision.transforms import v2

        return v2

    return imported("torchvision:", load)


def _resizing() -> list[Any]:
    v2 = _v2()
    bicubic = v2.InterpolationMode.BICUBIC
    return [v2.Resize(WHOLE, interpolation=bicubic, antialias=True), v2.CenterCrop(SIDE)]


def _normalizing() -> list[Any]:
    v2 = _v2()
    return [v2.ToDtype(torch.float32, scale=True), v2.Normalize(list(TRANSFORM.mean), list(TRANSFORM.std))]


def _orders() -> dict[str, tuple[list[Any], list[Any]]]:
    """By name: what the workers do with a picture, and what is done with a batch of them."""
    v2 = _v2()
    moving = [v2.RandomHorizontalFlip(), v2.RandomCrop(SIDE, padding=SHIFT)]
    on_pil = [*_resizing(), *moving, v2.PILToTensor()]
    on_tensors = [v2.PILToTensor(), *_resizing(), *moving]
    return {
        "on PIL images": ([*on_pil, *_normalizing()], []),
        "on tensors": ([*on_tensors, *_normalizing()], []),
        "on PIL images, normalised by batches": (on_pil, _normalizing()),
        "on tensors, normalised by batches": (on_tensors, _normalizing()),
    }


def _loader(folder: Path, order: str, workers: int) -> tuple[Any, Any]:
    import torchvision.datasets

    of_picture, of_batch = _orders()[order]
    v2 = _v2()
    data = torchvision.datasets.ImageFolder(str(folder), transform=v2.Compose(of_picture))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # more workers than cores: whether that is faster is what is asked
        loader = DataLoader(
            data,
            BATCH,
            shuffle=True,
            num_workers=workers,
            persistent_workers=workers > 0,
            drop_last=True,
        )
    return loader, v2.Compose(of_batch) if of_batch else None


def _of_loader(loader: Any, of_batch: Any) -> Iterator[Tensor]:
    for images, _ in loader:
        yield images if of_batch is None else of_batch(images)


def _peer(folder: Path, order: str, workers: int) -> tuple[float, float]:
    """Pictures per second of the first epoch, and of the next one."""
    began = time.perf_counter()
    loader, of_batch = _loader(folder, order, workers)
    speeds = []
    with keeping_freed_memory():
        for _ in EPOCHS:
            count = _taken(_of_loader(loader, of_batch))
            speeds.append(count / (time.perf_counter() - began))
            began = time.perf_counter()
    return speeds[0], speeds[1]


def _tried(folder: Path, batches: int) -> dict[tuple[str, int], float]:
    """Pictures per second of each way, the better of two turns, once its workers are at work."""
    found: dict[tuple[str, int], float] = {}
    for _ in range(2):
        for order, workers in itertools.product(_orders(), WORKERS):
            loader, of_batch = _loader(folder, order, workers)
            with keeping_freed_memory():
                drawn = _of_loader(loader, of_batch)
                next(drawn)
                began = time.perf_counter()
                count = _taken(itertools.islice(drawn, batches))
                speed = count / (time.perf_counter() - began)
                del drawn, loader
            found[order, workers] = max(speed, found.get((order, workers), 0.0))
    return found


def _steps_apart(folder: Path) -> int:
    """The largest difference of pixels that both make of the same files, nothing moved."""
    from PIL import Image

    from edgekit.pictures.decoding import read_picture

    v2, worst = _v2(), 0
    for path in sorted(folder.rglob("*.jpg"))[:50]:
        ours, _ = read_picture(str(path), TRANSFORM)
        theirs = v2.Compose([*_resizing(), v2.PILToTensor()])(Image.open(path).convert("RGB"))
        assert ours is not None
        apart = torch.from_numpy(ours.copy()).permute(2, 0, 1).int() - theirs.int()
        worst = max(worst, int(apart.abs().max()))
    return worst


if __name__ == "__main__":
    sys.exit(work.guarded(main))
