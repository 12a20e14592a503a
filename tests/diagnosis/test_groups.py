from __future__ import annotations

import numpy as np
import pytest

from edgekit.diagnosis.groups import gap, per_group


def test_each_group_and_the_gap_between_them() -> None:
    groups = ["night", "day", "day", "night", "day", "night"]
    before = np.array([True, True, True, True, True, False])
    after = np.array([False, True, True, False, True, True])
    rows = per_group(groups, before, after)
    assert [(row.name, row.samples, row.before.value, row.after.value) for row in rows] == [
        ("day", 3, 1.0, 1.0),
        ("night", 3, pytest.approx(2 / 3), pytest.approx(1 / 3)),
    ]
    assert rows[1].change.value == pytest.approx(-1 / 3)
    assert gap(rows) == (pytest.approx(1 / 3), pytest.approx(2 / 3))


def test_one_group_has_no_gap() -> None:
    assert gap(per_group(["all"] * 2, np.ones(2, bool), np.ones(2, bool))) is None


def test_unequal_lengths() -> None:
    with pytest.raises(ValueError, match="unequal lengths"):
        per_group(["a"], np.ones(2, bool), np.ones(2, bool))
