r"""Identifiers and literals for generated code: whatever a name holds, it stays data.

Every string literal that is made here consists of printable ASCII alone, so that neither the encoding of a
source file nor an invisible character can change what it means. Digraphs and trigraphs, string templates
(``$`` in Kotlin, ``\(`` in Swift) and the ends of comments are dealt with where they exist.
"""

from __future__ import annotations

import json
import keyword
import re
import sys
from collections.abc import Iterable

__all__ = [
    "c_string",
    "comment",
    "identifier",
    "kotlin_string",
    "members",
    "pascal_case",
    "python_string",
    "scalars",
    "swift_string",
    "toml_string",
]

# Words that at least one of the languages keeps for itself, beside Python's own keywords; then macros of C
# compilers, and names that are no files on Windows.
_WORDS = """
alignas alignof and_eq asm auto bitand bitor bool case catch char char8_t char16_t char32_t compl concept
const const_cast consteval constexpr constinit co_await co_return co_yield decltype default delete do
double dynamic_cast enum explicit export extern float friend goto inline int long mutable namespace new
noexcept not_eq nullptr operator or_eq private protected public register reinterpret_cast requires
restrict return short signed sizeof static static_assert static_cast struct switch template this
thread_local throw try typedef typeid typename typeof union unsigned using virtual void volatile wchar_t
xor xor_eq abstract annotation companion data external final fun in init inner interface internal lateinit
null object open out override package reified sealed super suspend tailrec true false typealias val value
var vararg when actor associatedtype deinit extension fallthrough func guard inout let macro nil protocol
repeat rethrows self subscript where main test std setup loop boolean byte defer extends fileprivate
implements instanceof native precedencegroup strictfp synchronized throws transient errno linux stderr
stdin stdout unix aux con nul prn
"""
# Packages that the code of a Python bundle imports, and functions of C that a namespace or a file would hide.
_TAKEN = """
ai_edge_litert litert numpy onnxruntime pil pillow setuptools tensorflow tflite tflite_runtime
abs acos asin atan atan2 ceil clock cos div exp fabs floor fmod free gamma index isnan j0 j1 jn log log10 log2
malloc pow printf putchar puts qsort rand read remove rename rindex round sin sqrt tan time tolower toupper
trunc write y0 y1 yn
"""
# Words that may name a member everywhere. What generated code calls the structures that have the members, and
# what Swift says of every type, may not.
_MEMBERS = {"data", "inner", "out", "test", "value"}
_STRUCTURES = {"Model", "Outputs", "Prediction", "Protocol", "Sample", "Self", "Type", "View", "reserve"}
_RESERVED = frozenset((*_WORDS.split(), *_TAKEN.split(), *map(str.lower, sys.stdlib_module_names)))


def identifier(name: str) -> str:
    """A name as a lower-case identifier that is one in Python, C, C++, Kotlin, Swift and Java alike, and
    hides nothing there that is needed (``json``, ``numpy``, ``log``).

    ``spoken-digits 2.0`` becomes ``spoken_digits_2_0``; a leading digit and reserved words get a prefix.
    Other characters than ASCII letters and digits become underscores, of which never two follow each other
    (C++ keeps those for itself), and none stands at an end.
    """
    plain = re.sub(r"[^a-z0-9]+", "_", name.lower()).strip("_") or "model"
    if plain[0].isdigit() or keyword.iskeyword(plain) or plain in _RESERVED:
        plain = f"model_{plain}"
    return plain


def pascal_case(name: str) -> str:
    """The same as the name of a class: ``SpokenDigits20``."""
    return "".join(part.capitalize() for part in identifier(name).split("_"))


def members(names: Iterable[str]) -> tuple[str, ...]:
    """Names of a file's ends as identifiers: of members and in names of files, as they are wherever they can.

    No two are the same, whatever their case; reserved words get an underscore at their end.
    """
    found: list[str] = []
    taken: set[str] = set()
    for name in names:
        plain = re.sub(r"[^A-Za-z0-9]+", "_", name).strip("_") or "end"
        plain = f"n{plain}" if plain[0].isdigit() else plain
        kept = keyword.iskeyword(plain) or plain in _STRUCTURES or plain in _WORDS.split()
        plain += "_" if kept and plain not in _MEMBERS else ""
        one, count = plain, 1
        while one.lower() in taken:
            count += 1
            one = f"{plain.rstrip('_')}_{count}"
        taken.add(one.lower())
        found.append(one)
    return tuple(found)


def python_string(text: str) -> str:
    """A literal of Python, ASCII only."""
    return ascii(text)


def toml_string(text: str) -> str:
    """A basic string of TOML 1.0. JSON's escapes are TOML's, but for pairs of surrogates and DEL."""
    return '"' + "".join(map(_toml, scalars(text))) + '"'


def c_string(text: str) -> str:
    """A literal of C99 and C++17, UTF-8 bytes in octal escapes: three digits, so that none is read further.

    A question mark is escaped as well: ``??/`` would be a backslash where trigraphs live. Text after a zero
    byte is kept, as far as the reader asks for it.
    """
    plain = frozenset(range(0x20, 0x7F)) - frozenset(b'"\\?')
    return '"' + "".join(chr(b) if b in plain else f"\\{b:03o}" for b in scalars(text).encode()) + '"'


def kotlin_string(text: str) -> str:
    """A literal of Kotlin (and, but for the dollar sign's escape, of Java): UTF-16 units in escapes."""
    plain = frozenset(map(chr, range(0x20, 0x7F))) - frozenset('"\\$')
    return '"' + "".join(c if c in plain else _utf16(c) for c in text) + '"'


def swift_string(text: str) -> str:
    """A literal of Swift. It has no lone surrogates: those become the replacement character."""
    plain = frozenset(map(chr, range(0x20, 0x7F))) - frozenset('"\\')
    return '"' + "".join(c if c in plain else f"\\u{{{ord(c):x}}}" for c in scalars(text)) + '"'


def comment(text: str) -> str:
    """Text inside a comment of any language, on one line: nothing in it ends the comment, or goes on.

    Everything but letters, digits and a few harmless signs becomes an underscore.
    """
    return re.sub(r"[^A-Za-z0-9 .,:;=()\[\]+-]", "_", text).replace("--", "-_")


def scalars(text: str) -> str:
    """Text without lone surrogates, which UTF-8 lacks: they become what stands for the unreadable."""
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def _toml(character: str) -> str:
    code = ord(character)
    if code > 0xFFFF:
        return f"\\U{code:08X}"
    if code >= 0x7F:
        return f"\\u{code:04X}"
    return json.dumps(character)[1:-1]


def _utf16(character: str) -> str:
    units = character.encode("utf-16-be", "surrogatepass")
    return "".join(f"\\u{units[i]:02x}{units[i + 1]:02x}" for i in range(0, len(units), 2))
