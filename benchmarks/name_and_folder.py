"""From a name and a folder: how long the first result takes, and what memory many pictures take.

    python benchmarks/name_and_folder.py [--pictures 1000 20000]        with timm and torchvision beside

Makes JPEG files of many sizes, of three classes. First `edgekit compress timm:mobilenetv3_small_100 --data
photos/ --recipe quick` on 300 of them, in a process of its own: seconds until its first line, and until the
recommended file is named. Then, for each number of pictures, what a run does with its data before it trains:
list, decode, fingerprint, check, and a hundred batches of an epoch, augmented. Peak memory is that of the
process and of its decoders together: what is their own (anonymous), and all that is resident, which has pages
of the mapped file in it that the system takes back when it needs them.

There is no peer: the figures stand against limits. ``cpu_seconds`` say how much of the machine the run was
given: on a machine with other work seconds on the clock are more.
"""

from __future__ import annotations

import json
import os
import random
import resource
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from multiprocessing import Pool
from pathlib import Path
from typing import Any

import rows
import work
from PIL import Image, ImageDraw
from provenance import PACKAGES, surroundings

NETWORK = "timm:mobilenetv3_small_100"
CLASSES = ("circles", "squares", "stripes")
LIMITS = {
    "first line": 2.0,
    "recommended file": 300.0,
    "recommended file, CPU": 600.0,
    "largest": 3e9,
    "growth": 1.1,
}
SAMPLED = 0.02  # seconds between looks at memory
RANDOM_BATCHES = 100

# What a run does with its data, in a process of its own, that says what it took.
DATA_PART = """
import json, sys, time
began, told = time.monotonic(), []
from edgekit import Source, load_workload
from edgekit.progress import told_while_reading
from edgekit.training.data.batches import Batches
def hear(event):
    told.append(time.monotonic() - began)
with told_while_reading(hear):
    work = load_workload(Source(sys.argv[1], sys.argv[2]))
read = time.monotonic() - began
work.check()
digest = work.fingerprint()
ready = time.monotonic() - began
batches = Batches(work, 64, 0, "distill").of_epoch(1)
drawn = sum(len(batch) for _, batch in zip(range(int(sys.argv[3])), batches))
whole = time.monotonic() - began
silence = max(b - a for a, b in zip([0.0, *told], told))
print(json.dumps({"seconds_to_first_event": told[0], "seconds_to_data": read, "seconds": whole,
                  "seconds_to_first_batch": ready, "augmented_per_second": drawn / (whole - ready),
                  "longest_silence": silence, "samples": [len(work.train), len(work.validation)],
                  "fingerprint": digest}))
"""


def main(arguments: Sequence[str] | None = None) -> int:
    parser = work.parser(__doc__, "name_and_folder")
    parser.add_argument("--pictures", type=int, nargs="+", default=[1000, 20_000])
    parser.add_argument("--no-run", action="store_true", help="memory alone; the other rows are kept")
    parser.add_argument("--no-memory", action="store_true", help="the run alone; likewise")
    options = parser.parse_args(arguments)
    with work.workplace(options) as place:
        about = surroundings((*PACKAGES, "timm", "torchvision", "pillow"))
        environment = {
            **os.environ,
            "EDGEKIT_CACHE": str(place.path / "cache"),
            "EDGEKIT_CACHE_GB": "30",
            "OMP_NUM_THREADS": str(options.threads),
        }
        found: list[dict[str, Any]] = []
        if not options.no_run:
            found += _first_result(place, options, about, environment)
        counts = [60, 120] if options.smoke else options.pictures
        if not options.no_memory:
            found += _memory(place, counts, about, environment)
    print(rows.table(found))
    if not options.smoke:
        in_part = (options.no_run or options.no_memory) and options.out.exists()
        kept = json.loads(options.out.read_text()) if in_part else []
        names = {one["name"] for one in found}
        rows.write(options.out, [*(one for one in kept if one["name"] not in names), *found])
    return 0


# --- pictures ----------------------------------------------------------------------------------------------


def photos(folder: Path, count: int) -> Path:
    """So many JPEG files in ``folder/CLASS``; those that are there are kept."""
    for name in CLASSES:
        (folder / name).mkdir(parents=True, exist_ok=True)
    missing = [at for at in range(count) if not _path(folder, at).exists()]
    with Pool(len(os.sched_getaffinity(0))) as pool:
        for done, _ in enumerate(pool.imap_unordered(_draw, ((folder, at) for at in missing), 32), 1):
            if done % 5000 == 0:
                print(f"made {done:,} of {len(missing):,} pictures", file=sys.stderr)
    return folder


def _path(folder: Path, at: int) -> Path:
    return folder / CLASSES[at % 3] / f"{at:06d}.jpg"


def _draw(asked: tuple[Path, int]) -> None:
    folder, at = asked
    draw = random.Random(at)
    width, height = draw.randint(240, 640), draw.randint(240, 640)
    shade = [draw.randint(0, 255) for _ in range(3)]
    image = Image.effect_noise((width // 8, height // 8), 60).resize((width, height)).convert("RGB")
    image = Image.blend(image, Image.new("RGB", (width, height), tuple(shade)), 0.6)
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


# --- the first result --------------------------------------------------------------------------------------


def _first_result(
    place: work.Work, options: Any, about: dict[str, Any], environment: dict[str, str]
) -> list[dict[str, Any]]:
    count = 60 if options.smoke else 300
    folder = photos(place.path / f"photos-{count}", count)
    run = place.path / f"run-{time.time_ns()}"  # never one that is finished already
    command = [sys.executable, "-m", "edgekit", "compress", NETWORK, "--data", str(folder)]
    command += ["--recipe", "quick", "--out", str(run), "--json"]
    before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment
    )
    assert process.stderr is not None
    assert process.stdout is not None
    lines = []
    for line in process.stderr:
        lines.append((time.monotonic() - began, line.rstrip()))
        print(f"{lines[-1][0]:7.1f}  {lines[-1][1]}", file=sys.stderr)
    shown = process.stdout.read()
    seconds = time.monotonic() - began
    if process.wait():
        raise SystemExit(f"the run ended with {process.returncode}")
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    report = json.loads(shown)
    details = {
        "cpu_seconds": after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime,
        "peak_memory_bytes": after.ru_maxrss * 1024,
        "recommended": report["recommended"],
    }
    told = "edgekit compress timm:mobilenetv3_small_100 --data photos/ --recipe quick"
    return [
        rows.row(
            f"300 pictures, {name}",
            f"from the command to the {name}",
            "seconds",
            edgekit=value,
            peer=LIMITS[name],
            peer_name="limit",
            ratio=LIMITS[name] / value,
            ratio_is="limit / edgekit",
            required=1.0,
            samples=count,
            about=about,
            command=rows.command(),
            measured=told,
            threads=options.threads,
            **({"details": details} if name == "recommended file" else {}),
        )
        for name, value in (
            ("first line", lines[0][0]),
            ("recommended file", seconds),
            ("recommended file, CPU", details["cpu_seconds"]),  # of two cores in five minutes
        )
    ]


# --- memory ------------------------------------------------------------------------------------------------


def _memory(
    place: work.Work, counts: Sequence[int], about: dict[str, Any], environment: dict[str, str]
) -> list[dict[str, Any]]:
    measured = [_data_part(photos(place.path / f"photos-{count}", count), environment) for count in counts]
    smallest = measured[0]
    made = []
    for count, one in zip(counts, measured, strict=True):
        for kind in ("own", "resident"):
            peak = one["peak_bytes"][kind]
            made.append(
                rows.row(
                    f"{count:,} pictures, {kind}",
                    f"peak memory of the process and its decoders, {kind}",
                    "bytes",
                    edgekit=peak,
                    peer=LIMITS["largest"],
                    peer_name="limit",
                    ratio=peak / smallest["peak_bytes"][kind],
                    ratio_is=f"to the peak with {counts[0]:,} pictures",
                    required=LIMITS["growth"],
                    samples=count,
                    about=about,
                    command=rows.command(),
                    details=one,
                )
            )
    return made


def _data_part(folder: Path, environment: dict[str, str]) -> dict[str, Any]:
    shutil.rmtree(environment["EDGEKIT_CACHE"], ignore_errors=True)  # decoded anew, each time
    process = subprocess.Popen(
        [sys.executable, "-c", DATA_PART, NETWORK, str(folder), str(RANDOM_BATCHES)],
        stdout=subprocess.PIPE,
        text=True,
        env=environment,
    )
    assert process.stdout is not None
    peaks = {"own": 0, "resident": 0}
    over = threading.Event()

    def look() -> None:
        while not over.wait(SAMPLED):
            together = [_memory_of(pid) for pid in _family(process.pid)]
            peaks["own"] = max(peaks["own"], sum(own for own, _ in together))
            peaks["resident"] = max(peaks["resident"], sum(all_ for _, all_ in together))

    watcher = threading.Thread(target=look)
    watcher.start()
    shown = process.stdout.read()
    code = process.wait()
    over.set()
    watcher.join()
    if code:
        raise SystemExit(f"the data part ended with {code}")
    return {**json.loads(shown), "peak_bytes": peaks}


def _family(pid: int) -> list[int]:
    try:
        tasks = list(Path(f"/proc/{pid}/task").iterdir())
        children = [int(one) for task in tasks for one in (task / "children").read_text().split()]
    except OSError:
        return [pid]
    return [pid, *(one for child in children for one in _family(child))]


def _memory_of(pid: int) -> tuple[int, int]:
    """What is its own (anonymous), and all that is resident, in bytes."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return 0, 0
    told = {line.split(":")[0]: line.split()[1] for line in lines if line.startswith(("RssAnon", "VmRSS"))}
    return int(told.get("RssAnon", 0)) * 1024, int(told.get("VmRSS", 0)) * 1024


if __name__ == "__main__":
    sys.exit(work.guarded(main))
