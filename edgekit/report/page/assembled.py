"""The page, put together: sections of blocks, pictures, styles and scripts in one file."""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from importlib import metadata, resources
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup

from edgekit import __version__
from edgekit.caching import cache_folder
from edgekit.diagnosis.groups import gap
from edgekit.diagnosis.scores import scores_text
from edgekit.errors import printable
from edgekit.files import atomic_write
from edgekit.report.page import answer_charts, answers, budget, charts, facts
from edgekit.report.page.chart_parts import Spec
from edgekit.report.page.loaded import LoadedRun
from edgekit.units import human_share

__all__ = ["build", "write"]

Block = dict[str, Any]
_SNIPPET = "window.vegaEmbed = vegaEmbed;"


@dataclass(frozen=True)
class _Section:
    id: str
    title: str
    blocks: list[Block]


def write(runs: Sequence[LoadedRun], path: Path) -> list[LoadedRun]:
    """The page of one run, or of several side by side. Raises DiskFullError.

    Returns the runs, whose ``missing`` has grown by what their values couldn't be drawn from.
    """
    page = _Page(runs)
    # Halves of surrogate pairs, which JSON can hold and UTF-8 can't, are spelled out.
    atomic_write(path, _rendered(page, scripts=True).encode("utf-8", "backslashreplace"))
    return page.runs


def build(runs: Sequence[LoadedRun], *, scripts: bool = True) -> str:
    """The page as HTML.

    Args:
        runs: at least one.
        scripts: whether the drawing library is put in; without it the tables are all there is.
    """
    return _rendered(_Page(runs), scripts=scripts)


def _rendered(page: _Page, *, scripts: bool) -> str:
    runs = page.runs
    sections = [section for section in page.sections() if section.blocks]
    title = runs[0].name if len(runs) == 1 else f"{len(runs)} runs side by side"
    about = (
        f"{runs[0].workload}, recipe {runs[0].recipe}" if len(runs) == 1 else ", ".join(r.name for r in runs)
    )
    return _template().render(
        title=title,
        about=about,
        sections=sections,
        specs=Markup(_json_in_html(page.specs)),
        css=Markup(_file("page.css")),
        js=Markup(_file("page.js")),
        bundle=Markup(_bundle()) if scripts else "",
        footer=f"Written by edgekit {__version__}. Everything here was measured on the exported files.",
    )


class _Page:
    def __init__(self, runs: Sequence[LoadedRun]) -> None:
        self.runs = list(runs)
        self.specs: dict[str, Spec] = {}

    def sections(self) -> Iterator[_Section]:
        if len(self.runs) > 1:
            yield _Section("runs", "Side by side", self._drawn(0, "Side by side", self._beside()))
        for index in range(len(self.runs)):
            run = self.runs[index]
            several = len(self.runs) > 1
            prefix, more = (f"run{index + 1}-", f": {run.name}") if several else ("", "")
            for key, title, blocks in (
                ("summary", "Summary", self._summary(run)),
                ("way", "Way of the run", self._way(run)),
                ("hurts", "Where it hurts", self._hurts(run)),
                ("confidence", "Confidence", self._confidence(run)),
                ("robustness", "Robustness", self._robustness(run)),
                ("budget", "Budget", self._budget(run)),
                ("layers", "Layers", self._layers(run)),
                ("files", "Files and latency", self._files(run, pareto=not several)),
            ):
                yield _Section(prefix + key, title + more, self._drawn(index, title, blocks))
            yield _Section(
                prefix + "missing", "What is missing" + more, list(self._missing(self.runs[index]))
            )

    def _drawn(self, index: int, title: str, blocks: Iterator[Block]) -> list[Block]:
        """What could be made of a section. Records that are each well-formed may contradict each other."""
        found: list[Block] = []
        try:
            for block in blocks:
                found.append(block)
        except Exception as error:
            run = self.runs[index]
            why = f"{title}: damaged values, not all can be shown ({type(error).__name__}: {error})"
            self.runs[index] = replace(run, missing=(*run.missing, printable(why, 300)))
        return found

    # --- sections ----------------------------------------------------------------------------------------

    def _beside(self) -> Iterator[Block]:
        rows = []
        for run in self.runs:
            cards = {card.title: card for card in facts.summary_cards(run)}
            rows.append(
                (run.name, run.recipe, *(f"{c.before} → {c.after} ({c.note})" for c in cards.values()))
            )
        width = max(len(row) for row in rows)
        titles = ["run", "recipe"]
        longest = max(self.runs, key=lambda run: len(facts.summary_cards(run)))
        titles += [card.title for card in facts.summary_cards(longest)]
        padded = tuple((*row, *[""] * (width - len(row))) for row in rows)
        yield _table(
            facts.Table(tuple(titles[:width]), padded, numbers=width), "The recommended file of each run"
        )
        yield from self._paretos(self.runs)

    def _summary(self, run: LoadedRun) -> Iterator[Block]:
        yield {"kind": "verdict", "text": facts.verdict(run)}
        report = run.report
        if report is None:
            return
        if cards := facts.summary_cards(run):
            yield {"kind": "cards", "cards": cards}
        yield _text(f"Recommended: {Path(report.recommended.artifact).name}. {report.recommended.reason}")
        if report.warnings:
            yield {"kind": "list", "style": "warnings", "items": [one.message for one in report.warnings]}

    def _way(self, run: LoadedRun) -> Iterator[Block]:
        table = facts.way_table(run)
        if table is None:
            return
        yield from self._chart(
            "way", charts.way(run), "Accuracy after each stage, and what it left of MACs and parameters."
        )
        yield _table(table, "The trained model and the stages after it")
        if run.curves:
            yield _heading("Learning curves")
        for one in run.curves:
            stage = one.stage.partition("-")[2] or one.stage
            yield from self._chart("curve", charts.curve(one), f"Accuracy over the epochs of {stage}.")
        if run.cut:
            yield _heading("Pruned channels")
            yield from self._chart("channels", charts.channels(run.cut), "Channels of each pruned layer.")
            rows = tuple((layer, str(one), str(other)) for layer, (one, other) in run.cut.items())
            yield _table(
                facts.Table(("layer", "before", "after"), rows), "Pruned channels as a table", folded=True
            )
        if run.report is not None and run.report.ladder:
            yield _heading("Parity ladder")
            steps = tuple(
                (
                    Path(one.rung).name,
                    Path(one.against).name,
                    facts.decibels(one.snr_db),
                    "" if one.worst_channel_db is None else facts.decibels(one.worst_channel_db),
                    "" if one.worst_sample_db is None else facts.decibels(one.worst_sample_db),
                    "" if one.agreement is None else human_share(one.agreement),
                    facts.layers_compared(one),
                )
                for one in run.report.ladder
            )
            titles = ("rung", "against", "signal to noise", "worst channel", "worst sample", "same answers")
            yield _table(
                facts.Table((*titles, "layer by layer"), steps, numbers=2),
                "Each form of the model against the one it was made from",
            )
            yield from self._outputs(run)

    def _outputs(self, run: LoadedRun) -> Iterator[Block]:
        """Of several outputs each one, of several scores each: no average may hide it."""
        if (scores := facts.scores_table(run)) is not None:
            yield _heading("Scores one by one")
            yield _table(scores, "Each score of each file")
        if (table := facts.outputs_table(run)) is not None:
            yield _heading("Outputs one by one")
            yield _table(table, "Each output of each file, and how far it is from the graph")

    def _hurts(self, run: LoadedRun) -> Iterator[Block]:
        judged = self._judged(run)
        if judged is None:
            return
        if (errors := judged.errors) is not None:
            change = f"{errors.rmse_before:.4g} → {errors.rmse_after:.4g}"
            yield _text(f"Root mean square error over all samples: {change}.")
            rows = tuple(
                (f"sample {one.row}", f"{one.before:.4g}", f"{one.after:.4g}") for one in errors.worse[:20]
            )
            yield _table(
                facts.Table(("sample", "error before", "after"), rows), "Samples whose error grew most"
            )
            return
        if judged.scores is not None:
            yield _text(f"{scores_text(judged.scores)}.")
            yield _table(answers.score_table(judged.scores), "Samples whose score fell most")
            yield from self._marked(run)
            yield from self._curves(run)
            return
        names = answers.class_names(run, judged)
        if judged.churn is not None:
            yield _text(answers.churn_text(judged.churn, judged.unit))
        yield _heading("Classes")
        yield from self._chart(
            "classes", answer_charts.classes(judged, names), "Each class's change, the worst first."
        )
        yield _table(answers.class_table(judged, names), "All classes as a table", folded=True)
        yield _heading("Confusion")
        yield from self._chart(
            "confusion",
            answer_charts.confusion(judged, names),
            "Who is taken for whom more often now, and who less.",
        )
        if judged.confused:
            yield _table(answers.confused_table(judged, names), "Mistakes whose number changed most")
        if judged.groups:
            yield _heading("Groups")
            found = gap(judged.groups)
            if found is not None:
                change = f"{100 * found[0]:.1f} → {100 * found[1]:.1f} points"
                yield _text(f"The gap between the best and the worst group: {change}.")
            yield _table(answers.group_table(judged), "Groups that the workload names")
        if looks := answers.looks(run, judged, names):
            yield _heading("Samples whose answer flipped")
            yield _text(
                "The right answer in bold, then the answers before and after; what broke comes first."
            )
            yield {"kind": "looks", "looks": looks}
        yield from self._marked(run)

    def _curves(self, run: LoadedRun) -> Iterator[Block]:
        if run.diagnosis is None or run.diagnosis.curves is None:
            return
        before, after = run.diagnosis.curves
        if before.precision:
            yield _heading("Precision and recall")
            spec = answer_charts.precision_curves(before, after)
            yield from self._chart("precision", spec, "At IoU 0.5, each class; dashed: before.")
        if before.scores and after.scores:
            yield _heading("What scores mean")
            spec = answer_charts.score_reliability(before, after)
            told = "On the dashed line a score is the share of answers that are right, at IoU 0.5."
            yield from self._chart("scores", spec, told)

    def _marked(self, run: LoadedRun) -> Iterator[Block]:
        if run.diagnosis is None or not run.diagnosis.marked:
            return
        yield _heading("Before and after")
        masks = any(one.shares is not None for one in run.diagnosis.marked)
        told = "A colour for each class. Red: pixels with a wrong one." if masks else ""
        yield _text(told or "Green: found. Red: missed. Orange: an answer that is wrong.")
        yield {"kind": "marked", "marked": run.diagnosis.marked}

    def _confidence(self, run: LoadedRun) -> Iterator[Block]:
        judged = self._judged(run)
        if judged is None or judged.calibration_before is None or judged.calibration_after is None:
            return
        yield _text(answers.calibration_text(run, judged))
        spec = answer_charts.reliability(judged.calibration_before, judged.calibration_after)
        yield from self._chart(
            "reliability",
            spec,
            "On the dashed line a probability means what it says; below it, it is over-confident.",
        )

    def _robustness(self, run: LoadedRun) -> Iterator[Block]:
        found = run.diagnosis
        if found is None or not (found.corrupted or found.attacked):
            return
        yield _text(f"{Path(found.probed).name} beside the original, on {found.probe_samples:,} samples.")
        if found.corrupted:
            yield from self._chart(
                "corruptions",
                answer_charts.corruptions(found),
                "Mean accuracy over all corruptions; 0 is no corruption.",
            )
            yield from self._chart(
                "heat", answer_charts.heat(found), "By how much the file lies above or below the original."
            )
            yield _table(answers.corruption_table(found), "Corruptions")
            if (table := answers.corrupted_outputs_table(found)) is not None:
                yield _table(table, "Each output under each corruption", folded=True)
        if found.attacked:
            yield _heading("Adversarial probe")
            yield _text(
                "One step along the sign of the gradient of the trained model (FGSM), given to both files: "
                "an attack that was made for the original."
            )
            several = any(one.input for one in found.attacked)
            caption = "Accuracy against the size of the change"
            yield from self._chart(
                "attacks",
                answer_charts.attacks(found),
                f"{caption}, mean over the inputs, each changed by itself." if several else f"{caption}.",
            )
            if (table := answers.attack_table(found)) is not None:
                yield _table(table, "Each input and each output under attack", folded=True)

    def _layers(self, run: LoadedRun) -> Iterator[Block]:
        table = facts.layer_table(run)
        if run.diagnosis is None or table is None:
            return
        yield _text(
            "The layers that multiply, what costs most first. Bits and signal to noise are those of the int8 "
            "graph, where there is one: what rounding does to a layer's output, the noise of those before it "
            "included. Times: shares of all kernels in the runtime's own profile."
        )
        yield from self._chart("layers", charts.layers(run), "Where the work is, and where the time goes.")
        yield _table(table, "Layers, what costs most first")

    def _budget(self, run: LoadedRun) -> Iterator[Block]:
        kept = None if run.report is None else run.report.budget
        if kept is None or not kept.rounds:
            return
        yield _text(budget.budget_text(kept))
        yield _table(budget.rounds_table(kept), "Rounds; points lost against the trained model")
        if kept.modules:
            spec = budget.sensitivity(kept)
            yield from self._chart("sensitivity", spec, "Noise of each module in int8 alone.")
            yield _table(budget.sensitive_table(kept), "Modules in int8 alone; nested ones count twice")

    def _files(self, run: LoadedRun, *, pareto: bool) -> Iterator[Block]:
        report = run.report
        if report is None:
            return
        if pareto:
            yield from self._paretos([run])
        yield _table(facts.artifact_table(report), "Files; ★ is recommended")
        yield _table(facts.measured_table(report), "Latency; ? marks unstable timings", folded=True)
        if (counted := facts.counted_table(report)) is not None:
            yield _table(counted, "Instructions of one inference on emulated devices, which are no time")
        if report.failures:
            items = [f"{Path(one.artifact).name} on {one.device}: {one.error}" for one in report.failures]
            yield {"kind": "list", "style": "warnings", "items": items}
        versions = ", ".join(f"{name} {version}" for name, version in report.versions.items())
        yield _text(f"Versions: {versions}.")

    def _missing(self, run: LoadedRun) -> Iterator[Block]:
        items = [*run.missing, *(run.diagnosis.missing if run.diagnosis is not None else ())]
        if items:
            yield {"kind": "list", "style": "plain", "items": items}

    # --- pieces ------------------------------------------------------------------------------------------

    def _paretos(self, runs: Sequence[LoadedRun]) -> Iterator[Block]:
        devices = [one.device for run in runs if run.report is not None for one in run.report.measurements]
        for device in dict.fromkeys(devices):
            yield from self._chart(
                "pareto",
                charts.pareto(runs, device),
                f"Every file on {device}: the best are at the top left; the diamond is recommended, "
                "area is size.",
            )

    def _judged(self, run: LoadedRun) -> Any:
        if run.diagnosis is None:
            return None
        return run.diagnosis.files.get(run.diagnosis.probed) or next(iter(run.diagnosis.files.values()), None)

    def _chart(self, name: str, spec: Spec | None, caption: str) -> Iterator[Block]:
        if spec is None:
            return
        _json_in_html(spec)  # here, where what JSON doesn't have costs this section alone
        key = f"chart-{len(self.specs) + 1}-{name}"
        self.specs[key] = spec
        yield {"kind": "chart", "id": key, "caption": caption}


def _text(text: str) -> Block:
    return {"kind": "text", "text": text}


def _heading(text: str) -> Block:
    return {"kind": "heading", "text": text}


def _table(table: facts.Table, caption: str, *, folded: bool = False) -> Block:
    return {"kind": "table", "table": table, "caption": caption, "folded": folded}


@functools.cache
def _template() -> jinja2.Template:
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True)
    return environment.from_string(_file("page.html.j2"))


@functools.cache
def _file(name: str) -> str:
    return resources.files(__package__).joinpath(name).read_text(encoding="utf-8")


@functools.cache
def _bundle() -> str:
    """Vega, Vega-Lite and vega-embed as one script, kept in the cache: putting it together takes seconds."""
    path = cache_folder() / "vega" / f"embed-{metadata.version('vl-convert-python')}.js"
    try:
        script = path.read_text(encoding="utf-8")
        if script.endswith(_END):
            return script
    except OSError:
        pass
    import vl_convert

    script = _without_end_tags(vl_convert.javascript_bundle(_SNIPPET)) + _END
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        atomic_write(path, script.encode("utf-8"))
    except OSError:
        return script  # no room or no permission: it is put together again next time
    return script


_END = "\n/* whole */\n"


def _without_end_tags(script: str) -> str:
    """Within a script element, neither the end of it nor a comment may stand in a string."""
    return re.sub(r"<(?=/script|!--)", r"\\x3c", script, flags=re.IGNORECASE)


def _json_in_html(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False, allow_nan=False)
    for found, escaped in (("<", "\\u003c"), (">", "\\u003e"), ("&", "\\u0026")):
        text = text.replace(found, escaped)
    return text.replace("\u2028", "\\u2028").replace("\u2029", "\\u2029")
