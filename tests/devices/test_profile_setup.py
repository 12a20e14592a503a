"""``setup`` in a profile, changed in its text."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgekit.config.configfile import dump_yaml, parse_yaml
from edgekit.devices.profile_setup import pointed_at, write_setup

NEW = "PYTHONPATH=/home/pi/edgekit-site/cp311-abc"


@pytest.mark.parametrize(
    ("setup", "folder", "expected"),
    [
        ([], "/h/edgekit-site/a", ("PYTHONPATH=/h/edgekit-site/a",)),
        (["A=1", "PYTHONPATH=/own"], "/h/edgekit-site/a", ("A=1", "PYTHONPATH=/h/edgekit-site/a:/own")),
        (["PYTHONPATH=/h/edgekit-site/b:/own"], "/h/edgekit-site/a", ("PYTHONPATH=/h/edgekit-site/a:/own",)),
        (["PYTHONPATH=/h/edgekit-site/b:/own", "A=1"], "", ("A=1", "PYTHONPATH=/own")),
        (["PYTHONPATH=/h/edgekit-site/b"], "", ()),
        (
            ["PYTHONPATHS=/x", "PYTHONPATH=/edgekit-site-of-mine"],
            "",
            ("PYTHONPATHS=/x", "PYTHONPATH=/edgekit-site-of-mine"),
        ),
    ],
)
def test_ours_comes_first_and_the_user_s_stays(
    setup: list[str], folder: str, expected: tuple[str, ...]
) -> None:
    assert pointed_at(setup, folder, "edgekit-site") == expected


@pytest.mark.parametrize(
    "text",
    [
        "name: a # mine\ntransport: ssh\n",
        "name: a # mine\ntransport: ssh",
        "setup: [A=1]\nname: a # mine\n",
        "name: a # mine\nsetup:\n  - A=1\n  - B=2\ntransport: ssh\n",
        "name: a # mine\nsetup:\n- A=1\n- B=2\ntransport: ssh\n",
        "name: a # mine\nsetup: [A=1,\n  B=2]\n",
        "name: a # mine\nsetup: []\n\ntransport: ssh\n",
    ],
)
@pytest.mark.parametrize("setup", [(NEW,), ()])
def test_nothing_else_changes(tmp_path: Path, text: str, setup: tuple[str, ...]) -> None:
    path = tmp_path / "a.yaml"
    path.write_text(text)
    assert write_setup(path, setup)
    before, after = parse_yaml(text), parse_yaml(path.read_text())
    assert tuple(after.pop("setup", ())) == setup
    before.pop("setup", None)
    assert after == before
    assert "# mine" in path.read_text()


@pytest.mark.parametrize("text", ["{name: a, setup: [A=1]}\n", "'setup': [A=1]\nname: a\n"])
def test_what_is_not_told_apart_is_left_as_it_is(tmp_path: Path, text: str) -> None:
    path = tmp_path / "a.yaml"
    path.write_text(text)
    assert not write_setup(path, (NEW,))
    assert path.read_text() == text


VALUES = st.lists(
    st.from_regex(r"[A-Z]+=[^\n\r\x00-\x1f\x7f-\xa0\ud800-\udfff]*", fullmatch=True), max_size=3
)


@given(VALUES, VALUES, st.booleans())
def test_whatever_was_there_it_is_right_or_unchanged(
    tmp_path_factory: pytest.TempPathFactory, old: list[str], new: list[str], last: bool
) -> None:
    path = tmp_path_factory.mktemp("setup") / "a.yaml"
    content = {"name": "a", "setup": old} if last else {"setup": old, "name": "a"}
    path.write_text(dump_yaml(content))
    wrote = write_setup(path, new)
    assert wrote
    after = parse_yaml(path.read_text())
    assert (after["name"], after.get("setup", [])) == ("a", new)
