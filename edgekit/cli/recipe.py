"""``edgekit recipe ls|show|check|cp``."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import Annotated

import typer

from edgekit.cli.common import Json, Sets, complete, exits, named, print_json, shown
from edgekit.cli.streams import say

recipes = typer.Typer(
    help="Recipes: how a model is compressed.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)

RecipeName = Annotated[
    str,
    typer.Argument(
        metavar="NAME|FILE",
        show_default=False,
        autocompletion=complete("recipes"),
        callback=named("recipes"),
    ),
]


@recipes.command("ls")
@exits
def recipe_ls(as_json: Json = False) -> None:
    """List the recipes that have a name."""
    from edgekit.recipe import list_recipes

    infos = list_recipes()
    if as_json:
        rows = [{"name": i.name, "description": i.description, "path": str(i.path)} for i in infos]
        faults = [{"fault": i.fault} if i.fault else {} for i in infos]
        print_json([row | fault for row, fault in zip(rows, faults, strict=True)])
    else:
        from edgekit.cli.views.console import console_on, recipes_view

        console_on(sys.stdout).print(recipes_view(infos))


@recipes.command("show")
@exits
def recipe_show(
    name: RecipeName,
    effective: Annotated[
        bool, typer.Option("--effective", help="With every default written out, instead of the file.")
    ] = False,
    sets: Sets = None,
    as_json: Json = False,
) -> None:
    """Print a recipe: its file, or what it amounts to."""
    from edgekit.recipe import dump, find_recipe, load_recipe

    if as_json:
        print_json(load_recipe(name, sets or ()).model_dump(mode="json"))
    elif effective or sets:
        say(dump(load_recipe(name, sets or ())), nl=False)
    else:
        say(shown(find_recipe(name)), nl=False)


@recipes.command("check")
@exits
def recipe_check(name: RecipeName, sets: Sets = None, as_json: Json = False) -> None:
    """Check a recipe, and tell all its faults at once."""
    from edgekit.errors import RecipeError
    from edgekit.recipe import load_recipe

    try:
        recipe = load_recipe(name, sets or ())
    except RecipeError as error:
        if as_json:
            print_json({"valid": False, "message": error.what, "faults": list(error.faults)})
        raise
    kinds = [stage.kind for stage in recipe.stages]
    if as_json:
        print_json({"valid": True, "name": recipe.name, "stages": kinds})
    else:
        say(f"{recipe.name}: can be used ({' → '.join(kinds) or 'no stages'})")


@recipes.command("cp")
@exits
def recipe_cp(
    name: RecipeName,
    destination: Annotated[Path, typer.Argument(metavar="DEST", help="A new file, or a folder.")],
    as_json: Json = False,
) -> None:
    """Copy a recipe to make it your own. Never overwrites."""
    from edgekit.errors import RecipeError
    from edgekit.files import atomic_create, read_bytes
    from edgekit.recipe import find_recipe

    source = find_recipe(name)
    target = destination / source.name if destination.is_dir() else destination
    if target.suffix not in (".yaml", ".yml"):
        target = target.with_name(target.name + ".yaml")
    content = read_bytes(source)
    try:
        atomic_create(target, content)
    except FileExistsError:
        raise RecipeError(
            "this file is already there, and is left as it is", where=str(target), next="give another name"
        ) from None
    except FileNotFoundError:
        raise RecipeError(
            "the folder isn't there", where=str(target.parent), next=f"mkdir -p {target.parent}"
        ) from None
    if as_json:
        print_json({"source": str(source), "path": str(target)})
    else:
        say(f"wrote {target}; use it with: edgekit compress --recipe {shlex.quote(str(target))}")
