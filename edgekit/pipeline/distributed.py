"""Several processes: what the others do while the first one works through the run.

The first process alone has the run folder. For every stage it tells the others whether the stage is finished
and what stands in its folder; they go through the same stage in a folder of their own, to train their share
of every batch, and take its result from the first. Then they wait for the report.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgekit.errors import StageError
from edgekit.scratch import scratch
from edgekit.training.computing import parallel
from edgekit.training.seeds import seeded

if TYPE_CHECKING:
    from torch import nn

    from edgekit.recipe import Recipe
    from edgekit.report import Report
    from edgekit.stages.base import StageConfig, StageContext
    from edgekit.workload import Workload

__all__ = ["agree", "end", "follow", "share"]


def agree(recipe: Recipe, fingerprint: str) -> None:
    """Every process must have been given the same. Raises StageError."""
    group = parallel.current()
    own = [fingerprint, recipe.model_dump(mode="json")]
    if group.first(lambda: own) != own:
        raise StageError(
            "the processes were not given the same",
            where=f"process {group.rank}",
            got="another recipe" if group.is_first else "another recipe, model or data than the first one's",
            next="start every process with the same command, files and data",
        )


def share(folder: Path, *, finished: bool) -> None:
    """In the first process: a stage's folder, before the stage runs or when it is finished."""
    group = parallel.current()
    if group.size > 1:
        group.first(lambda: (finished, _files(folder)))


def end(report: Report) -> None:
    """In the first process: all is done."""
    group = parallel.current()
    if group.size > 1:
        group.first(report.to_json)


def follow(recipe: Recipe, workload: Workload) -> Report:
    """In the other processes: every stage, and then the report.

    Raises StageError if a stage fails here, or the first process is gone.
    """
    import copy

    from edgekit.report import Report
    from edgekit.stages.base import StageContext

    group = parallel.current()
    model = teacher = copy.deepcopy(workload.model).eval()
    with scratch() as folder_here:
        for index, config in enumerate(recipe.stages, 1):
            folder = Path(folder_here) / f"{index}-{config.kind}"
            model = _stage(model, config, StageContext(workload, teacher, folder, recipe.seed))
        return Report.from_json(group.first(dict))


def _stage(model: nn.Module, config: StageConfig, context: StageContext) -> nn.Module:
    from edgekit.stages import STAGES

    stage = STAGES[config.kind]
    if not _received(context.folder):
        with seeded(context.seed):
            stage.run(model, config, context)
        _received(context.folder)
    return stage.load(model, config, context).model


def _received(folder: Path) -> bool:
    """Make ``folder`` what the first process has; whether its stage is finished."""
    import shutil

    nothing: tuple[bool, dict[str, bytes]] = (False, {})
    finished, files = parallel.current().first(lambda: nothing)
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return finished


def _files(folder: Path) -> dict[str, bytes]:
    paths: list[Any] = sorted(path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in paths}
