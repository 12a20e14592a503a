from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgekit.bundle.names import comment, scalars
from edgekit.bundle.targets import load
from edgekit.bundle.targets.base import Files, Settings
from edgekit.bundle.targets.ios import LITERT, TARGET
from edgekit.errors import ExportError
from tests.bundle.made import KINDS, Kind, changed, contents, several
from tests.bundle.test_names import texts


def files(kind: Kind = "image", **changes: Any) -> Files:
    return TARGET.files(contents(kind, **changes), Settings())


def written(made: Files, folder: Path) -> Path:
    for name, content in made.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    return folder


def code(made: Files) -> dict[str, str]:
    """Sources must be ASCII, so that no encoding can change them."""
    return {name: content.decode("ascii") for name, content in made.items() if name.endswith(".swift")}


def test_the_target() -> None:
    assert load("ios") is TARGET
    assert TARGET.formats == ("litert",)


@pytest.mark.parametrize("kind", KINDS)
def test_what_a_package_holds(kind: Kind) -> None:
    made, given = files(kind), contents(kind)
    module = f"Made{kind.capitalize()}20Bundle"
    resources = f"Sources/{module}/Resources/"
    assert made[f"{resources}model.tflite"] == given.model.content
    assert json.loads(made[f"{resources}model.json"])["golden"]["samples"] == len(given.golden.samples)
    assert len(made[f"Tests/{module}Tests/Golden/inputs.bin"]) == given.golden.inputs.nbytes
    assert {"README.md", "Package.swift"} < made.keys()
    assert made == files(kind)  # the same again


@pytest.mark.parametrize("kind", KINDS)
def test_every_file_that_the_package_names_is_there(kind: Kind) -> None:
    made = files(kind)
    package = made["Package.swift"].decode()
    module = re.findall(r'\.target\(\s*name: "(\w+)"', package)[0]
    test = re.findall(r'\.testTarget\(\s*name: "(\w+)"', package)[0]
    assert f"import {module}\n" in made[f"Tests/{test}/GoldenTests.swift"].decode()
    copied = re.findall(r'\.copy\("([^"]+)"\)', package)
    assert len(copied) == 3
    for one in copied:
        folder = f"Sources/{module}" if "." in one else f"Tests/{test}"
        assert any(name.startswith(f"{folder}/{one}") for name in made)


@pytest.mark.parametrize("kind", KINDS)
def test_grammars_take_it(kind: Kind, tmp_path: Path) -> None:
    pytest.importorskip("tree_sitter_swift", reason="pip install tree-sitter tree-sitter-swift")
    tried = TARGET.try_out(written(files(kind), tmp_path), tmp_path)
    assert tried.passed is None
    assert re.fullmatch(r"not built here: no Xcode; [78] sources parsed without an error", tried.told)


def test_grammars_find_what_is_no_swift(tmp_path: Path) -> None:
    pytest.importorskip("tree_sitter_swift", reason="pip install tree-sitter tree-sitter-swift")
    written(files(), tmp_path)
    path = tmp_path / "Package.swift"
    path.write_text(path.read_text().replace("],", ")", 1))
    tried = TARGET.try_out(tmp_path, tmp_path)
    assert tried.passed is False
    assert re.fullmatch(r"Package\.swift:\d+: no Swift", tried.told)


@pytest.mark.parametrize("kind", KINDS)
def test_only_images_know_cameras(kind: Kind) -> None:
    said = "".join(code(files(kind)).values())
    image = contents(kind).raw.layout != "any"
    assert ("CVPixelBuffer" in said) == ("CoreVideo" in said) == image
    # Everything of CoreVideo's is left out where there is none.
    assert said.count("import CoreVideo") == (2 if image else 0)
    assert said.count("#if canImport(CoreVideo)") == said.count("#endif") == (3 if image else 0)


@pytest.mark.parametrize("kind", KINDS)
def test_braces_and_brackets_are_balanced(kind: Kind) -> None:
    """A grammar mends what it can; counting doesn't."""
    for name, source in code(files(kind)).items():
        bare = re.sub(r'"[^"\n]*"|//[^\n]*', "", source)
        for opening, closing in ("()", "[]", "{}"):
            assert bare.count(opening) == bare.count(closing), name


@pytest.mark.parametrize("kind", KINDS)
def test_indentation(kind: Kind) -> None:
    """Four blanks for each open brace: what templates get wrong first."""
    for name, source in code(files(kind)).items():
        depth = 0
        for line in source.splitlines():
            bare = re.sub(r'"[^"\n]*"|//.*', "", line)
            closed = len(re.match(r"[\s)}\]]*", bare)[0].strip())  # type: ignore[index]  # matches always
            if line and not line.lstrip().startswith(("#", "case", "default")):
                indent = len(line) - len(line.lstrip())
                assert indent == 4 * (depth - closed), f"{name}: {line}"
            depth += sum(map(bare.count, "([{")) - sum(map(bare.count, ")]}"))


def test_the_readme_says_what_was_not_done() -> None:
    readme = files()["README.md"].decode()
    assert "generated, not built" in readme
    assert "swift test" in readme
    assert LITERT["branch"] in readme
    assert len(readme.splitlines()) < 100  # one page


@settings(max_examples=25, deadline=None)
@given(st.lists(texts, min_size=8, max_size=8), texts, texts, texts)
def test_names_stay_data(classes: list[str], file: str, license: str, version: str) -> None:
    given = contents()
    nasty = changed(
        given,
        classes=tuple(classes),
        model=replace(given.model, name=file),
        card={"about": {"license": license}},
        version=version,
    )
    made, plain = TARGET.files(nasty, Settings()), TARGET.files(replace(given, version="9.8.7"), Settings())
    said = comment(version)
    assert code(made) == {name: source.replace("9.8.7", said) for name, source in code(plain).items()}
    spec = json.loads(made["Sources/MadeImage20Bundle/Resources/model.json"])
    # Foundation's decoder refuses lone surrogates: there are none.
    assert spec["postprocessing"]["labels"] == [scalars(one) for one in classes]


@pytest.mark.parametrize("name", ["swift", "foundation", "string", "class", "bundle"])
def test_no_module_has_the_name_of_another(name: str) -> None:
    package = files("vector", name=name)["Package.swift"].decode()
    assert re.findall(r'targets: \["(\w+)"\]', package)[0].endswith("Bundle")
    assert f"public actor Model{name.capitalize()}Model" in str(files("vector", name=name)) or (
        f"public actor {name.capitalize()}Model" in str(files("vector", name=name))
    )


@pytest.mark.parametrize("kind", KINDS)
def test_sources_are_tidy(kind: Kind) -> None:
    for name, source in code(files(kind)).items():
        assert not re.search(r"[ \t]\n|\n\n\n|\n\n\Z|\{\n\n|\n\n *\}", source), name
        assert source.endswith("\n"), name
        assert max(map(len, source.splitlines())) <= 120, name


def test_a_type_that_swift_lacks() -> None:
    given = contents("vector")
    with pytest.raises(ExportError, match="Swift has no array for"):
        TARGET.files(changed(given, raw=replace(given.raw, dtype="complex64")), Settings())


def test_a_package_of_several_is_tidy_and_swift(tmp_path: Path) -> None:
    """Types of each input and output begin with its name; braces, lines and grammar as elsewhere."""
    made = TARGET.files(several(*KINDS), Settings())
    assert made == TARGET.files(several(*KINDS), Settings())
    for name, source in code(made).items():
        assert not re.search(r"[ \t]\n|\n\n\n|\n\n\Z|\{\n\n|\n\n *\}", source), name
        bare = re.sub(r'"[^"\n]*"|//[^\n]*', "", source)
        assert all(bare.count(opening) == bare.count(closing) for opening, closing in ("()", "[]", "{}")), (
            name
        )
    said = "".join(code(made).values())
    assert "CoreVideo" not in said
    types = re.findall(r"\bstruct (\w+)", said)
    assert {"ImageInInputPreprocessing", "TokensOutOutputPrediction", "Sample", "Answer"} <= set(types)
    assert sorted(set(types) - {"Axis"}) == sorted(one for one in types if one != "Axis")  # each once
    pytest.importorskip("tree_sitter_swift", reason="pip install tree-sitter tree-sitter-swift")
    tried = TARGET.try_out(written(made, tmp_path), tmp_path)
    assert tried.passed is None
    assert "sources parsed without an error" in tried.told


def test_names_of_several_stay_data() -> None:
    """Lone surrogates in the classes of any output become readable, as in those of a single one."""
    given = several("image", "tokens")
    outputs = [replace(one, classes=("\ud800",) * len(one.labels)) for one in given.outputs]
    files = TARGET.files(replace(given, outputs=tuple(outputs)), Settings())
    (spec,) = (json.loads(content) for name, content in files.items() if name.endswith("model.json"))
    assert {label for one in spec["outputs"] for label in one["postprocessing"]["labels"]} == {"\ufffd"}
