"""A definition in a source: how what it does is spelled, and what it refers to.

What tells but does not compute is left out: docstrings, comments, layout, the annotations of functions, the
arguments of what tells (errors, events, warnings, ``tell``), and the texts of Python's own exceptions.
A spelling is the same for every version of Python that edgekit runs on: a syntax tree's empty fields, which
differ between them, are no part of it.
"""

from __future__ import annotations

import ast
import builtins
import functools
import hashlib
import re
import sys
from collections.abc import Iterable
from dataclasses import dataclass, field

__all__ = ["FUNCTIONS", "Chain", "Definition", "Speller", "bound", "chain_of", "is_typing"]

Chain = tuple[str, ...]  # a name and what is asked of it: ("ops", "DEQUANTIZE")

_TELLING = ("edgekit.errors", "edgekit.progress", "warnings")  # calls of what they define tell
_TELL = "tell"  # and so does a statement that calls something of this name
_EXCEPTIONS = {
    name
    for name, value in vars(builtins).items()
    if isinstance(value, type) and issubclass(value, BaseException)
}
_WORDS = re.compile(r"[A-Za-z_]\w*")
FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)


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


def is_typing(node: ast.AST) -> bool:
    """``if TYPE_CHECKING:``; with a further condition, by ``or``, it may be executed."""
    if not isinstance(node, ast.If):
        return False
    test = node.test
    return (isinstance(test, ast.Name) and test.id == "TYPE_CHECKING") or (
        isinstance(test, ast.Attribute) and test.attr == "TYPE_CHECKING"
    )


def bound(statements: Iterable[ast.stmt], package: str) -> dict[str, set[str]]:
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


def chain_of(node: ast.expr) -> Chain:
    """("a", "b", "c") of ``a.b.c``; empty for anything else."""
    parts: list[str] = []
    while isinstance(node, ast.Attribute):
        parts.append(node.attr)
        node = node.value
    return (node.id, *reversed(parts)) if isinstance(node, ast.Name) else ()


class Speller:
    """Spells a statement, and notes down what it refers to."""

    def __init__(self, package: str, imported: dict[str, set[str]], definition: Definition) -> None:
        self.package, self.imported, self.to = package, imported, definition
        self.dynamic: list[int] = []  # lines with an import that a name in a variable decides
        self.in_function = False

    def spell(self, node: object) -> str:
        """Of a syntax tree, or a part of one."""
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
        if isinstance(node.value, ast.Call) and (chain_of(node.value.func) or ("",))[-1] == _TELL:
            self.spell(node.value.func)
            return "tell"
        return self._plain(node)

    def _If(self, node: ast.If) -> str:
        if not is_typing(node):
            return self._plain(node)
        for one in node.body:
            if isinstance(one, ast.Import | ast.ImportFrom):
                self._import(one)
        return self.spell(node.orelse)

    def _Assert(self, node: ast.Assert) -> str:
        return self._plain(node, without=["msg"])

    def _Call(self, node: ast.Call) -> str:
        chain = chain_of(node.func)
        if chain and self._tells(chain):
            return f"Call({self.spell(node.func)})"
        if len(chain) == 1 and chain[0] in _EXCEPTIONS:
            args = [one for one in node.args if not isinstance(one, ast.JoinedStr) and not _is_text(one)]
            return f"Call({self.spell(node.func)},{self.spell(args)})"
        if chain and chain[-1] in ("import_module", "spec_from_file_location", "__import__"):
            self.dynamic.append(node.lineno)
        return self._plain(node)

    def _tells(self, chain: Chain) -> bool:
        places = self.to.imported.get(chain[0], self.imported.get(chain[0], {chain[0]}))
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
        plain = Speller(self.package, self.imported, Definition())  # it is no reference: see ``fields``
        return f"{self._plain(node, without=['annotation'])}: {plain.spell(node.annotation)}"

    def _ClassDef(self, node: ast.ClassDef) -> str:
        before, self.in_function = self.in_function, False
        spelled = self._plain(node)
        self.in_function = before
        return spelled

    # --- what is referred to ------------------------------------------------------------------------------

    def _import(self, node: ast.Import | ast.ImportFrom) -> None:
        for name, places in bound([node], self.package).items():
            self.to.imported.setdefault(name, set()).update(places)

    def _Import(self, node: ast.Import | ast.ImportFrom) -> str:
        self._import(node)
        return ""

    _ImportFrom = _Import

    def _Name(self, node: ast.Name) -> str:
        self.to.names.add((node.id,))
        if node.id == "__path__":  # whoever knows where a package is may import whatever stands in it
            self.to.strings.add(f"{self.package}.*")
        if self.in_function and not isinstance(node.ctx, ast.Load):
            self.to.bound.add(node.id)
        return f"Name({node.id})"

    def _Attribute(self, node: ast.Attribute) -> str:
        if chain := chain_of(node):
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
        return self.package if here else "*"


def _types(node: ast.expr) -> set[Chain]:
    """The names in an annotation, as a string too."""
    found: set[Chain] = set()
    for one in ast.walk(node):
        if isinstance(one, ast.Constant) and isinstance(one.value, str):
            found |= {(name,) for name in _WORDS.findall(one.value)}
        elif isinstance(one, ast.Attribute | ast.Name) and (chain := chain_of(one)):
            found.add(chain)
    return found


def _is_text(node: ast.expr) -> bool:
    return isinstance(node, ast.Constant) and isinstance(node.value, str)
