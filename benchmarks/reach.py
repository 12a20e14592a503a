"""How far edgekit reaches: networks that are not its own, at full depth and their own resolution, through the
whole main job. One process, and one JSON row, for each network.

    make reach                                        # installs the networks, then tries all of them
    python benchmarks/reach.py mixnet_s vit --jobs 2  # some of them; or any other timm:NAME, torchvision:NAME

Each is captured, cut to two thirds of its MACs (no training), calibrated, exported to ONNX and LiteRT, its
files evaluated, timed and diagnosed: `edgekit.compress` with the recipe below. Inputs are made up, weights
mostly random (foreign.py), so accuracy means nothing here; what counts is whether it works, how near each
file is to the graph and the graph to the float model, for the worst channel too, and what it costs.

A network that is finished with the present code is skipped; ``--again`` doesn't. One thread each.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import re
import resource
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
_PART = 32  # samples that are made at a time
ASKED = 1.5  # MACs before over MACs after
RECIPE = {
    "description": "How far edgekit reaches",
    "stages": [
        {"kind": "prune", "speedup": ASKED, "training": {"epochs": 0}},
        {"kind": "qat", "training": {"epochs": 0}},
    ],
    "exports": {"formats": ["onnx", "litert"], "precisions": ["int8"]},
    "benchmark": {"threads": [1], "min_seconds": 0.2, "min_runs": 3},
    "diagnose": {"samples": 8},
    "recommend": {"max_accuracy_drop": 100},
}


def main() -> int:
    """Try the networks, and write the rows after each of them."""
    arguments = _arguments()
    sys.path.insert(0, str(HERE))
    if arguments.one:
        return _one(arguments)
    from foreign import names

    arguments.work.mkdir(parents=True, exist_ok=True)
    rows = {row["name"]: row for row in _read(arguments.out)}
    commit, isa = _commit()
    todo = [
        name
        for name in names(arguments.names)
        if arguments.again or rows.get(name, {}).get("commit") != commit or not rows[name].get("went")
    ]

    def attempt(name: str) -> None:
        row = {**_spawn(name, arguments), "commit": commit, "isa": isa}
        rows[name] = row
        _write(arguments.out, rows)
        print(line(row), flush=True)

    with ThreadPoolExecutor(arguments.jobs) as pool:
        list(pool.map(attempt, todo))
    print(summary(list(rows.values())))
    return 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("names", nargs="*", help="names, or parts of them; all without any")
    parser.add_argument(
        "--samples", type=int, default=128, help="training samples, and a quarter to validate"
    )
    parser.add_argument("--timeout", type=float, default=900, help="seconds for each network")
    parser.add_argument("--memory-gb", type=float, default=10, help="peak memory at which one is stopped")
    parser.add_argument("--jobs", type=int, default=1, help="networks at a time")
    parser.add_argument("--again", action="store_true", help="those too that are finished")
    parser.add_argument("--work", type=Path, default=Path("~/.cache/edgekit/benchmarks/reach").expanduser())
    parser.add_argument("--out", type=Path, default=HERE / "results" / "reach.json")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    return parser.parse_args()


def _read(path: Path) -> list[dict[str, Any]]:
    return list(json.loads(path.read_text())["rows"]) if path.exists() else []


def _write(path: Path, rows: dict[str, dict[str, Any]]) -> None:
    from foreign import NETWORKS
    from provenance import surroundings

    from edgekit.files import write_json

    order = {name: position for position, name in enumerate(NETWORKS)}
    ordered = sorted(rows.values(), key=lambda row: (order.get(row["name"], len(order)), row["name"]))
    about = surroundings()
    about.pop("commit")  # each row has its own
    path.parent.mkdir(parents=True, exist_ok=True)
    write_json(path, {"recipe": RECIPE, "known": len(NETWORKS), **about, "rows": ordered}, indent=1)


def _commit() -> tuple[str, list[str]]:
    """Of the code, and the instruction sets of this CPU: without VNNI, ONNX files have weights of 7 bits."""
    from provenance import surroundings

    about = surroundings()
    return str(about["commit"]), list(about["machine"]["isa"])


# --- one network, seen from outside ------------------------------------------------------------------------


def _spawn(name: str, arguments: argparse.Namespace) -> dict[str, Any]:
    """Run one in a process group of its own; how it ended, and the longest time in which it said nothing."""
    command = [sys.executable, __file__, "--one", name, "--samples", str(arguments.samples)]
    command += ["--work", str(arguments.work)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1"}
    log = arguments.work / f"{name.replace(':', '-')}.log"
    started = time.monotonic()
    with (
        log.open("w") as errors,
        subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=errors, text=True, env=environment, start_new_session=True
        ) as process,
    ):
        watch = _Watch(process.pid, started + arguments.timeout, arguments.memory_gb * 1e9)
        events, row = [], {}
        with ThreadPoolExecutor(1) as pool:
            watching = pool.submit(watch.run)
            assert process.stdout is not None
            for text in process.stdout:
                if text.startswith("ROW "):
                    row = json.loads(text[4:])
                elif text.startswith("EVENT "):
                    events.append((time.monotonic() - started, *json.loads(text[6:]), watch.processor))
            process.wait()
            watch.over = True
            watching.result()
    ended = time.monotonic() - started
    if not row:
        reason = watch.killed or f"ended with exit code {process.returncode}"
        tail = "" if watch.killed else log.read_text()[-300:]
        at = events[-1][1:3] if events else ("start", "")
        row = {
            "went": "killed" if watch.killed else "crashed",
            "failure": f"{reason} in {at[0]}: {at[1]} {tail}",
        }
    return {
        "name": name,
        **row,
        "seconds": _seconds([event[:2] for event in events], ended),
        "cpu_seconds": _seconds([(event[3], event[1]) for event in events], watch.processor),
        "longest_silence": _silence(events, ended),
        "peak_bytes": max(watch.peak, row.get("peak_bytes", 0)),
        "peak_own_bytes": watch.own,
        "samples": arguments.samples,
    }


class _Watch:
    """Ends a process group that takes too long or too much memory.

    ``peak``: bytes in memory; ``own``: without those of mapped files, which the system may drop;
    ``processor``: seconds of it that were spent so far, at most a quarter of a second old.
    """

    def __init__(self, pid: int, until: float, most: float) -> None:
        self.pid, self.until, self.most = pid, until, most
        self.peak, self.own, self.killed, self.over = 0, 0, "", False
        self.processor = 0.0

    def run(self) -> None:
        while not self.over:
            resident, own, processor = _used(self.pid)
            self.peak, self.own = max(self.peak, resident), max(self.own, own)
            self.processor = max(self.processor, processor)
            if time.monotonic() > self.until:
                self.killed = "out of time"
            elif self.peak > self.most:
                self.killed = f"out of memory at {self.peak / 1e9:.1f} GB"
            if self.killed:
                os.killpg(self.pid, signal.SIGKILL)
                return
            time.sleep(0.25)


def _used(group: int) -> tuple[int, int, float]:
    """Bytes in memory of all processes of a group, those among them that are no file's, and the seconds of
    processors that they and their finished children spent.
    """
    total = own = ticks = 0
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            fields = (folder / "stat").read_text().rpartition(")")[2].split()
            if int(fields[2]) == group:
                ticks += sum(int(field) for field in fields[11:15])
                total += int(fields[21]) * resource.getpagesize()
                own += 1024 * int((folder / "status").read_text().partition("RssAnon:")[2].split()[0])
        except (OSError, IndexError, ValueError):
            continue
    return total, own, ticks / os.sysconf("SC_CLK_TCK")


def _seconds(events: list[tuple[Any, ...]], ended: float) -> dict[str, float]:
    """Time by part, as its clock has it (when, part): from a part's first event to the first of another."""
    found: dict[str, float] = {}
    events = events or [(0.0, "start")]
    for (at, part), following in zip(events, [*events[1:], (ended,)], strict=True):
        found[part] = found.get(part, 0.0) + following[0] - at
    return {part: round(seconds, 1) for part, seconds in found.items()} | {"all": round(ended, 1)}


def _silence(events: list[tuple[Any, ...]], ended: float) -> dict[str, Any]:
    """The longest time without a word, and the words before it."""
    if not events:
        return {"seconds": round(ended, 1), "after": "the start"}
    pairs = zip(events, [*events[1:], (ended,)], strict=True)
    seconds, part, message = max(((b[0] - a[0], a[1], a[2]) for a, b in pairs), key=lambda one: one[0])
    return {"seconds": round(seconds, 1), "after": f"{part}: {message}"[:120]}


# --- one network, in its process ---------------------------------------------------------------------------


def _one(arguments: argparse.Namespace) -> int:
    """Compress one network; its row goes to stdout."""
    import shutil

    import torch

    torch.set_num_threads(1)
    from edgekit.errors import EdgekitError, InputError, StageError
    from edgekit.monitor.bystander import Bystander
    from edgekit.monitor.heartbeat import HELD_UP, Heartbeat
    from edgekit.progress import Event

    terminal = sys.stdout  # what converters print is kept from the one that is asked for later

    def line_of(event: Event) -> str:
        text = f"{event.message} {event.done}/{event.total}" if event.total else event.message
        return f"EVENT {json.dumps([event.stage, text])}"

    def told(event: Event) -> None:
        print(line_of(event), file=terminal, flush=True)

    folder = arguments.work / arguments.one.replace(":", "-")
    shutil.rmtree(folder, ignore_errors=True)
    try:
        beside = Bystander(terminal.fileno(), HELD_UP)
        # As the command line has it without a terminal.
        with Heartbeat(told, sparing=True, beside=beside, line=line_of) as progress:
            made = _workload(arguments.one, arguments.samples, folder)
            progress(Event("stage-start", "start", "the network is built"))
            row = {"went": "whole way", **_compressed(made, folder, progress)}
    except EdgekitError as error:
        trained = [path.parent.name for path in folder.glob("stages/*/stage.json")] if folder.exists() else []
        # Nothing is trained here: what is said once a stage is finished would come after a training. And a
        # stage that fails with words of Python's has refused nothing.
        early = isinstance(error, InputError) or (not trained and type(error) is not StageError)
        row = {"went": "refused" if early else "failed", "failure": str(error), "error": type(error).__name__}
    row["peak_bytes"] = 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    print("ROW", json.dumps(row), flush=True)
    for left in (folder, folder.with_suffix(".samples")):
        shutil.rmtree(left, ignore_errors=True)
    return 0


def _workload(name: str, samples: int, folder: Path) -> Any:
    """The network with made-up samples, which lie in a file each beside ``folder`` and are mapped."""
    import numpy as np
    import torch
    from foreign import make

    from edgekit import Classification, Preprocessing, Reconstruction, Segmentation, Workload

    network = make(name)
    preprocessing, pixels = Preprocessing(), False
    example = network.inputs(2, 0)
    if example.dim() == 4:  # pictures, as bytes
        preprocessing = Preprocessing(layout="NCHW", scale=1 / 255, mean=(0.5,) * 3, std=(0.2,) * 3)
        pixels = True
    elif not example.is_floating_point():
        preprocessing = Preprocessing(dtype="int64")

    kept = folder.with_suffix(".samples")
    kept.mkdir(exist_ok=True)

    def draw(count: int, seed: int) -> Any:
        """In small parts: two thousand pictures at once would be what takes most memory."""
        path = kept / f"{seed}.npy"
        file = None
        for start in range(0, count, _PART):
            part = network.inputs(min(_PART, count - start), seed + start)
            values = ((255 * (0.2 * part + 0.5)).clamp(0, 255).byte() if pixels else part).numpy()
            if file is None:
                shape = (count, *values.shape[1:])
                file = np.lib.format.open_memmap(path, "w+", values.dtype, shape)
            file[start : start + len(values)] = values
        del file
        return np.load(path, mmap_mode="r", allow_pickle=False)

    train, validation = draw(samples, 10_000), draw(max(8, samples // 4), 20_000)
    answers = network.model(preprocessing(torch.from_numpy(validation[:2].copy())))
    task: Any = Reconstruction()
    if network.spatial:
        task = Segmentation(num_classes=answers.shape[1])
    elif answers.dim() == 2 and not name.startswith("packaged:"):
        task = Classification(num_classes=answers.shape[1])
    data = {"train": (train, None), "validation": (validation, None)}
    return Workload(
        name=re.sub(r"\W", "-", name), model=network.model, task=task, preprocessing=preprocessing, **data
    )


def _compressed(workload: Any, folder: Path, told: Any) -> dict[str, Any]:
    """The whole job, and what its report says."""
    import edgekit
    from edgekit.formats.litert.delegated import delegated
    from edgekit.formats.litert.reading import load

    recipe = folder.with_suffix(".yaml")
    recipe.write_text(json.dumps(RECIPE))
    report = edgekit.compress(workload, recipe, out=folder, progress=told).to_json()
    (prune, qat) = report["stages"]
    files = {one["format"]: one for one in report["artifacts"] if one["precision"] == "int8"}
    return {
        "parameters": report["baseline"]["parameters"],
        "macs": report["baseline"]["macs"],
        "macs_reached": round(report["baseline"]["macs"] / max(prune["macs"], 1), 3),
        "notes": [prune["note"], qat["note"]],
        "ladder": report["ladder"],
        "coverage": {format: one["int8_coverage"] for format, one in files.items()},
        "float_layers": {format: one.get("float_layers", [])[:8] for format, one in files.items()},
        "litert": dataclasses.asdict(delegated(load(folder / files["litert"]["file"]))),
        "warnings": [one["message"] for one in report["warnings"]],
        "gates": _gates(folder),
    }


def _gates(folder: Path) -> dict[str, float]:
    """Seconds that the int8 files' gates took, and those that exporting these files did."""
    manifest = json.loads((folder / "manifest.json").read_text())
    files = [one for one in manifest["artifacts"] if one["precision"] == "int8"]
    return {
        "gate_seconds": round(sum(one["evaluation"]["gate_seconds"] for one in files), 1),
        "export_seconds": round(sum(one["seconds"] for one in files), 1),
    }


# --- for people --------------------------------------------------------------------------------------------


def line(row: dict[str, Any]) -> str:
    """One row for the terminal."""
    took = f"{row['seconds']['all']:>5.0f} s {row['peak_bytes'] / 1e9:>5.1f} GB"
    text = f"{row['name']:<40} {row['went']:<10} {took}"
    if row["went"] != "whole way":
        return f"{text}  {' '.join(str(row['failure']).split())[:230]}"
    steps = {step["rung"].rpartition("_")[2]: step["snr_db"] for step in row["ladder"]}
    judged = "  ".join(f"{name} {decibels:.1f}" for name, decibels in steps.items() if name != "prune")
    integer = " ".join(f"{share:.0%}" for share in row["coverage"].values())
    return f"{text}  {row['macs_reached']:.2f}x  {judged}  {integer}  {row['litert']}"


def summary(rows: list[dict[str, Any]]) -> str:
    """How many went how far."""
    went = [row["went"] for row in rows]
    return ", ".join(f"{went.count(kind)} {kind}" for kind in dict.fromkeys(went)) + f" of {len(rows)}"


if __name__ == "__main__":
    sys.exit(main())
