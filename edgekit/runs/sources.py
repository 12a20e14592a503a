"""A module's source, taken apart into what it defines (``definitions``). Nothing is imported or run."""

from __future__ import annotations

import ast
import functools
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from edgekit.runs.definitions import FUNCTIONS, Definition, Speller, bound, chain_of, is_typing

__all__ = ["MAIN", "Source", "read"]

MAIN = "<statements>"  # of a module: what is done when it is imported, beside defining and importing
_SCRIPT = "<script>"  # what is done when it is started as a program
# Asked for by an attribute's name alone; another decorator may hand the method to somebody.
_PLAIN_METHODS = {
    "abstractmethod", "cache", "cached_property", "classmethod", "contextmanager", "override", "property",
    "setter", "staticmethod",
}  # fmt: skip
_PLAIN_MODULES = {"abc", "contextlib", "dataclasses", "functools", "typing"}


@dataclass
class Source:
    """A module: its definitions (a method's name is "Class.method"), and what its names are bound to."""

    name: str
    package: str
    definitions: dict[str, Definition]
    imported: dict[str, set[str]]
    executed: set[str]  # modules that are executed when this one is
    dynamic: list[int]  # lines with an import that a name in a variable decides


@functools.lru_cache(maxsize=4096)
def read(name: str, package: str, text: str) -> Source:
    """Take a module apart.

    Args:
        name: "edgekit.formats.onnx".
        package: that relative imports start from; a package is its own.
        text: its source.

    Raises SyntaxError.
    """
    tree = ast.parse(text)
    source = Source(name, package, {}, {}, set(), [])
    aliases = bound(_runtime(tree.body), package)
    source.imported = {key: set(value) for key, value in aliases.items()}
    for key, value in bound(_typing(tree.body), package).items():
        source.imported.setdefault(key, set()).update(value)
    source.executed = {target for targets in aliases.values() for target in targets}
    _Module(source).take(tree.body)
    return source


def _is_here(node: ast.AST) -> bool:
    """``if TYPE_CHECKING or __package__:``, whose other branch is for a file that is alone, on a device."""
    if not isinstance(node, ast.If) or not isinstance(node.test, ast.BoolOp):
        return False
    names = [one.id for one in node.test.values if isinstance(one, ast.Name)]
    return names == ["TYPE_CHECKING", "__package__"]


def _runtime(body: Iterable[ast.stmt]) -> Iterator[ast.stmt]:
    """All import statements outside of functions that are executed; those of branches as well."""
    for one in body:
        if isinstance(one, ast.Import | ast.ImportFrom):
            yield one
        elif is_typing(one):
            assert isinstance(one, ast.If)
            yield from _runtime(one.orelse)
        elif _is_here(one):
            assert isinstance(one, ast.If)
            yield from _runtime(one.body)
        elif not isinstance(one, (*FUNCTIONS, ast.ClassDef)):
            for name in ("body", "orelse", "finalbody"):
                yield from _runtime(getattr(one, name, []))
            for handler in getattr(one, "handlers", []):
                yield from _runtime(handler.body)


def _typing(body: Iterable[ast.stmt]) -> Iterator[ast.stmt]:
    for one in body:
        if is_typing(one):
            assert isinstance(one, ast.If)
            yield from (each for each in one.body if isinstance(each, ast.Import | ast.ImportFrom))


class _Module:
    """Sorts a module's statements into its definitions."""

    def __init__(self, source: Source) -> None:
        self.source = source
        self.spellings: dict[str, list[str]] = {}

    def take(self, body: list[ast.stmt]) -> None:
        for one in body:
            self._statement(one)
        for name, parts in self.spellings.items():
            self.source.definitions[name].spelling = "\n".join(parts)

    def _statement(self, one: ast.stmt) -> None:
        if isinstance(one, ast.Import | ast.ImportFrom):
            return
        if isinstance(one, ast.Expr) and isinstance(one.value, ast.Constant):
            return
        if is_typing(one):
            assert isinstance(one, ast.If)
            for each in one.orelse:
                self._statement(each)
        elif _is_here(one):
            assert isinstance(one, ast.If)
            for each in one.body:
                self._statement(each)
            for each in one.orelse:
                self._add(_SCRIPT, each)
        elif isinstance(one, ast.ClassDef):
            self._class(one)
        elif isinstance(one, FUNCTIONS):
            self._add(one.name, one)
            if not all(self._is_plain(each) for each in one.decorator_list):
                self._add(MAIN, one)  # its decorator may have told somebody of it
        elif (names := _names_bound(one)) is not None:
            for name in names:
                if name != "__all__":
                    self._add(name, one)
        else:
            script = isinstance(one, ast.If) and "__name__" in ast.dump(one.test)
            # What is bound in a branch is found there, too.
            inside = {each.id for each in ast.walk(one) if isinstance(each, ast.Name) and _stored(each)}
            inside |= {each.name for each in ast.walk(one) if isinstance(each, (*FUNCTIONS, ast.ClassDef))}
            for name in (_SCRIPT if script else MAIN, *sorted(inside)):
                self._add(name, one)

    def _is_plain(self, decorator: ast.expr) -> bool:
        head = decorator.func if isinstance(decorator, ast.Call) else decorator
        first = chain_of(head)
        places = self.source.imported.get(first[0], {first[0]}) if first else {""}
        return all(place.partition(".")[0] in _PLAIN_MODULES for place in places)

    def _class(self, one: ast.ClassDef) -> None:
        definition = self._definition(one.name)
        definition.is_class = True
        shell = ast.ClassDef(one.name, one.bases, one.keywords, [], one.decorator_list)
        for each in one.body:
            check = isinstance(each, FUNCTIONS) and _is_check(each)
            if isinstance(each, FUNCTIONS) and (check or _asked_by_name(each)):
                self._add(f"{one.name}.{each.name}", each)
                (definition.checks if check else definition.methods).add(each.name)
            else:
                shell.body.append(each)
        self._add(one.name, shell)
        definition.bases = [chain for base in one.bases if (chain := chain_of(_generic(base)))]

    def _definition(self, name: str) -> Definition:
        self.spellings.setdefault(name, [])
        return self.source.definitions.setdefault(name, Definition())

    def _add(self, name: str, node: ast.stmt) -> None:
        speller = Speller(self.source.package, self.source.imported, self._definition(name))
        self.spellings[name].append(speller.spell(node))
        self.source.dynamic += speller.dynamic


def _names_bound(one: ast.stmt) -> list[str] | None:
    """By an assignment to plain names; None: it is another statement."""
    if isinstance(one, ast.Assign):
        targets = one.targets
    elif isinstance(one, ast.AnnAssign | ast.AugAssign):
        targets = [one.target]
    else:
        return None
    flat = [
        each
        for target in targets
        for each in (target.elts if isinstance(target, ast.Tuple | ast.List) else [target])
    ]
    names = [each.id for each in flat if isinstance(each, ast.Name)]
    return names if len(names) == len(flat) else None


def _asked_by_name(one: ast.FunctionDef | ast.AsyncFunctionDef) -> bool:
    """Whether a method is reached by its name alone: Python itself calls no such, nor does a decorator."""
    special = one.name.startswith("__") and one.name.endswith("__")
    return not special and all(name in _PLAIN_METHODS for name in _decorators(one))


def _is_check(one: ast.FunctionDef | ast.AsyncFunctionDef) -> bool:
    return any(name in ("field_validator", "model_validator") for name in _decorators(one))


def _decorators(one: ast.FunctionDef | ast.AsyncFunctionDef) -> list[str]:
    heads = [each.func if isinstance(each, ast.Call) else each for each in one.decorator_list]
    return [chain[-1] if (chain := chain_of(each)) else "" for each in heads]


def _generic(base: ast.expr) -> ast.expr:
    """``Table`` of ``Table[Row]``."""
    return base.value if isinstance(base, ast.Subscript) else base


def _stored(node: ast.Name) -> bool:
    return isinstance(node.ctx, ast.Store)
