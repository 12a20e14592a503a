from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest

from edgekit.training.data.ahead import ahead


def threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "edgekit-ahead"]


@pytest.mark.parametrize("count", [0, 1, 2, 3, 50])
def test_the_same_items_in_the_same_order(count: int) -> None:
    assert list(ahead(iter(range(count)))) == list(range(count))
    assert threads() == []


def test_items_are_drawn_before_they_are_asked_for() -> None:
    drawn = threading.Semaphore(0)

    def items() -> Iterator[int]:
        for item in range(10):
            drawn.release()
            yield item

    found = ahead(items(), count=2)
    assert next(found) == 0
    for _ in range(4):  # the one that was given, two that wait, one that waits for a place
        assert drawn.acquire(timeout=60)
    assert not drawn.acquire(timeout=0.3)
    found.close()
    assert threads() == []


def test_an_error_comes_after_the_items_before_it() -> None:
    def items() -> Iterator[int]:
        yield 1
        raise OSError("the disk is gone")

    found = ahead(items())
    assert next(found) == 1
    with pytest.raises(OSError, match="the disk is gone"):
        next(found)
    assert threads() == []


def test_none_is_an_item_like_others() -> None:
    assert list(ahead(iter([None, None]))) == [None, None]


def test_closed_early_nothing_goes_on() -> None:
    given: list[int] = []

    def items() -> Iterator[int]:
        for item in range(1_000_000):
            given.append(item)
            yield item

    found = ahead(items())
    next(found)
    found.close()
    assert threads() == []
    assert len(given) <= 5
