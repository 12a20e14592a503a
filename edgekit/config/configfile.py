"""Configuration files: where they are looked up, how they are read, how their faults are told.

Shared by recipes and devices. YAML is read by a safe loader into plain data; nothing in it can name code.
Numbers and booleans follow YAML 1.2: ``1e-3`` is a number (PyYAML alone would make it a string), ``on`` and
``1:30`` are strings, and a key that stands twice is refused.
"""

from __future__ import annotations

import itertools
import os
import re
from collections.abc import Collection, Hashable, Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from types import UnionType
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Union, get_args, get_origin

from edgekit.errors import did_you_mean
from edgekit.files import opened

if TYPE_CHECKING:
    from pydantic import BaseModel, ValidationError

Kind = Literal["recipes", "devices"]
SUFFIXES = (".yaml", ".yml")

# Far beyond what anybody writes, and read within seconds all the same.
_MOST_BYTES = 128 << 10
_MOST_VALUES = 10_000  # what aliases stand for is counted as often as they stand there
MOST_LEVELS = 50
_MOST_FAULTS = 50
_MOST_DIGITS = 400  # more than any float has


# --- where -----------------------------------------------------------------------------------------------


def user_folder(kind: Kind) -> Path:
    """The user's own files: ``$XDG_CONFIG_HOME/edgekit/<kind>``, usually under ``~/.config``."""
    base = os.environ.get("XDG_CONFIG_HOME")
    return (Path(base) if base else Path.home() / ".config") / "edgekit" / kind


def shipped_folder(kind: Kind) -> Path:
    """The files that come with edgekit: at the top of a source tree, or inside the installed package."""
    package = Path(__file__).resolve().parent.parent
    source = package.parent / kind
    if (package.parent / "pyproject.toml").is_file() and source.is_dir():
        return source
    return package / f"_{kind}"


def folders(kind: Kind) -> list[Path]:
    """Where names are looked up, first match wins: the user's folder, what is shipped, the current folder.

    The current folder may be somebody else's, and a profile says which programs run: it adds names, and takes
    the place of none.
    """
    found: list[Path] = []
    for folder in (user_folder(kind), shipped_folder(kind), Path(kind)):
        if not any(_same(folder, other) for other in found):
            found.append(folder)
    return found


def listing(kind: Kind) -> dict[str, Path]:
    """Every name that can be given, with its file; a name found twice stands for the first."""
    names: dict[str, Path] = {}
    for folder in folders(kind):
        for path in sorted(folder.glob("*.y*ml")) if folder.is_dir() else ():
            if path.suffix in SUFFIXES:
                names.setdefault(path.stem, path)
    return dict(sorted(names.items()))


def is_path(name: str | Path) -> bool:
    """Whether this is meant as a file rather than as a name to look up."""
    return isinstance(name, Path) or os.sep in name or name.endswith(SUFFIXES)


def find(kind: Kind, name: str | Path) -> Path | None:
    """The file that ``name`` stands for: the path given, or the first of its name in ``folders``."""
    if is_path(name):
        try:
            path = Path(name).expanduser()
            return path if path.is_file() else None
        except (OSError, RuntimeError):  # a name that no file can have; a home that there isn't
            return None
    return listing(kind).get(str(name))


def is_own(kind: Kind, path: Path) -> bool:
    """Whether a file is the user's own, or comes with edgekit, by the folder that it lies in."""
    return any(_same(path.parent, folder) for folder in (user_folder(kind), shipped_folder(kind)))


def told(kind: Kind, name: str | Path) -> str:
    """What to say of the file that a name stands for, where the current folder has one; else ""."""
    if is_path(name) or any(_same(Path(kind), one) for one in (user_folder(kind), shipped_folder(kind))):
        return ""
    here = [Path(kind) / f"{name}{suffix}" for suffix in SUFFIXES]
    found, beside = find(kind, name), next((one for one in here if one.is_file()), None)
    if found is None or beside is None:
        return ""
    if found == beside:
        return f"{name} is {beside}"
    return f"{name} is {found}; {beside} isn't used, unless it is named by this path: ./{beside}"


def _same(a: Path, b: Path) -> bool:
    return a == b or (a.exists() and b.exists() and a.samefile(b))


# --- reading and writing ---------------------------------------------------------------------------------


class YamlError(ValueError):
    """Text that is no YAML, or none of a configuration; the message has line and column."""


@cache
def _yaml() -> tuple[Any, Any, Any]:
    """PyYAML with a loader and a dumper of YAML 1.2's core schema. Imported late: ``--help`` needs none.

    The loader refuses what would take a configuration's reader by surprise: nesting without end, aliases that
    stand for more than memory holds or for themselves, and text that no file, terminal or JSON can take.
    """
    import yaml

    class Loader(yaml.SafeLoader):
        yaml_constructors: ClassVar[
            dict[str | None, Any]
        ] = {}  # those of YAML 1.1, dates and sets, are left out
        _levels = _values = 0

        def compose_node(self, parent: Any, index: Any) -> Any:
            self._levels += 1
            self._values += 1
            if self._levels > MOST_LEVELS:
                raise self.fault(f"nested more than {MOST_LEVELS} levels deep", self.here())
            if self._values > _MOST_VALUES:
                raise self.fault(f"more than {_MOST_VALUES:,} values", self.here())
            node = super().compose_node(parent, index)
            self._levels -= 1
            return node

        def get_single_node(self) -> Any:
            node = super().get_single_node()
            if node is not None:
                self._count(node, {})
            return node

        def _count(self, node: Any, known: dict[int, int | None]) -> int:
            """How many values a node stands for, those behind aliases included."""
            if id(node) in known:
                count = known[id(node)]
                if count is None:
                    raise self.fault("this holds itself", node)
                return count
            known[id(node)] = None
            inner = () if isinstance(node, yaml.ScalarNode) else node.value
            if isinstance(node, yaml.MappingNode):
                inner = itertools.chain.from_iterable(inner)
            total = 1 + sum(self._count(one, known) for one in inner)
            if total > _MOST_VALUES:
                raise self.fault(f"more than {_MOST_VALUES:,} values, repeated ones counted again", node)
            known[id(node)] = total
            return total

        def construct_mapping(self, node: Any, deep: bool = False) -> dict[Hashable, Any]:
            seen: set[Hashable] = set()
            for key_node, _ in node.value if isinstance(node, yaml.MappingNode) else ():
                key = self.construct_object(key_node, deep=True)
                if key_node.tag == _MERGE:
                    continue
                if not isinstance(key, str):
                    raise self.fault(f"a key must be text, got {_short(key)}", key_node)
                if key in seen:
                    raise self.fault(f"the key {_short(key)} stands twice", key_node)
                seen.add(key)
            mapping: dict[Hashable, Any] = super().construct_mapping(node, deep)
            return mapping

        def construct_text(self, node: Any) -> str:
            text = str(self.construct_scalar(node))
            if (found := _UNFIT.search(text)) is not None:
                raise self.fault(f"text can't hold the character U+{ord(found[0]):04X}", node)
            return text

        def construct_number(self, node: Any, kind: type[int] | type[float]) -> int | float:
            text = str(self.construct_scalar(node))
            if len(text) > _MOST_DIGITS:
                raise self.fault(f"a number of {len(text):,} digits", node)
            try:
                return _number(text, kind)
            except ValueError:
                raise self.fault(f"this is no number: {_short(text)}", node) from None

        def construct_truth(self, node: Any) -> bool:
            text = str(self.construct_scalar(node)).lower()
            if text not in ("true", "false"):
                raise self.fault(f"this is neither true nor false: {_short(text)}", node)
            return text == "true"

        def here(self) -> Any:
            return self.peek_event()  # type: ignore[no-untyped-call]

        def fault(self, text: str, at: Any) -> yaml.constructor.ConstructorError:
            return yaml.constructor.ConstructorError(None, None, text, at.start_mark)

    class Dumper(yaml.SafeDumper):
        def ignore_aliases(self, data: Any) -> bool:
            return True

    resolvers: dict[str, list[tuple[str, re.Pattern[str]]]] = {}
    for tag, pattern, first in (
        ("bool", r"true|True|TRUE|false|False|FALSE", "tTfF"),
        ("int", r"[-+]?[0-9]+|0x[0-9a-fA-F]+", "-+0123456789"),
        (
            "float",
            r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)",
            "-+.0123456789",
        ),
        ("merge", r"<<", "<"),
        ("null", r"~|null|Null|NULL|", "~nN\0"),
    ):
        for char in first:
            resolvers.setdefault("" if char == "\0" else char, []).append(
                (f"tag:yaml.org,2002:{tag}", re.compile(rf"(?:{pattern})\Z"))
            )
    Loader.yaml_implicit_resolvers = Dumper.yaml_implicit_resolvers = resolvers
    add: Any = Loader.add_constructor
    # PyYAML's own constructors read 010 as octal and 1:30 as sexagesimal.
    for tag, construct in (
        ("int", lambda loader, node: loader.construct_number(node, int)),
        ("float", lambda loader, node: loader.construct_number(node, float)),
        ("bool", Loader.construct_truth),
        ("str", Loader.construct_text),
        ("null", Loader.construct_yaml_null),
        ("seq", Loader.construct_yaml_seq),
        ("map", Loader.construct_yaml_map),
        ("merge", Loader.construct_text),
    ):
        add(f"tag:yaml.org,2002:{tag}", construct)
    add(None, Loader.construct_undefined)
    return yaml, Loader, Dumper


_MERGE = "tag:yaml.org,2002:merge"
# Halves of surrogate pairs, which have no UTF-8, and control characters but for tab and line breaks.
_UNFIT = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x84\x86-\x9f\ud800-\udfff]")


def _number(text: str, kind: type[int] | type[float]) -> int | float:
    text = text.lower()
    if kind is int:
        return int(text, 16) if text.startswith("0x") else int(text)
    return float(text.replace(".inf", "inf").replace(".nan", "nan"))


def read_yaml(path: Path) -> Any:
    """Plain data from a configuration file. Raises OSError: it can't be read, or is no regular file; and
    YamlError for whatever it holds else.
    """
    with opened(path) as stream:
        content = stream.read(_MOST_BYTES + 1)
    try:
        return parse_yaml(content.decode("utf-8"))
    except UnicodeDecodeError as error:
        if len(content) > _MOST_BYTES:  # cut in the middle of a character, perhaps
            raise _too_long() from None
        raise YamlError(f"no UTF-8 text: {error.reason} at byte {error.start}") from None


def parse_yaml(text: str) -> Any:
    """Plain data from YAML text: keys are text, and nothing holds itself. Raises YamlError."""
    if len(text) > _MOST_BYTES:
        raise _too_long()
    yaml, loader, _ = _yaml()
    try:
        return yaml.load(text, Loader=loader)
    except yaml.YAMLError as error:
        raise YamlError(_explain(error)) from None
    except (RecursionError, ValueError, TypeError) as error:
        raise YamlError(str(error) or type(error).__name__) from None


def _too_long() -> YamlError:
    return YamlError(f"longer than the {_MOST_BYTES >> 10} KiB that a configuration may have")


def dump_yaml(data: Any) -> str:
    """YAML text that ``parse_yaml`` reads back as the same data; keys keep their order."""
    yaml, _, dumper = _yaml()
    return str(yaml.dump(data, Dumper=dumper, sort_keys=False, allow_unicode=True, width=100))


def _explain(error: Any) -> str:
    mark = getattr(error, "problem_mark", None)
    problem = getattr(error, "problem", None) or str(error)
    return f"line {mark.line + 1}, column {mark.column + 1}: {problem}" if mark else str(problem)


# --- faults ----------------------------------------------------------------------------------------------


def faults_of(
    error: ValidationError, model: type[BaseModel], data: Any, prefix: str = "", known: Collection[str] = ()
) -> list[str]:
    """One line a fault: ``stages[1].speedpu: unknown key, did you mean 'speedup'?``.

    ``data`` is what was validated as ``model``; ``prefix`` stands before every path ("stages[1]");
    ``known`` are the keys to suggest at the top, by default the model's fields.
    """
    found: dict[str, list[str]] = {}
    inputs: dict[str, str] = {}
    faults = error.errors(include_url=False, include_context=False)
    for fault in faults:
        if len(found) >= _MOST_FAULTS:
            break
        location = list(_real(fault["loc"], data))
        where = path_text(location, prefix)
        kind = fault["type"]
        if kind == "extra_forbidden":
            keys = _fields_at(model, location[:-1]) if location[1:] or not known else known
            text = f"unknown key, {did_you_mean(str(location[-1]), keys)}"
        elif kind == "missing":
            text = "missing"
        elif wanted := re.fullmatch(r"\w+ should (?:be )?(.*?)(?: after validation, not \d+)?", fault["msg"]):
            text = wanted[1].replace("a valid ", "a ", 1).replace("a integer", "a whole number", 1)
            inputs[where] = _short(fault["input"])
        else:
            text = fault["msg"].removeprefix("Value error, ")
        if text not in found.setdefault(where, []):
            found[where].append(text)
    # A list whose items are all wrong is also called too short: the items' faults are enough.
    inner = [where for where in found if where.endswith("]")]
    lines = [
        f"{where}: {_must(texts, inputs.get(where))}"
        for where, texts in found.items()
        if not any(other.startswith(f"{where}[") for other in inner)
    ]
    if len(found) >= _MOST_FAULTS and len(faults) > _MOST_FAULTS:
        lines.append(f"and more: {len(faults):,} faults in all")
    return lines


def _must(texts: Sequence[str], got: str | None) -> str:
    if got is None:
        return "; ".join(texts)
    verb = "" if texts[0].startswith(("have ", "match ")) else "be "
    return f"must {verb}{' or '.join(texts)}, got {got}"


def path_text(location: Sequence[str | int], prefix: str = "") -> str:
    """``("stages", 1, "lr")`` as ``stages[1].lr``."""
    text = prefix
    for piece in location:
        text += f"[{piece}]" if isinstance(piece, int) else f".{piece}" if text else str(piece)
    return text or "the file"


def _real(location: Sequence[str | int], data: Any) -> Iterator[str | int]:
    """Without the names of union branches, which pydantic puts into its locations."""
    for index, piece in enumerate(location):
        if isinstance(data, Mapping):
            last = index == len(location) - 1
            if piece in data or last:
                yield piece
                data = data.get(piece)
        elif isinstance(data, Sequence) and not isinstance(data, str) and isinstance(piece, int):
            yield piece
            data = data[piece] if piece < len(data) else None


def _fields_at(model: type[BaseModel], location: Sequence[str | int]) -> list[str]:
    from pydantic import BaseModel

    for piece in location:
        if isinstance(piece, int):
            continue
        field = model.model_fields.get(piece)
        inner = (
            next((t for t in _types(field.annotation) if issubclass(t, BaseModel)), None) if field else None
        )
        if inner is None:
            return []
        model = inner
    return list(model.model_fields)


def _types(annotation: Any) -> Iterator[type]:
    """All classes in an annotation such as ``tuple[Inner, ...] | None``."""
    if get_origin(annotation) in (Union, UnionType, tuple, list):
        for argument in get_args(annotation):
            yield from _types(argument)
    elif isinstance(annotation, type):
        yield annotation


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."
