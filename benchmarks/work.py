"""What the long benchmarks share: their arguments, a work folder that a killed script goes on from, progress.

A benchmark consists of parts (a training, a measurement), each of which leaves a record in the work folder.
A part whose record has the key that it would get now (settings, code, library versions, data) is not done
again; trainings within a part leave checkpoints of their own in the part's folder.
"""

from __future__ import annotations

import argparse
import ast
import dataclasses
import functools
import importlib
import json
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgekit.errors import EdgekitError
from edgekit.files import sha256_of, write_json
from edgekit.progress import Event
from edgekit.runs.keys import Part, code_version
from edgekit.workload import Samples, Workload

if TYPE_CHECKING:
    from edgekit.stages.base import StageConfig, StageContext, StageResult

HERE = Path(__file__).resolve().parent
STARTED = time.monotonic()
SECONDS_BETWEEN_LINES = 15.0


def cache_folder() -> Path:
    """Where edgekit keeps what can be made again."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "edgekit"


def parser(doc: str | None, name: str) -> argparse.ArgumentParser:
    """The arguments that all these scripts have; ``name`` is that of the result."""
    found = argparse.ArgumentParser(
        description=doc, formatter_class=argparse.RawDescriptionHelpFormatter, add_help=True
    )
    found.add_argument("--data", type=Path, help="folder with the data sets; else EDGEKIT_DATA names it")
    found.add_argument("--work", type=Path, help="work folder; by default one in the user's cache")
    found.add_argument("--out", type=Path, default=HERE / "results" / f"{name}.json")
    found.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)), help="for torch")
    found.add_argument("--seed", type=int, default=0)
    found.add_argument(
        "--smoke", action="store_true", help="a tiny subset: does it run? Rows are shown, not written"
    )
    found.set_defaults(result=name)
    return found


@contextmanager
def workplace(options: argparse.Namespace) -> Iterator[Work]:
    """The work folder of these options, with torch's threads and the data folder set.

    A smoke test works in a folder of its own that is removed afterwards, unless ``--work`` names one.
    """
    import torch

    if options.data is not None:
        os.environ["EDGEKIT_DATA"] = str(options.data)
    torch.set_num_threads(options.threads)
    if options.smoke and options.work is None:
        with tempfile.TemporaryDirectory(prefix="edgekit-smoke-") as folder:
            yield Work(Path(folder))
    else:
        yield Work(options.work or cache_folder() / "benchmarks" / options.result)


def guarded(main: Callable[[], int]) -> int:
    """``main``, with the errors that a user can mend told in words; the exit code."""
    try:
        return main()
    except EdgekitError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("interrupted; the same command goes on from here", file=sys.stderr)
        return 130


class Work:
    """A folder of parts."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.path.mkdir(parents=True, exist_ok=True)

    def part(
        self,
        name: str,
        settings: Mapping[str, Any],
        make: Callable[[Path], dict[str, Any]],
        *,
        files: Sequence[str] = (),
        code: Sequence[Part] = ("stages",),
    ) -> dict[str, Any]:
        """What ``make`` gave for these settings, from its record or made now in a folder of the part's own.

        The folder of other settings, or of other code, is emptied first: nothing is continued that was begun
        differently. The record holds the key, the seconds that the last attempt took, and the result.
        ``files`` of this folder and the parts of edgekit in ``code`` are those that the result depends on.
        """
        key = part_key(settings, files, code)
        record, begun = self.path / f"{name}.json", self.path / name / "key.txt"
        if record.exists():
            kept = json.loads(record.read_text())
            if kept["key"] == key:
                tell(f"{name}: done before")
                result: dict[str, Any] = kept["result"]
                return result
        if not begun.exists() or begun.read_text() != key:
            shutil.rmtree(begun.parent, ignore_errors=True)
            begun.parent.mkdir(parents=True)
            begun.write_text(key)
        tell(f"{name}: begins")
        started = time.monotonic()
        made = make(begun.parent)
        write_json(record, {"key": key, "seconds": time.monotonic() - started, "result": made})
        tell(f"{name}: done")
        return made


def part_key(settings: Mapping[str, Any], files: Sequence[str], code: Sequence[Part]) -> str:
    """Changes with the settings, with these files, and with edgekit's code and its libraries' versions."""
    sources = {name: sha256_of(statements((HERE / name).read_text())) for name in files}
    made_by = [code_version(part) for part in code]
    return sha256_of({"settings": json.loads(json.dumps(settings)), "files": sources, "code": made_by})


def statements(source: str) -> str:
    """What a file does: its syntax tree without docstrings, so that a better comment costs no training."""
    tree, documented = ast.parse(source), (ast.Module, ast.ClassDef, ast.FunctionDef)
    for node in ast.walk(tree):
        if isinstance(node, documented) and ast.get_docstring(node) is not None:
            del node.body[0]
    return ast.dump(tree)


class Clock:
    """Seconds that go on counting when a killed script is started again. They are kept in ``path``.

    What is lost between two notes (``tick`` writes one at most every two seconds) isn't counted, but work
    that a kill made necessary twice is; ``starts`` tells how often the clock was started.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        kept = json.loads(path.read_text()) if path.exists() else {"seconds": 0.0, "starts": 0}
        self.before, self.starts = float(kept["seconds"]), int(kept["starts"]) + 1
        self.began = self.noted = time.monotonic()

    @property
    def seconds(self) -> float:
        """In all."""
        return self.before + time.monotonic() - self.began

    def tick(self, event: Event | None = None, *, at_once: bool = False) -> None:
        """Note the seconds, if the last note is older than two seconds."""
        now = time.monotonic()
        if at_once or now - self.noted > 2:
            self.noted = now
            write_json(self.path, {"seconds": self.seconds, "starts": self.starts})


def workload_module(name: str) -> Any:
    """The module ``workloads/NAME.py``, whose neighbours it may import."""
    folder = str(HERE / "workloads")
    if folder not in sys.path:
        sys.path.append(folder)
    return importlib.import_module(name)


def run_stage(kind: str, model: Any, config: StageConfig, context: StageContext) -> StageResult:
    """A stage as the pipeline runs it: a killed one goes on from ``context.folder``, a finished one is read.

    The folder must belong to just this stage and model, as that of a part does.
    """
    import torch

    from edgekit.stages import STAGES, stage_files

    context.folder.mkdir(parents=True, exist_ok=True)
    if (context.folder / stage_files.SUMMARY).exists():  # written last
        loaded: StageResult = STAGES[kind].load(model, config, context)
        return loaded
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(context.seed)
        result: StageResult = STAGES[kind].run(model, config, context)
    return result


def smaller(workload: Workload, train: int, validation: int) -> Workload:
    """The first samples of each split, for a smoke test."""

    def first(samples: Samples, count: int) -> Samples:
        return Samples(samples.inputs[:count], samples.targets[:count])

    return dataclasses.replace(
        workload, train=first(workload.train, train), validation=first(workload.validation, validation)
    )


@functools.cache
def options_here() -> Any:
    """How ``compress`` writes a file that this machine is to run: int8 ONNX files suit its instructions."""
    from edgekit.devices.asking import probe
    from edgekit.devices.device import load_device
    from edgekit.formats.options import ExportOptions, Target

    local = load_device("local")
    return ExportOptions(target=Target.of(local, probe(local)))


def accuracy_of_file(
    path: Path, runtime: str, workload: Workload, folder: Path, *, threads: int, batch: int = 64
) -> float:
    """The task's score of an exported file's own answers to the whole validation split, in its runtime."""
    import numpy as np
    import torch

    from edgekit.bench.measure import evaluate
    from edgekit.devices.device import Device
    from edgekit.pipeline.evaluation import write_inputs

    inputs = write_inputs(workload, folder / "inputs.npy")
    try:
        device = Device(name="local", transport="local")
        answers = evaluate(path, runtime, device, inputs, threads=threads, batch=batch)  # type: ignore[arg-type]
    finally:
        inputs.unlink()
    outputs = torch.from_numpy(np.ascontiguousarray(answers)).float()
    return workload.task.score(outputs, workload.validation.targets)


# --- told while it runs


def tell(text: str) -> None:
    """A line with the time since the start."""
    print(f"[{time.monotonic() - STARTED:6.0f} s] {text}", file=sys.stderr, flush=True)


class Teller:
    """Prints a training's events: epochs, warnings, and a step now and then, with images/s and time left."""

    def __init__(self, label: str, also: Sequence[Callable[[Event], None]] = ()) -> None:
        self.label, self.also, self.told = label, also, -SECONDS_BETWEEN_LINES

    def __call__(self, event: Event) -> None:
        for listener in self.also:
            listener(event)
        line = told(event)
        now = time.monotonic()
        if event.kind == "step":
            if now - self.told < SECONDS_BETWEEN_LINES:
                return
            self.told = now
        if line:
            tell(f"{self.label}: {line}")


def told(event: Event) -> str:
    """An event in words; "" for one that needs none."""
    if event.images_per_second is None:
        return f"{event.stage} {event.message}".strip() if event.message else ""
    facts = [f"{event.stage} epoch {event.epoch}/{event.epochs}", f"{event.done:,}/{event.total:,}"]
    if event.loss is not None:
        facts.append(f"loss {event.loss:.3f}")
    if event.accuracy is not None:
        facts.append(f"{event.accuracy:.2%}")
    facts.append(f"{event.images_per_second:,.0f} images/s")
    if event.seconds_left is not None:
        facts.append(f"ETA {minutes(event.seconds_left)}")
    return ", ".join(facts)


def minutes(seconds: float) -> str:
    """4:07."""
    whole = round(seconds)
    return f"{whole // 60}:{whole % 60:02}"
