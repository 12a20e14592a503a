"""Running a user's own code: its function found by name, its errors told as its own."""

from __future__ import annotations

import hashlib
import importlib.util
import inspect
import random
import sys
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import MappingProxyType, ModuleType
from typing import Any

import numpy as np
import torch

from edgekit.errors import EdgekitError, WorkloadError, did_you_mean
from edgekit.files import what_is
from edgekit.shortage import shortage

__all__ = ["call", "user_code", "user_traceback"]

_PACKAGE = str(Path(__file__).parent.parent)
_SEED = 0


def call(
    spec: str | Path, default: str, offered: Mapping[str, object] = MappingProxyType({})
) -> tuple[object, str]:
    """Call the function of ``"file.py:function"``, or ``default`` of ``"file.py"``: its result and its name.

    The file's folder is importable, and the global random generators are seeded. ``offered``: arguments that
    it is given if it has parameters of these names. Raises WorkloadError.
    """
    path, name = _parse(str(spec), default)
    function = _function(_import(path), path, name)
    where = f"{path}:{name}"
    with user_code(where, path.parent.resolve()):
        return function(**_taken(function, offered)), where


def _taken(function: Callable[..., Any], offered: Mapping[str, object]) -> dict[str, object]:
    """Those of the offered arguments that a function has parameters for."""
    if not offered:
        return {}
    known = inspect.signature(function).parameters.values()
    if any(one.kind is inspect.Parameter.VAR_KEYWORD for one in known):
        return dict(offered)
    return {one.name: offered[one.name] for one in known if one.name in offered}


def _parse(spec: str, default: str) -> tuple[Path, str]:
    """From "a/b.py:f" to (a/b.py, f)."""
    file, separator, name = spec.rpartition(":")
    path = Path(file) if separator and file.endswith(".py") else Path(spec)
    name = name if separator and file.endswith(".py") else default
    if path.is_file() and path.suffix == ".py":
        return path, name or default
    candidates = sorted(p.name for p in path.parent.glob("*.py")) if path.parent.is_dir() else []
    raise WorkloadError(
        "no such workload file",
        where=str(path),
        got="not a Python file" if path.is_file() else what_is(path),
        expected="FILE.py or FILE.py:FUNCTION",
        next=did_you_mean(path.name, candidates) if candidates else "leave it out to use the embedded demo",
    )


def _import(path: Path) -> ModuleType:
    resolved = path.resolve()
    name = f"edgekit_workload_{hashlib.sha256(str(resolved).encode()).hexdigest()[:12]}"
    found = importlib.util.spec_from_file_location(name, resolved)
    assert found is not None
    assert found.loader is not None  # a .py file always has one
    module = importlib.util.module_from_spec(found)
    sys.modules[name] = module  # dataclasses and pickling look their module up by name
    try:
        with user_code(str(path), resolved.parent):
            found.loader.exec_module(module)
    except BaseException:
        sys.modules.pop(name, None)
        raise
    return module


def _function(module: ModuleType, path: Path, name: str) -> Callable[..., Any]:
    function = getattr(module, name, None)
    if callable(function):
        return function  # type: ignore[no-any-return]
    own = [k for k, v in vars(module).items() if inspect.isfunction(v) and v.__module__ == module.__name__]
    own = [k for k in own if not k.startswith("_")]
    raise WorkloadError(
        f"no function {name!r} in the workload file",
        where=str(path),
        expected=f"def {name}() -> Workload",
        next=(did_you_mean(name, own) + f"; choose one with {path}:FUNCTION") if own else "",
    )


@contextmanager
def user_code(where: str, folder: Path | None = None) -> Iterator[None]:
    """Run the user's code: the same random numbers every time, its neighbours importable."""
    if folder is not None:
        sys.path.insert(0, str(folder))
    states = random.getstate(), np.random.get_state()
    try:
        with torch.random.fork_rng(devices=[]):
            random.seed(_SEED)
            np.random.seed(_SEED)
            torch.manual_seed(_SEED)
            yield
    except EdgekitError:
        raise
    except (Exception, SystemExit) as error:
        if (wanting := shortage(error, where)) is not None:  # no mistake of that code
            raise wanting from error
        raise WorkloadError(
            f"the workload's own code failed: {type(error).__name__}: {error}",
            where=where,
            next="see the traceback of that code above",
            user_traceback=user_traceback(error),
        ) from error
    finally:
        random.setstate(states[0])
        np.random.set_state(states[1])
        if folder is not None:
            # Behind everything else from now on: imports inside functions still work, and nothing is
            # shadowed.
            sys.path.remove(str(folder))
            if str(folder) not in sys.path:
                sys.path.append(str(folder))


def user_traceback(error: BaseException) -> str:
    """The traceback without edgekit's and the import system's frames, in all errors of the chain."""
    formatted = traceback.TracebackException.from_exception(error)
    todo: list[traceback.TracebackException | None] = [formatted]
    while todo:
        one = todo.pop()
        if one is None:
            continue
        kept = [f for f in one.stack if not f.filename.startswith((_PACKAGE, "<frozen importlib"))]
        one.stack = traceback.StackSummary.from_list(kept)
        todo += [one.__cause__, one.__context__, *(one.exceptions or ())]
    return "".join(formatted.format())
