"""What files answer, in words and tables: classes, groups, mistakes, calibration, samples that flipped."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from edgekit.diagnosis.flips import Churn, Flip
from edgekit.diagnosis.intervals import Share
from edgekit.diagnosis.judged import Judged
from edgekit.diagnosis.record import Corrupted, Diagnosis, Seen, corruption_name
from edgekit.diagnosis.scores import SampleScores
from edgekit.report.page.facts import Table, points, signed
from edgekit.report.page.loaded import LoadedRun
from edgekit.units import human_share

__all__ = [
    "Look",
    "attack_table",
    "calibration_text",
    "churn_text",
    "class_names",
    "class_table",
    "confused_table",
    "corrupted_outputs_table",
    "corruption_table",
    "group_table",
    "looks",
    "score_table",
]


@dataclass(frozen=True)
class Look:
    """A sample whose answer flipped, with what there is to see of it."""

    flip: Flip
    seen: Seen
    target: str
    before: str
    after: str
    wave: str = ""  # the points of an SVG polygon in a box of 120 x 40


def class_names(run: LoadedRun, judged: Judged) -> list[str]:
    """The workload's, or numbers; every one different from the others."""
    given = run.diagnosis.class_names if run.diagnosis is not None else None
    names = list(given) if given is not None else [str(row.index) for row in judged.classes]
    twice = {name for name in names if names.count(name) > 1}
    return [f"{name} ({index})" if name in twice else name for index, name in enumerate(names)]


def class_table(judged: Judged, names: Sequence[str]) -> Table:
    """Every class, the worst first."""
    rows = sorted(judged.classes, key=lambda row: (row.change.value is None, row.change.value or 0.0))
    return Table(
        ("class", "samples", "before", "after", "change"),
        tuple(
            (names[row.index], str(row.samples), _of(row.before), _of(row.after), points(row.change))
            for row in rows
        ),
    )


def group_table(judged: Judged) -> Table:
    """Every group that the workload names."""
    return Table(
        ("group", "samples", "before", "after", "change"),
        tuple(
            (row.name, str(row.samples), _of(row.before), _of(row.after), points(row.change))
            for row in judged.groups
        ),
    )


def confused_table(judged: Judged, names: Sequence[str], most: int = 12) -> Table:
    """The mistakes whose number changed most."""
    return Table(
        ("right answer", "given answer", "before", "after"),
        tuple(
            (names[one.target], names[one.answer], str(one.before), str(one.after))
            for one in judged.confused[:most]
        ),
        numbers=2,
    )


def corruption_table(diagnosis: Diagnosis) -> Table:
    """Mean over the severities of each corruption, of each input where there are several."""
    rows = [
        _change(name, [(one.before, one.after) for one in own])
        for name, own in _by_name(diagnosis.corrupted).items()
    ]
    return Table(("corruption, mean of 5 severities", "before", "after", "change"), tuple(rows))


def corrupted_outputs_table(diagnosis: Diagnosis) -> Table | None:
    """The same for each of several outputs; None where there is one."""
    rows = [
        _change(f"{name}: {output}", [one.outputs[output] for one in own])
        for name, own in _by_name(diagnosis.corrupted).items()
        for output in own[0].outputs
    ]
    return Table(("corruption: output", "before", "after", "change"), tuple(rows)) if rows else None


def attack_table(diagnosis: Diagnosis) -> Table | None:
    """Each change of each input, and what it does to each output; None where there is one of both."""
    rows = []
    for one in diagnosis.attacked:
        name = f"{one.epsilon * 255:.0f}/255" + (f" of {one.input}" if one.input else "")
        rows.append(_change(name, [(one.before, one.after)]))
        rows += [_change(f"{name}: {output}", [pair]) for output, pair in one.outputs.items()]
    several = any(one.input or one.outputs for one in diagnosis.attacked)
    return Table(("change of every value", "before", "after", "change"), tuple(rows)) if several else None


def _by_name(corrupted: Sequence[Corrupted]) -> dict[str, list[Corrupted]]:
    found: dict[str, list[Corrupted]] = {}
    for one in corrupted:
        found.setdefault(corruption_name(one), []).append(one)
    return found


def _change(name: str, pairs: Sequence[tuple[float, float]]) -> tuple[str, ...]:
    before, after = (sum(pair[side] for pair in pairs) / len(pairs) for side in (0, 1))
    return name, human_share(before), human_share(after), f"{signed(100 * (after - before), 1)} points"


def score_table(scores: SampleScores, most: int = 20) -> Table:
    """The samples whose own score fell most."""
    rows = [
        (f"sample {one.row}", human_share(one.before), human_share(one.after)) for one in scores.worse[:most]
    ]
    return Table(("sample", "score before", "after"), tuple(rows))


def churn_text(one: Churn, unit: str) -> str:
    """How many answers changed, and into what."""
    share = human_share(one.changed.value or 0.0)
    return (
        f"{share} of {one.samples:,} {unit} are answered otherwise than before: "
        f"right before and wrong now {one.broken:,}, wrong before and right now {one.repaired:,}, "
        f"wrong both times in different ways {one.otherwise_wrong:,}."
    )


def calibration_text(run: LoadedRun, judged: Judged) -> str:
    """The calibration error before and after, and what a temperature would do."""
    before, after, temperature = judged.calibration_before, judged.calibration_after, judged.temperature
    if before is None or after is None:
        return ""
    text = f"Expected calibration error {100 * before.ece:.2f} → {100 * after.ece:.2f} points (15 bins). "
    text += f"Wrong with more than 90 % confidence: {human_share(before.sure_but_wrong)} → "
    text += f"{human_share(after.sure_but_wrong)} of all {judged.unit}."
    if temperature is not None:
        change = "lowers" if temperature.helps else "doesn't lower"
        text += f" Dividing the scores by a temperature of {temperature.value:.2f} {change} the error: "
        text += f"{100 * temperature.ece_before:.2f} → {100 * temperature.ece_after:.2f} points on "
        text += f"{judged.unit} that it wasn't fitted on."
        if temperature.helps:
            text += f" edgekit export {run.folder.name} --temperature fitted: writes it into the last layer."
    return text


def looks(run: LoadedRun, judged: Judged, names: Sequence[str]) -> list[Look]:
    """The samples whose answer flipped, that can be shown."""
    seen = {} if run.diagnosis is None else {one.row: one for one in run.diagnosis.seen}
    return [
        Look(
            flip,
            seen[flip.row],
            names[flip.target],
            names[flip.before],
            names[flip.after],
            _polygon(seen[flip.row].wave),
        )
        for flip in judged.flips
        if flip.row in seen
    ]


def _polygon(wave: Sequence[tuple[float, float]]) -> str:
    upper = [f"{i},{20 - 19 * high:.1f}" for i, (_, high) in enumerate(wave)]
    lower = [f"{i},{20 - 19 * low:.1f}" for i, (low, _) in reversed(list(enumerate(wave)))]
    return " ".join([*upper, *lower])


def _of(share: Share) -> str:
    if share.value is None or share.low is None or share.high is None:
        return "–"
    return f"{human_share(share.value, 1)} ({100 * share.low:.0f}–{100 * share.high:.0f})"
