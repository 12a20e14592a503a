"""A bundle's folder: whole or not there, never over somebody's work, and every change is found."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from edgekit.bundle import checking, writing
from edgekit.bundle.contents import Contents
from edgekit.bundle.targets import NAMES, base, load
from edgekit.errors import BundleError, DiskFullError, InputError
from tests.bundle import made

PLAIN = base.Target(
    name="python",
    about="",
    formats=("litert",),
    files=lambda contents, settings: {"src/model.tflite": contents.model.content, "README.md": b"read me\n"},
    try_out=lambda folder, scratch: base.Tried(True, "nothing to try"),
)


def put(folder: Path, contents: Contents | None = None, *, force: bool = False) -> Path:
    return writing.write(contents or made.contents(), PLAIN, base.Settings(), folder / "b", force=force)


def test_every_file_stands_in_the_record_with_its_sha256(tmp_path: Path) -> None:
    bundle = put(tmp_path)
    record = checking.read(bundle)
    there = {str(path.relative_to(bundle)) for path in bundle.rglob("*") if path.is_file()}
    assert there == {*record["files"], "bundle.json"}
    assert {"LICENSE.txt", "MODEL_CARD.md", "README.md", "src/model.tflite"} <= there
    assert record["model"]["sha256"] == record["files"]["src/model.tflite"]
    assert [path.name for path in tmp_path.iterdir()] == ["b"]


def test_an_intact_bundle_is_replaced_and_a_changed_one_kept(tmp_path: Path) -> None:
    bundle = put(tmp_path)
    put(tmp_path, made.contents(version="2.0.0"))
    assert checking.read(bundle)["version"] == "2.0.0"
    (bundle / "README.md").write_text("my own words")
    with pytest.raises(InputError, match=r"README\.md was changed"):
        put(tmp_path)
    assert (bundle / "README.md").read_text() == "my own words"
    put(tmp_path, force=True)
    assert (bundle / "README.md").read_text() == "read me\n"


def test_added_files_are_somebodys_work(tmp_path: Path) -> None:
    bundle = put(tmp_path)
    (bundle / "notes.txt").write_text("mine")
    with pytest.raises(InputError, match=r"notes\.txt was added"):
        put(tmp_path)


@pytest.mark.parametrize("force", [False, True])
def test_another_folder_is_never_touched(tmp_path: Path, force: bool) -> None:
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "thesis.tex").write_text("years of work")
    with pytest.raises(InputError, match=r"thesis\.tex"):
        put(tmp_path, force=force)
    assert (tmp_path / "b" / "thesis.tex").read_text() == "years of work"


def test_what_fails_leaves_nothing_and_what_was_there(tmp_path: Path) -> None:
    bundle = put(tmp_path)
    before = (bundle / "bundle.json").read_bytes()
    broken = replace(PLAIN, files=lambda contents, settings: {"a": b"", "../outside": b""})
    with pytest.raises(InputError, match="outside"):
        writing.write(made.contents(), broken, base.Settings(), bundle)
    assert (bundle / "bundle.json").read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == ["b"]


def test_the_next_attempt_clears_up_after_a_killed_one(tmp_path: Path) -> None:
    for name in (".b.0123abcd.tmp", ".b.0123abcd.old", ".bb.0123abcd.tmp", ".b.mine"):
        (tmp_path / name).mkdir()
    put(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == [".b.mine", ".bb.0123abcd.tmp", "b"]


def test_a_full_disk_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(self: Path, content: bytes) -> int:
        raise OSError(28, "No space left on device", str(self))

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(DiskFullError):
        put(tmp_path)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["src/model.tflite", "README.md", "LICENSE.txt"])
def test_a_tampered_file_is_found_by_its_hash(tmp_path: Path, name: str) -> None:
    bundle = put(tmp_path)
    content = bytearray((bundle / name).read_bytes())
    content[-1] ^= 1
    (bundle / name).write_bytes(content)
    with pytest.raises(BundleError, match=f"{name} was changed"):
        checking.check(bundle)


def test_missing_files_and_a_tampered_record_are_found(tmp_path: Path) -> None:
    bundle = put(tmp_path)
    (bundle / "README.md").unlink()
    with pytest.raises(BundleError, match=r"README\.md can't be read"):
        checking.check(bundle)
    record = json.loads((bundle / "bundle.json").read_text())
    del record["files"]["README.md"]
    (bundle / "bundle.json").write_text(json.dumps(record))
    with pytest.raises(BundleError, match=r"bundle\.json was changed"):
        checking.check(bundle)


def test_no_bundle(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no bundle\.json"):
        checking.check(tmp_path)


def test_unknown_targets_get_a_hint() -> None:
    with pytest.raises(InputError, match="did you mean 'python'"):
        load("pyton")


@pytest.mark.parametrize("name", NAMES)
def test_every_target_loads_under_its_name(name: str) -> None:
    target = load(name)
    assert target.name == name
    assert target.formats


@pytest.mark.parametrize("name", ["a b.tflite", "../x.tflite", '"; rm -rf /', "m\n.tflite", "ü.tflite", "-x"])
def test_odd_file_names_become_plain(tmp_path: Path, name: str) -> None:
    contents = made.contents()
    odd = replace(contents, model=replace(contents.model, name=name))
    kept: list[str] = []
    target = replace(PLAIN, files=lambda c, s: kept.append(c.model.name) or {c.model.name: c.model.content})
    writing.write(odd, target, base.Settings(), tmp_path / "b")
    assert set(kept[0]) <= set("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-")
    assert kept[0][0] not in "-."
