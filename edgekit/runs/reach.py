"""What a function can execute: the definitions of the package that can be reached from it.

Followed are names, through imports (those inside of functions too) and what packages pass on; methods, where
one of that name is asked of anything; what the function may be given, by its annotations, and what is derived
from that; modules and files that a string names, with "*" for what is put in at run time. A class of which
nothing can exist, as nobody makes one, brings no methods. Where it can't be known which of several is meant,
all count: too much costs time, too little would pass off an old result as a new one. (Dean, Grove, Chambers
1995, "Optimization of Object-Oriented Programs Using Static Class Hierarchy Analysis"; Bacon, Sweeney 1996,
"Fast Static Analysis of C++ Virtual Function Calls", for the classes that exist.)
"""

from __future__ import annotations

import fnmatch
import hashlib
import re
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from importlib.resources.abc import Traversable
from pathlib import PurePosixPath

from edgekit.runs.definitions import Chain, Definition
from edgekit.runs.sources import MAIN, Source, read

__all__ = ["TELL_OR_KEEP", "Package", "Reached"]

# Tell what happens, or keep bytes as they are: nothing is computed in them, and by none of them is anything
# reached that does (tests/pipeline/test_keys.py).
TELL_OR_KEEP = (
    "errors",
    "progress",
    "units",
    "monitor",
    "files",
    "caching",
    "made",
    "scratch",
    "spool",
    "checkpoint",
    "weights",
)
_WORD = re.compile(r"[A-Za-z_]\w*")
_BASES = re.compile(r"^class \w+\(([^:]*)\):", re.MULTILINE)
_MOST_LETTERS = 100  # of a text that names a file
# Bases of the standard library that call no method of what is derived from them.
_SILENT = ("abc.ABC", "enum.", "object", "typing.", "collections.abc.")


@dataclass(frozen=True)
class Links:
    """What a definition refers to.

    Attributes:
        digest: of what it does, and of where its names lead.
        to: places, what is asked of each, and whether objects of it may be made (not by a base's name).
        asked: attributes of whatever it has.
        executed: modules that it imports.
        files: that it names, with their hashes.
        outside: packages that it imports, or names as they are imported.
    """

    digest: str
    to: frozenset[tuple[str, Chain, bool]]
    asked: frozenset[str]
    executed: frozenset[str]
    files: dict[str, str]
    outside: frozenset[str]


@dataclass(frozen=True)
class Reached:
    """What can be executed: by "module:name" or a file's path, its hash; ``outside`` names other packages."""

    own: dict[str, str]
    outside: frozenset[str]


class Package:
    """The sources of a package, and its other files.

    Args:
        folder: of the package, in an archive too; its name is the package's. Folders in it whose names begin
            with "_" are no part of it: recipes and profiles that are installed with it, caches.
    """

    def __init__(self, folder: Traversable) -> None:
        self.name = folder.name
        self.files = dict(sorted(_files(folder, "")))
        self.modules = {self.module_of(path): path for path in self.files if path.endswith(".py")}
        self.by_suffix: dict[str, list[str]] = defaultdict(list)
        for path in self.files:
            self.by_suffix[PurePosixPath(path).suffix].append(path)
        self.counted = {one for one in self.modules if not set(one.split(".")[1:2]) & set(TELL_OR_KEEP)}
        self._sources: dict[str, Source] = {}
        self._derived: dict[str, set[str]] = {}
        self._links: dict[str, Links] = {}

    @cached_property
    def digest(self) -> str:
        """sha256 of all of it."""
        digest = hashlib.sha256()
        for path, content in self.files.items():
            digest.update(f"{path} {len(content)} ".encode())
            digest.update(content)
        return digest.hexdigest()

    def module_of(self, path: str) -> str:
        """The module's name by its file."""
        parts = [self.name, *path.removesuffix(".py").split("/")]
        return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)

    def source(self, module: str) -> Source:
        """A module, read when it is first asked for."""
        if module not in self._sources:
            path = self.modules[module]
            package = module if path.endswith("__init__.py") else module.rpartition(".")[0]
            self._sources[module] = read(module, package, self.files[path].decode())
        return self._sources[module]

    def definition(self, place: str) -> Definition:
        """By "module:name"."""
        module, _, name = place.partition(":")
        return self.source(module).definitions[name]

    def reach(
        self, starts: Iterable[str], given: Iterable[str] = (), without: Collection[str] = ()
    ) -> Reached:
        """All that can be reached.

        Args:
            starts: definitions.
            given: classes of what they may be given, beside those that their annotations name.
            without: definitions that aren't followed: rows of a table that are known not to be asked for.

        Raises LookupError: a start isn't there.
        """
        return _Walk(self, without).walk(starts, given)

    def links(self, place: str) -> Links:
        """What a definition refers to."""
        if place not in self._links:
            self._links[place] = self._linked(place)
        return self._links[place]

    def _linked(self, place: str) -> Links:
        source, one = self.source(place.partition(":")[0]), self.definition(place)
        asked = set(one.attributes) | {text for text in one.strings if _WORD.fullmatch(text)}
        led, to = [one.digest], set()
        for chain in sorted(one.names):
            places = self.places(source, one, chain)
            if not places or chain[0] in one.bound:
                asked.update(chain[1:])
            if places:
                led.append(f"{'.'.join(chain)}={' '.join(sorted(each for each, _ in places))}")
            made = not (one.is_class and chain in one.bases)
            to |= {(each, rest, made) for each, rest in places}
        files = {}
        for path in sorted({path for text in one.strings for path in self._named(source, text)}):
            led.append(path)
            if path in self.modules:
                to.add((path, (), True))
            else:
                files[path] = hashlib.sha256(self.files[path]).hexdigest()
        executed = set().union(*one.imported.values())
        digest = hashlib.sha256("\n".join(led).encode()).hexdigest()
        outside = {each.partition(".")[0] for each, *_ in to if ":" not in each}
        outside |= {text.partition(".")[0] for text in (*executed, *one.strings)} - {""}
        outside = {each for each in outside if _WORD.fullmatch(each)} - {self.name}
        return Links(digest, frozenset(to), frozenset(asked), frozenset(executed), files, frozenset(outside))

    def _named(self, source: Source, text: str) -> Iterator[str]:
        """The modules and files that a text names."""
        dotted = text.partition(":")[0]
        if dotted.startswith(f"{self.name}."):
            yield from fnmatch.filter(self.modules, dotted)
        suffix = PurePosixPath(text).suffix if len(text) <= _MOST_LETTERS and text.isprintable() else ""
        if len(suffix) < 2 or not suffix[1:].isalnum():
            return
        own = "".join(f"{part}/" for part in source.package.split(".")[1:])
        for path in self.by_suffix.get(suffix, ()):
            if path.startswith(own) and PurePosixPath(path).match(text):
                yield self.module_of(path) if suffix == ".py" else path

    def derived(self, place: str) -> set[str]:
        """The classes that name this one as a base."""
        if place not in self._derived:
            self._derived[place] = {
                f"{module}:{one}"
                for module in self._naming.get(place.rpartition(":")[2], ())
                for one, definition in self.source(module).definitions.items()
                if any(place in self.classes(self.source(module), definition, b) for b in definition.bases)
            }
        return self._derived[place]

    @cached_property
    def _naming(self) -> dict[str, set[str]]:
        """A name to the modules in which a class may be derived from what it stands for."""
        found: dict[str, set[str]] = defaultdict(set)
        for module, path in self.modules.items():
            for bases in _BASES.findall(self.files[path].decode()):
                for name in _WORD.findall(bases):
                    found[name].add(module)
        return found

    def places(self, source: Source, within: Definition, chain: Chain) -> set[tuple[str, Chain]]:
        """Where a name leads: "module:name", "module" for a whole one, a dotted name outside of the package;
        nothing for a local one. With each, what is asked of it.
        """
        head, rest = chain[0], chain[1:]
        if head in within.imported:
            return set().union(*(self._dotted(one, rest) for one in within.imported[head]))
        own = {(f"{source.name}:{head}", rest)} if head in source.definitions else set()
        return own.union(*(self._dotted(one, rest) for one in source.imported.get(head, ())))

    def classes(self, source: Source, within: Definition, chain: Chain) -> set[str]:
        """``places`` alone."""
        return {place for place, _ in self.places(source, within, chain)}

    def _dotted(
        self, dotted: str, rest: Chain = (), seen: frozenset[str] = frozenset()
    ) -> set[tuple[str, Chain]]:
        if dotted.partition(".")[0] != self.name or dotted in seen:
            return {(".".join([dotted, *rest]), ())}
        if dotted in self.modules:
            return self._dotted(f"{dotted}.{rest[0]}", rest[1:], seen) if rest else {(dotted, ())}
        module, _, name = dotted.rpartition(".")
        if module not in self.modules:
            return {(dotted, ())}
        source = self.source(module)
        if name in source.definitions:
            return {(f"{module}:{name}", rest)}
        if name in source.imported:
            more = seen | {dotted}
            return set().union(*(self._dotted(one, rest, more) for one in source.imported[name]))
        return {(f"{module}:__getattr__", rest)} if "__getattr__" in source.definitions else {(module, ())}


def _files(folder: Traversable, above: str) -> Iterator[tuple[str, bytes]]:
    for one in folder.iterdir():
        if one.is_file():
            yield f"{above}{one.name}", one.read_bytes()
        elif not one.name.startswith(("_", ".")):
            yield from _files(one, f"{above}{one.name}/")


class _Walk:
    def __init__(self, package: Package, without: Collection[str]) -> None:
        self.package, self.without = package, without
        self.found: dict[str, str] = {}
        self.todo: list[str] = []
        self.asked: set[str] = set()  # names of attributes
        # Methods, and classes that stand in fields, until somebody asks for their names.
        self.methods: dict[str, list[str]] = defaultdict(list)
        self.fields: dict[str, set[str]] = defaultdict(set)
        self.outside: set[str] = set()
        self.done: set[tuple[str, str]] = set()

    def walk(self, starts: Iterable[str], given: Iterable[str]) -> Reached:
        for start in starts:
            module, _, name = start.partition(":")
            if module not in self.package.modules or name not in self.package.source(module).definitions:
                raise LookupError(f"no {name} in {module}")
            self._reach(start)
            self._give(start, self._all_types(start))
        self._give("", given)
        while self.todo:
            self._follow(self.todo.pop())
        return Reached(dict(sorted(self.found.items())), frozenset(self.outside))

    def _first(self, what: str, place: str) -> bool:
        before = len(self.done)
        self.done.add((what, place))
        return len(self.done) > before

    def _counts(self, place: str) -> bool:
        """Whether it is of this package, and not left out."""
        return place.partition(":")[0] in self.package.counted and place not in self.without

    def _reach(self, place: str) -> None:
        module, _, name = place.partition(":")
        if not self._counts(place):
            return
        if not name:
            if self._first("whole", module):
                for name in self.package.source(module).definitions:
                    self._refer(f"{module}:{name}", (), made=True)
        elif place not in self.found:
            self.found[place] = ""
            self.todo.append(place)

    def _follow(self, place: str) -> None:
        links = self.package.links(place)
        self.found[place] = links.digest
        self._execute(place.partition(":")[0])
        for dotted in links.executed:
            self._execute(dotted)
        for each, rest, made in links.to:
            self._refer(each, rest, made=made)
        self.found |= links.files
        self.outside |= links.outside
        one = self.package.definition(place)
        if one.is_class:
            self._wait(place, one)
        self._ask(links.asked)

    def _refer(self, place: str, rest: Chain, *, made: bool) -> None:
        """``place``, and what is asked of it, which is a method if it is a class."""
        self._reach(place)
        if place not in self.found:
            return
        if not self.package.definition(place).is_class:
            self._ask(rest)
            return
        if made:
            self._make(place)
        if rest:
            self._ask(rest[1:])
            self._ask_class(place, rest[0])

    # --- classes -------------------------------------------------------------------------------------------

    def _make(self, place: str) -> None:
        """There may be objects of this class that are made here: pydantic makes what their fields need."""
        self._reach(place)
        if place not in self.found or not self._first("made", place):
            return
        source, one = self.package.source(place.partition(":")[0]), self.package.definition(place)
        for check in one.checks:
            self._reach(f"{place}.{check}")
        if self._is_called(place):
            for chains in one.fields.values():
                for chain in chains:
                    for each, rest in self.package.places(source, one, chain):
                        self._refer(each, rest, made=True)
        for base in self._bases(place):
            self._make(base)

    def _bases(self, place: str) -> set[str]:
        source, one = self.package.source(place.partition(":")[0]), self.package.definition(place)
        return set().union(*(self.package.classes(source, one, base) for base in one.bases))

    def _ask_class(self, place: str, name: str) -> None:
        """A method of a class, or of one that it is derived from."""
        self._reach(place)
        if place not in self.found:
            return
        if name in self.package.definition(place).methods:
            self._reach(f"{place}.{name}")
        for base in self._bases(place):
            self._ask_class(base, name)

    def _wait(self, place: str, one: Definition) -> None:
        """Methods are reached as soon as somebody asks for their name."""
        called = self._is_called(place)
        for method in one.methods:
            if called or method in self.asked:
                self._reach(f"{place}.{method}")
            else:
                self.methods[method].append(f"{place}.{method}")

    def _is_called(self, place: str) -> bool:
        """Whether methods may be called by a library, under its own names: the class is derived from its."""
        source, one = self.package.source(place.partition(":")[0]), self.package.definition(place)
        for base in one.bases:
            for each in self.package.classes(source, one, base) or {base[0]}:
                if ":" in each:
                    if self._counts(each) and self._is_called(each):
                        return True
                elif not each.startswith(_SILENT):
                    return True
        return False

    def _all_types(self, place: str) -> set[str]:
        """What a function may be given, and a class's ``__init__``."""
        source, one = self.package.source(place.partition(":")[0]), self.package.definition(place)
        return set().union(*(self.package.classes(source, one, chain) for chain in one.types))

    def _give(self, to: str, classes: Iterable[str]) -> None:
        """Such an object may be given from outside: its class exists, what is derived from it, and what
        stands in its fields, if they are asked for.
        """
        for place in classes:
            module, _, name = place.partition(":")
            if not name or not self._counts(place):
                continue
            source, one = self.package.source(module), self.package.definition(place)
            if not one.is_class:
                if self._first("type", place):  # a name for others
                    named = (self.package.places(source, one, chain) for chain in one.names)
                    self._give(place, [each for each, rest in set().union(*named) if not rest])
                continue
            if not self._first("given", place):
                continue
            self._reach(place)
            self._give(place, self.package.derived(place))
            self._give(place, self._all_types(place))
            self._give_fields([place, *self._bases(place)])

    def _give_fields(self, classes: Iterable[str]) -> None:
        for place in classes:
            module = place.partition(":")[0]
            if module not in self.package.modules or ":" not in place or not self._first("fields", place):
                continue
            self._give_fields(self._bases(place))
            source, one = self.package.source(module), self.package.definition(place)
            for name, chains in one.fields.items():
                within = set().union(*(self.package.classes(source, one, chain) for chain in chains))
                if name in self.asked:
                    self._give(place, within)
                else:
                    self.fields[name] |= within

    def _ask(self, names: Iterable[str]) -> None:
        for name in set(names) - self.asked:
            self.asked.add(name)
            for place in self.methods.pop(name, ()):
                self._reach(place)
            self._give(name, self.fields.pop(name, ()))

    # --- modules and files ---------------------------------------------------------------------------------

    def _execute(self, dotted: str) -> None:
        """What an import does: the statements of a module, and of those that it imports."""
        if not self._first("imported", dotted):
            return
        parts = dotted.split(".")
        for end in range(1, len(parts) + 1):
            module = ".".join(parts[:end])
            if not self._counts(module) or not self._first("executed", module):
                continue
            source = self.package.source(module)
            if MAIN in source.definitions:
                self._reach(f"{module}:{MAIN}")
            for other in source.executed:
                self._execute(other)
