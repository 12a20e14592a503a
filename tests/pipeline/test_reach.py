"""What can be executed, in small packages: by every way that Python code comes to other code."""

from __future__ import annotations

import textwrap
from pathlib import Path

import pytest

from edgekit.runs.reach import Package


def package(folder: Path, **files: str) -> Package:
    """Files by their names: ``a__b`` is a/b.py, of another suffix if the content begins with "SUFFIX:"."""
    for name, content in files.items():
        path = folder / "own" / f"{name.replace('__', '/')}.py"
        if content.startswith("."):
            suffix, _, content = content.partition(":")
            path = path.with_suffix(suffix)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(textwrap.dedent(content))
        for above in path.relative_to(folder).parents[:-1]:
            (folder / above / "__init__.py").touch()
    return Package(folder / "own")


def reached(folder: Path, *without: str, **files: str) -> set[str]:
    """From ``start`` in start.py, without it and the name of the package."""
    found = package(folder, **files).reach(["own.start:start"], (), [f"own.{one}" for one in without]).own
    return {name.removeprefix("own.") for name in found} - {"start:start"}


OTHER = "def one(): return two()\ndef two(): return 2\ndef three(): return 3\n"


@pytest.mark.parametrize(
    "start",
    [
        "from own.other import one\ndef start(): return one()",
        "from own import other\ndef start(): return other.one()",
        "import own.other\ndef start(): return own.other.one()",
        "import own.other as it\ndef start(): return it.one()",
        "from . import other\ndef start(): return other.one()",
        "from .other import one as it\ndef start(): return it()",
        "def start():\n    from own.other import one\n    return one()",
        "def start():\n    from .other import one\n    return lambda: one()",
        "from own.door import one\ndef start(): return one()",
        "from own.door import *\nfrom own import door\ndef start(): return door.one()",
        "try:\n    from own.other import one\nexcept ImportError: one = None\ndef start(): return one()",
    ],
)
def test_names_are_followed_through_imports(tmp_path: Path, start: str) -> None:
    found = reached(tmp_path, start=start, other=OTHER, door="from own.other import one, three\n")
    assert found - {"start:one", "start:<statements>"} == {"other:one", "other:two"}


def test_a_module_that_is_handed_on_counts_as_a_whole(tmp_path: Path) -> None:
    found = reached(tmp_path, start="from own import other\ndef start(): return vars(other)", other=OTHER)
    assert found == {"other:one", "other:two", "other:three"}


def test_what_only_types_need_is_not_executed(tmp_path: Path) -> None:
    start = """
    from typing import TYPE_CHECKING
    if TYPE_CHECKING:
        from own.other import one
    def start() -> one: ...
    """
    assert reached(tmp_path, start=start, other=OTHER) == set()


CLASSES = """
class Base:
    size: Size
    def run(self): return first()
    def show(self): return second()
class Derived(Base):
    def run(self): return third()
class Size:
    def run(self): return fourth()
def first(): ...
def second(): ...
def third(): ...
def fourth(): ...
"""


def test_methods_are_reached_by_their_names(tmp_path: Path) -> None:
    start = "from own.other import Derived\ndef start(): return Derived().run()"
    assert reached(tmp_path, start=start, other=CLASSES) == {
        "other:Base", "other:Base.run", "other:first", "other:Derived", "other:Derived.run", "other:third",
    }  # fmt: skip


def test_what_is_given_may_be_derived(tmp_path: Path) -> None:
    """By the annotation of what begins alone: what is given inside is made inside, or given, too."""
    start = """
    from __future__ import annotations
    from typing import TYPE_CHECKING
    if TYPE_CHECKING:
        from own.other import Base
    def start(it: Base | None): return it.run()
    """
    found = reached(tmp_path, start=start, other=CLASSES)
    assert {"other:Derived.run", "other:third", "other:Base.run"} <= found
    assert not found & {"other:Size", "other:Base.show", "other:second"}
    found = reached(tmp_path, start=start.replace("it.run()", "it.size.run()"), other=CLASSES)
    assert {"other:Size.run", "other:fourth"} <= found


def test_a_library_calls_the_methods_of_what_is_derived_from_its_classes(tmp_path: Path) -> None:
    other = """
    import json
    class Its(json.JSONEncoder):
        def default(self, value): return one()
    def one(): ...
    """
    found = reached(
        tmp_path, start="from own.other import Its\ndef start(): return Its().encode(1)", other=other
    )
    assert "other:one" in found


def test_tables_of_names_and_files_are_followed(tmp_path: Path) -> None:
    start = """
    from importlib import import_module
    from pathlib import Path
    TABLE = {"a": ("own.rows.a", "opener")}
    def start(name):
        import_module(f"{__package__}.more.{name}")
        Path(__file__).parent / "data" / f"{name}.yaml"
        return getattr(import_module(TABLE[name][0]), TABLE[name][1])
    """
    data = {"data__x": ".yaml:1", "data__y": ".txt:1"}
    found = reached(tmp_path, start=start, rows__a=OTHER, rows__b=OTHER, more__c=OTHER, **data)
    assert {name for name in found if name.startswith("rows")} == {
        f"rows.a:{one}" for one in ("one", "two", "three")
    }
    assert "more.c:three" in found
    assert {name for name in found if ":" not in name} == {"data/x.yaml"}


def test_a_package_that_collects_its_rows_has_all_of_them(tmp_path: Path) -> None:
    rows = "from own.table import collected\nTABLE = collected(__name__, __path__)\n"
    table = """
    from importlib import import_module
    from pkgutil import iter_modules
    def collected(package, path):
        return [import_module(f"{package}.{one.name}") for one in iter_modules(path)]
    """
    its = package(
        tmp_path, start="from own.rows import TABLE\ndef start(): return TABLE", table=table, rows__a=OTHER
    )
    (tmp_path / "own" / "rows" / "__init__.py").write_text(rows)
    found = Package(tmp_path / "own").reach(["own.start:start"]).own
    assert its.name == "own"
    assert "own.rows.a:three" in found


def test_what_is_for_a_file_alone_is_not_executed_in_the_package(tmp_path: Path) -> None:
    other = """
    from typing import TYPE_CHECKING
    if TYPE_CHECKING or __package__:
        from own.more import one
    else:
        import sys
        one = sys.one()
    def two(): return one()
    """
    found = reached(
        tmp_path, start="from own.other import two\ndef start(): return two()", other=other, more=OTHER
    )
    assert found == {"other:two", "more:one", "more:two"}


def test_rows_that_are_not_asked_for_can_be_left_out(tmp_path: Path) -> None:
    start = "from own.other import one, three\nTABLE = [one, three]\ndef start(): return TABLE"
    assert reached(tmp_path, "other:one", start=start, other=OTHER) == {"start:TABLE", "other:three"}


def test_what_an_import_does_counts(tmp_path: Path) -> None:
    other = """
    import torch
    @torch.register
    def kernel(): return one()
    def one(): ...
    for _ in range(3): one()
    """
    found = reached(tmp_path, start="import own.other\ndef start(): ...", other=other)
    assert {"other:<statements>", "other:one"} <= found


@pytest.mark.parametrize(
    ("before", "after", "differs"),
    [
        ("def start(): return 1", 'def start():\n    """It."""\n    # one\n    return (1)', False),
        ("def start(a: int) -> int: return a", "def start(a: str) -> str: return a", False),
        ("def start(a=1): return a", "def start(a=2): return a", True),
        ("def start(): return 1", "def start(): return 1.0", True),
        ("def start(): raise ValueError('a')", "def start(): raise ValueError('b')", False),
        ("def start(): raise ValueError('a')", "def start(): raise KeyError('a')", True),
        ("def start(): raise ValueError(f'{1}')", "def start(): raise ValueError(f'{2}')", False),
        ("def start(x): raise StopIteration(x)", "def start(x): raise StopIteration(x + 1)", True),
        ("def start(x): assert x, 'a'", "def start(x): assert x, 'b'", False),
        ("def start(x): x.tell('a')", "def start(x): x.tell('b', 1)", False),
        ("def start(x): return x.tell('a')", "def start(x): return x.tell('b')", True),
        (
            "from edgekit.errors import PruneError\ndef start(): return PruneError('a', got=f'{1}')",
            "from edgekit.errors import PruneError\ndef start(): return PruneError('b', got='c')",
            False,
        ),
        (
            "from edgekit.progress import Event\ndef start(x): x(Event('note', 'prune', 'a'))",
            "from edgekit.progress import Event\ndef start(x): x(Event('note', 'prune', 'b', done=1))",
            False,
        ),
        (
            "import math\ndef start(): return math.pi",
            "import cmath as math\ndef start(): return math.pi",
            True,
        ),
        ("def start(): return 'a b'", "def start(): return 'a c'", True),
        ("SIZE = 1\ndef start(): return SIZE", "SIZE = 1\nSIZE += 1\ndef start(): return SIZE", True),
        ("class C:\n    a: int = 1\ndef start(): C()", "class C:\n    a: str = 1\ndef start(): C()", True),
    ],
)
def test_a_definition_is_what_it_does(tmp_path: Path, before: str, after: str, differs: bool) -> None:
    found = [
        package(tmp_path / name, start=text).reach(["own.start:start"]).own
        for name, text in (("before", before), ("after", after))
    ]
    assert (found[0] != found[1]) is differs


def test_a_start_that_is_gone_is_told(tmp_path: Path) -> None:
    its = package(tmp_path, start="def start(): ...")
    for name in ("own.start:begin", "own.begin:start"):
        with pytest.raises(LookupError, match="begin"):
            its.reach([name])
