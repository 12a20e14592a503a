"""Write the README's tables and the recipes' `measured:` lines from the reports in benchmarks/results.

python scripts/published_figures.py [--check]
"""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Any

from edgekit.units import human_bytes, human_count, human_ns, human_share

ROOT = Path(__file__).resolve().parent.parent
MEASURED = re.compile(r"^# measured:.*(?:\n#  {10}.*)*", re.MULTILINE)
MARKED = re.compile(r"(<!-- table: ([\w.-]+) -->\n).*?(<!-- end -->)", re.DOTALL)


def main() -> int:
    """Rewrite the files; with ``--check`` only name those that are out of date (exit code 1 if any are)."""
    readme = ROOT / "README.md"
    new = {readme: MARKED.sub(lambda m: f"{m[1]}{table(m[2])}{m[3]}", readme.read_text())}
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
    path = ROOT / "benchmarks" / "results" / f"digits-{recipe}.json"
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
    """Markdown for ``benchmarks/results/<name>.json``; a file that isn't there gives an honest sentence."""
    path = ROOT / "benchmarks" / "results" / f"{name}.json"
    if not path.exists():
        return f"\n(not measured yet: benchmarks/results/{name}.json is missing)\n\n"
    report = json.loads(path.read_text())
    reference = next(a for a in report["artifacts"] if a["file"] == report["reference"])
    slow = latency(report, reference["file"], "onnxruntime")
    lines = [
        "",
        "| | accuracy | parameters | MACs | bytes | p50, 1 thread | × smaller | × faster | int8 coverage |",
        "| --- | --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    rows = [("trained model", report["baseline"]), *((f"after {s['kind']}", s) for s in report["stages"])]
    for label, row in rows:
        lines.append(
            f"| {label} | {human_share(row['accuracy'], 2)} | {human_count(row['parameters'])} | "
            f"{human_count(row['macs'])} | | | | | |"
        )
    for artifact in report["artifacts"]:
        lines.append(artifact_row(report, artifact, reference, slow))
    recommended = report["recommended"]
    lines += [
        "",
        f"Recommended: `{recommended['artifact']}` in {recommended['runtime']}. {recommended['reason']}",
    ]
    for warning in report.get("warnings", []):
        lines.append(f"\n> {warning if isinstance(warning, str) else warning['message']}")
    lines += [
        "",
        f"Measured on one thread of {cpu(report)}: [{path.name}](benchmarks/results/{path.name}).",
        "",
        "",
    ]
    return "\n".join(lines)


def artifact_row(
    report: dict[str, Any], artifact: dict[str, Any], reference: dict[str, Any], slow: float
) -> str:
    """One file: measured in its own runtime on one thread."""
    runtime = {"onnx": "onnxruntime", "litert": "litert"}[artifact["format"]]
    p50 = latency(report, artifact["file"], runtime)
    label = Path(artifact["file"]).name
    return (
        f"| `{label}` ({runtime}) | {human_share(artifact['accuracy'], 2)} | | | "
        f"{human_bytes(artifact['size_bytes'])} | {human_ns(p50)} | "
        f"{reference['size_bytes'] / artifact['size_bytes']:.1f} | {slow / p50:.1f} | "
        f"{human_share(artifact['int8_coverage'], 0)} |"
    )


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
