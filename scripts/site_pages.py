"""What the documentation site is built of, into a folder: the pages of docs/, with links that hold there, and
pages that are made of the code: one for each command, the keys of recipes, the fields of reports.

    python scripts/site_pages.py build/pages     # `make docs` does that, and builds the site
"""

from __future__ import annotations

import ast
import inspect
import re
import shutil
import sys
import types
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any, Union, get_args, get_origin

import click
import typer
from pydantic import BaseModel

ROOT = Path(__file__).resolve().parent.parent
BESIDE = ("README.md", "CHANGELOG.md", "SECURITY.md", "CONTRIBUTING.md")  # by the names that pages have
_LINK = re.compile(r"\]\((?!https?:|#|mailto:)([^)#\s]+)(#[^)\s]*)?\)")


def main(folder: Path) -> int:
    """Write all pages; what was in the folder goes."""
    shutil.rmtree(folder, ignore_errors=True)
    (folder / "commands").mkdir(parents=True)
    for page in (*sorted((ROOT / "docs").glob("*.md")), *(ROOT / name for name in BESIDE)):
        name = "index.md" if page.name == "README.md" else page.name
        (folder / name).write_text(relinked(page, folder), encoding="utf-8")
    for name, text in commands():
        (folder / "commands" / f"{name}.md").write_text(text, encoding="utf-8")
    (folder / "recipe-keys.md").write_text(recipe_keys(), encoding="utf-8")
    (folder / "report-fields.md").write_text(report_fields(), encoding="utf-8")
    return 0


def relinked(page: Path, folder: Path) -> str:
    """A page whose links lead to where things lie in the site; results come along as they are."""

    def there(match: re.Match[str]) -> str:
        target, anchor = (page.parent / match[1]).resolve(), match[2] or ""
        if not target.exists():
            raise SystemExit(f"{page.relative_to(ROOT)}: {match[1]} isn't there")
        inside = target.relative_to(ROOT)
        if inside.parts[0] == "docs":
            return f"]({inside.name}{anchor})"
        if str(inside) in BESIDE:
            return f"]({'index.md' if inside.name == 'README.md' else inside.name}{anchor})"
        if target.is_file():
            copied = folder / "files" / inside
            copied.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(target, copied)
            return f"](files/{inside}{anchor})"
        raise SystemExit(f"{page.relative_to(ROOT)}: {match[1]} is a folder, which a site has none of")

    return _LINK.sub(there, page.read_text(encoding="utf-8"))


# --- commands ----------------------------------------------------------------------------------------------


def commands() -> Iterator[tuple[str, str]]:
    """A page for each command; those of a group share one."""
    from edgekit.cli.app import app

    root: Any = typer.main.get_command(app)
    for name, command in root.commands.items():
        parts = [_command(f"edgekit {name}", command, "#")]
        if isinstance(command, click.Group) or hasattr(command, "commands"):
            parts += [
                _command(f"edgekit {name} {one}", inner, "##") for one, inner in command.commands.items()
            ]
        yield name, "\n".join(parts)


def _command(name: str, command: Any, level: str) -> str:
    context = click.Context(command, info_name=name)
    lines = [f"{level} {name}", "", _prose(command.help or ""), ""]
    usage = " ".join(context.command.collect_usage_pieces(context))
    lines += ["```", f"{name} {usage}".strip(), "```", ""]
    rows = [row for parameter in command.params if (row := _parameter(parameter, context))]
    if rows:
        lines += ["| | |", "| --- | --- |", *rows, ""]
    return "\n".join(lines)


def _parameter(parameter: Any, context: click.Context) -> str | None:
    if getattr(parameter, "hidden", False):
        return None
    found = parameter.get_help_record(context)
    if found is None:
        return None
    names, told = found
    return f"| `{' '.join(names.split())}` | {_cell(told)} |"


def _prose(text: str) -> str:
    return inspect.cleandoc(text.split("\f")[0]).replace("\b\n", "")


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|").replace("<", "&lt;")


# --- recipes and reports -----------------------------------------------------------------------------------


def recipe_keys() -> str:
    """Every key of a recipe: type, default, and what the code says behind it."""
    from edgekit import recipe
    from edgekit.stages import STAGES

    text = ["# Keys of a recipe", "", _RECIPES, ""]
    text += _table("The recipe itself", "", recipe.Recipe, skip={"stages"})
    for name, stage in STAGES.items():
        text += _table(f"The stage {name}", f"stages.{name}.", stage.config)
    return "\n".join(text)


_RECIPES = """`edgekit recipe show NAME` prints a whole recipe, `edgekit recipe check FILE` looks at yours,
and `--set stages.prune.speedup=3` changes a key for one run. A key that isn't here is refused with the
nearest ones."""


def _table(title: str, prefix: str, model: type[BaseModel], skip: Collection[str] = ()) -> list[str]:
    lines = [f"## {title}", "", _prose(model.__doc__ or ""), ""]
    lines += ["| key | type | default | |", "| --- | --- | --- | --- |"]
    nested: list[tuple[str, type[BaseModel]]] = []
    notes = {name: note for one in reversed(model.__mro__) for name, note in _notes(one).items()}
    for name, field in model.model_fields.items():
        inner = _model_of(field.annotation)
        if name in skip or (name == "kind" and prefix):
            continue
        if inner is not None:
            nested.append((f"{prefix}{name}.", inner))
            continue
        default = _plain(field.get_default(call_default_factory=True))
        told = "required" if field.is_required() else f"`{default}`" if default else ""
        cells = (f"`{prefix}{name}`", *map(_cell, (_type(field.annotation), told, notes.get(name, ""))))
        lines.append(f"| {' | '.join(cells)} |")
    lines.append("")
    for path, inner in nested:
        lines += [line.replace("## ", "### ", 1) for line in _table(path.rstrip("."), path, inner)]
    return lines


def _model_of(annotation: Any) -> type[BaseModel] | None:
    """The one model that a field holds; several of them are told by their own table."""
    for one in (annotation, *get_args(annotation)):
        if isinstance(one, type) and issubclass(one, BaseModel):
            return one
    return None


def _plain(value: Any) -> str:
    if isinstance(value, tuple):
        return "[" + ", ".join(map(_plain, value)) + "]"
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    return str(value)


def _type(annotation: Any) -> str:
    """In the words of YAML."""
    origin, inside = get_origin(annotation), get_args(annotation)
    if annotation is type(None):
        return "null"
    if origin is Union or origin is types.UnionType:
        return " or ".join(dict.fromkeys(map(_type, inside)))
    if str(origin) == "typing.Literal":
        return " or ".join(f"`{one}`" for one in inside)
    if origin in (tuple, list, set, frozenset):
        return "list of " + _type(inside[0]) if inside else "list"
    if origin is dict:
        return "mapping"
    if origin is not None and inside:  # Annotated
        return _type(inside[0])
    return {"str": "text", "int": "whole number", "float": "number", "bool": "true or false"}.get(
        getattr(annotation, "__name__", ""), getattr(annotation, "__name__", str(annotation))
    )


def _notes(model: type) -> dict[str, str]:
    """Comments behind fields, by the fields' names."""
    try:
        source = inspect.cleandoc("\n" + inspect.getsource(model))
    except (OSError, TypeError):
        return {}
    lines = source.splitlines()
    found = {}
    for node in ast.parse(source).body[0].body:  # type: ignore[attr-defined]
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            line = lines[(node.end_lineno or node.lineno) - 1]
            note = line[node.end_col_offset :].partition("#")[2].strip()
            if note and not note.startswith(("noqa", "type:")):
                found[node.target.id] = note
    return found


def report_fields() -> str:
    """Every field of report.json, part by part."""
    from edgekit.report import summary

    text = ["# Fields of a report", "", _REPORTS, ""]
    todo, seen = [summary.Report], set()
    while todo:
        model = todo.pop(0)
        if model in seen:
            continue
        seen.add(model)
        notes = {name: note for one in reversed(model.__mro__) for name, note in _notes(one).items()}
        text += [f"## {model.__name__}", "", _prose(model.__doc__ or ""), ""]
        text += ["| field | type | |", "| --- | --- | --- |"]
        for name, field in model.model_fields.items():
            cells = (f"`{field.alias or name}`", *map(_cell, (_type(field.annotation), notes.get(name, ""))))
            text.append(f"| {' | '.join(cells)} |")
            inner = [one for one in _parts(field.annotation) if isinstance(one, type)]
            todo += [one for one in inner if issubclass(one, BaseModel)]
        text.append("")
    return "\n".join(text)


_REPORTS = """`Report.load("runs/…")` gives these as attributes, `report.json` as JSON."""


def _parts(annotation: Any) -> Iterator[Any]:
    yield annotation
    for one in get_args(annotation):
        yield from _parts(one)


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
