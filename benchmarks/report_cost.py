"""What the report costs: its share of a run's time, its size, and how fast it opens in Chromium.

    EDGEKIT_DATA=… python benchmarks/report_cost.py [--set stages.prune.training.epochs=2] [--run FOLDER]

Compresses the CIFAR-10 ResNet-20 with the mobile recipe. With fewer epochs the run is shorter and the report
isn't, so that its share of the time is larger than with all of them. A share "with all epochs" adds those
that were left out, each as long as the stage's measured ones took (none where none was measured). There is no
peer: the figures stand against the limits that edgekit sets itself.

Opening: from the navigation's start until the first picture is drawn, in a fresh page each time, the median
of several. Needs ``pip install playwright`` and a Chromium (``apt install chromium``).
"""

from __future__ import annotations

import json
import os
import shutil
import statistics
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import rows
import work
from provenance import PACKAGES, surroundings

from edgekit.opening import load_workload
from edgekit.pipeline import compress
from edgekit.recipe import load_recipe
from edgekit.report import Report

LIMITS = {"share": 0.10, "bytes": 5_000_000.0, "seconds": 2.0}
OPENED = 7


def main(arguments: Sequence[str] | None = None) -> int:
    parser = work.parser(__doc__, "report_cost")
    parser.add_argument("--set", dest="overrides", action="append", default=[], metavar="PATH=VALUE")
    parser.add_argument("--run", type=Path, help="a finished run folder, instead of making one")
    options = parser.parse_args(arguments)
    with work.workplace(options) as place:
        about = surroundings(PACKAGES)
        run = options.run or made(place, options)
        found = figures(run)
        table = [
            rows.row(
                f"resnet20 CIFAR-10, mobile: {name}",
                metric,
                unit,
                edgekit=value,
                peer=LIMITS[unit],
                peer_name="limit",
                ratio=LIMITS[unit] / value,
                samples=samples,
                about=about,
                ratio_is="limit / edgekit",
                required=1.0,
                details=found["details"],
                overrides=options.overrides,
                command=rows.command(),
            )
            for name, metric, unit, value, samples in found["rows"]
        ]
    print(rows.table(table))
    if not options.smoke:
        rows.write(options.out, table)
    return 0


def made(place: work.Work, options: Any) -> Path:
    """A run of its own; a killed one goes on."""
    workload = load_workload(f"{work.HERE}/workloads/cifar10.py:resnet20")
    overrides = list(options.overrides)
    if options.smoke:
        workload = work.smaller(workload, 256, 200)
        overrides += ["stages.prune.training.epochs=1", "stages.qat.training.epochs=0", "diagnose.samples=20"]
    folder = place.path / "run"
    compress(workload, "mobile", out=folder, overrides=overrides, progress=work.Teller("edgekit"))
    return folder


def figures(run: Path) -> dict[str, Any]:
    """Seconds of the run and of its parts, bytes of the page, seconds until it is to be seen."""
    report = Report.load(run)
    diagnosed = json.loads((run / "diagnosis.json").read_text())["diagnosis"]["seconds"]
    entries = json.loads((run / "manifest.json").read_text())["artifacts"]
    evaluated = sum(one["evaluation"]["seconds"] for one in entries)
    whole = report.seconds + diagnosed
    added = left_out(run)
    page = run / "report.html"
    opened = seconds_to_open(page)
    return {
        "rows": [
            *(
                (f"{what}{epochs}", "share of the run's time", "share", seconds / (whole + more), 1)
                for what, seconds in (("report", diagnosed), ("evaluation and report", evaluated + diagnosed))
                for epochs, more in (("", 0.0), (", with all epochs", added))
            ),
            ("report.html", "size", "bytes", float(page.stat().st_size), 1),
            ("report.html", "time to open", "seconds", statistics.median(opened), len(opened)),
        ],
        "details": {
            "run_seconds": whole,
            "diagnosis_seconds": diagnosed,
            "evaluation_seconds": evaluated,
            "seconds_of_epochs_left_out": added,
            "training_seconds": sum(stage.seconds for stage in report.stages),
            "opened_seconds": opened,
        },
    }


def left_out(run: Path) -> float:
    """Seconds of the epochs that the mobile recipe has and this run doesn't."""
    stages: list[Any] = list(load_recipe("mobile").stages)
    wanted = {stage.kind: stage.training.epochs for stage in stages}
    added = 0.0
    for path in sorted((run / "stages").glob("*/summary.json")):
        history = json.loads(path.read_text())["details"].get("history") or []
        if history:
            missing = wanted[path.parent.name.partition("-")[2]] - len(history)
            added += missing * statistics.mean(float(epoch["seconds"]) for epoch in history)
    return added


def seconds_to_open(page: Path) -> list[float]:
    """Until the first picture is drawn, several times over."""
    from playwright.sync_api import sync_playwright

    chromium = os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("chromium-browser")
    found = []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        for _ in range(OPENED):
            shown = browser.new_page(viewport={"width": 1100, "height": 900})
            shown.goto(page.as_uri())
            shown.wait_for_selector("[data-drawn]")
            found.append(float(shown.evaluate("performance.now()")) / 1000)
            shown.close()
        browser.close()
    return found


if __name__ == "__main__":
    sys.exit(work.guarded(main))
