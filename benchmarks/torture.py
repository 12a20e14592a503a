"""What hostile files, kills and a machine that is short of something do to edgekit, at length.

python benchmarks/torture.py [--mutations 20000] [--kinds K] [--kills 40] [--starved 40] [--seed 0]

Mutations: of each kind (recipes, profiles, plans, run folders, records, bundles, samples, models, weights,
results, data) so many, seeded: each has to end in a result, or in one message and exit code 2 within ten
seconds. Kinds that take a process or a whole command for each have a 400th of that. A kind stops at its first
fault. Kills: -9 at random moments of compress, search, export, bundle, bench and prune, and half as many of
other signals; starved: a full disk, places that can't be written, file size limits, few descriptors, little
memory. The same command, given again, has to end with the files of an undisturbed run. Disks are mounted,
which takes root; without it those trials are left out. What is run takes the place of its kind in the result,
and the rest stays, each with its own commit.
"""

from __future__ import annotations

import argparse
import collections
import json
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
sys.path[:0] = [str(ROOT), str(HERE)]
KINDS = tuple(f"tests/torture/test_torture{name}.py" for name in ("", "_records", "_data"))


def main() -> int:
    """Run what is asked for, and put it into the result; exit code 1 if there was a fault."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--mutations", type=int, default=20_000, help="of each kind; 0: none")
    parser.add_argument("--kinds", default="", help="of mutations, as pytest -k; others stay as they were")
    parser.add_argument("--kills", type=int, default=40)
    parser.add_argument("--starved", type=int, default=40, help="0, and no kills: no trials")
    parser.add_argument("--only", default="", help="trials of this kind; others stay as they were")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=HERE / "results" / "torture.json")
    arguments = parser.parse_args()
    from provenance import surroundings

    found: dict[str, list[dict[str, Any]]] = {"mutations": [], "trials": []}
    with tempfile.TemporaryDirectory(prefix="edgekit-torture-") as folder:
        if arguments.mutations:
            found["mutations"] = mutations(arguments.mutations, arguments.kinds, arguments.seed, Path(folder))
        if arguments.kills or arguments.starved:
            planned = (arguments.kills, arguments.starved, arguments.only)
            found["trials"] = trials(*planned, arguments.seed, Path(folder))
    about = {"seed": arguments.seed, **surroundings()}
    # Read as late as can be: another process may have been at the other half.
    result = json.loads(arguments.out.read_text()) if arguments.out.exists() else {}
    for half, rows in found.items():
        merged = {one["kind"]: one for one in result.get(half, ())}
        result[half] = list((merged | {one["kind"]: {**one, **about} for one in rows}).values())
    arguments.out.write_text(json.dumps(result, indent=1) + "\n")
    for row in result["trials"]:
        print(f"{row['kind']:<32}{row['trials']:>6} trials{row['hits']:>6} hits{row['equal']:>6} equal")
    tried, kinds = sum(one["tried"] for one in result["mutations"]), len(result["mutations"])
    bad = [one for one in result["mutations"] if one["fault"]]
    bad += [one for one in result["trials"] if one["faults"]]
    print(f"{tried:,} mutations of {kinds} kinds; {len(bad)} kinds with faults; written to {arguments.out}")
    return int(bool(bad))


def mutations(count: int, kinds: str, seed: int, folder: Path) -> list[dict[str, Any]]:
    """A row for each kind: how many were tried, and the fault that ended it, if there was one."""
    report = folder / "mutations.xml"
    environment = {**os.environ, "EDGEKIT_TORTURE": str(count), "EDGEKIT_TORTURE_SEED": str(seed)}
    pytest = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-m", "torture"]
    pytest += ["-o", "junit_family=xunit1"]  # which has properties
    pytest += ["-k", kinds] if kinds else []
    subprocess.run([*pytest, f"--junitxml={report}", *KINDS], cwd=ROOT, env=environment, check=False)
    return [row_of(case) for case in ElementTree.parse(report).iter("testcase")]


def row_of(case: ElementTree.Element) -> dict[str, Any]:
    """One test of mutations: its property "mutations" says how many it got through."""
    bad = [one for name in ("failure", "error") for one in case.iter(name)]
    told = {one.get("name"): one.get("value") for one in case.iter("property")}
    return {
        "kind": str(case.get("name")).removeprefix("test_"),
        "tried": int(told.get("mutations") or 0),
        "seconds": round(float(case.get("time") or 0)),
        "fault": (bad[0].get("message") or "")[:2000] if bad else "",
    }


def trials(kills: int, starved: int, only: str, seed: int, folder: Path) -> list[dict[str, Any]]:
    """What became of the trials: a row for each kind."""
    from tests.torture.trials import can_mount, tried
    from tests.torture.trials import trials as drawn
    from tests.torture.trouble import Machine

    mounts = can_mount(folder)
    machine = Machine(folder / "machine")
    found = []
    try:
        planned = [one for one in drawn(seed, kills, starved, mounts=mounts) if not only or only == one[0]]
        for number, (kind, name, one) in enumerate(planned, 1):
            trial = tried(machine, kind, name, one)
            found.append(trial.to_json())
            print(f"{number}/{len(planned)} {one} {name}: {trial.hits} hits {trial.told}", flush=True)
            for fault in trial.faults:
                print(f"  fault: {fault}", flush=True)
    finally:
        machine.close()
    return summed(found)


def without_paths(text: str) -> str:
    """Without the folders that only this machine has."""
    return re.sub(r"/(?:[\w.-]+/)+", "…/", text)


def summed(disturbed: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """A row for each kind of trouble: trials, how often it hit, how many of them ended with equal files."""
    rows = []
    for kind in dict.fromkeys(one["kind"] for one in disturbed):
        own = [one for one in disturbed if one["kind"] == kind]
        rows.append(
            {
                "kind": kind,
                "trials": len(own),
                "hits": sum(one["hits"] for one in own),
                "deaths": sum(one["deaths"] for one in own),
                "equal": sum(not one["faults"] for one in own),
                "commands": dict(collections.Counter(one["command"] for one in own)),
                "faults": [without_paths(fault)[-2000:] for one in own for fault in one["faults"]],
                "told": dict(
                    collections.Counter(
                        without_paths(text) for one in own for text in one["told"]
                    ).most_common(5)
                ),
            }
        )
    return rows


if __name__ == "__main__":
    sys.exit(main())
