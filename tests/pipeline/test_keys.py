from __future__ import annotations

import ast
import copy
import json
import os
import shutil
import subprocess
import sys
import time
import zipfile
from collections.abc import Iterable, Mapping
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import edgekit
from edgekit.formats import FORMATS
from edgekit.graph.capture import capture
from edgekit.runs import keys
from edgekit.runs.keys import Part, code_version, model_digest, parts, reached
from edgekit.runs.reach import TELL_OR_KEEP, Package
from edgekit.stages import STAGES
from edgekit.stages.distill import DistillConfig
from edgekit.stages.prune_config import PruneConfig
from edgekit.stages.shipping import unused
from tests.pipeline.tiny import TinyNet

ROOT = Path(edgekit.__file__).parent
ALL_OF_SOME = {"stages", "export", "preflight"}  # these hold others
# Whoever measures a file may be asked to write one, for all that can be known; that costs no training.
MEASURED = {"bench", "evaluation", "diagnosis"}
CUT = "prune by MACs"  # whose goal needs no files


def versions_of(package: Package) -> dict[str, Mapping[str, str]]:
    asked = [part for part in parts() if part not in ALL_OF_SOME]
    found: dict[str, Mapping[str, str]] = {part: reached(package, part).own for part in asked}
    found[CUT] = reached(package, "prune", unused(PruneConfig())).own
    return found


@pytest.fixture(scope="module")
def package() -> Package:
    return Package(ROOT)


@pytest.fixture(scope="module")
def before(package: Package) -> dict[str, Mapping[str, str]]:
    return versions_of(package)


@pytest.fixture
def edited(tmp_path: Path) -> Path:
    """A copy of the package, to be edited."""
    ignored = shutil.ignore_patterns("__pycache__", "bundle", "cli")
    return shutil.copytree(ROOT, tmp_path / "edgekit", ignore=ignored)


def edit(folder: Path, file: str, old: str, new: str) -> None:
    path = folder / file
    text = path.read_text()
    assert text.count(old) >= 1, f"{file} no longer holds {old!r}"
    path.write_text(text.replace(old, new, 1))


def changed(folder: Path, before: Mapping[str, Mapping[str, str]]) -> set[str]:
    after = versions_of(Package(folder))
    return {part for part in before if after[part] != before[part]}


# --- what makes which part anew --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("file", "old", "new", "concerned"),
    [
        ("training/steps/optimizer.py", "return ", "return 0 or ", {*STAGES, CUT, "precision"}),
        ("pruning/depth.py", "_ALIKE, _AS_LONG = 0.9,", "_ALIKE, _AS_LONG = 0.8,", {"distill", "prune", CUT}),
        ("int8/ranges.py", "import torch\n", "import torch\n\nOTHER = 1\n", set()),
        ("int8/bias.py", "    return ", "    return 0 or ", {"qat", "prune", "precision"}),
        ("formats/onnx/weights.py", "    return ", "    return 0 or ", {"export onnx", "prune", *MEASURED}),
        (
            "formats/litert/islands.py",
            "    return ",
            "    return 0 or ",
            {"export litert", "prune", *MEASURED},
        ),
        ("formats/onnx/coverage.py", "    return ", "    return 0 or ", {"evaluation"}),
        ("formats/parity/divergence.py", "    return ", "    return 0 or ", {"evaluation"}),
        (
            "bench/session.py",
            "    return ",
            "    return 0 or ",
            {*MEASURED, "prune"},
        ),
        ("bench/timing.py", "    return ", "    return 0 or ", {*MEASURED, "prune"}),
        (
            "runtimes/device/runtime_litert.py",
            "    return ",
            "    return 0 or ",
            {*MEASURED, "prune"},
        ),
        ("devices/fake.py", "    return ", "    return 0 or ", {*MEASURED, "prune"}),
        ("diagnosis/flips.py", "    return ", "    return 0 or ", {"diagnosis"}),
        ("inspecting/model.py", "    return ", "    return 0 or ", set()),
        ("report/card.py", "    return ", "    return 0 or ", set()),
        ("stages/base.py", "seed: int = 0", "seed: int = 1", {*STAGES, CUT, "precision"}),
    ],
)
def test_a_change_concerns_what_computes_with_it(
    file: str,
    old: str,
    new: str,
    concerned: set[str],
    edited: Path,
    before: Mapping[str, Mapping[str, str]],
) -> None:
    edit(edited, file, old, new)
    assert changed(edited, before) == concerned


def test_what_holds_others_holds_all_of_them(
    package: Package, before: Mapping[str, Mapping[str, str]]
) -> None:
    for whole, some in (("stages", STAGES), ("export", [f"export {name}" for name in FORMATS])):
        found = reached(package, whole).own
        for part in some:
            assert before[part].items() <= found.items()
    found = reached(package, "preflight").own  # does once what is done later
    for start in ("edgekit.stages.qat:qat", "edgekit.stages.prune:prune", "edgekit.formats.exporting:export"):
        assert start in found


def test_what_only_tells_concerns_nothing(edited: Path, before: Mapping[str, Mapping[str, str]]) -> None:
    for file, old, new in (
        # a message, a note of a calibration, a docstring, a comment, an annotation
        ("stages/qat.py", "nothing of this model can be computed", "not a thing of this model can be"),
        ("stages/qat.py", '"calibrating"', '"looking at values"'),
        ("training/loop.py", '"""', '"""Once more: '),
        ("pruning/depth.py", "\n_ALIKE", "\n# Found by trying.\n_ALIKE"),
        ("pruning/goals/shipped.py", "message: str", "message: object"),
        # layout
        ("int8/bias.py", "    return ", "    return \\\n        "),
        # texts of errors, of a table, of a page; how a file is written
        ("formats/coverage.py", "can't count the integer kernels", "no idea"),
        ("errors.py", '"got"', '"found"'),
        ("units.py", "    return ", "    return 0 or "),
        ("progress.py", 'message: str = ""', 'message: str = "…"'),
        ("files.py", "    return ", "    return 0 or "),
        ("monitor/meter.py", "0.2", "0.3"),
        ("report/page/charts.py", "    return ", "    return 0 or "),
        ("report/page/page.css", "{", "{ "),
    ):
        edit(edited, file, old, new)
    assert changed(edited, before) == set()


def test_the_command_line_concerns_nothing(package: Package, before: Mapping[str, Mapping[str, str]]) -> None:
    """The copies leave it out, and have the same keys."""
    assert any(path.startswith("cli/") for path in package.files)
    ours = [name for found in before.values() for name in found]
    assert not [name for name in ours if name.startswith(("edgekit.cli", "edgekit.bundle"))]


def test_a_new_file_counts_for_those_that_call_it(
    edited: Path, before: Mapping[str, Mapping[str, str]]
) -> None:
    (edited / "pruning" / "further.py").write_text("def further(): return 1\n")
    assert changed(edited, before) == set()
    edit(edited, "pruning/depth.py", "\n_ALIKE", "\nfrom edgekit.pruning import further\n_ALIKE")
    assert changed(edited, before) == set()
    edit(edited, "pruning/depth.py", "    return ", "    return further.further() or ")
    assert changed(edited, before) == {"distill"}
    after = versions_of(Package(edited))
    edit(edited, "pruning/further.py", "1", "2")
    assert changed(edited, after) == {"distill"}


def test_a_goal_without_files_makes_none(before: Mapping[str, Mapping[str, str]]) -> None:
    assert unused(PruneConfig(latency_ms=1.0)) == ()
    assert unused(DistillConfig()) == unused(PruneConfig(speedup=3.0)) != ()
    assert any(name.startswith("edgekit.bench.measure:") for name in before["prune"])
    assert not any(name.startswith(("edgekit.bench.", "edgekit.devices.")) for name in before[CUT])


# --- what is left out ------------------------------------------------------------------------------------


def test_what_tells_or_keeps_reaches_nothing_that_computes(package: Package) -> None:
    for folder in TELL_OR_KEEP:
        own = [name for name in package.modules if name.split(".")[1:2] == [folder]]
        assert own
        for module in own:
            tree = ast.parse(package.files[package.modules[module]])
            named = {one.module or "" for one in ast.walk(tree) if isinstance(one, ast.ImportFrom)}
            others = {name.split(".")[1] for name in named if name.startswith("edgekit.")}
            assert others <= set(TELL_OR_KEEP), module


def test_every_library_on_the_way_is_known(package: Package) -> None:
    settings = {"pydantic", "pydantic_core", "yaml"}  # whose values are in the keys
    # Beside each other on a device (device_files.py); modules of the package here.
    beside = {"runtimes", "sensors"}
    for part in parts():
        imported = imported_by(package, reached(package, part).own)
        assert imported - keys.LIBRARIES.keys() - settings - beside == set(), part
    assert {"torch", "onnx", "onnxscript"} <= reached(package, "export onnx").outside
    assert "nncf" in reached(package, "qat").outside
    assert not {"onnx", "onnxruntime", "nncf"} & reached(package, "distill").outside
    assert {"openvino", "onnxruntime", "ai_edge_litert"} <= reached(package, "bench").outside


def imported_by(package: Package, own: Iterable[str]) -> set[str]:
    """The packages beside Python's own and edgekit that these definitions and their modules import."""
    places = {name for name in own if ":" in name}
    named = {
        one
        for module in {place.partition(":")[0] for place in places}
        for one in package.source(module).executed
    }
    named |= {
        one for place in places for found in package.definition(place).imported.values() for one in found
    }
    return {one.partition(".")[0] for one in named} - {"edgekit", "__future__"} - set(sys.stdlib_module_names)


# What an import by a name in a variable can lead to, and why that is followed.
DYNAMIC = {
    "edgekit": "__getattr__: its table names the modules",
    "edgekit.bundle.targets": "the name of a target is put into one of a module",
    "edgekit.bundle.targets.phones": "grammars, for checking",
    "edgekit.devices.site_folder": "packages on a device",
    "edgekit.devices.transports": "the name of a module is put into one of devices/",
    "edgekit.guarded": "the function is named by the caller, as a function",
    "edgekit.inspecting.reading": "the class of a format, which FORMATS holds",
    "edgekit.media.worker": "who reads a sort of files; what they hold is in the fingerprint of a workload",
    "edgekit.runtimes.device.runtime_executorch": "the runtime",
    "edgekit.runtimes.device.runtime_litert": "the runtime",
    "edgekit.runtimes.device.runtime_onnxruntime": "the runtime",
    "edgekit.runtimes.device.runtime_openvino": "the runtime",
    "edgekit.runtimes.device.runtime_torch": "the runtime",
    "edgekit.runtimes.device.runtimes": "sibling: all that stand beside it",
    "edgekit.tables": "collected: all that stand in the package whose __path__ is given",
    "edgekit.workload.loading": "the user's own file, which is in the workload's fingerprint",
}


def test_no_import_by_a_variable_is_overlooked(
    package: Package, before: Mapping[str, Mapping[str, str]]
) -> None:
    assert {module for module in package.modules if package.source(module).dynamic} == set(DYNAMIC)
    bench = {name.partition(":")[0] for name in before["bench"]}
    for name in ("local", "ssh", "adb", "emulated", "fake"):
        assert f"edgekit.devices.{name}" in bench
    pruning = {name.partition(":")[0] for name in before[CUT]}
    for path in (ROOT / "pruning" / "importance" / "criteria").glob("*.py"):
        name = "" if path.stem == "__init__" else f".{path.stem}"
        assert f"edgekit.pruning.importance.criteria{name}" in pruning
    for path in (ROOT / "runtimes" / "device").glob("runtime_*.py"):
        assert f"edgekit.runtimes.device.{path.stem}" in bench
    for name in ("worker", "sensors", "energy", "timing", "answers", "inbox", "steps"):  # sent to devices
        assert f"edgekit.bench.{name}" in bench


# --- what is executed was foreseen -----------------------------------------------------------------------

_TRACED = """
import json, sys
from pathlib import Path
import edgekit
from edgekit.pipeline import compress
from edgekit.recipe import load_recipe
from edgekit.runs import keys
from tests.pipeline import tiny

root, package, names = str(Path(edgekit.__file__).parent) + "/", keys._package(), {}
begins, active, seen = {}, [], {}
for part in ("distill", "prune", "qat", "export", "evaluation", "bench", "diagnosis"):
    for start in set(keys._begin(part)[0]) - {*keys._EVERY_STAGE}:
        begins.setdefault(start, set()).add(part)

def hook(frame, event, argument):
    code = frame.f_code
    if code not in names:
        inside = code.co_filename.startswith(root)
        module = package.module_of(code.co_filename.removeprefix(root)) if inside else ""
        names[code] = f"{module}:{code.co_qualname.split('.<locals>')[0]}" if inside else ""
    if name := names[code]:
        if event == "call":
            active.append((frame, begins[name])) if name in begins else None
            for _, found in active:
                for part in found:
                    seen.setdefault(part, set()).add(name)
        elif event == "return" and active and active[-1][0] is frame:
            active.pop()

folder = Path(sys.argv[1])
(folder / "recipe.yaml").write_text(tiny.RECIPE)
recipe, workload = load_recipe(folder / "recipe.yaml"), tiny.workload()
sys.setprofile(hook)
compress(workload, recipe=recipe, out=folder / "run")
sys.setprofile(None)
(folder / "seen.json").write_text(json.dumps({part: sorted(found) for part, found in seen.items()}))
"""


@pytest.mark.slow
def test_all_that_is_executed_was_foreseen(
    tmp_path: Path, package: Package, before: Mapping[str, Mapping[str, str]], root: Path
) -> None:
    """A run is watched: every function that a part calls is in its closure, or known to be left out."""
    environment = {**os.environ, "PYTHONPATH": str(root)}
    command = [sys.executable, "-W", "ignore", "-c", _TRACED, str(tmp_path)]
    subprocess.run(command, check=True, env=environment, cwd=root)
    seen = json.loads((tmp_path / "seen.json").read_text())
    assert set(seen) == {"distill", "prune", "qat", "export", "evaluation", "bench", "diagnosis"}
    # What a run knows of itself, and who is told what happens.
    bookkeeping = (*keys._BOOKKEEPING, "edgekit.pipeline.interrupts:", "edgekit.runs.folder:")
    for part, names in seen.items():
        missed = []
        for name in names:
            module, _, qualified = name.partition(":")
            defined = package.source(module).definitions
            kept = module.split(".")[1] in TELL_OR_KEEP or name.startswith(bookkeeping)
            if qualified.startswith("<") or kept:
                continue
            one = qualified if qualified in defined else qualified.partition(".")[0]
            # A class's body is executed where its module is imported.
            if f"{module}:{one}" not in before[part] and not defined[one].is_class:
                missed.append(name)
        assert missed in ([], ["edgekit.pipeline.chain:_figures"]), part  # its ``tell``


# --- everywhere the same ---------------------------------------------------------------------------------


def test_an_archive_and_a_wheel_have_the_same_keys(
    tmp_path: Path, edited: Path, before: Mapping[str, Mapping[str, str]]
) -> None:
    """No .git, no byte code, other line ends; recipes and profiles stand in a wheel."""
    (edited / "_recipes").mkdir()
    (edited / "_recipes" / "mobile.yaml").write_text("name: mobile\n")
    (edited / "training" / "__pycache__").mkdir(exist_ok=True)
    (edited / "training" / "__pycache__" / "loop.cpython-311.pyc").write_bytes(b"code")
    for path in edited.rglob("*.py"):
        path.write_bytes(path.read_bytes().replace(b"\n", b"\r\n"))
    with zipfile.ZipFile(tmp_path / "edgekit.zip", "w") as archive:
        for path in edited.rglob("*"):
            archive.write(path, path.relative_to(tmp_path))
    assert versions_of(Package(zipfile.Path(tmp_path / "edgekit.zip", "edgekit/"))) == before


def test_keys_are_known_at_once_the_second_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDGEKIT_CACHE", str(tmp_path))

    def fresh(part: Part) -> str:
        code_version.cache_clear()
        keys._package.cache_clear()
        return code_version(part)

    asked = ("distill", "bench")
    first = {part: fresh(part) for part in asked}
    (kept,) = (tmp_path / "code").iterdir()
    assert {part: fresh(part) for part in asked} == first
    with monkeypatch.context() as patch:
        patch.setattr(keys, "reached", None)  # nothing is followed again
        began = time.process_time()
        assert fresh("distill") == first["distill"]
        assert time.process_time() - began < 0.5  # 0.05 on a free core
    kept.write_text("[1, 2")
    assert fresh("distill") == first["distill"]
    kept.write_text(json.dumps({"distill": 7}))
    assert fresh("distill") == first["distill"]
    monkeypatch.setenv("EDGEKIT_CACHE", "/dev/null/nowhere")
    assert fresh("distill") == first["distill"]


def test_versions_of_libraries_count(monkeypatch: pytest.MonkeyPatch) -> None:
    before = {part: code_version(part) for part in ("distill", "qat", "export onnx")}
    real = keys.versions
    monkeypatch.setattr(keys, "versions", lambda names: _newer(real(names)))
    code_version.cache_clear()
    try:
        after = {part: code_version(part) for part in before}
    finally:
        code_version.cache_clear()
    assert {part for part in before if after[part] != before[part]} == {"qat"}


def _newer(found: dict[str, str]) -> dict[str, str]:
    return {name: "99" if name == "nncf" else version for name, version in found.items()}


def test_a_part_that_is_not_there_is_refused() -> None:
    for part in ("quantise", "export tflite"):
        with pytest.raises(LookupError):
            code_version(part)


# --- models ----------------------------------------------------------------------------------------------


@given(parameter=st.integers(0, 5), place=st.integers(0, 3))
def test_any_changed_weight_changes_the_digest(parameter: int, place: int) -> None:
    torch.manual_seed(0)
    model = TinyNet()
    changed = copy.deepcopy(model)
    assert model_digest(changed) == model_digest(model)
    with torch.no_grad():
        list(changed.parameters())[parameter].reshape(-1)[place] += 1e-3
    assert model_digest(changed) != model_digest(model)


def test_buffers_and_the_code_of_a_graph_count() -> None:
    model = TinyNet().eval()
    before = model_digest(model)
    model.norm.running_mean += 1
    assert model_digest(model) != before
    graph = capture(model, torch.zeros(2, 1, 8, 8))
    before = model_digest(graph)
    assert model_digest(capture(model, torch.zeros(2, 1, 8, 8))) == before
    relu = next(node for node in graph.graph.nodes if "relu" in str(node.target))
    relu.replace_all_uses_with(relu.args[0])
    graph.graph.eliminate_dead_code()
    graph.recompile()
    assert model_digest(graph) != before
