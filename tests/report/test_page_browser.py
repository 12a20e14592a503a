"""The page in a real browser: Chromium, without a screen, through Playwright."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from edgekit.report.page import load, write

pytestmark = pytest.mark.browser

SECTIONS = ["summary", "way", "hurts", "confidence", "robustness", "layers", "files"]
SIZES = {"desktop": 1100, "phone": 390}


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    api = pytest.importorskip("playwright.sync_api", reason="pip install playwright")
    chromium = os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("chromium-browser")
    if chromium is None:
        pytest.skip("there is no Chromium: apt install chromium, or name one in CHROMIUM")
    with api.sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        yield opened
        opened.close()


class Shown:
    """A page in a window of a width, in light or dark; everything that it complained of or asked for."""

    def __init__(self, browser: Any, path: Path, width: int = 1100, scheme: str = "light") -> None:
        self.page = browser.new_page(viewport={"width": width, "height": 900}, color_scheme=scheme)
        self.said: list[str] = []
        self.asked: list[str] = []
        self.page.on("console", lambda message: self.said.append(f"{message.type}: {message.text}"))
        self.page.on("pageerror", lambda error: self.said.append(str(error)))
        self.page.on("request", lambda request: self.asked.append(request.url))
        self.page.goto(path.as_uri())

    def draw_all(self) -> int:
        """Scroll to every picture, as a reader does, until it is there; how many there are."""
        places = self.page.locator("[data-chart]")
        for index in range(places.count()):
            places.nth(index).scroll_into_view_if_needed()
            self.page.wait_for_selector(f"#{places.nth(index).get_attribute('id')}[data-drawn]")
        return int(places.count())


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("size", SIZES)
def test_all_is_drawn_without_complaints_or_requests(
    browser: Any, whole: Path, scheme: str, size: str
) -> None:
    shown = Shown(browser, whole / "report.html", SIZES[size], scheme)
    assert shown.draw_all() == 12
    assert shown.said == []
    assert [url for url in shown.asked if not url.startswith(("file:", "data:"))] == []
    for section in SECTIONS:
        assert shown.page.locator(f"#{section}").is_visible()
    # Nothing sticks out to the right: tables that are too wide scroll by themselves.
    assert shown.page.evaluate("document.documentElement.scrollWidth") == SIZES[size]
    back = shown.page.evaluate("getComputedStyle(document.body).backgroundColor")
    light = sum(map(int, re.findall(r"\d+", back)[:3])) > 3 * 128
    assert light == (scheme == "light")
    shown.page.close()


def test_text_stands_out_against_its_background(browser: Any, whole: Path) -> None:
    """WCAG 2.1, 1.4.3: a contrast of at least 4.5 for text, in light and in dark."""
    script = """() => [...document.querySelectorAll('p, td, th, a, h1, h2, h3, figcaption, summary, li')]
        .filter(one => one.textContent.trim() && one.offsetParent).map(one => {
            let back = one;
            const clear = () => getComputedStyle(back).backgroundColor === 'rgba(0, 0, 0, 0)';
            while (back && clear()) back = back.parentElement;
            return [one.tagName + '.' + one.className, getComputedStyle(one).color,
                    getComputedStyle(back || document.body).backgroundColor];
        })"""
    for scheme in ("light", "dark"):
        shown = Shown(browser, whole / "report.html", scheme=scheme)
        found = shown.page.evaluate(script)
        assert len(found) > 50
        weak = [one for one in found if contrast(one[1], one[2]) < 4.5]
        assert weak == []
        shown.page.close()


def contrast(text: str, back: str) -> float:
    def luminance(colour: str) -> float:
        parts = [int(part) / 255 for part in re.findall(r"\d+", colour)[:3]]
        linear = [part / 12.92 if part <= 0.03928 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    high, low = sorted((luminance(text), luminance(back)), reverse=True)
    return (high + 0.05) / (low + 0.05)


def test_a_point_of_the_pareto_plot_says_what_it_is(browser: Any, whole: Path) -> None:
    shown = Shown(browser, whole / "report.html")
    shown.draw_all()
    chart = shown.page.locator("[data-chart$=pareto]")
    chart.scroll_into_view_if_needed()
    chart.locator("path[aria-roledescription=point]").first.hover(force=True)
    shown.page.wait_for_selector("#vg-tooltip-element.visible")
    told = shown.page.locator("#vg-tooltip-element").inner_text()
    assert "original_fp32.onnx" in told or "tiny_int8" in told
    assert "p50, ms" in told
    assert "size, kB" in told
    shown.page.close()


def test_pictures_follow_from_light_to_dark(browser: Any, whole: Path) -> None:
    shown = Shown(browser, whole / "report.html")
    shown.draw_all()
    colours = "[...document.querySelectorAll('[data-chart] text')].map(one => one.getAttribute('fill'))"
    before = shown.page.evaluate(colours)
    shown.page.emulate_media(color_scheme="dark")
    shown.page.wait_for_function(f"JSON.stringify({colours}) !== {json_of(before)!r}")
    assert shown.said == []
    shown.page.close()


def json_of(values: list[str]) -> str:
    import json

    return json.dumps(values, separators=(",", ":"))


def test_the_keyboard_reaches_all_that_can_be_used(browser: Any, whole: Path) -> None:
    shown = Shown(browser, whole / "report.html")
    reached = []
    for _ in range(40):
        shown.page.keyboard.press("Tab")
        reached.append(
            shown.page.evaluate("document.activeElement.tagName + ' ' + document.activeElement.className")
        )
    assert reached[0] == "A skip"
    assert {"A ", "SUMMARY ", "DIV scroll"} <= set(reached)
    shown.page.close()


def test_without_scripts_the_tables_say_it(browser: Any, whole: Path) -> None:
    context = browser.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto((whole / "report.html").as_uri())
    assert page.locator("table").count() >= 6
    assert page.locator(".verdict").is_visible()
    context.close()


def test_half_a_run_is_shown_without_complaints(
    browser: Any, copy_of: Callable[..., Path], tmp_path: Path
) -> None:
    folder = copy_of(without=("report.json", "stages/3-qat/metrics.json"))
    write([load(folder)], tmp_path / "half.html")
    shown = Shown(browser, tmp_path / "half.html")
    assert shown.draw_all() >= 1
    assert shown.said == []
    assert "3-qat isn't finished" in shown.page.locator("#missing").inner_text()
    shown.page.close()
