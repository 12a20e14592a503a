"""Swift can't be run here, Kotlin can (``tests/bundle/android``): their arithmetic has to be the same."""

from __future__ import annotations

import re

import pytest

from edgekit.bundle.targets.android import TARGET as ANDROID
from edgekit.bundle.targets.base import Settings, Target
from edgekit.bundle.targets.ios import TARGET as IOS
from tests.bundle.made import KINDS, Kind, contents

UNTOUCHED: tuple[Kind, ...] = ("embedded", "tokens")  # samples go into the file as they are
IMAGES: tuple[Kind, ...] = ("image", "segmentation", "embedded", "resized")


def source(target: Target, kind: Kind, file: str) -> str:
    made = target.files(contents(kind), Settings())
    return next(content.decode() for name, content in made.items() if name.endswith(file))


def body(code: str, function: str) -> str:
    """What stands between the braces of a function, or behind its equals sign."""
    start = re.search(rf"(fun|func) {function}\(", code)
    assert start is not None, function
    rest = code[start.end() :]
    if found := re.match(r"[^{}]*?\) ?(?:: ?|-> ?)\w+ =\s+([^\n]+)", rest):
        return found[1]
    open = rest.index("{")
    depth, end = 1, open + 1
    while depth:
        depth += {"{": 1, "}": -1}.get(rest[end], 0)
        end += 1
    return rest[open + 1 : end - 1]


def plain(code: str) -> list[str]:
    """Lines without what the languages say differently."""
    for found, instead in (
        (r"\b(val|let|return|private|const|static)\b ?", ""),
        (r"\bSelf\.", ""),
        (r"(\d)f\b", r"\1"),
        (r"\.0\b", ""),
        (r"\(value\.toInt\(\) and 0xFF\)\.toFloat\(\)|Float\(value\)", "value"),
        (r"\browBytes\b", "rowStride"),
        (r"\bSCALE\b", "scale"),
        (r"\bMEAN\b", "mean"),
        (r"\bSTD\b", "std"),
        (r"\bWHITE\b", "white"),
        (r"\bCLASSES\b", "classCount"),
        (r"minOf", "min"),
        (r"Int\((\w+)\)", r"\1.toInt()"),
        (r"- Float\((\w+)\)|- \((\w+)\)", r"- \1\2"),
        (r"case (\d+): ", r"\1 -> "),
        (r"default: ", "else -> "),
    ):
        code = re.sub(found, instead, code)
    return [line.strip() for line in code.splitlines() if line.strip()]


@pytest.mark.parametrize("kind", KINDS)
def test_constants(kind: Kind) -> None:
    kotlin, swift = source(ANDROID, kind, "Preprocessing.kt"), source(IOS, kind, "Preprocessing.swift")
    pattern = r"\b(?:scale|mean|std)\b(?:: \[?Float\]?)? = (?:floatArrayOf\(|\[)?([-+.e\d, ]+)"
    found = [re.findall(pattern, "\n".join(plain(code))) for code in (kotlin, swift)]
    assert found[0] == found[1]
    assert len(found[0]) == (0 if kind in UNTOUCHED else 3)


@pytest.mark.parametrize("kind", [one for one in KINDS if one not in UNTOUCHED])
def test_normalising(kind: Kind) -> None:
    kotlin = body(source(ANDROID, kind, "Preprocessing.kt"), "normalised")
    swift = body(source(IOS, kind, "Preprocessing.swift"), "normalised")
    assert plain(kotlin) == plain(swift)


def test_resizing() -> None:
    kotlin, swift = (
        source(ANDROID, "resized", "Preprocessing.kt"),
        source(IOS, "resized", "Preprocessing.swift"),
    )
    assert plain(body(kotlin, "resized")) == plain(body(swift, "resized"))
    assert len(plain(body(swift, "resized"))) == 8


@pytest.mark.parametrize("kind", IMAGES)
def test_what_is_read_of_a_sample(kind: Kind) -> None:
    """Which value of the raw sample each input comes from, and in which order inputs are written."""
    kotlin, swift = source(ANDROID, kind, "Preprocessing.kt"), source(IOS, kind, "Preprocessing.swift")
    assert re.findall(r"sample\[([^\]]+)\]", kotlin) == re.findall(r"sample\[([^\]]+)\]", swift)
    loops = re.findall(r"for \((\w) in 0 until (\d+)\)", kotlin)
    assert loops == re.findall(r"for (\w) in 0\.\.<(\d+)", swift)


@pytest.mark.parametrize("kind", ["image", "autoencoder", "resized"])
def test_quantising(kind: Kind) -> None:
    kotlin = body(source(ANDROID, kind, "Preprocessing.kt"), "quantised")
    swift = body(source(IOS, kind, "Preprocessing.swift"), "quantised")
    numbers = r"(?<![A-Za-z])-?\d[\d.e-]*"
    in_kotlin, in_swift = ([float(one) for one in re.findall(numbers, code)] for code in (kotlin, swift))
    scale, zero_point, for_nan, *limits = in_swift
    assert in_kotlin == [scale, zero_point, *limits]
    assert for_nan == 0
    assert "round(" in kotlin
    assert ".rounded(.toNearestOrEven)" in swift


@pytest.mark.parametrize("kind", IMAGES)
def test_pictures(kind: Kind) -> None:
    kotlin, swift = source(ANDROID, kind, "Picture.kt"), source(IOS, kind, "Picture.swift")
    turned = [re.findall(r"(\d+|else) -> (.+)", "\n".join(plain(code))) for code in (kotlin, swift)]
    assert turned[0] == turned[1]
    assert len(turned[0]) == 4
    pair = [plain(body(code, "between")) for code in (kotlin, swift)]
    pair[1] = [line.replace("rest", "(down - y)") for line in pair[1] if not line.startswith("rest")]
    assert pair[0] == pair[1]


@pytest.mark.parametrize("kind", ["segmentation", "tokens"])
def test_positions(kind: Kind) -> None:
    kotlin, swift = source(ANDROID, kind, "Postprocessing.kt"), source(IOS, kind, "Postprocessing.swift")
    assert re.findall(r"start = (.+)", "\n".join(plain(kotlin))) == re.findall(
        r"start = (.+)", "\n".join(plain(swift))
    )
    compared = r"if \(?(values\[[^\]]+\] > values\[[^\]]+\])"
    assert re.findall(compared, kotlin) == re.findall(compared, swift) != []
