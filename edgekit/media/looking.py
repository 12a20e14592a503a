"""What all data say of themselves: how they are split, copies, and what is damaged."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from edgekit.errors import DataError
from edgekit.media.listing import SPLITS, Listing
from edgekit.progress import Event, reading

__all__ = ["about_damaged", "told"]

_SHOWN, _FEW = 20, 5  # names in a message


def told(found: Listing[Any], trained: int, look: Mapping[str, Any]) -> dict[str, Any]:
    """All that is known of the data, as JSON values: what ``edgekit data`` shows.

    ``trained``: so many of the rows are to train on. ``look``: what ``Look.to_json`` gave; rows become names
    here, and all but "duplicates", "damaged" and "content" is passed on.
    """
    many = found.words.many
    rows = [one for split in SPLITS for one in found.splits[split]]
    counts = {split: found.counts(split) for split in SPLITS}
    groups = [
        {
            many: [found.name_of(rows[row].path) for row in group],
            "in_both_splits": group[0] < trained <= group[-1],
            "in_several_classes": len({rows[row].label for row in group}) > 1,
        }
        for group in look["duplicates"]
    ]
    damaged = [{"file": found.name_of(path), "why": why} for path, why in found.faults]
    damaged += [{"file": found.name_of(rows[row].path), "why": why} for row, why in look["damaged"]]
    return {
        "data": str(found.root),
        "kind": many,
        many: len(found),
        "split_by": found.split_by,
        "classes": [
            {"name": name, **{split: counts[split][label] for split in SPLITS}}
            for label, name in enumerate(found.classes)
        ],
        **{key: value for key, value in look.items() if key not in ("content", "damaged", "duplicates")},
        "duplicates": groups,
        "damaged": damaged,
        "other_files": found.others,
        "notes": [*found.notes, *_about_copies(groups, found)],
    }


def _about_copies(groups: Sequence[Mapping[str, Any]], found: Listing[Any]) -> list[str]:
    notes = []
    for key, what in (
        ("in_both_splits", "are in the training and in the validation data: accuracy will look too good"),
        ("in_several_classes", "are in several classes, of which one can be right"),
    ):
        some = [one[found.words.many] for one in groups if one[key]]
        if some:
            count = f"{len(some):,} {found.words.many}" if len(some) > 1 else f"1 {found.words.one}"
            verb = what if len(some) > 1 else what.replace("are in", "is in", 1)
            notes.append(f"{count} {verb} ({' = '.join(some[0][:2])})")
    return notes


def about_damaged(found: Mapping[str, Any], *, skip: bool, owner: str) -> None:
    """Tell what is left out, and all notes. ``found``: what ``told`` gave; ``owner``: the class that read
    them.

    Raises DataError: there are damaged files, and they aren't to be skipped; with their names.
    """
    damaged, many = found["damaged"], found["kind"]
    if damaged and not skip:
        lines = [f"{one['file']}: {one['why']}" for one in damaged[:_SHOWN]]
        more = [f"and {len(damaged) - _SHOWN:,} more"] if len(damaged) > _SHOWN else []
        raise DataError(
            f"a {many.removesuffix('s')} can't be read"
            if len(damaged) == 1
            else f"{len(damaged):,} {many} can't be read",
            where=found["data"],
            got="\n            ".join([*lines, *more]),
            expected=f"{found[many]:,} {many} that can be",
            next=f"replace or remove them, or leave them out: --skip-damaged, {owner}(…, skip_damaged=True)",
        )
    if damaged:
        names = ", ".join(one["file"] for one in damaged[:_FEW])
        more_names = len(damaged) - _FEW
        names += f" and {more_names:,} more" if more_names > 0 else ""
        reading(Event("warning", "data", f"{len(damaged):,} damaged {many_word(found)} left out: {names}"))
    for note in found["notes"]:
        reading(Event("warning", "data", note))


def many_word(found: Mapping[str, Any]) -> str:
    """What damaged ones are called: files, or texts that lie in rows of one."""
    return "texts" if found["kind"] == "texts" else "files"
