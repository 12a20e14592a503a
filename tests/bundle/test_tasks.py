"""Every task and kind of input, from a run to a bundle that answers as its file does."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgekit.bundle.gathering import gather
from edgekit.bundle.targets import NAMES, load
from edgekit.bundle.targets.base import Settings
from edgekit.bundle.writing import write
from edgekit.pipeline import compress
from tests.bundle.conftest import FAST
from tests.e2e.test_tasks import CASES

WORKLOAD = """
import sys
sys.path.insert(0, {root!r})
from tests.e2e.test_tasks import workload as made

def workload():
    return made({name!r})
"""


@pytest.mark.slow
@pytest.mark.parametrize("name", CASES)
def test_every_target_answers_as_the_file_does(name: str, root: Path, tmp_path: Path) -> None:
    file = tmp_path / "a_workload.py"
    file.write_text(WORKLOAD.format(root=str(root), name=name))
    compress(file, "quick", out=tmp_path / "run", overrides=FAST)
    tried = {}
    for target in map(load, NAMES):
        for format in target.formats:
            contents = gather(tmp_path / "run", file, formats=(format,), precisions=("int8",))
            folder = tmp_path / f"{target.name}-{format}"
            write(contents, target, Settings(), folder)
            (tmp_path / f"{folder.name}-tried").mkdir()
            found = target.try_out(folder, tmp_path / f"{folder.name}-tried")
            tried[folder.name] = (found.passed, found.told)
    assert not [told for passed, told in tried.values() if passed is False], tried
    assert tried["python-litert"][0] is True
    assert tried["python-onnx"][0] is True
