"""A function in a process of its own: its result, its errors, its death."""

from __future__ import annotations

import builtins
import faulthandler
import json
import math
import os
import time
from typing import Any

import pytest

from edgekit.config.configfile import listing
from edgekit.devices import load_device
from edgekit.errors import DeviceError, MeasurementError, OutOfMemoryError
from edgekit.guarded import call


def test_the_result_comes_back() -> None:
    assert call(math.gcd, 12, 18, what="can't count") == 6
    value = {"text": "ü\n\"'", "numbers": [1, 2.5, None, True]}
    assert call(json.loads, json.dumps(value), what="can't parse") == value


def test_what_the_function_prints_is_not_its_result() -> None:
    assert call(builtins.print, '{"result": "forged"}', what="can't print") is None
    assert call(os.system, "echo '{\"result\": 1}'", what="can't echo") == 0


def test_an_exception_is_told_in_its_own_words() -> None:
    with pytest.raises(MeasurementError) as caught:
        call(json.loads, "{", what="can't read it", where="x.json", next="write it again")
    text = str(caught.value)
    assert text.startswith("x.json: can't read it")
    assert "JSONDecodeError: Expecting property name" in text
    assert "write it again" in text


def test_an_edgekit_error_stays_what_it_is() -> None:
    with pytest.raises(DeviceError, match="did you mean 'local'") as caught:
        call(load_device, "lokal", what="never shown")
    assert "never shown" not in str(caught.value)
    assert "local" in listing("devices")


@pytest.mark.parametrize(
    ("function", "arguments", "words"),
    [
        (getattr(faulthandler, "_sigsegv"), (), "SIGSEGV"),  # noqa: B009 - private, for this very purpose
        (os.abort, (), "SIGABRT"),
        (os._exit, (3,), "exit code 3"),
        (os.execv, ("/bin/sh", ["sh", "-c", "kill -KILL $$"]), "when memory runs out"),
    ],
)
def test_a_death_is_an_error(function: Any, arguments: tuple[Any, ...], words: str) -> None:
    with pytest.raises(MeasurementError) as caught:
        call(function, *arguments, what="can't run the model", where="model.tflite")
    assert words in caught.value.got
    assert isinstance(caught.value, OutOfMemoryError) == ("memory" in words)
    assert str(caught.value).startswith("model.tflite: can't run the model")


def test_last_words_are_kept() -> None:
    with pytest.raises(MeasurementError) as caught:
        call(os.execv, "/bin/sh", ["sh", "-c", "echo out of luck >&2; kill -ABRT $$"], what="can't")
    assert "SIGABRT" in caught.value.got
    assert "out of luck" in caught.value.got


def test_a_silent_process_is_given_up() -> None:
    started = time.monotonic()
    with pytest.raises(MeasurementError, match=r"no answer within 0\.5 s"):
        call(time.sleep, 60, what="can't wait", timeout_seconds=0.5)
    assert time.monotonic() - started < 20


def test_memory_is_limited() -> None:
    with pytest.raises(OutOfMemoryError, match="MemoryError"):
        call(bytearray, 4_000_000_000, what="can't allocate", memory_bytes=1_000_000_000)
    with pytest.raises(OutOfMemoryError, match="MemoryError"):
        call(bytearray, 10**15, what="can't allocate")
