"""The page in a real browser: nothing complains, nothing is loaded, and it fits a phone and a screen."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from evaluations import record
from pages import CHROMIUM, RATES, Browser, chromium, page_of, whole_fill

from vlakit.evaluation.gallery import Film, video
from vlakit.reports.tables.runs import Filled

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="no chromium, chromium-browser or google-chrome on PATH"),
]
HOSTILE = "<script>window.spoilt = 1</script><img src=x onerror='window.spoilt = 1'>"
LONG = "A" * 300


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with chromium(tmp_path_factory.mktemp("profile")) as found:
        yield found


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A page with videos that play, a hostile failure and a word longer than any window."""
    folder = tmp_path_factory.mktemp("page")
    pytest.importorskip("av")
    pictures = [np.full((64, 64, 3), 20 * i, np.uint8) for i in range(8)]
    film = video(Film(record(0, "lift", 1), pictures), folder / "film.mp4", 5).read_bytes()
    fill = whole_fill(folder, {"0000_lift_success.mp4": film, "0003_push_failure.mp4": film})
    broken = replace(fill.runs[4], episodes=None, why=HOSTILE + LONG)
    file = folder / "page.html"
    file.write_text(page_of(Filled([*fill.runs[:4], broken, *fill.runs[5:]], [LONG])))
    return file


def test_the_watch_sees_what_a_page_loads_and_what_goes_wrong(browser: Browser, tmp_path: Path) -> None:
    file = tmp_path / "bad.html"
    file.write_text('<img src="nothing.png"><script>nowhere()</script><p style="width:2000px">wide</p>')
    browser.open(file, 390)
    assert any(url.endswith("nothing.png") for url in browser.asked)
    assert len(browser.complaints) >= 2
    assert browser.value("document.documentElement.scrollWidth") >= 2000


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [390, 1280])
def test_only_boxes_scroll_sideways_and_nothing_complains(
    browser: Browser, page: Path, width: int, scheme: str
) -> None:
    browser.open(page, width, scheme=scheme)
    assert browser.value("document.documentElement.scrollWidth") <= width
    assert browser.value("document.documentElement.clientWidth") == width
    assert browser.complaints == []
    assert {url.partition(":")[0] for url in browser.asked} == {"file", "data"}
    assert sum(url.startswith("file") for url in browser.asked) == 1
    assert browser.value("window.spoilt === undefined")


def test_a_phone_scrolls_the_table_in_its_box(browser: Browser, page: Path) -> None:
    browser.open(page, 390)
    inner, outer = browser.value("(b => [b.scrollWidth, b.clientWidth])(document.querySelector('.box'))")
    assert outer < 390 < inner
    sizes = "[...document.querySelectorAll('text, td, small')].map(e => parseFloat(getComputedStyle(e).fontSize))"
    assert min(browser.value(sizes)) >= 11
    edges = "[...document.querySelectorAll('svg')].map(e => e.getBoundingClientRect().right)"
    assert max(browser.value(edges)) <= 390


def test_ink_stands_out_in_both_schemes(browser: Browser, page: Path) -> None:
    light: dict[str, list[int]] = {}
    for scheme in ("light", "dark"):
        browser.open(page, 1280, scheme=scheme)
        style = "(s => [s.color, s.backgroundColor].map(c => +c.match(/[0-9]+/)[0]))(getComputedStyle(document.body))"
        light[scheme] = browser.value(style)
    assert light["light"][0] + 150 < light["light"][1]
    assert light["dark"][1] + 150 < light["dark"][0]


def test_every_video_plays(browser: Browser, page: Path) -> None:
    browser.open(page, 1280)
    ready = "Promise.all([...document.querySelectorAll('video')].map(v => v.play().then(() => v.videoWidth)))"
    assert browser.value(ready) == [64] * 2 * len(RATES)
