"""What a command may do with whatever it is fed: work, or say what is wrong in one message, soon."""

from __future__ import annotations

import random
import time
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

from typer.testing import CliRunner, Result

from edgekit.cli import app as cli
from edgekit.cli.explain import explain

MOST_SECONDS = 10.0  # of this process: the machine may be busy
MOST_CHARACTERS = 60_000
tried: Counter[str] = Counter()

__all__ = ["command", "message", "seeded", "tried"]


def command(*arguments: str) -> Result:
    """A command's result, once it is certain that it behaved."""
    began = time.process_time()
    result = CliRunner().invoke(cli.app, list(arguments), prog_name="edgekit")
    _expect(result.stderr, result.exit_code, time.process_time() - began)
    return result


def message(call: Callable[..., Any], *arguments: Any) -> str:
    """What a person is told of a call that fails; "" for one that doesn't."""
    began = time.process_time()
    try:
        call(*arguments)
    except Exception as error:
        text, code = explain(error, "edgekit")
        _expect(text, code, time.process_time() - began)
        assert code == 2, text
        return text
    assert time.process_time() - began < MOST_SECONDS
    return ""


def seeded(kind: str, seed: int, count: int) -> Iterator[random.Random]:
    """``count`` sources of randomness. How many were used up is added to ``tried``, by kind."""
    for index in range(count):
        yield random.Random(f"{kind}-{seed}-{index}")
        tried[kind] += 1


def _expect(text: str, code: int, seconds: float) -> None:
    assert "failed unexpectedly" not in text, text
    assert "Traceback" not in text, text
    assert code in (0, 2), f"exit code {code}: {text}"
    assert len(text) < MOST_CHARACTERS, f"{len(text)} characters: {text[:500]}"
    assert all(one.isprintable() or one in "\n\t" for one in text), repr(text[:500])
    assert seconds < MOST_SECONDS, f"{seconds:.1f} s: {text[:500]}"
