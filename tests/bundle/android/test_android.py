from __future__ import annotations

import importlib.util
import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgekit.bundle.names import comment
from edgekit.bundle.targets import load
from edgekit.bundle.targets.android import TARGET, VERSIONS
from edgekit.bundle.targets.base import Files, Settings
from edgekit.bundle.targets.phones import real
from edgekit.errors import ExportError
from tests.bundle.made import KINDS, Kind, changed, contents, several
from tests.bundle.test_names import texts

CODE = (".kt", ".kts", ".xml", ".properties")


def files(kind: Kind = "image", **changes: Any) -> Files:
    return TARGET.files(contents(kind, **changes), Settings())


def written(made: Files, folder: Path) -> Path:
    for name, content in made.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    return folder


def code(made: Files) -> dict[str, str]:
    """Sources must be ASCII, so that no encoding can change them."""
    return {name: content.decode("ascii") for name, content in made.items() if name.endswith(CODE)}


def test_the_target() -> None:
    assert load("android") is TARGET
    assert TARGET.formats == ("litert",)


@pytest.mark.parametrize("kind", KINDS)
def test_what_a_module_holds(kind: Kind) -> None:
    made, given = files(kind), contents(kind)
    name = f"made_{kind}_2_0"
    assets = f"src/main/assets/{name}/"
    assert made[f"{assets}model.tflite"] == given.model.content
    assert json.loads(made[f"{assets}model.json"])["postprocessing"]["labels"] == (
        list(given.labels) if given.class_axis is not None else None
    )
    assert len(made[f"src/androidTest/assets/{name}/outputs.bin"]) == given.golden.outputs.nbytes
    assert {"README.md", "settings.gradle.kts", "build.gradle.kts"} < made.keys()
    assert made == files(kind)  # the same again


@pytest.mark.parametrize("kind", KINDS)
def test_grammars_take_it(kind: Kind, tmp_path: Path) -> None:
    pytest.importorskip("tree_sitter_kotlin", reason="pip install tree-sitter tree-sitter-kotlin")
    tried = TARGET.try_out(written(files(kind), tmp_path), tmp_path)
    assert tried.passed is None
    assert re.fullmatch(r"not built here: no Android SDK; [67] sources parsed without an error", tried.told)


def test_grammars_find_what_is_no_kotlin(tmp_path: Path) -> None:
    pytest.importorskip("tree_sitter_kotlin", reason="pip install tree-sitter tree-sitter-kotlin")
    written(files(), tmp_path)
    path = tmp_path / "src/main/kotlin/edgekit/made_image_2_0/Preprocessing.kt"
    path.write_text(path.read_text() + "\nfun broken( {\n")
    tried = TARGET.try_out(tmp_path, tmp_path)
    assert tried.passed is False
    assert "Preprocessing.kt:" in tried.told
    assert "no Kotlin" in tried.told


def test_a_broken_manifest_is_found(tmp_path: Path) -> None:
    written(files(), tmp_path)
    (tmp_path / "src/main/AndroidManifest.xml").write_text("<manifest>")
    tried = TARGET.try_out(tmp_path, tmp_path)
    assert tried.passed is False
    assert "AndroidManifest.xml" in tried.told


def test_without_a_grammar_it_says_how_to_get_one(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    tried = TARGET.try_out(written(files(), tmp_path), tmp_path)
    assert tried.passed is None
    assert tried.told.endswith("not parsed either: pip install tree-sitter tree-sitter-kotlin")


@pytest.mark.parametrize("kind", KINDS)
def test_only_images_know_cameras(kind: Kind) -> None:
    said = "".join(code(files(kind)).values()).lower()
    image = contents(kind).raw.layout != "any"
    assert ("imageproxy" in said) == ("camera" in said) == ("picture" in said) == image


def test_images_of_other_channels_have_no_camera_code() -> None:
    """Two channels, or twelve: nobody knows what of a picture they would be."""
    given = contents()
    raw = replace(given.raw, shape=(8, 6, 2))
    made = TARGET.files(changed(given, raw=raw, input=replace(given.input, shape=(1, 8, 6, 2))), Settings())
    assert not any("Picture" in name for name in made)


def test_versions_stand_in_the_gradle_files_and_the_readme() -> None:
    made = files()
    gradle = made["build.gradle.kts"].decode() + made["settings.gradle.kts"].decode()
    readme = made["README.md"].decode()
    assert f"com.google.ai.edge.litert:litert:{VERSIONS['litert']}" in gradle
    assert 'noCompress += "tflite"' in gradle
    for name in ("agp", "kotlin", "litert", "coroutines", "camera"):
        assert VERSIONS[name] in gradle
        assert VERSIONS[name] in readme
    assert "generated, not built" in readme
    assert "./gradlew connectedAndroidTest" in readme
    assert len(readme.splitlines()) < 100  # one page


@settings(max_examples=25, deadline=None)
@given(st.lists(texts, min_size=8, max_size=8), texts, texts, texts)
def test_names_stay_data(classes: list[str], file: str, license: str, version: str) -> None:
    """Sources are the same whatever stands in them, but for a version, which goes into a comment."""
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
    spec = json.loads(made["src/main/assets/made_image_2_0/model.json"])
    assert [one.encode("utf-16-le", "surrogatepass") for one in spec["postprocessing"]["labels"]] == [
        one.encode("utf-16-le", "surrogatepass") for one in classes
    ]
    ElementTree.fromstring(made["src/main/AndroidManifest.xml"])


@pytest.mark.parametrize("kind", KINDS)
def test_sources_are_tidy(kind: Kind) -> None:
    for name, source in code(files(kind)).items():
        assert not re.search(r"[ \t]\n|\n\n\n|\n\n\Z|\{\n\n|\n\n *\}", source), name
        assert source.endswith("\n"), name
        assert max(map(len, source.splitlines())) <= 120, name


def test_a_type_that_kotlin_lacks() -> None:
    given = contents("vector")
    with pytest.raises(ExportError, match="Kotlin has no array for"):
        TARGET.files(changed(given, raw=replace(given.raw, dtype="float16")), Settings())


def test_more_channels_than_code_can_name() -> None:
    given = contents("image")
    many = {**given.preprocessing, "mean": list(range(2000)), "std": [1.0] * 2000}
    with pytest.raises(ExportError, match="more channels") as caught:
        TARGET.files(changed(given, preprocessing=many), Settings())
    assert "--embed-preprocessing" in str(caught.value)


@given(st.floats(width=32, allow_nan=False, allow_infinity=False))
def test_literals_of_reals(value: float) -> None:
    """What Kotlin and Swift take for a number, and the same one in float32."""
    literal = real(value)
    assert re.fullmatch(r"-?\d+(\.\d+)?(e[+-]\d+)?", literal)
    assert np.float32(literal) == np.float32(value)


def test_a_module_of_several_is_tidy_and_kotlin(tmp_path: Path) -> None:
    """Each input and output has a package; no camera is known."""
    made = TARGET.files(several(*KINDS), Settings())
    assert made == TARGET.files(several(*KINDS), Settings())
    packages = {name.split("/")[-2] for name in made if name.endswith("processing.kt")}
    assert packages == {f"{kind}_in_input" for kind in KINDS} | {f"{kind}_out_output" for kind in KINDS}
    for name, source in code(made).items():
        assert not re.search(r"[ \t]\n|\n\n\n|\n\n\Z|\{\n\n|\n\n *\}", source), name
        assert source.endswith("\n"), name
    assert "camera" not in "".join(code(made).values())
    pytest.importorskip("tree_sitter_kotlin", reason="pip install tree-sitter tree-sitter-kotlin")
    tried = TARGET.try_out(written(made, tmp_path), tmp_path)
    assert tried.passed is None
    assert "sources parsed without an error" in tried.told
