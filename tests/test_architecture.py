"""What the folders promise: arrows between them point one way, and files are short."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Mapping
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import grimp
import pytest

Arrows = Mapping[str, set[str]]

MOST_LINES = 450
# What is on top: nothing that computes may know how it is called or shown.
TOP = {"edgekit.cli"}


@pytest.fixture(scope="module")
def imports() -> Arrows:
    """By module, what it imports, inside of functions too; not what only types need."""
    graph = grimp.build_graph("edgekit", cache_dir=None, exclude_type_checking_imports=True)
    return {one: graph.find_modules_directly_imported_by(one) for one in graph.modules}


def folder_of(module: str) -> str:
    return ".".join(module.split(".")[:2])


@pytest.fixture(scope="module")
def arrows(imports: Arrows) -> Arrows:
    """The same between the folders, and files, that stand in edgekit/."""
    found: dict[str, set[str]] = defaultdict(set)
    for module, others in imports.items():
        found[folder_of(module)] |= {folder_of(one) for one in others} - {folder_of(module)}
    return found


def circle_in(graph: Arrows) -> list[str]:
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        return list(error.args[1])
    return []


def test_a_circle_would_be_found() -> None:
    assert set(circle_in({"a": {"b"}, "b": {"c"}, "c": {"a"}, "d": {"a"}})) == {"a", "b", "c"}


def test_no_module_leads_back_to_itself(imports: Arrows) -> None:
    assert len(imports) > 400
    assert circle_in(imports) == []


def test_no_folder_leads_back_to_itself(arrows: Arrows) -> None:
    assert {"edgekit.formats", "edgekit.int8"} <= arrows["edgekit.pipeline"]
    assert circle_in(arrows) == []


def test_nothing_that_computes_knows_the_command_line(arrows: Arrows) -> None:
    knowing = {folder for folder, others in arrows.items() if others & TOP}
    assert {one for one in knowing if not one.startswith((*TOP, "edgekit.__main__"))} == set()


def test_no_file_is_too_long(root: Path) -> None:
    lengths = {path: len(path.read_text().splitlines()) for path in (root / "edgekit").rglob("*.py")}
    assert {str(path): length for path, length in lengths.items() if length > MOST_LINES} == {}


PAGES = sorted((Path(__file__).parents[1] / "docs").glob("*.md"))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_a_page_names_no_source_that_is_not_there(root: Path, page: Path) -> None:
    """Whole paths, or their last part, as where a section is about one folder."""
    folders = ("edgekit", "tests", "benchmarks", "scripts")
    there = [str(path.relative_to(root)) for name in folders for path in (root / name).rglob("*.py")]
    named = re.findall(r"[`(]([\w./-]+\.py)\b", page.read_text())
    named = [one for one in named if "NAME" not in one]
    gone = [one for one in named if not any(f"/{path}".endswith(f"/{one.lstrip('./')}") for path in there)]
    assert gone == []
