"""Whatever a name holds, every language reads it back as data: asked of real parsers where there is one."""

from __future__ import annotations

import ast
import keyword
import re
import shutil
import subprocess
import tomllib
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from edgekit.bundle import names
from tests.bundle.made import NASTY

anything = st.text(st.characters(exclude_categories=()), max_size=40)  # with surrogates, which text may hold
code = st.text(st.sampled_from("\"'\\$(){}?/*%u0x1Nn\n\r\t\0#-"), max_size=20)
texts = anything | code | st.sampled_from(NASTY)

# Words that one of the languages keeps for itself, from their references; not the list in names.py.
C = """alignas alignof auto bool break case char const constexpr continue default do double else enum extern
false float for goto if inline int long nullptr register restrict return short signed sizeof static
static_assert struct switch thread_local true typedef typeof union unsigned void volatile while"""
CPP = """and and_eq asm bitand bitor catch char16_t char32_t char8_t class co_await co_return co_yield compl
concept const_cast consteval constinit decltype delete dynamic_cast explicit export friend mutable namespace
new noexcept not not_eq operator or or_eq private protected public reinterpret_cast requires static_cast
template this throw try typeid typename using virtual wchar_t xor xor_eq"""
JAVA = """abstract assert boolean byte extends final finally implements import instanceof interface native
package strictfp super synchronized throws transient"""
KOTLIN = "as fun in is object typealias val var when null"
SWIFT = """associatedtype deinit extension fileprivate func init inout internal let open operator
precedencegroup protocol rethrows subscript defer fallthrough guard repeat where self nil"""
MACROS = "linux unix errno stdin stdout stderr"


def readable(text: str) -> str:
    """Pairs of surrogates joined, lone ones replaced."""
    joined = re.sub(
        "[\ud800-\udbff][\udc00-\udfff]",
        lambda pair: chr(0x10000 + ((ord(pair[0][0]) - 0xD800) << 10) + ord(pair[0][1]) - 0xDC00),
        text,
    )
    return re.sub("[\ud800-\udfff]", "\ufffd", joined)


def printable(text: str) -> bool:
    return all(" " <= character <= "~" for character in text)


def unescaped(literal: str, forms: dict[str, str], unicode: str) -> str:
    """A reader of escapes that knows only ``forms`` and one ``unicode`` escape."""
    inner = literal[1:-1]
    made, at = [], 0
    while at < len(inner):
        if inner[at] != "\\":
            assert inner[at] not in '"\n\r'
            made.append(inner[at])
            at += 1
        elif found := re.compile(unicode).match(inner, at):
            made.append(chr(int(found[1], 16)))
            at = found.end()
        else:
            made.append(forms[inner[at : at + 2]])
            at += 2
    return "".join(made)


SHORT = {f"\\{short}": long for short, long in zip("nrt0\\\"'", "\n\r\t\0\\\"'", strict=True)}


@given(texts)
def test_python(text: str) -> None:
    literal = names.python_string(text)
    assert printable(literal)
    assert ast.literal_eval(literal) == text


@given(texts)
@example("\x7f\x00\ud83d\ude00")
def test_toml(text: str) -> None:
    literal = names.toml_string(text)
    assert printable(literal)
    assert tomllib.loads(f"x = {literal}") == {"x": readable(text)}


@given(texts)
def test_kotlin(text: str) -> None:
    literal = names.kotlin_string(text)
    assert printable(literal)
    assert "$" not in literal  # no templates
    units = unescaped(literal, {}, r"\\u([0-9a-f]{4})")
    # Strings of the JVM are UTF-16: two surrogates are one character, however they were written.
    assert units.encode("utf-16-le", "surrogatepass") == text.encode("utf-16-le", "surrogatepass")


@given(texts)
def test_swift(text: str) -> None:
    literal = names.swift_string(text)
    assert printable(literal)
    assert "\\(" not in literal  # no interpolation
    assert unescaped(literal, SHORT, r"\\u\{([0-9a-f]{1,8})\}") == readable(text)


@pytest.mark.parametrize(
    ("grammar", "literal", "node"),
    [
        ("tree_sitter_kotlin", names.kotlin_string, "string_literal"),
        ("tree_sitter_swift", names.swift_string, "line_string_literal"),
    ],
)
def test_grammars_see_one_literal(grammar: str, literal: object, node: str) -> None:
    """Nothing but escapes and text inside; what follows is still code."""
    assert callable(literal)
    tree_sitter = pytest.importorskip("tree_sitter", reason="pip install tree-sitter")
    module = pytest.importorskip(grammar, reason=f"pip install {grammar.replace('_', '-')}")
    parser = tree_sitter.Parser(tree_sitter.Language(module.language()))

    @given(texts)
    @settings(deadline=None)
    def check(text: str) -> None:
        source = f"val a = {literal(text)}\nval b = 1\n".replace(
            "val", "let" if "swift" in grammar else "val"
        )
        root = parser.parse(source.encode()).root_node
        assert not root.has_error
        found, pending = [], [root]
        while pending:
            one = pending.pop()
            found += [one] if one.type == node else []
            assert "interpol" not in one.type
            pending += one.children
        assert [one.text.decode() for one in found] == [literal(text)]

    check()


@pytest.mark.parametrize(
    ("compiler", "language", "standard"),
    [("gcc", "c", "c99"), ("gcc", "c", "gnu99"), ("g++", "c++", "c++17")],
)
def test_c(tmp_path: Path, compiler: str, language: str, standard: str) -> None:
    """Compiled, with trigraphs and all warnings, and printed byte by byte: one program for many texts."""
    if shutil.which(compiler) is None:
        pytest.skip(f"needs {compiler}")

    @given(st.lists(texts, min_size=1, max_size=200))
    @example([*NASTY, *map(chr, range(256)), "??/", "??=", "<::>", "%:", "\\", '"', "0\0" + "7"])
    @settings(max_examples=3, deadline=None)
    def check(many: Sequence[str]) -> None:
        rows = "\n".join(f"  {{{c}, sizeof({c}) - 1}}," for c in map(names.c_string, many))
        (tmp_path / "a.c").write_text(
            "#include <stdio.h>\n#include <stddef.h>\n"
            f"static const struct {{ const char *text; size_t size; }} rows[] = {{\n{rows}\n}};\n"
            "int main(void) {\n"
            '  for (size_t i = 0; i < sizeof rows / sizeof *rows; i++, puts(""))\n'
            '    for (size_t j = 0; j < rows[i].size; j++) printf("%02x", (unsigned char)rows[i].text[j]);\n'
            "  return 0;\n}\n",
            encoding="ascii",
        )
        flags = ["-x", language, f"-std={standard}", "-trigraphs", "-Wall", "-Wextra", "-Werror"]
        subprocess.run([compiler, *flags, "a.c", "-o", "a.out"], cwd=tmp_path, check=True)
        printed = subprocess.run(["./a.out"], cwd=tmp_path, check=True, capture_output=True, text=True).stdout
        assert printed.split("\n")[:-1] == [readable(text).encode().hex() for text in many]

    check()


@given(texts)
def test_scalars_have_utf8(text: str) -> None:
    assert names.scalars(text) == readable(text)
    assert names.scalars(text).encode().decode() == readable(text)


@given(texts)
def test_comments_stay_comments(text: str) -> None:
    said = names.comment(text)
    assert len(said) == len(text)
    assert re.fullmatch(r"[A-Za-z0-9_ .,:;=()\[\]+-]*", said)
    assert "--" not in said  # what XML doesn't allow inside one
    assert not any(end in said for end in ("*/", "/*", "//", "\\", '"', "'", "`", "<", "{", "#", "\n"))


@given(texts)
def test_identifiers(text: str) -> None:
    found = names.identifier(text)
    assert re.fullmatch(r"[a-z]([a-z0-9]|_(?!_))*", found)
    assert not found.endswith("_")
    assert not keyword.iskeyword(found)
    assert names.identifier(found) == found


@given(texts)
def test_types(text: str) -> None:
    found = names.pascal_case(text)
    assert re.fullmatch(r"[A-Z][A-Za-z0-9]*", found)
    assert names.pascal_case(names.identifier(text)) == found


@pytest.mark.parametrize(
    ("name", "identifier", "type"),
    [
        ("spoken-digits 2.0", "spoken_digits_2_0", "SpokenDigits20"),
        ("2fast", "model_2fast", "Model2fast"),
        ("class", "model_class", "ModelClass"),
        ("__init__", "model_init", "ModelInit"),
        ("Ünï", "n", "N"),
        ("İ", "i", "I"),
        ("☃", "model", "Model"),
        ("", "model", "Model"),
    ],
)
def test_some_names(name: str, identifier: str, type: str) -> None:
    assert names.identifier(name) == identifier
    assert names.pascal_case(name) == type


@pytest.mark.parametrize(
    ("given", "members"),
    [
        (["input_ids", "attention_mask"], ("input_ids", "attention_mask")),
        (["image", "data", "map"], ("image", "data", "map")),  # what stands in the way nowhere stays
        (["class", "Prediction", "self"], ("class_", "Prediction_", "self_")),
        (["x", "X", "x.", "x__1", "1"], ("x", "X_2", "x_3", "x_1", "n1")),
        (["", "☃", "a\nb"], ("end", "end_2", "a_b")),
    ],
)
def test_some_members(given: list[str], members: tuple[str, ...]) -> None:
    assert names.members(given) == members


@given(st.lists(texts, max_size=8))
def test_members(texts: list[str]) -> None:
    found = names.members(texts)
    assert len({one.lower() for one in found}) == len(texts)
    assert all(re.fullmatch(r"[A-Za-z][A-Za-z0-9]*(_[A-Za-z0-9]+)*_?", one) for one in found)


@pytest.mark.parametrize("name", ["json", "numpy", "PIL", "log", "time", "onnxruntime", "asyncio"])
def test_nothing_that_is_needed_is_hidden(name: str) -> None:
    assert names.identifier(name) == f"model_{name.lower()}"


@pytest.mark.parametrize("words", [C, CPP, JAVA, KOTLIN, SWIFT, MACROS, " ".join(keyword.kwlist)])
def test_no_language_keeps_an_identifier_for_itself(words: str) -> None:
    kept = {word for word in words.split() if word.islower()}
    assert {names.identifier(word) for word in kept} & kept == set()


@pytest.mark.parametrize(
    ("compiler", "language", "standard"),
    [("gcc", "c", "gnu99"), ("gcc", "c", "gnu2x"), ("g++", "c++", "gnu++20")],
)
def test_compilers_take_every_identifier(tmp_path: Path, compiler: str, language: str, standard: str) -> None:
    """GNU modes, whose macros have names without underscores."""
    if shutil.which(compiler) is None:
        pytest.skip(f"needs {compiler}")
    words = " ".join((C, CPP, JAVA, KOTLIN, SWIFT, MACROS, *keyword.kwlist)).split()
    found = sorted({names.identifier(word) for word in words} | {*names.members(words)})
    members = "\n".join(f"  int {word};" for word in found)
    source = f"#include <errno.h>\n#include <stdio.h>\nstruct all {{\n{members}\n}};\n"
    flags = ["-x", language, f"-std={standard}", "-fsyntax-only", "-"]
    subprocess.run([compiler, *flags], input=source, text=True, cwd=tmp_path, check=True)
