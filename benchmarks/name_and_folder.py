"""From a name and a folder: how long the first result takes.

    python benchmarks/name_and_folder.py        with timm and torchvision beside

Makes 300 JPEG files of many sizes, of three classes, and runs `edgekit compress timm:mobilenetv3_small_100
--data photos/ --recipe quick` on them, in a process of its own: seconds until its first line, and until the
recommended file is named. What many pictures take: data_size.py.

There is no peer: the figures stand against limits. ``cpu_seconds`` say how much of the machine the run was
given: on a machine with other work seconds on the clock are more.
"""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import time
from collections.abc import Sequence
from typing import Any

import rows
import work
from photos import photos
from provenance import PACKAGES, surroundings

NETWORK = "timm:mobilenetv3_small_100"
LIMITS = {
    "first line": 2.0,
    "recommended file": 300.0,
    "recommended file, CPU": 600.0,
}


def main(arguments: Sequence[str] | None = None) -> int:
    options = work.parser(__doc__, "name_and_folder").parse_args(arguments)
    with work.workplace(options) as place:
        about = surroundings((*PACKAGES, "timm", "torchvision", "pillow"))
        environment = {
            **os.environ,
            "EDGEKIT_CACHE": str(place.path / "cache"),
            "OMP_NUM_THREADS": str(options.threads),
        }
        found = _first_result(place, options, about, environment)
    print(rows.table(found))
    if not options.smoke:
        rows.write(options.out, found)
    return 0


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


if __name__ == "__main__":
    sys.exit(work.guarded(main))
