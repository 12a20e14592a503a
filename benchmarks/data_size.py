"""Data of any size: what memory 1,000 and 50,000 pictures take, and how soon they are trained on.

    python benchmarks/data_size.py [--pictures 1000 50000]        with timm and torchvision beside

Makes JPEG files of 224 x 224 pixels, of three classes, each different. For each number of them, with nothing
in edgekit's cache, a process does what `edgekit compress timm:mobilenetv3_small_100 --data photos/` does with
its data: list, look for copies, split, decode, fingerprint, check; then it trains, a hundred steps of 64
augmented pictures. Seconds count from the start of the process, its imports included, to the end of the first
training step; the first line is that of the command itself, which is ended then. Peak memory, before training
and in all, is that of the process and of its decoders together: what is their own (anonymous), and all that
is resident, which has pages of the mapped file in it that the system takes back when it needs them.

There is no peer: the figures stand against limits. Seconds on the clock depend on what else the machine does:
``details.cpu_seconds`` say what was computed, and ``details.cores_had`` how many cores it was given for that.
"""

from __future__ import annotations

import itertools
import json
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import rows
import work
from photos import photos
from provenance import PACKAGES, surroundings

NETWORK = "timm:mobilenetv3_small_100"
SIDES = (224, 224)
LARGEST, GROWTH = 3e9, 1.1
SECONDS = {"first line": 2.0, "first training step": 30.0}
SAMPLED = 0.02  # seconds between looks at memory
STEPS = 100

# In a process of its own, which says what it took.
PART = """
import json, os, sys, time
told = []
from edgekit import Source, load_workload
from edgekit.progress import told_while_reading
def now():
    return time.monotonic() - float(sys.argv[4])
def computed():
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system
def hear(event):
    told.append(now())
with told_while_reading(hear):
    work = load_workload(Source(sys.argv[1], sys.argv[2]))
read = now()
work.check()
digest = work.fingerprint()
print("ready", flush=True)
from edgekit.training.computing.memory import keeping_freed_memory
from edgekit.training.data.batches import Batches
import torch
model = work.model.train()
optimizer = torch.optim.SGD(model.parameters(), 0.001)
steps = []
with keeping_freed_memory():
    for _, batch in zip(range(int(sys.argv[3])), Batches(work, 64, 0, "distill").of_epoch(1)):
        loss = work.task.loss(model(batch.inputs), batch.targets)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if not steps:
            cpu = computed()
        steps.append(now())
silence = max(b - a for a, b in zip([0.0, *told], told))
print(json.dumps({"seconds_to_data": read,
                  "seconds_to_first_step": steps[0], "seconds": steps[-1], "longest_silence": silence,
                  "cpu_seconds": cpu, "cores_had": cpu / steps[0],
                  "samples": [len(work.train), len(work.validation)], "fingerprint": digest}))
"""


def main(arguments: Sequence[str] | None = None) -> int:
    parser = work.parser(__doc__, "data_size")
    parser.add_argument("--pictures", type=int, nargs="+", default=[1000, 50_000])
    options = parser.parse_args(arguments)
    counts = [66, 132] if options.smoke else options.pictures
    with work.workplace(options) as place:
        about = surroundings((*PACKAGES, "timm", "torchvision", "pillow"))
        environment = {
            **os.environ,
            "EDGEKIT_CACHE": str(place.path / "cache"),
            "OMP_NUM_THREADS": str(options.threads),
        }
        found = _measured(place, counts, about, environment, options.threads)
        shutil.rmtree(place.path / "cache", ignore_errors=True)
    print(rows.table(found))
    if not options.smoke:
        rows.write(options.out, found)
    return 0


def _measured(
    place: work.Work,
    counts: Sequence[int],
    about: dict[str, Any],
    environment: dict[str, str],
    threads: int,
) -> list[dict[str, Any]]:
    measured = [_part(photos(place.path / f"photos-{n}", n, SIDES), environment) for n in counts]
    made = []
    for count, one in zip(counts, measured, strict=True):
        common: dict[str, Any] = {"samples": count, "about": about, "command": rows.command()}
        common |= {"threads": threads, "details": one}
        for kind, when in itertools.product(("own", "resident"), ("before training", "in all")):
            peak = one["peak_bytes"][when][kind]
            made.append(
                rows.row(
                    f"{count:,} pictures, {kind}, {when}",
                    f"peak memory of the process and its decoders, {kind}",
                    "bytes",
                    edgekit=peak,
                    peer=LARGEST,
                    peer_name="limit",
                    ratio=peak / measured[0]["peak_bytes"][when][kind],
                    ratio_is=f"to the peak with {counts[0]:,} pictures",
                    required=GROWTH,
                    **common,
                )
            )
        for name, key in (("first line", "first_line"), ("first training step", "first_step")):
            seconds = one[f"seconds_to_{key}"]
            made.append(
                rows.row(
                    f"{count:,} pictures, {name}",
                    f"from the start to the {name}",
                    "seconds",
                    edgekit=seconds,
                    peer=SECONDS[name],
                    peer_name="limit",
                    ratio=SECONDS[name] / seconds,
                    ratio_is="limit / edgekit",
                    required=1.0,
                    **common,
                )
            )
    return made


def _part(folder: Path, environment: dict[str, str]) -> dict[str, Any]:
    shutil.rmtree(environment["EDGEKIT_CACHE"], ignore_errors=True)  # decoded anew, each time
    process = subprocess.Popen(
        [sys.executable, "-c", PART, NETWORK, str(folder), str(STEPS), str(time.monotonic())],
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
    process.stdout.readline()
    before = dict(peaks)
    shown = process.stdout.read()
    code = process.wait()
    over.set()
    watcher.join()
    if code:
        raise SystemExit(f"it ended with {code}")
    return {
        **json.loads(shown),
        "seconds_to_first_line": _first_line(folder, environment),
        "peak_bytes": {"before training": before, "in all": peaks},
    }


def _first_line(folder: Path, environment: dict[str, str]) -> float:
    """Seconds until the command says something; then it is ended."""
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as out:
        process = subprocess.Popen(
            [sys.executable, "-m", "edgekit", "compress", NETWORK, "--data", str(folder), "--out", out],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            env=environment,
        )
        assert process.stderr is not None
        line = process.stderr.readline()
        seconds = time.monotonic() - began
        process.kill()
        process.communicate()
    if not line.strip():
        raise SystemExit("the command said nothing")
    print(f"{seconds:.1f} s: {line.rstrip()}", file=sys.stderr)
    return seconds


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
