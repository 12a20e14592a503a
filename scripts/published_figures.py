"""Write the README's tables and the recipes' `measured:` lines from the results in benchmarks/results.

python scripts/published_figures.py [--check]
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from edgekit.report.markdown import markdown
from edgekit.report.summary import Report
from edgekit.units import human_share

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "scripts"))

import microcontroller_table  # noqa: E402 - beside this file, which tests run from elsewhere
import peers_table  # noqa: E402
import reach_table  # noqa: E402
import torture_summary  # noqa: E402

RESULTS = ROOT / "benchmarks" / "results"
MEASURED = re.compile(r"^# measured:.*(?:\n#  {10}.*)*", re.MULTILINE)
MARKED = re.compile(r"(<!-- table: ([\w.-]+) -->\n).*?(<!-- end -->)", re.DOTALL)


def main() -> int:
    """Rewrite the files; with ``--check`` only name those that are out of date (exit code 1 if any are)."""
    pages = [ROOT / "README.md", *(ROOT / "docs" / f"{name}.md" for name in ("bundle", "int8", "reach"))]
    new = {page: MARKED.sub(lambda m: f"{m[1]}{table(m[2])}{m[3]}", page.read_text()) for page in pages}
    for recipe in sorted((ROOT / "recipes").glob("*.yaml")):
        line = measured(recipe.stem)
        new[recipe] = MEASURED.sub(lambda _, line=line: line, recipe.read_text(), count=1)  # type: ignore[misc]
    stale = [path for path, text in new.items() if path.read_text() != text]
    for path in stale:
        if "--check" in sys.argv:
            print(f"{path.relative_to(ROOT)} doesn't say what benchmarks/results say")
        else:
            path.write_text(new[path])
    return int("--check" in sys.argv and bool(stale))


def measured(recipe: str) -> str:
    """The header lines of a recipe: what it did to the embedded demo."""
    path = RESULTS / f"digits-{recipe}.json"
    if not path.exists():
        return "# measured: not yet"
    report = json.loads(path.read_text())
    reference = next(a for a in report["artifacts"] if a["file"] == report["reference"])
    best = next(a for a in report["artifacts"] if a["file"] == report["recommended"]["artifact"])
    runtime = report["recommended"]["runtime"]
    faster = latency(report, reference["file"], "onnxruntime") / latency(report, best["file"], runtime)
    before, after = (human_share(row["accuracy"]) for row in (report["baseline"], best))
    return (
        f"# measured: embedded demo, {best['precision']} in {runtime}, 1 thread of {cpu(report)}:\n"
        f"#           accuracy {before} to {after}, "
        f"{reference['size_bytes'] / best['size_bytes']:.1f} x smaller, {faster:.1f} x faster\n"
        f"#           ({path.relative_to(ROOT).as_posix()})"
    )


def cpu(report: dict[str, Any]) -> str:
    """The first device's CPU."""
    return str(report["devices"][0]["cpu"]).strip()


def table(name: str) -> str:
    """Markdown for ``benchmarks/results/<name>.json``; a file that isn't there gives an honest sentence.

    "against": what the compression benchmarks found. "reach", "reach-summary": foreign networks.
    "peers-near", "peers-times": int8 by calibration beside others. "torture": what kills and damaged files
    did. "microcontroller": instructions of C99.
    """
    if name == "against":
        return against()
    if name.startswith("reach"):
        found = json.loads((RESULTS / "reach.json").read_text())
        return reach_table.table(found) if name == "reach" else f"\n{reach_table.summary(found)}\n\n"
    if name == "torture":
        return f"\n{torture_summary.summary(json.loads((RESULTS / 'torture.json').read_text()))}\n\n"
    if name == "microcontroller":
        return microcontroller_table.table(json.loads((RESULTS / "microcontroller.json").read_text()))
    if name.startswith("peers"):
        found = json.loads((RESULTS / "int8_against_peers.json").read_text())
        return peers_table.near(found) if name == "peers-near" else peers_table.times(found)
    path = RESULTS / f"{name}.json"
    if not path.exists():
        return f"\n(not measured yet: benchmarks/results/{name}.json is missing)\n\n"
    report = json.loads(path.read_text())
    source = f"Measured on one thread of {cpu(report)}: [{path.name}](benchmarks/results/{path.name})."
    return f"\n{markdown(Report.from_json(report))}\n{source}\n\n"


# --- the compression benchmarks --------------------------------------------------------------------------


def against() -> str:
    """Markdown: a row for each benchmark against a peer, from the rows that its script wrote."""
    lines = ["", "| | edgekit | peer | aim | reached |", "| --- | --- | --- | --- | --- |"]
    for name, row in AGAINST.items():
        what, *cells = row(json.loads((RESULTS / f"{name}.json").read_text()))
        lines.append(f"| [{what}](benchmarks/results/{name}.json) | {' | '.join(cells)} |")
    return "\n".join([*lines, "", ""])


Rows = list[dict[str, Any]]
Cells = tuple[str, str, str, str, str]  # what, edgekit, peer, aim, reached


def reached(text: str, enough: bool) -> str:
    """What falls short is bold."""
    return text if enough else f"**{text}**"


def _prune_accuracy(rows: Rows) -> Cells:
    best = rows[0]  # the stronger peer stands first
    # The shares come from whole images: more digits than these are rounding.
    share = round(best["ratio"], 9)
    return (
        f"ResNet-20, 2x fewer MACs, 8 epochs, from {_percent(best['original'])}",
        _percent(best["edgekit"]),
        f"{_percent(best['peer'])} (at {best['peer_speedup']:.2f}x), torch-pruning and cross-entropy",
        f"{human_share(best['required'], 0)} of its loss won back",
        reached(human_share(share), share >= best["required"]),
    )


def _resnet56(rows: Rows, where: str) -> Cells:
    best = rows[0]
    epochs = best["settings"]["edgekit"]["training"]["epochs"]
    return (
        f"ResNet-56, 2.1x fewer MACs, from {_percent(best['original'])}, {where}",
        f"{_percent(best['edgekit'])}, {epochs} epochs",
        f"{' and '.join(_percent(row['peer']) for row in rows)}, torch-pruning's published figures, "
        "100 and 200 epochs on a GPU",
        _percent(best["required_accuracy"]),
        reached(_percent(best["edgekit"]), best["edgekit"] >= best["required_accuracy"]),
    )


def _pruning_realised(rows: Rows) -> Cells:
    def span(side: str) -> str:
        values = [row[side] for row in rows]
        return f"{min(values):.2f} to {max(values):.2f}"

    return (
        "time gained / MACs saved, ResNet-8 and -20, both runtimes, fp32 and int8",
        span("edgekit"),
        f"{span('peer')}, torch-pruning",
        f"{rows[0]['required']:g}",
        reached(span("edgekit"), all(row["edgekit"] >= row["required"] for row in rows)),
    )


def _chain_wall_time(rows: Rows) -> Cells:
    (row,) = rows
    return (
        "distil, prune and QAT of a ResNet-20, two CPU cores",
        f"{_percent(row['edgekit_accuracy'])} after {row['edgekit']:.0f} s",
        f"{_percent(row['peer_accuracy'])} after {row['peer']:.0f} s, torch-pruning, KD loop, NNCF by hand",
        f"equal accuracy {row['required']:g} times as fast",
        reached(f"{row['bound']} {row['ratio']:.2f}".strip(), row["ratio"] >= row["required"]),
    )


def _kd_throughput(rows: Rows) -> Cells:
    (row,) = rows
    return (
        "KD of a ResNet-20, two CPU cores",
        f"{row['edgekit']:.0f} images/s",
        f"{row['peer']:.0f} images/s, a plain PyTorch loop",
        f"{row['required']:g} times as fast",
        reached(f"{row['ratio']:.2f}", row["ratio"] >= row["required"])
        + f"; the student's step alone, compiled: {row['bound_ratio']:.2f}",
    )


def _qat_recovers(rows: Rows) -> Cells:
    row = rows[0]  # QAT; the other is without training
    ratio = row["ratio"]
    found = "there is no drop" if ratio is None else human_share(ratio, 0)
    return (
        f"int8 of a MobileNetV3 with {_percent(row['float'])}, worse of both files",
        f"{_percent(row['edgekit'])}, QAT",
        f"{_percent(row['peer'])}, NNCF post-training",
        f"{human_share(row['required'], 0)} of its drop won back",
        reached(found, ratio is not None and ratio >= row["required"]),
    )


def _keyword_spotting(rows: Rows) -> Cells:
    row = min((one for one in rows if "required_points" in one), key=lambda one: one["points"])
    return (
        f"int8 of a DS-CNN on spoken digits, {row['samples']} clips",
        _percent(row["edgekit"]),
        f"{_percent(row['peer'])}, the fp32 file",
        f"{-row['required_points']:g} points lost at most",
        reached(f"{max(0.0, -row['points']):g}", row["points"] >= row["required_points"]),
    )


def _percent(share: float) -> str:
    return human_share(share, 2)


AGAINST: dict[str, Callable[[Rows], Cells]] = {
    "prune_accuracy": _prune_accuracy,
    "resnet56": partial(_resnet56, where="two CPU cores"),
    "resnet56_gpu": partial(_resnet56, where="an H100"),
    "pruning_realised": _pruning_realised,
    "chain_wall_time": _chain_wall_time,
    "kd_throughput": _kd_throughput,
    "qat_recovers": _qat_recovers,
    "keyword_spotting": _keyword_spotting,
}


# --- a run's measurements --------------------------------------------------------------------------------


def latency(report: dict[str, Any], file: str, runtime: str) -> float:
    """p50 in ns on one thread of the first device."""
    for row in report["measurements"]:
        if (
            Path(row["artifact"]).name == Path(file).name
            and row["runtime"] == runtime
            and row["threads"] == 1
        ):
            return float(row["p50_ns"])
    raise KeyError(f"no one-thread measurement of {file} in {runtime}")


if __name__ == "__main__":
    sys.exit(main())
