from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from edgekit.graph.capture import capture
from edgekit.runs import keys
from edgekit.runs.keys import code_version, model_digest
from tests.pipeline.tiny import TinyNet


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A stand-in for the package's sources."""
    for name in (
        "training.py",
        "stages/prune.py",
        "formats/onnx.py",
        "runtimes/litert.py",
        "bench/worker.py",
        "cli/app.py",
        "report/x.py",
    ):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("before")
    monkeypatch.setattr(keys, "_PACKAGE", tmp_path)
    return tmp_path


def code(part: keys.Part) -> str:
    code_version.cache_clear()
    try:
        return code_version(part)
    finally:
        code_version.cache_clear()


@pytest.mark.parametrize(
    ("changed", "concerned"),
    [
        ("training.py", {"stages", "export"}),
        ("stages/prune.py", {"stages", "export"}),
        ("stages/new.py", {"stages", "export"}),
        ("formats/onnx.py", {"export", "bench"}),
        ("runtimes/litert.py", {"bench"}),
        ("bench/worker.py", {"bench"}),
        ("cli/app.py", set()),
        ("report/x.py", set()),
    ],
)
def test_a_changed_source_concerns_what_it_can_change(
    package: Path, changed: str, concerned: set[str]
) -> None:
    parts: tuple[keys.Part, ...] = ("stages", "export", "bench")
    before = {part: code(part) for part in parts}
    (package / changed).write_text("after")
    assert {part for part in parts if code(part) != before[part]} == concerned


def test_what_is_left_out_is_there() -> None:
    package = Path(keys.__file__).parent.parent
    assert [name for name in keys._NEVER | keys._LATER if not (package / name).exists()] == []
    assert [name for name in keys._BENCH if not (package / name).exists()] == []


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
