"""torch's ExportedPrograms (``.pt2``), read without executing anything that stands in them.

Runs on the device beside ``runtime_torch.py``; Python 3.8 or later, torch 2.6 or later.

``torch.export.load`` executes code of the file in more ways than one. It unpickles without limits what it
can't read with them, and always the tensors that ask for it. It evaluates symbolic sizes and guards as
Python, and imports the modules of enums and default factories; code is made of the names of values, and
functions are looked up by theirs. None of that is left to it here: every part of an archive is read and
checked, and what passed is written anew into an archive in memory. torch gets that one alone, so that it
can't find in the file what wasn't looked at.
"""

from __future__ import annotations

import io
import json
import re
import zipfile
from typing import Any, Callable

__all__ = ["Refused", "load"]

# Operators compute on tensors and numbers: those of these namespaces, but for the few that touch files.
_OPERATORS = re.compile(
    r"torch\.ops\.(aten|prims|quantized_decomposed|torchvision)\.(?!_test_|save\b|load\b|from_file\b|_print\b"
    r"|warn\b)[A-Za-z0-9_]+(\.[A-Za-z0-9_]+)?"
    r"|torch\.ops\.higher_order\.(cond|while_loop|scan|associative_scan|map_impl|wrap_with_set_grad_enabled"
    r"|wrap_with_autocast)"
    r"|_operator\.(getitem|add|sub|mul|truediv|floordiv|mod|pow|neg|pos|abs|eq|ne|lt|le|gt|ge|and_|or_|not_"
    r"|lshift|rshift)"
    r"|math\.(ceil|floor|trunc|sqrt)"
    r"|torch\._?sym_[a-z0-9_]+"
)
_NAME = re.compile(r"([A-Za-z_][A-Za-z0-9_]*)?")  # of a value: becomes a variable of generated code
_WORD = re.compile(r"[A-Za-z0-9_.+<=-]*")
_TEXT = re.compile(r"[^\"'\\\x00-\x1f\x7f]{0,1000}")  # ends no literal of generated code
_STACK = "nn_module_stack"
_FREE = ("as_string", "as_strings", "buffer_name", "fqn", "parameter_name", "tensor_constant_name")

# Symbolic sizes: numbers, symbols such as s0 and u12, and functions of these; as sympy prints or spells them.
_SPELLED = re.compile(r"Symbol\('([a-z]{1,3}\d+)'(?:, [a-z_]+=(?:True|False))*\)")
_FLOAT = re.compile(r"Float\('(-?[0-9.e+-]+)'(?:, (?:precision|dps)=\d+)?\)")
_TOKEN = re.compile(r"\s*(?:(\d+(?:\.\d+)?(?:[eE][+-]?\d+)?)|([A-Za-z_]\w*)|(\*\*|[-+*/%(),<>=!&|~]))")
_SYMBOL = re.compile(r"[a-z]{1,3}\d+")
_WORDS = """
Abs Add And CeilDiv CeilToInt CleanDiv Eq Equality FloatPow FloatTrueDiv FloorDiv FloorToInt Ge Gt
GreaterThan Identity IntTrueDiv Integer IsNonOverlappingAndDenseIndicator LShift Le LessThan Lt Max Min Mod
ModularIndexing Mul Ne Not Or Pow PowByNatural PythonMod RShift Rational RoundDecimal RoundToInt
StrictGreaterThan StrictLessThan ToFloat TruncToFloat TruncToInt Unequality Where ceiling floor
"""
_FUNCTIONS = frozenset(_WORDS.split())
_CONSTANTS = frozenset(("True", "False", "true", "false", "oo", "int_oo"))
_POWER = re.compile(r"\*\*|Pow|LShift")  # few, and of small numbers: sympy computes them
_LONGEST, _POWERS, _BASE = 4000, 3, 64

# How arguments and answers are put together. Others have factories, or classes, which are looked up.
_CONTAINERS = frozenset(
    (
        "builtins.tuple",
        "builtins.list",
        "builtins.dict",
        "collections.OrderedDict",
        "torch.fx.immutable_collections.immutable_list",
        "torch.fx.immutable_collections.immutable_dict",
    )
)

_PLAIN = re.compile(
    r"archive_format|archive_version|byteorder|\.data/version|\.data/serialization_id|version"
)
_CONFIG = re.compile(r"data/(weights|constants)/(\w+)_(weights|constants)_config\.json")
_MODEL = re.compile(r"models/(\w+)\.json|serialized_exported_program\.json")
_PAYLOAD = re.compile(r"data/(weights/weight|constants/tensor)_\d+")
_PICKLE = re.compile(
    r"data/(sample_inputs|weights|constants)/\w+\.pt|serialized_(state_dict|constants|example_inputs)\.pt"
)
_IGNORED = re.compile(r"(extra|data/aotinductor|\.data)/.*|serialized_(state_dict|constants)\.json")


class Refused(ValueError):
    """The file isn't one that can be read without executing what stands in it. Says why."""


def load(torch: Any, path: str) -> Any:
    """The ExportedProgram in a file.

    Args:
        torch: the module.
        path: of the file.

    Raises:
        Refused: something in the file would have to be executed; nothing of it was.
        OSError, ValueError, RuntimeError and others of torch: it is damaged.
    """
    return torch.export.load(io.BytesIO(safe(torch, path)))


def safe(torch: Any, path: str) -> bytes:
    """An archive of what is in a file and is nothing but data. Raises as ``load``."""
    held = _parts(path)
    unpickled = {f"data/{name}" for name in _use_pickle(held)}
    written = io.BytesIO()
    with zipfile.ZipFile(written, "w", zipfile.ZIP_STORED) as archive:
        root = "" if "version" in held and "archive_version" not in held else "archive/"
        for name, content in held.items():
            checked = _checked(torch, name, content, pickled=name in unpickled)
            if checked is not None:
                archive.writestr(zipfile.ZipInfo(root + name), checked)
    return written.getvalue()


def _parts(path: str) -> dict[str, bytes]:
    """What an archive holds, by its name below the archive's own folder."""
    try:
        with zipfile.ZipFile(path) as archive:
            members = archive.infolist()
            if any(one.compress_type != zipfile.ZIP_STORED for one in members):
                raise Refused("its parts are compressed, which torch never does")
            with open(path, "rb") as file:  # noqa: PTH123
                if sum(one.file_size for one in members) > file.seek(0, 2):
                    raise Refused("its parts are larger than itself")
            names = [one.filename for one in members]
            roots = {name.partition("/")[0] for name in names if "/" in name}
            flat = "serialized_exported_program.json" in names
            if len(set(names)) < len(names) or (len(roots) != 1 and not flat):
                raise Refused("it is put together in another way than torch does it")
            return {
                one.filename if flat else one.filename.partition("/")[2]: archive.read(one)
                for one in members
                if not one.is_dir()
            }
    except zipfile.BadZipFile as error:
        raise ValueError(f"{path} is no .pt2 archive: {error}") from None


def _use_pickle(held: dict[str, bytes]) -> set[str]:
    """The tensors that are pickled, one by one, by what the archive says of them."""
    found = set()
    for name, content in held.items():
        kind = _CONFIG.fullmatch(name)
        if kind:
            for one in _json(name, content)["config"].values():
                if one.get("use_pickle"):
                    found.add(f"{kind.group(1)}/{one['path_name']}")
    return found


def _checked(torch: Any, name: str, content: bytes, *, pickled: bool) -> bytes | None:
    """A part as torch may see it; None: it needn't."""
    if _PICKLE.fullmatch(name) or (pickled and _PAYLOAD.fullmatch(name)):
        return _repickled(torch, name, content)
    if _PAYLOAD.fullmatch(name) or (_PLAIN.fullmatch(name) and re.fullmatch(rb"[\w.\n]{1,100}", content)):
        return content
    if _MODEL.fullmatch(name):
        return _program(name, content)
    if _CONFIG.fullmatch(name):
        config = _json(name, content)
        for one in config["config"].values():
            if not _PAYLOAD.fullmatch(f"data/{name.split('/')[1]}/{one['path_name']}"):
                raise Refused(f"it holds an object that is no tensor ({one['path_name']!r})")
        _walk(config["config"], lambda key, text: _text(key, text))
        return json.dumps(config).encode()
    if _IGNORED.fullmatch(name):
        return None
    raise Refused(f"it holds something that is no part of a program ({name!r})")


def _repickled(torch: Any, name: str, content: bytes) -> bytes:
    """What a pickle holds, if that is tensors and plain values, pickled anew."""
    if not content:
        return content
    try:
        value = torch.load(io.BytesIO(content), weights_only=True)
    except Exception as error:  # torch.load raises whatever it runs into
        said = re.search(r"(unsupported )?GLOBAL \S+", str(error), flags=re.IGNORECASE)
        told = said.group() if said else type(error).__name__
        raise Refused(f"{name} is a pickle of something else than tensors ({told})") from None
    again = io.BytesIO()
    torch.save(value, again)
    return again.getvalue()


def _program(name: str, content: bytes) -> bytes:
    program = _json(name, content)
    program["guards_code"] = []  # Python; what an input must be like is checked by edgekit
    module = program["graph_module"]
    module["metadata"] = {}
    module["treespec_namedtuple_fields"] = {}
    _without_metadata(module)
    _walk(program, _value)
    return json.dumps(program).encode()


def _without_metadata(value: Any) -> None:
    """Of what is said about a node, only the names of its modules are kept: they are told, not looked up."""
    if isinstance(value, dict):
        if "target" in value and "metadata" in value:
            value["metadata"] = {key: one for key, one in value["metadata"].items() if key == _STACK}
        for one in value.values():
            _without_metadata(one)
    elif isinstance(value, list):
        for one in value:
            _without_metadata(one)


def _walk(value: Any, check: Callable[[str, str], None], key: str = "") -> None:
    """Call ``check`` with every text in a JSON value, and the key that it stands under."""
    if isinstance(value, str):
        check(key, value)
    elif isinstance(value, dict):
        for own, one in value.items():
            check("", own)
            _walk(one, check, own)
    elif isinstance(value, list):
        for one in value:
            _walk(one, check, key)


def _value(key: str, text: str) -> None:
    if key in ("target", "as_operator"):
        if not _OPERATORS.fullmatch(text):
            raise Refused(f"it calls {text[:100]!r}, which is no operator on tensors")
    elif key == "expr_str":
        if not _is_expression(text):
            raise Refused(f"a size in it is no expression: {text[:100]!r}")
    elif key in ("in_spec", "out_spec"):
        if text:
            _structure(_json(key, text.encode())[1], _NAME if key == "in_spec" else _TEXT)
    elif key in ("name", "as_name", "forward_arg_names"):
        if not _NAME.fullmatch(text):
            raise Refused(f"a value in it has no name that can be one: {text[:100]!r}")
    elif key != _STACK:
        _text(key, text)


def _text(key: str, text: str) -> None:
    if not (_TEXT if key in _FREE else _WORD).fullmatch(text):
        raise Refused(f"it holds a text that no program needs: {text[:100]!r}")


def _is_expression(text: str) -> bool:
    if len(text) > _LONGEST:
        return False
    text = _FLOAT.sub(r"(\1)", _SPELLED.sub(r"\1", text)).strip()
    powers, at = len(_POWER.findall(text)), 0
    if powers > _POWERS:
        return False
    while at < len(text):
        token = _TOKEN.match(text, at)
        if token is None:
            return False
        at = token.end()
        number, name = token.group(1), token.group(2)
        if number is not None and powers and float(number) > _BASE:
            return False
        if name is None:
            continue
        if text[at:].lstrip().startswith("("):
            if name not in _FUNCTIONS:
                return False
        elif name not in _CONSTANTS and not _SYMBOL.fullmatch(name):
            return False
    return bool(text)


def _structure(spec: Any, keys: Any) -> None:
    """How arguments or answers are put together: of containers whose context is at most the names of keys."""
    kind, context = spec["type"], spec["context"]
    if kind is not None and kind not in _CONTAINERS:
        raise Refused(f"its arguments or answers are of a class of their own ({str(kind)[:100]!r})")
    plain = json.loads(context) if isinstance(context, str) else context
    for one in plain if isinstance(plain, list) else [plain]:
        named = isinstance(one, str) and keys.fullmatch(one)
        if not (named or one is None or isinstance(one, int)):
            raise Refused(f"an argument or answer in it has no name that can be one: {str(one)[:100]!r}")
    for child in spec["children_spec"]:
        _structure(child, keys)


def _json(name: str, content: bytes) -> Any:
    try:
        return json.loads(content)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{name} is damaged ({type(error).__name__})") from None
