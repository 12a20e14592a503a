"""``edgekit export``: further files from what is finished already, without training or calibrating.

From a run folder (its float model and its int8 graph), from an int8 graph alone, or from a workload file (its
trained model). Files from a run are recorded in its manifest, and evaluated as those of ``compress`` are.
"""

from __future__ import annotations

import copy
import shutil
from collections.abc import Collection, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgekit.errors import InputError, RunFolderError
from edgekit.files import what_is
from edgekit.formats import FORMATS, INT8_GRAPH, PRECISIONS, Precision, has, pairs
from edgekit.pipeline.export_request import ExportRequest, export_request
from edgekit.pipeline.places import profiles
from edgekit.progress import Event, Progress, silent
from edgekit.scratch import scratch
from edgekit.sources.request import Source, is_model_file

if TYPE_CHECKING:
    from torch import fx

    from edgekit.pipeline.artifacts import Manifest, Planned
    from edgekit.pipeline.chain import Rung
    from edgekit.pipeline.job import Job
    from edgekit.workload import Workload

_EXPORTS = Path("exports")  # below the current folder: for files that belong to no run


def export_files(
    source: str | Path | Source,
    workload: str | Path | None = None,
    what: ExportRequest | None = None,
    *,
    device: str | Path | None = None,
    out: str | Path | None = None,
    progress: Progress = silent,
) -> list[dict[str, Any]]:
    """Export further files.

    Args:
        source: a run folder, an ``int8_graph.pt2``, a workload file (``file.py``, ``file.py:function``), or a
            ``Source``; an ONNX file.
        workload: the workload of a run or of an int8 graph. A run of the embedded demo needs none; an int8
            graph is exported without one, but not evaluated.
        what: formats, precisions and settings; see ``export_request``.
        device: the profile that ONNX files are spelled for; by default the run's, or this machine.
        out: a folder for the files; those of a run stand in its ``artifacts`` in any case.
        progress: told what happens.

    Returns:
        One entry for each file, as in ``manifest.json``; ``path`` says where it is.

    Raises:
        InputError: a fault in what was given.
        ExportError, CaptureError: a converter failed; what was exported before is kept.
    """
    what = what or export_request()
    if isinstance(source, Source):
        if workload is not None:
            raise InputError("a model by name is the source itself", got=f"{source} and {workload}")
        return _from_workload(source, what, device, out or _EXPORTS, progress)
    path = Path(source)
    if path.is_dir():
        return _from_run(path, workload, what, device, out, progress)
    if path.suffix == ".pt2":
        return _from_graph(path, workload, what, device, out or _EXPORTS, progress)
    if is_model_file(path):
        if workload is not None:
            raise InputError("a model file is the source itself", got=f"{source} and {workload}")
        return _from_workload(Source(str(path)), what, device, out or _EXPORTS, progress)
    if ".py" in path.name:
        if workload is not None:
            raise InputError("a workload file is the source itself", got=f"{source} and {workload}")
        return _from_workload(str(source), what, device, out or _EXPORTS, progress)
    raise InputError(
        "nothing to export from",
        where=str(source),
        got="a file of another kind" if path.is_file() else what_is(path),
        expected="a run folder, an int8_graph.pt2 or a workload file (.py)",
        next="`edgekit compress` makes a run",
    )


# --- from a run ------------------------------------------------------------------------------------------


def _from_run(
    path: Path,
    workload: str | Path | None,
    what: ExportRequest,
    device: str | Path | None,
    out: str | Path | None,
    progress: Progress,
) -> list[dict[str, Any]]:
    from edgekit.pipeline import reopening

    identity = reopening.identity_of(path)
    reopening.require_workload(path, workload, identity, f"edgekit export {path} my_workload.py")
    from edgekit.recipe import load_recipe

    recipe = load_recipe(path / "recipe.yaml")
    devices = profiles([device] if device is not None else [], recipe.benchmark.devices, progress)

    from edgekit.pipeline.artifacts import Manifest
    from edgekit.pipeline.connections import Connections
    from edgekit.pipeline.job import Job
    from edgekit.pipeline.planning import plan
    from edgekit.runs.folder import RunFolder

    loaded, fingerprint = reopening.workload_of(path, workload, identity)
    with RunFolder.open(path, identity) as run, Connections() as links:
        job = Job(recipe, loaded, fingerprint, devices, run, progress, links)
        rungs = reopening.load_rungs(job)
        planned = _planned(job, rungs, what)
        by_recipe = {one.file for one in plan(replace(job, progress=silent), rungs)}
        manifest = Manifest(job, planned, keep=None)
        _write(job, rungs, manifest, added={one.file for one in planned} - by_recipe)
        return _told(manifest, Path(out) if out is not None else None)


# --- from a model ----------------------------------------------------------------------------------------


def _from_workload(
    spec: str | Source, what: ExportRequest, device: str | Path | None, out: str | Path, progress: Progress
) -> list[dict[str, Any]]:
    from edgekit.opening import load_workload

    what = replace(what, precisions=what.precisions or ("fp32",))
    if missing := [name for name in what.precisions if name in INT8_GRAPH]:
        raise InputError(
            f"{', '.join(missing)} is made from an int8 graph, and a trained model has none",
            where=str(spec),
            expected=f"one of {', '.join(name for name in PRECISIONS if name not in INT8_GRAPH)}",
            next=f"edgekit compress {spec} --recipe quick   (calibrates in a minute); export from its run",
        )
    loaded = load_workload(spec, made_up=True)
    loaded.check()
    return _alone(loaded, None, what, device, out, progress)


def _from_graph(
    path: Path,
    workload: str | Path | None,
    what: ExportRequest,
    device: str | Path | None,
    out: str | Path,
    progress: Progress,
) -> list[dict[str, Any]]:
    from edgekit.int8 import storage
    from edgekit.pipeline.chain import form_of
    from edgekit.stages.base import Form

    graph = storage.load(path)
    if form_of(graph) is Form.FLOAT:
        if workload is not None:
            raise InputError(
                "this is a float program, which is the source itself",
                where=str(path),
                got=f"{path} and {workload}",
                expected="a workload beside an int8 graph alone",
                next=f"leave it out: edgekit export {path}",
            )
        return _from_workload(Source(str(path)), what, device, out, progress)
    what = replace(what, precisions=what.precisions or ("int8",))
    if others := [name for name in what.precisions if name not in INT8_GRAPH]:
        raise InputError(
            f"{', '.join(others)} is made from the float model, and this is an int8 graph",
            where=str(path),
            expected=f"one of {', '.join(sorted(INT8_GRAPH))}",
            next="export from the run folder, or from the workload file",
        )
    if what.head != "raw" and workload is None:
        raise InputError(
            "an int8 graph doesn't know what its outputs mean",
            where=str(path),
            next=f"name the workload: edgekit export {path} my_workload.py --head {what.head}",
        )
    if what.embed_preprocessing and workload is None:
        raise InputError(
            "an int8 graph doesn't know its preprocessing",
            where=str(path),
            next=f"name the workload: edgekit export {path} my_workload.py --embed-preprocessing",
        )
    from edgekit.opening import load_workload

    if workload is not None:
        return _alone(load_workload(workload), graph, what, device, out, progress)
    return _graph_alone(path, graph, what, device, Path(out), progress)


def _alone(
    workload: Workload,
    graph: fx.GraphModule | None,
    what: ExportRequest,
    device: str | Path | None,
    out: str | Path,
    progress: Progress,
) -> list[dict[str, Any]]:
    """As from a run that has no stages, or nothing but an int8 graph; it is gone afterwards."""
    from edgekit.pipeline.artifacts import Manifest
    from edgekit.pipeline.chain import Rung, form_of
    from edgekit.pipeline.connections import Connections
    from edgekit.pipeline.job import Job
    from edgekit.pipeline.preflight import check_given
    from edgekit.recipe import ExportConfig, Recipe
    from edgekit.report import Figures
    from edgekit.runs.folder import RunFolder
    from edgekit.runs.keys import model_digest

    devices, recipe = (
        profiles([device or "local"], [], progress),
        Recipe(name="export", exports=ExportConfig(precisions=("fp32",))),
    )
    nothing = Figures(accuracy=0, parameters=0, macs=0)  # the manifest holds what the files can do
    with (
        scratch() as folder,
        RunFolder.open(Path(folder) / "run", {"workload": workload.name}) as run,
        Connections() as links,
    ):
        job = Job(recipe, workload, workload.fingerprint(), devices, run, progress, links)
        model = copy.deepcopy(workload.model).eval()
        models = [("", model)] + ([("int8 graph", graph)] if graph is not None else [])
        rungs = [Rung(k, m, "", nothing, model_digest(m), form_of(m)) for k, m in models]
        check_given(job, rungs[0])
        manifest = Manifest(job, _planned(job, rungs, what))
        _write(job, rungs, manifest)
        return _told(manifest, Path(out))


def _graph_alone(
    path: Path,
    graph: fx.GraphModule,
    what: ExportRequest,
    device: str | Path | None,
    out: Path,
    progress: Progress,
) -> list[dict[str, Any]]:
    """An int8 graph without its workload: no data to evaluate its files with."""
    from edgekit import __version__
    from edgekit.devices.asking import probe
    from edgekit.files import sha256
    from edgekit.formats.exporting import export
    from edgekit.formats.options import ExportOptions, Target
    from edgekit.graph import ops

    (profile,) = profiles([device or "local"], [], progress)
    if what.temperature == "fitted":
        raise InputError(
            "an int8 graph alone knows no fitted temperature",
            where=str(path),
            next="export from its run folder",
        )
    target = Target.of(profile, probe(profile))
    options = ExportOptions(batch=what.batch, io=what.io, target=target, temperature=what.temperature)
    example = ops.zeros_for(graph)
    parent = {"stage": "int8 graph", "model_sha256": sha256(path)}
    metadata = {"edgekit": __version__, "parent_sha256": parent["model_sha256"]}
    out.mkdir(parents=True, exist_ok=True)
    entries = []
    for format, precision in _pairs(what, progress):
        name = FORMATS[format].file_name(path.stem, options, precision)
        progress(Event("note", "export", name))
        about = {**metadata, "precision": precision}
        settings: dict[str, Any] = {"format": format, "precision": precision, "options": options}
        export(graph, example, out / name, metadata=about, **settings)
        file = out / name
        entry = {"file": name, "path": str(file), "size_bytes": file.stat().st_size, "sha256": sha256(file)}
        entries.append(
            {**entry, **settings, "options": options.describe(), "parent": parent, "evaluation": None}
        )
    return entries


# --- what all share --------------------------------------------------------------------------------------


def _pairs(what: ExportRequest, progress: Progress) -> list[tuple[str, Precision]]:
    found = pairs(what.formats, what.precisions)
    for format in dict.fromkeys(format for format, _ in found):
        FORMATS[format].require()
    for precision in what.precisions:
        for format in what.formats:
            if not has(format, precision):
                progress(Event("note", "export", f"{format} has no {precision}: left out"))
    return found


def _planned(job: Job, rungs: Sequence[Rung], what: ExportRequest) -> list[Planned]:
    from edgekit.formats.options import ExportOptions
    from edgekit.pipeline.planning import embedding, planned_for, target_of
    from edgekit.stages.base import Form
    from edgekit.workload.given_file import end_names

    has_graph = any(rung.form is Form.INT8 for rung in rungs)
    what = replace(what, precisions=what.precisions or ("int8" if has_graph else "fp32",))
    if not has_graph and (missing := [name for name in what.precisions if name in INT8_GRAPH]):
        raise InputError(
            f"{', '.join(missing)} is made from an int8 graph, and this run has none",
            where=str(job.run.path),
            next="compress with a recipe that has a qat stage (`quick` calibrates in a minute)",
        )
    whole = job.recipe.exports.microcontroller
    options = ExportOptions(
        batch=what.batch,
        io=what.io,
        target=target_of(job),
        whole_kernels=whole,
        ending=job.workload.task.ending(what.head),
        names=end_names(job.workload.model),
    )
    if what.embed_preprocessing:
        options = embedding(job, options)
    planned = [planned_for(job, rungs, f, p, options) for f, p in _pairs(what, job.progress)]
    if what.temperature == 1:
        return planned
    divided = []
    for one in planned:
        value = _fitted(job, one) if what.temperature == "fitted" else what.temperature
        its = replace(options, temperature=value)
        divided.append(planned_for(job, rungs, one.format, one.precision, its))
    return divided


def _fitted(job: Job, one: Planned) -> float:
    """What fits the answers of this very file, or of the first one of its precision.

    Fitted anew, to answers whose sha256 the manifest has: what diagnosis.json says isn't relied on.
    """
    from edgekit.pipeline.artifacts import REFERENCE
    from edgekit.pipeline.diagnosing import judged_file
    from edgekit.runs.folder import Damaged, check_files
    from edgekit.runs.manifest import read_manifest

    files: dict[str, Any] = {}
    try:
        for entry in (read_manifest(job.run.path) or {"artifacts": []})["artifacts"]:
            kept = (entry["evaluation"] or {}).get("answers")
            if kept is not None and (entry.get("options") or {}).get("temperature", 1) == 1:
                files[entry["file"]] = entry["evaluation"]
        same = [name for name in files if f"_{one.precision}" in Path(name).name]
        for name in (one.file, *same):
            if name == REFERENCE or not {name, REFERENCE} <= files.keys():
                continue
            for needed in (name, REFERENCE):
                kept = files[needed]["answers"]
                check_files(job.run.path, {kept["file"]: kept["sha256"]})
            judged = judged_file(job, files[REFERENCE], files[name])
            if judged.temperature is not None:
                return float(f"{judged.temperature.value:.4g}")  # stands in the file's name
    except Damaged as damage:
        raise RunFolderError("the run folder is damaged", where=str(job.run.path), got=str(damage)) from None
    raise InputError(
        f"no temperature can be fitted for {one.precision} files",
        where=str(job.run.path),
        got=f"answers of {', '.join(files) or 'no file'}",
        next="give a number: --temperature 1.5; one is fitted for files of a classifier",
    )


def _write(job: Job, rungs: Sequence[Rung], manifest: Manifest, added: Collection[str] = ()) -> None:
    """Export what isn't there, and evaluate it. ``added`` says which files are not the recipe's own."""
    from edgekit.pipeline.artifacts import write_missing
    from edgekit.pipeline.evaluation import evaluate_all

    write_missing(job, manifest, rungs)
    for file in added:
        manifest.set(file, {**manifest.entries[file], "added": True})
    evaluate_all(job, rungs, manifest)


def _told(manifest: Manifest, out: Path | None) -> list[dict[str, Any]]:
    """The planned files' entries, with their place; in ``out`` if that is given."""
    entries = []
    for one in manifest.planned:
        path = manifest.path_of(one.file)
        if out is not None:
            out.mkdir(parents=True, exist_ok=True)
            path = Path(shutil.copy2(path, out / path.name))
        here = Path.cwd()
        shown = path.relative_to(here) if path.is_relative_to(here) else path
        entries.append({**manifest.entries[one.file], "path": str(shown)})
    return entries
