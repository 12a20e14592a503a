"""The model card: what a model is, made from, good for and bad at (Mitchell et al. 2019, "Model Cards for
Model Reporting"), as JSON for the manifest and as Markdown for people.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from edgekit import __version__
from edgekit.diagnosis.classes import worst
from edgekit.diagnosis.groups import gap
from edgekit.diagnosis.judged import Judged
from edgekit.diagnosis.record import Corrupted, Diagnosis, corruption_name
from edgekit.diagnosis.scores import scores_text
from edgekit.report.summary import Artifact, Report
from edgekit.units import human_bytes, human_count, human_ns, human_share

__all__ = ["UNSTATED", "card_of", "markdown", "weaknesses"]

UNSTATED = "not stated"
# What a workload may say in ``about``, and under which title it stands; others stand under their own name.
_TITLES = {
    "license": "Licence",
    "authors": "Authors",
    "source": "Source",
    "intended_use": "Intended use",
    "limitations": "Limitations",
    "data": "Data",
    "data_license": "Licence of the data",
}
_ASKED = ("license", "data", "data_license", "intended_use")  # said to be missing where nothing is said


def card_of(
    report: Report,
    diagnosis: Diagnosis | None,
    *,
    about: Mapping[str, str],
    classes: Sequence[str] | None,
    preprocessing: Mapping[str, Any],
    inputs: Mapping[str, Any],
    samples: Mapping[str, int],
) -> dict[str, Any]:
    """All of it as JSON values.

    Args:
        report: of the finished run.
        diagnosis: of the same run; None where nothing was looked at.
        about: what the workload says of itself.
        classes: their names.
        preprocessing: from raw samples to the model's inputs, as in ``Preprocessing.to_dict``.
        inputs: shape and type of one preprocessed sample.
        samples: how many each split has.
    """
    by_file = {one.file: one for one in report.artifacts}
    best = by_file[report.recommended.artifact]
    return {
        "name": report.workload,
        "about": {**dict.fromkeys(_ASKED, UNSTATED), **about},
        "model": {
            "task": dict(report.task),
            "classes": None if classes is None else list(classes),
            "parameters": best.parameters,
            "macs": best.macs,
            "input": dict(inputs),
            "stages": [{"kind": one.kind, "note": one.note} for one in report.stages],
            "recipe": report.recipe,
        },
        "samples": dict(samples),
        "preprocessing": dict(preprocessing),
        "recommended": best.file,
        "files": [_file(one) for one in report.artifacts],
        "measurements": [
            one.model_dump(
                mode="json",
                include={
                    *("artifact", "device", "runtime", "runtime_version", "backend", "threads"),
                    *("p50_ns", "p90_ns", "samples", "peak_rss_bytes", "unstable"),
                },
            )
            for one in report.measurements
        ],
        "devices": list(report.devices),
        "versions": dict(report.versions),
        "weaknesses": [
            *(one.message for one in report.warnings if one.kind in ("accuracy", "guard")),
            *([] if diagnosis is None else weaknesses(diagnosis, best.file)),
        ],
        "unknown": [] if diagnosis is None else list(diagnosis.missing),
    }


def _file(one: Artifact) -> dict[str, Any]:
    wanted = ("file", "format", "precision", "sha256", "size_bytes", "accuracy", "int8_coverage", "parent")
    return {key: getattr(one, key) for key in wanted}


def weaknesses(found: Diagnosis, file: str) -> list[str]:
    """What a file is bad at, in sentences: of its answers, and of corrupted inputs if it was put to them."""
    judged = found.files.get(file)
    told = [] if judged is None else list(_of_answers(found, judged))
    if found.probed == file and found.corrupted and found.clean_after is not None:
        hardest = min(found.corrupted, key=lambda one: one.after)
        clean = human_share(found.clean_after)
        told.append(f"Scores {human_share(hardest.after)} under {_named(hardest)}, {clean} on clean samples.")
        lost = max(found.corrupted, key=lambda one: one.before - one.after)
        if lost.before - lost.after > 0.01:
            against = f"{human_share(lost.before)} → {human_share(lost.after)}"
            told.append(f"Lost most robustness by compression under {_named(lost)}: {against}.")
    if found.probed == file and found.attacked:
        most = max(one.epsilon for one in found.attacked)
        last = min((one for one in found.attacked if one.epsilon == most), key=lambda one: one.after)
        size = f"{last.epsilon * 255:.0f}/255"
        of = f" of {last.input}" if last.input else ""
        left = human_share(last.after)
        told.append(f"A change of every value{of} by {size}, made to mislead, leaves {left}.")
    return told


def _named(one: Corrupted) -> str:
    return f"{corruption_name(one)} of severity {one.severity}"


def _of_answers(found: Diagnosis, judged: Judged) -> list[str]:
    told = []

    def name(index: int) -> str:
        return str(index) if found.class_names is None else found.class_names[index]

    known = [row for row in judged.classes if row.after.value is not None]
    if known:
        weakest = min(known, key=lambda row: row.after.value or 0.0)
        share = human_share(weakest.after.value or 0.0)
        told.append(f"Weakest class: {name(weakest.index)}, {share} of {weakest.samples} {judged.unit}.")
    row = worst(judged.classes)
    if row is not None and row.change.value is not None and row.change.value < 0:
        certain = "beyond chance" if row.change.clear else "within chance"
        lost = f"{-100 * row.change.value:.1f} points, {certain}"
        told.append(f"Class {name(row.index)} lost most by compression: {lost}.")
    sides = gap(judged.groups)
    if sides is not None:
        told.append(f"Groups differ by {100 * sides[1]:.1f} points, {100 * sides[0]:.1f} before compression.")
    if judged.calibration_after is not None:
        error, sure = judged.calibration_after.ece, judged.calibration_after.sure_but_wrong
        told.append(
            f"Its probabilities are off by {100 * error:.1f} points on average (expected calibration error); "
            f"{human_share(sure)} of its answers are wrong with more than 90 % confidence."
        )
    if judged.errors is not None:
        told.append(
            f"Root mean square error {judged.errors.rmse_after:.4g}, {judged.errors.rmse_before:.4g} before."
        )
    if judged.scores is not None:
        told.append(f"{scores_text(judged.scores)}.")
    return told


# --- for people ------------------------------------------------------------------------------------------


def markdown(card: Mapping[str, Any]) -> str:
    """``MODEL_CARD.md``, with a head that model hubs read."""
    about, model = card["about"], card["model"]
    best = next(one for one in card["files"] if one["file"] == card["recommended"])
    metric = model["task"].get("metric", "accuracy")
    lines = [
        "---",
        f"license: {json.dumps(about['license'], ensure_ascii=False)}",
        f"model_name: {json.dumps(card['name'], ensure_ascii=False)}",
        f"tags: {json.dumps(['edgekit', *sorted({one['format'] for one in card['files']})])}",
        "---",
        "",
        f"# {_text(card['name'])}",
        "",
        f"Compressed with edgekit {__version__}, recipe {_text(model['recipe'])}. Take `{best['file']}`: "
        f"{metric} {human_share(best['accuracy'])}, {human_bytes(best['size_bytes'])}.",
        "",
        "## Model",
        "",
        f"- Task: {_text(model['task'].get('kind', ''))}, scored by {_text(metric)}",
        f"- Parameters: {human_count(model['parameters'])}",
        f"- MACs for one sample: {human_count(model['macs'])}",
        f"- Input: {_text(json.dumps(model['input']))}",
    ]
    if model["classes"] is not None:
        lines.append(f"- Classes: {_text(', '.join(model['classes']))}")
    lines += [f"- Stage {one['kind']}: {_text(one['note'] or 'done')}" for one in model["stages"]]
    lines += ["", "## About", ""]
    lines += [f"- {_TITLES.get(key, _text(key))}: {_text(value)}" for key, value in about.items()]
    lines += [f"- Samples: {', '.join(f'{count:,} {split}' for split, count in card['samples'].items())}"]
    lines += ["", "## Preprocessing", "", "```json", json.dumps(card["preprocessing"], indent=2), "```", ""]
    lines += ["## Files", "", f"| file | precision | {_cell(metric)} | size | int8 coverage | sha256 |"]
    lines += ["| --- | --- | --- | --- | --- | --- |", *map(_file_row, card["files"])]
    if card["measurements"]:
        lines += ["", "## Latency", "", "Of one inference; p50 and p90 of the timed runs."]
        lines += [
            "",
            "| file | device | runtime | threads | p50 | p90 |",
            "| --- | --- | --- | --- | --- | --- |",
        ]
        lines += map(_measured_row, card["measurements"])
        if any(one["unstable"] for one in card["measurements"]):
            lines += ["", "? the timings were unstable: take small differences for nothing."]
    lines += ["", "## Known weaknesses", ""]
    lines += [f"- {_text(one)}" for one in card["weaknesses"]] or ["- None were found."]
    lines += [f"- Not looked at: {_text(one)}" for one in card["unknown"]]
    lines += [
        "",
        "## Versions",
        "",
        ", ".join(f"{key} {value}" for key, value in card["versions"].items()),
        "",
    ]
    return "\n".join(lines)


def _file_row(one: Mapping[str, Any]) -> str:
    coverage = one["int8_coverage"] if one["precision"] == "int8" else None
    cells = [
        f"`{one['file']}`",
        one["precision"],
        human_share(one["accuracy"]),
        human_bytes(one["size_bytes"]),
    ]
    cells += ["" if coverage is None else human_share(coverage), f"`{one['sha256']}`"]
    return f"| {' | '.join(cells)} |"


def _measured_row(one: Mapping[str, Any]) -> str:
    runtime = f"{one['runtime']} {one['runtime_version']}".strip()
    mark = " ?" if one["unstable"] else ""
    cells = [f"`{Path(one['artifact']).name}`", _cell(one["device"]), _cell(runtime), str(one["threads"])]
    return f"| {' | '.join([*cells, human_ns(one['p50_ns']) + mark, human_ns(one['p90_ns'])])} |"


def _text(value: Any) -> str:
    """One line, without what Markdown or HTML would take for markup."""
    line = " ".join(str(value).split())
    for found, escaped in (
        ("\\", "\\\\"),
        ("<", "&lt;"),
        ("`", "\\`"),
        ("*", "\\*"),
        ("[", "\\["),
        ("#", "\\#"),
    ):
        line = line.replace(found, escaped)
    return line


def _cell(value: Any) -> str:
    return _text(value).replace("|", "\\|")
