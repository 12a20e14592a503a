"""The contract about accuracy in words, as tables and as a picture."""

from __future__ import annotations

from edgekit.report.page.chart_parts import MOST_ROWS, PERCENT, Spec, height_of, nominal, quantity, spec_of
from edgekit.report.page.facts import Table, decibels, signed
from edgekit.report.summary import Budget
from edgekit.units import human_count, human_share

__all__ = ["budget_text", "rounds_table", "sensitive_table", "sensitivity"]


def budget_text(budget: Budget) -> str:
    """What was asked, and whether it is kept."""
    sure = "" if budget.confidence is None else f", {human_share(budget.confidence, 0)} sure"
    rounds = f"{len(budget.rounds)} round{'' if len(budget.rounds) == 1 else 's'}"
    verdict = "kept" if budget.kept else "not kept"
    last = budget.rounds[-1]
    share = human_share(last.float_macs / budget.macs, 1) if budget.macs else "none"
    kept = f"{', '.join(last.float)} stay float, {share} of the MACs" if last.float else "all is int8"
    return (
        f"Every int8 file may lose at most {budget.max_drop:g} points{sure}: {verdict}, after {rounds} on "
        f"validation data; {kept}. Chosen on {budget.held_out:,} samples of training data that calibrated "
        "nothing."
    )


def rounds_table(budget: Budget) -> Table:
    """What was tried, and what became of the files."""
    rows = []
    for one in budget.rounds:
        held = "" if one.held_out_drop is None else signed(one.held_out_drop, 2)
        for file, found in one.files.items():
            most = found.get("upper")
            rows.append(
                (
                    str(one.number),
                    file,
                    "" if one.limit is None else f"{one.limit:.2f}",
                    held,
                    signed(found["drop"], 2),
                    "" if most is None else f"{most:.2f}",
                    ", ".join(one.float) or "none",
                )
            )
    titles = ("round", "file", "allowed on held-out", "lost there", "lost", "at most", "in float")
    return Table(titles, tuple(rows), numbers=2, words=1)


def sensitive_table(budget: Budget) -> Table:
    """Modules in int8 alone, the most sensitive first."""
    rows = tuple(
        (
            one.name,
            decibels(one.snr_db),
            human_share(one.share, 1),
            "" if one.loss is None else signed(one.loss, 4),
            human_count(one.macs),
        )
        for one in budget.modules[:MOST_ROWS]
    )
    return Table(("module", "signal to noise", "share of the noise", "loss", "MACs"), rows)


def sensitivity(budget: Budget) -> Spec | None:
    """How much of the noise each module makes."""
    shown = budget.modules[:MOST_ROWS]
    if not shown:
        return None
    rows = [{"module": one.name, "share": one.share, "macs": one.macs} for one in shown]
    return spec_of(
        rows,
        "What each module alone makes of the noise of the answers",
        height_of(len(rows), 16),
        mark={"type": "bar", "cornerRadiusEnd": 2},
        encoding={
            "y": nominal("module", None, sort=[row["module"] for row in rows], axis={"labelLimit": 200}),
            "x": quantity("share", "share of the noise", scale={"domainMin": 0}),
            "tooltip": [
                nominal("module", "module"),
                quantity("share", "share", format=PERCENT),
                quantity("macs", "MACs", format=".3s"),
            ],
        },
    )
