"""Programs that stand as text in slow tests: no linter reads them there, while what they name moves."""

from __future__ import annotations

import ast
import builtins
import importlib
import importlib.util
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent
PROGRAMS = {
    f"{path.relative_to(ROOT)}": ast.literal_eval(node.value)
    for path in sorted(ROOT.rglob("test_*.py"))
    for node in ast.parse(path.read_text(encoding="utf-8")).body
    if isinstance(node, ast.Assign)
    and isinstance(node.targets[0], ast.Name)
    and node.targets[0].id == "SCRIPT"
    and isinstance(node.value, ast.Constant)
}


def test_there_are_some() -> None:
    assert "int8/test_foreign_matrix.py" in PROGRAMS


@pytest.mark.parametrize("where", PROGRAMS)
def test_all_that_they_name_is_there(where: str) -> None:
    tree = ast.parse(PROGRAMS[where])
    imported = [node for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)]
    for node in imported:
        if node.module is not None and node.module.split(".")[0] in ("edgekit", "tests"):
            module = importlib.import_module(node.module)
            missing = [one.name for one in node.names if not hasattr(module, one.name)]
            missing = [one for one in missing if importlib.util.find_spec(f"{node.module}.{one}") is None]
            assert not missing, f"{node.module} has no {', '.join(missing)}"
    kinds = (ast.Import, ast.ImportFrom)
    bound = {
        one.asname or one.name.split(".")[0]
        for n in ast.walk(tree)
        if isinstance(n, kinds)
        for one in n.names
    }
    names = [node for node in ast.walk(tree) if isinstance(node, ast.Name)]
    bound |= {node.id for node in names if isinstance(node.ctx, ast.Store)}
    bound |= {node.arg for node in ast.walk(tree) if isinstance(node, ast.arg)}
    defined = (ast.FunctionDef, ast.ClassDef)
    bound |= {node.name for node in ast.walk(tree) if isinstance(node, defined)}
    unknown = {node.id for node in names} - bound - set(dir(builtins))
    assert not unknown
