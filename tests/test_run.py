from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgekit.errors import DiskFullError, RunFolderError
from edgekit.files import sha256
from edgekit.runs.folder import Damaged, RunFolder, check_files, finished, read_record, run_name, write_record

RUN: dict[str, Any] = {
    "workload": "digits",
    "fingerprint": "0" * 64,
    "stages": [{"kind": "prune", "speedup": 2.0}],
}


def content(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def other(**changes: Any) -> Mapping[str, Any]:
    return {**RUN, **changes}


# --- who a folder belongs to -----------------------------------------------------------------------------


def test_a_new_run_makes_its_folder_and_goes_on_in_it(tmp_path: Path) -> None:
    path = tmp_path / "runs" / "one"
    for _ in range(2):
        with RunFolder.open(path, RUN) as run:
            assert run.path == path
            (run.work / "big").touch()
    assert not (path / "work").exists()
    assert read_record(path / "run.json")["run"] == RUN  # type: ignore[index]


def test_another_run_is_refused_and_told_what_differs(tmp_path: Path) -> None:
    RunFolder.open(tmp_path / "run", RUN).close()
    before = content(tmp_path)
    with pytest.raises(RunFolderError, match="belongs to another run") as caught:
        RunFolder.open(
            tmp_path / "run", other(fingerprint="1" * 64, stages=[{"kind": "prune", "speedup": 3.0}])
        )
    assert "stages[0].speedup 2.0 there, 3.0 now" in caught.value.got
    assert "fingerprint 000000000000 there, 111111111111 now" in caught.value.got
    assert {name: data for name, data in content(tmp_path).items() if name != "run/.lock"} == {
        name: data for name, data in before.items() if name != "run/.lock"
    }


def test_a_folder_with_something_else_is_left_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("years of work")
    before = content(tmp_path)
    with pytest.raises(RunFolderError, match="something else") as caught:
        RunFolder.open(tmp_path, RUN)
    assert "thesis.tex" in caught.value.got
    assert content(tmp_path) == before


def test_hidden_files_of_others_count_as_something_else(tmp_path: Path) -> None:
    (tmp_path / ".git").mkdir()
    with pytest.raises(RunFolderError, match="something else"):
        RunFolder.open(tmp_path, RUN)


def test_a_file_is_no_folder(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(RunFolderError, match="is a file"):
        RunFolder.open(tmp_path / "file", RUN)


def test_a_run_killed_in_its_first_moments_is_continued(tmp_path: Path) -> None:
    (tmp_path / ".lock").write_text("4711\n")
    (tmp_path / ".run.json.1234abcd.tmp").write_text("{")
    RunFolder.open(tmp_path, RUN).close()
    assert sorted(content(tmp_path)) == [".lock", "run.json"]


def test_nobody_else_gets_in_meanwhile(tmp_path: Path) -> None:
    script = (
        "import sys, json; from pathlib import Path; from edgekit.errors import RunFolderError\n"
        "from edgekit.runs.folder import RunFolder\n"
        "try: RunFolder.open(Path(sys.argv[1]), json.loads(sys.argv[2]))\n"
        "except RunFolderError as error: print(error); sys.exit(error.exit_code)"
    )
    command = [sys.executable, "-c", script, str(tmp_path), json.dumps(RUN)]
    with RunFolder.open(tmp_path, RUN) as run:
        with pytest.raises(RunFolderError, match="in use"):
            RunFolder.open(tmp_path, RUN)
        (run.work / "kept").touch()
        refused = subprocess.run(command, capture_output=True, text=True, check=False)
        assert refused.returncode == 2
        assert "in use" in refused.stdout
        assert (run.work / "kept").exists()
    assert subprocess.run(command, check=False).returncode == 0


@pytest.mark.parametrize("damage", [b"", b"{", b'{"run": {}}', b"[]", b"\xff"])
def test_a_damaged_identity_is_refused(tmp_path: Path, damage: bytes) -> None:
    RunFolder.open(tmp_path, RUN).close()
    (tmp_path / "run.json").write_bytes(damage)
    with pytest.raises(RunFolderError, match="damaged"):
        RunFolder.open(tmp_path, RUN)
    assert (tmp_path / "run.json").read_bytes() == damage


def test_nothing_is_left_where_nothing_could_be_begun(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object, **__: object) -> None:
        raise DiskFullError("can't write")

    monkeypatch.setattr("edgekit.runs.folder.write_record", full)
    with pytest.raises(DiskFullError):
        RunFolder.open(tmp_path / "run", RUN)
    assert not (tmp_path / "run").exists()


def test_the_default_name_tells_runs_apart() -> None:
    names = {run_name("digits", "mobile", run) for run in (RUN, other(seed=1), other(fingerprint="2"))}
    assert len(names) == 3
    assert all(name.startswith("digits-mobile-") for name in names)


# --- records ---------------------------------------------------------------------------------------------


def finish(folder: Path) -> None:
    (folder / "weights").write_bytes(bytes(range(50)))
    write_record(folder / "stage.json", "key", {"note": "ok"}, {"weights": sha256(folder / "weights")})


def test_what_is_finished_is_found_by_its_key_alone(tmp_path: Path) -> None:
    assert finished(tmp_path / "stage.json", "key") is None
    finish(tmp_path)
    record = finished(tmp_path / "stage.json", "key")
    assert record is not None
    assert record["note"] == "ok"
    assert finished(tmp_path / "stage.json", "another key") is None


@given(data=st.data())
def test_any_changed_byte_is_noticed(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    folder = tmp_path_factory.mktemp("record")
    finish(folder)
    before = finished(folder / "stage.json", "key")
    path = folder / data.draw(st.sampled_from(["weights", "stage.json"]))
    whole = bytearray(path.read_bytes())
    place = data.draw(st.integers(0, len(whole) - 1))
    whole[place] ^= data.draw(st.integers(1, 255))
    path.write_bytes(whole)
    try:
        after = finished(folder / "stage.json", "key")
    except Damaged:
        return
    assert after == before  # white space between the values says nothing


@given(data=st.data())
def test_any_truncation_is_noticed(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    folder = tmp_path_factory.mktemp("record")
    finish(folder)
    path = folder / data.draw(st.sampled_from(["weights", "stage.json"]))
    whole = path.read_bytes().rstrip(b"\n")
    path.write_bytes(whole[: data.draw(st.integers(0, len(whole) - 1))])
    with pytest.raises(Damaged, match=r"weights|stage\.json"):
        finished(folder / "stage.json", "key")


def test_a_missing_file_is_noticed(tmp_path: Path) -> None:
    finish(tmp_path)
    (tmp_path / "weights").unlink()
    with pytest.raises(Damaged, match="weights can't be read"):
        check_files(tmp_path, {"weights": "0"})
