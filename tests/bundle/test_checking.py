"""A bundle that is named by a relative folder is checked as any other."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest

from edgekit.bundle import checking
from edgekit.bundle.targets.base import Tried
from edgekit.bundle.writing import RECORD
from edgekit.files import sha256
from edgekit.runs.folder import write_record


def test_what_is_built_elsewhere_finds_a_relative_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "bundles" / "tiny-arduino"
    folder.mkdir(parents=True)
    (folder / "golden.bin").write_bytes(b"right")
    files = {"golden.bin": sha256(folder / "golden.bin")}
    model = {"file": "a.tflite", "precision": "int8", "size_bytes": 5, "accuracy": 0.9, "metric": "top-1"}
    about = {
        "target": "arduino",
        "name": "tiny",
        "version": "1.0.0",
        "model": model,
        "activation_bytes": None,
    }
    write_record(folder / RECORD, "key", {**about, "files": files}, files)

    def try_out(bundle: Path, scratch: Path) -> Tried:
        monkeypatch.chdir(scratch)  # as what is built there
        return Tried((bundle / "golden.bin").read_bytes() == b"right", "read")

    monkeypatch.setattr(checking, "load", lambda name: SimpleNamespace(try_out=try_out))
    monkeypatch.chdir(tmp_path)
    found = checking.check(Path("bundles") / "tiny-arduino", allow_code=True)
    assert found.tried.passed
    assert found.folder == Path("bundles") / "tiny-arduino"  # as it was named
