"""A module's source, taken apart into what it defines: what each definition does, and what it refers to.

What tells but does not compute is left out: docstrings, comments, layout, the annotations of functions, the
arguments of what tells (errors, events, warnings, ``tell``), and the texts of Python's own exceptions.

Nothing is imported or run. A definition's spelling is the same for every version of Python that edgekit
runs on: a syntax tree's empty fields, which differ between them, are no part of it.
"""

from __future__ import annotations

import ast
import builtins
import functools
import hashlib
import re
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

__all__ = ["MAIN", "Chain", "Definition", "Source", "read"]

Chain = tuple[str, ...]  # a name and what is asked of it: ("ops", "DEQUANTIZE")

MAIN = "<statements>"  # of a module: what is done when it is imported, beside defining and importing
_SCRIPT = "<script>"  # what is done when it is started as a program
_TELLING = ("edgekit.errors", "edgekit.progress", "warnings")  # calls of what they define tell
_TELL = "tell"  # and so does a statement that calls something of this name
# Asked for by an attribute's name alone; another decorator may hand the method to somebody.
_PLAIN_METHODS = {
    "abstractmethod", "cache", "cached_property", "classmethod", "contextmanager", "override", "property",
    "setter", "staticmethod",
}  # fmt: skip
_PLAIN_MODULES = {"abc", "contextlib", "dataclasses", "functools", "typing"}
_EXCEPTIONS = {
    name
    for name, value in vars(builtins).items()
    if isinstance(value, type) and issubclass(value, BaseException)
}
_WORDS = re.compile(r"[A-Za-z_]\w*")
_FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)


@dataclass
class Definition:
    """A function, a class without its plain methods, such a method, or what is bound to a name.

    Attributes:
        spelling: of what it does; equal where that is equal.
        names: global ones that it refers to, with what it asks of them.
        types: the same of the annotations of parameters: what it may be given.
        fields: of a class, by name what stands in them.
        bases: of a class.
        attributes: names that it asks of whatever it is given.
        bound: names of its own.
        strings: that may name a module, a file or an attribute; "*" stands for what isn't written there.
        imported: bound inside of it, name to where from.
        methods: of a class, by their names.
        checks: those of them that pydantic calls where an object is made.
    """

    spelling: str = ""
    names: set[Chain] = field(default_factory=set)
    types: set[Chain] = field(default_factory=set)
    fields: dict[str, set[Chain]] = field(default_factory=dict)
    bases: list[Chain] = field(default_factory=list)
    attributes: set[str] = field(default_factory=set)
    bound: set[str] = field(default_factory=set)
    strings: set[str] = field(default_factory=set)
    imported: dict[str, set[str]] = field(default_factory=dict)
    methods: set[str] = field(default_factory=set)
    checks: set[str] = field(default_factory=set)
    is_class: bool = False

    @functools.cached_property
    def digest(self) -> str:
        """sha256 of the spelling."""
        return hashlib.sha256(self.spelling.encode()).hexdigest()


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
    aliases = _bound(_runtime(tree.body), package)
    source.imported = {key: set(value) for key, value in aliases.items()}
    for key, value in _bound(_typing(tree.body), package).items():
        source.imported.setdefault(key, set()).update(value)
    source.executed = {target for targets in aliases.values() for target in targets}
    _Module(source).take(tree.body)
    return source


def _is_typing(node: ast.AST) -> bool:
    """``if TYPE_CHECKING:``; with a further condition, by ``or``, it may be executed."""
    if not isinstance(node, ast.If):
        return False
    test = node.test
    return (isinstance(test, ast.Name) and test.id == "TYPE_CHECKING") or (
        isinstance(test, ast.Attribute) and test.attr == "TYPE_CHECKING"
    )


def _runtime(body: Iterable[ast.stmt]) -> Iterator[ast.stmt]:
    """All import statements outside of functions that are executed; those of branches as well."""
    for one in body:
        if isinstance(one, ast.Import | ast.ImportFrom):
            yield one
        elif _is_typing(one):
            assert isinstance(one, ast.If)
            yield from _runtime(one.orelse)
        elif not isinstance(one, (*_FUNCTIONS, ast.ClassDef)):
            for name in ("body", "orelse", "finalbody"):
                yield from _runtime(getattr(one, name, []))
            for handler in getattr(one, "handlers", []):
                yield from _runtime(handler.body)


def _typing(body: Iterable[ast.stmt]) -> Iterator[ast.stmt]:
    for one in body:
        if _is_typing(one):
            assert isinstance(one, ast.If)
            yield from (each for each in one.body if isinstance(each, ast.Import | ast.ImportFrom))


def _bound(statements: Iterable[ast.stmt], package: str) -> dict[str, set[str]]:
    """Name to the dotted places that it is bound to."""
    found: dict[str, set[str]] = {}
    for one in statements:
        if isinstance(one, ast.Import):
            for alias in one.names:
                whole = alias.name if alias.asname else alias.name.partition(".")[0]
                found.setdefault(alias.asname or whole, set()).add(whole)
                found.setdefault(f"<{alias.name}>", set()).add(alias.name)
        elif isinstance(one, ast.ImportFrom):
            base = one.module or ""
            if one.level:
                above = package.split(".")[: len(package.split(".")) - one.level + 1]
                base = ".".join([*above, *filter(None, [one.module])])
            for alias in one.names:
                found.setdefault(alias.asname or alias.name, set()).add(f"{base}.{alias.name}")
    return found


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
        if _is_typing(one):
            assert isinstance(one, ast.If)
            for each in one.orelse:
                self._statement(each)
        elif isinstance(one, ast.ClassDef):
            self._class(one)
        elif isinstance(one, _FUNCTIONS):
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
            bound = {each.id for each in ast.walk(one) if isinstance(each, ast.Name) and _stored(each)}
            bound |= {each.name for each in ast.walk(one) if isinstance(each, (*_FUNCTIONS, ast.ClassDef))}
            for name in (_SCRIPT if script else MAIN, *sorted(bound)):
                self._add(name, one)

    def _is_plain(self, decorator: ast.expr) -> bool:
        head = decorator.func if isinstance(decorator, ast.Call) else decorator
        first = _chain(head)
        places = self.source.imported.get(first[0], {first[0]}) if first else {""}
        return all(place.partition(".")[0] in _PLAIN_MODULES for place in places)

    def _class(self, one: ast.ClassDef) -> None:
        definition = self._definition(one.name)
        definition.is_class = True
        shell = ast.ClassDef(one.name, one.bases, one.keywords, [], one.decorator_list)
        for each in one.body:
            check = isinstance(each, _FUNCTIONS) and _is_check(each)
            if isinstance(each, _FUNCTIONS) and (check or _asked_by_name(each)):
                self._add(f"{one.name}.{each.name}", each)
                (definition.checks if check else definition.methods).add(each.name)
            else:
                shell.body.append(each)
        self._add(one.name, shell)
        definition.bases = [chain for base in one.bases if (chain := _chain(_generic(base)))]

    def _definition(self, name: str) -> Definition:
        self.spellings.setdefault(name, [])
        return self.source.definitions.setdefault(name, Definition())

    def _add(self, name: str, node: ast.stmt) -> None:
        self.spellings_of(name).append(_Speller(self.source, self._definition(name)).spell(node))

    def spellings_of(self, name: str) -> list[str]:
        """Those of a definition, one for each statement."""
        self._definition(name)
        return self.spellings[name]


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
    return [chain[-1] if (chain := _chain(each)) else "" for each in heads]


def _generic(base: ast.expr) -> ast.expr:
    """``Table`` of ``Table[Row]``."""
    return base.value if isinstance(base, ast.Subscript) else base


def _chain(node: ast.expr) -> Chain:
    """("a", "b", "c") of ``a.b.c``; empty for anything else."""
    parts: list[str] = []
    while isinstance(node, ast.Attribute):
        parts.append(node.attr)
        node = node.value
    return (node.id, *reversed(parts)) if isinstance(node, ast.Name) else ()


def _stored(node: ast.Name) -> bool:
    return isinstance(node.ctx, ast.Store)


class _Speller:
    """Spells a statement, and notes down what it refers to."""

    def __init__(self, source: Source, definition: Definition) -> None:
        self.source, self.to = source, definition
        self.in_function = False

    def spell(self, node: object) -> str:
        if isinstance(node, list):
            return "[" + ",".join(filter(None, map(self.spell, node))) + "]"
        if not isinstance(node, ast.AST):
            return ascii(node)
        special = getattr(self, f"_{type(node).__name__}", None)
        if special is None:
            return self._plain(node)
        spelled: str = special(node)
        return spelled

    def _plain(self, node: ast.AST, without: Iterable[str] = ()) -> str:
        parts = []
        for name in node._fields:
            value = getattr(node, name, None)
            if name == "name" and self.in_function:  # of an inner function, an exception that was caught
                self.to.bound.add(str(value))
            if name in ("ctx", "kind", "type_comment", *without) or value is None or value == []:
                continue
            parts.append(f"{name}={self.spell(value)}")
        return f"{type(node).__name__}({','.join(parts)})"

    # --- what is left out ---------------------------------------------------------------------------------

    def _Expr(self, node: ast.Expr) -> str:
        if isinstance(node.value, ast.Constant):  # a docstring, or one of an attribute
            return ""
        if isinstance(node.value, ast.Call) and (_chain(node.value.func) or ("",))[-1] == _TELL:
            self.spell(node.value.func)
            return "tell"
        return self._plain(node)

    def _If(self, node: ast.If) -> str:
        if not _is_typing(node):
            return self._plain(node)
        for one in node.body:
            if isinstance(one, ast.Import | ast.ImportFrom):
                self._import(one)
        return self.spell(node.orelse)

    def _Assert(self, node: ast.Assert) -> str:
        return self._plain(node, without=["msg"])

    def _Call(self, node: ast.Call) -> str:
        chain = _chain(node.func)
        if chain and self._tells(chain):
            return f"Call({self.spell(node.func)})"
        if len(chain) == 1 and chain[0] in _EXCEPTIONS:
            args = [one for one in node.args if not isinstance(one, ast.JoinedStr) and not _is_text(one)]
            return f"Call({self.spell(node.func)},{self.spell(args)})"
        if chain and chain[-1] in ("import_module", "spec_from_file_location", "__import__"):
            self.source.dynamic.append(node.lineno)
        return self._plain(node)

    def _tells(self, chain: Chain) -> bool:
        places = self.to.imported.get(chain[0], self.source.imported.get(chain[0], {chain[0]}))
        whole = [".".join([place, *chain[1:]]) for place in places]
        return all(one.rpartition(".")[0] in _TELLING for one in whole)

    # --- functions and annotations ------------------------------------------------------------------------

    def _FunctionDef(self, node: ast.FunctionDef | ast.AsyncFunctionDef) -> str:
        before, self.in_function = self.in_function, True
        for one in ast.walk(node):  # bound before it is spelled: a function may be called by an earlier one
            if isinstance(one, ast.Import | ast.ImportFrom):
                self._import(one)
        spelled = self._plain(node, without=["returns"])
        self.in_function = before
        return spelled

    _AsyncFunctionDef = _FunctionDef

    def _arg(self, node: ast.arg) -> str:
        if node.annotation is not None:
            self.to.types |= _types(node.annotation)
        self.to.bound.add(node.arg)
        return node.arg

    def _AnnAssign(self, node: ast.AnnAssign) -> str:
        if self.in_function:
            return self._plain(node, without=["annotation"])
        chains = _types(node.annotation)
        if isinstance(node.target, ast.Name):
            self.to.fields.setdefault(node.target.id, set()).update(chains)
        plain = _Speller(self.source, Definition())  # it is no reference: see ``fields``
        return f"{self._plain(node, without=['annotation'])}: {plain.spell(node.annotation)}"

    def _ClassDef(self, node: ast.ClassDef) -> str:
        before, self.in_function = self.in_function, False
        spelled = self._plain(node)
        self.in_function = before
        return spelled

    # --- what is referred to ------------------------------------------------------------------------------

    def _import(self, node: ast.Import | ast.ImportFrom) -> None:
        for name, places in _bound([node], self.source.package).items():
            self.to.imported.setdefault(name, set()).update(places)

    def _Import(self, node: ast.Import | ast.ImportFrom) -> str:
        self._import(node)
        return ""

    _ImportFrom = _Import

    def _Name(self, node: ast.Name) -> str:
        self.to.names.add((node.id,))
        if self.in_function and not isinstance(node.ctx, ast.Load):
            self.to.bound.add(node.id)
        return f"Name({node.id})"

    def _Attribute(self, node: ast.Attribute) -> str:
        if chain := _chain(node):
            self.to.names.add(chain)
            return f"Name({'.'.join(chain)})"
        self.to.attributes.add(node.attr)
        return self._plain(node)

    def _Constant(self, node: ast.Constant) -> str:
        if isinstance(node.value, str):
            self.to.strings.add(sys.intern(node.value))
        return ascii(node.value)

    def _JoinedStr(self, node: ast.JoinedStr) -> str:
        self.to.strings.add("".join(map(self._piece, node.values)))
        return self._plain(node)

    def _piece(self, node: ast.expr) -> str:
        if isinstance(node, ast.Constant):
            return str(node.value)
        inside = node.value if isinstance(node, ast.FormattedValue) else node
        here = isinstance(inside, ast.Name) and inside.id == "__package__"
        return self.source.package if here else "*"


def _types(node: ast.expr) -> set[Chain]:
    """The names in an annotation, as a string too."""
    found: set[Chain] = set()
    for one in ast.walk(node):
        if isinstance(one, ast.Constant) and isinstance(one.value, str):
            found |= {(name,) for name in _WORDS.findall(one.value)}
        elif isinstance(one, ast.Attribute | ast.Name) and (chain := _chain(one)):
            found.add(chain)
    return found


def _is_text(node: ast.expr) -> bool:
    return isinstance(node, ast.Constant) and isinstance(node.value, str)
