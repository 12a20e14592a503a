from __future__ import annotations

import errno
import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgekit import files
from edgekit.errors import DataError, DiskFullError, InputError
from edgekit.files import (
    atomic_create,
    atomic_write,
    disk_full,
    parse_json,
    refuse_unwritable,
    remove_leftovers,
    sha256,
    sha256_of,
    write_json,
)

JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@given(old=st.binary(max_size=100), new=st.binary(max_size=100))
def test_the_new_content_replaces_the_old(tmp_path: Path, old: bytes, new: bytes) -> None:
    path = tmp_path / "file"
    atomic_write(path, old)
    atomic_write(path, new)
    assert path.read_bytes() == new
    assert names(tmp_path) == ["file"]


def test_a_function_writes_to_the_temporary_path(tmp_path: Path) -> None:
    def write(path: Path) -> None:
        path.write_text("written")

    atomic_write(tmp_path / "file", write)
    assert (tmp_path / "file").read_text() == "written"


def test_the_users_umask_holds(tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        atomic_write(tmp_path / "file", b"x")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "file").stat().st_mode) == 0o640


def test_a_failing_writer_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    atomic_write(tmp_path / "file", b"old")

    def fail(path: Path) -> None:
        path.write_bytes(b"half")
        raise ValueError("the writer's own")

    with pytest.raises(ValueError, match="the writer's own"):
        atomic_write(tmp_path / "file", fail)
    assert (tmp_path / "file").read_bytes() == b"old"
    assert names(tmp_path) == ["file"]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_full_disk_leaves_the_old_file_and_says_so(tmp_path: Path) -> None:
    atomic_write(tmp_path / "file", b"old")

    def fill(path: Path) -> None:
        path.write_bytes(b"half")
        Path("/dev/full").write_bytes(b"x")

    with pytest.raises(DiskFullError, match="No space left") as caught:
        atomic_write(tmp_path / "file", fill)
    assert str(tmp_path / "file") in str(caught.value)
    assert "again" in caught.value.next
    assert (tmp_path / "file").read_bytes() == b"old"
    assert names(tmp_path) == ["file"]


def test_a_folder_that_may_not_be_written(tmp_path: Path) -> None:
    if os.geteuid() == 0:
        pytest.skip("root may write everywhere")
    tmp_path.chmod(0o500)
    try:
        with pytest.raises(DiskFullError, match="Permission denied"):
            atomic_write(tmp_path / "file", b"x")
    finally:
        tmp_path.chmod(0o700)


def test_a_missing_folder_is_no_full_disk(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        atomic_write(tmp_path / "missing" / "file", b"x")


def test_killed_at_any_moment_the_file_is_the_old_one_or_the_new_one(tmp_path: Path) -> None:
    path = tmp_path / "file"
    script = (
        "import sys; from pathlib import Path; from edgekit.files import atomic_write\n"
        "print('ready', flush=True)\n"
        "for i in range(10**9): atomic_write(Path(sys.argv[1]), bytes([i % 256]) * 300_000)"
    )
    for delay_ms in (1, 20, 33):
        command = [sys.executable, "-c", script, str(path)]
        with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
            assert process.stdout is not None
            process.stdout.readline()
            with pytest.raises(subprocess.TimeoutExpired):
                process.wait(0.05 + delay_ms / 1000)
            process.kill()
        content = path.read_bytes()
        assert len(content) == 300_000
        assert len(set(content)) == 1
    remove_leftovers(tmp_path)
    assert names(tmp_path) == ["file"]


def test_only_leftovers_are_removed(tmp_path: Path) -> None:
    (tmp_path / "below").mkdir()
    for name in (".file.1234abcd.tmp", "below/.other.json.00000000.tmp", "mine.tmp", ".hidden", "below/x"):
        (tmp_path / name).touch()
    remove_leftovers(tmp_path)
    assert sorted(str(p.relative_to(tmp_path)) for p in tmp_path.rglob("*")) == [
        ".hidden",
        "below",
        "below/x",
        "mine.tmp",
    ]


def test_which_errors_mean_a_full_disk() -> None:
    full = OSError(errno.ENOSPC, "No space left on device")
    wrapped = RuntimeError("the converter failed")
    wrapped.__cause__ = full
    for error in (full, wrapped, RuntimeError("PytorchStreamWriter: No space left on device")):
        assert isinstance(disk_full(error, "runs/x"), DiskFullError)
    for error in (OSError(errno.EACCES, "no"), ValueError("no"), DataError("no samples")):
        assert disk_full(error) is None
    assert isinstance(disk_full(OSError(errno.EACCES, "no"), refused=True), DiskFullError)


@given(JSON)
def test_the_hash_of_a_value_is_that_of_its_equal(value: object) -> None:
    import json

    assert sha256_of(value) == sha256_of(json.loads(json.dumps(value)))


@given(st.dictionaries(st.text(), st.integers()))
def test_the_order_of_keys_does_not_matter(value: dict[str, int]) -> None:
    assert sha256_of(value) == sha256_of(dict(reversed(value.items())))


def test_the_hash_of_a_file(tmp_path: Path) -> None:
    (tmp_path / "abc").write_bytes(b"abc")
    assert sha256(tmp_path / "abc") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"


def test_json_is_written_for_people(tmp_path: Path) -> None:
    write_json(tmp_path / "file", {"name": "R²"})
    assert (tmp_path / "file").read_text() == '{\n  "name": "R²"\n}\n'


# --- places ----------------------------------------------------------------------------------------------


def test_the_full_place_is_named_and_not_another(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    full = OSError(errno.ENOSPC, "No space left on device")
    out, temporary = tmp_path / "out", tmp_path / "temporary"
    monkeypatch.setattr("tempfile.tempdir", str(temporary))
    left = {out: 1 << 30, temporary: 0}
    monkeypatch.setattr(files, "_free", lambda path: left.get(path, 1 << 30))
    told = disk_full(full, out)
    assert told is not None
    assert told.where == str(temporary)
    assert "TMPDIR" in told.next
    left[out] = 0
    told = disk_full(full, out)
    assert told is not None
    assert told.where == str(out)
    assert "TMPDIR" not in told.next


def test_an_error_that_knows_its_file_names_it(tmp_path: Path) -> None:
    named = OSError(errno.ENOSPC, "No space left on device", str(tmp_path / "elsewhere/x"))
    assert str(disk_full(named, tmp_path / "run/y")).startswith(str(tmp_path / "elsewhere/x"))
    beside = OSError(errno.ENOSPC, "No space left on device", str(tmp_path / "run/.y.1234.tmp"))
    assert str(disk_full(beside, tmp_path / "run/y")).startswith(f"{tmp_path / 'run/y'}:")


def test_no_folder_for_temporary_files_is_told() -> None:
    error = FileNotFoundError(errno.ENOENT, "No usable temporary directory found in ['/nowhere']")
    assert "TMPDIR" in str(disk_full(error))


def test_a_file_is_created_whole_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "x"
    atomic_create(path, b"one")
    with pytest.raises(FileExistsError):
        atomic_create(path, b"two")
    assert path.read_bytes() == b"one"
    code = (
        "import resource, signal, sys; from pathlib import Path; from edgekit.files import atomic_create\n"
        "from edgekit.errors import DiskFullError\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN); resource.setrlimit(resource.RLIMIT_FSIZE, (9, 9))\n"
        "try: atomic_create(Path(sys.argv[1]), b'x' * 100)\n"
        "except DiskFullError as error: sys.exit(error.exit_code)"
    )
    done = subprocess.run([sys.executable, "-B", "-c", code, str(tmp_path / "y")], check=False)
    assert done.returncode == 2
    assert [one.name for one in tmp_path.iterdir()] == ["x"]


def test_what_can_not_be_written_is_refused_before_the_work(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    refuse_unwritable(tmp_path / "new/x.json")
    assert list((tmp_path / "new").iterdir()) == []
    for wrong in (tmp_path, tmp_path / "file/x.json", tmp_path / ("x" * 300), tmp_path / "\0"):
        with pytest.raises(InputError):
            refuse_unwritable(wrong)


@pytest.mark.parametrize("text", ["[" * 100_000, "{", "9" * 5000, ""])
def test_what_is_no_json_is_a_value_error(text: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        parse_json(text)


@pytest.mark.parametrize("text", ["NaN", "[-Infinity]", "1e999"])
def test_numbers_are_finite_where_that_is_asked(text: str) -> None:
    parse_json(text)
    with pytest.raises(ValueError, match="no number"):
        parse_json(text, finite=True)


def test_an_empty_folder_gives_way_and_a_full_one_is_told(tmp_path: Path) -> None:
    path = tmp_path / "x.json"
    path.mkdir()
    write_json(path, 1)
    assert path.read_text() == "1\n"
    (tmp_path / "y.json/inside").mkdir(parents=True)
    with pytest.raises(InputError, match="a folder is where a file has to go"):
        write_json(tmp_path / "y.json", 1)
    assert sorted(one.name for one in tmp_path.iterdir()) == ["x.json", "y.json"]
