"""The pages that the site is made of, and the action: they hold what the code has."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site") / "pages"
    done = subprocess.run(
        [sys.executable, str(ROOT / "scripts" / "site_pages.py"), str(folder)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return folder


def test_every_page_is_in_the_navigation_and_there(pages: Path) -> None:
    def listed(entry: object) -> list[str]:
        if isinstance(entry, str):
            return [entry]
        inner = entry.values() if isinstance(entry, dict) else entry
        return [name for one in inner for name in listed(one)]  # type: ignore[attr-defined]

    navigation = listed(yaml.safe_load((ROOT / "mkdocs.yml").read_text())["nav"])
    there = {str(path.relative_to(pages)) for path in pages.rglob("*.md") if "files" not in path.parts}
    assert sorted(navigation) == sorted(there)


def test_every_command_has_a_page_with_its_options(pages: Path) -> None:
    from edgekit.cli.app import app

    for command in app.registered_commands:
        assert command.callback is not None
        name = command.name or command.callback.__name__
        assert f"# edgekit {name}" in (pages / "commands" / f"{name}.md").read_text()
    text = (pages / "commands" / "compress.md").read_text()
    assert "`--max-drop POINTS`" in text
    assert "## edgekit device probe" in (pages / "commands" / "device.md").read_text()


def test_keys_of_recipes_and_fields_of_reports(pages: Path) -> None:
    keys = (pages / "recipe-keys.md").read_text()
    assert "| `exports.batch` | whole number or null | `null` | none: free in ONNX, 1 in LiteRT |" in keys
    assert "| `stages.qat.ranges` | `mse` or `l4` or" in keys
    assert "`stages.qat.training.epochs`" in keys
    fields = (pages / "report-fields.md").read_text()
    assert "## Artifact" in fields
    assert "| `partitions` | whole number or null | pieces that the runtime hands" in fields


def test_the_action_runs_commands_that_there_are() -> None:
    steps = yaml.safe_load((ROOT / "action.yml").read_text())["runs"]["steps"]
    scripts = "\n".join(step.get("run", "") for step in steps)
    assert "${{" not in scripts  # what a pull request says never becomes part of a script
    for line in (part for part in scripts.splitlines() if "edgekit " in part):
        words = line[line.index("edgekit ") :].split(";")[0].split()
        options = [word for word in words if word.startswith("--")]
        help_text = subprocess.run(
            [sys.executable, "-m", "edgekit", words[1], "--help"], capture_output=True, text=True, check=True
        ).stdout
        assert all(option in help_text for option in options), line
