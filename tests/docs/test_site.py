"""The built site: no dead link, all names in it, and an explorer that works in a browser.

`make test-docs` builds the site first. Without a site, playwright or Chromium these tests are skipped.
"""

import functools
import http.server
import importlib
import re
import threading
from pathlib import Path

import check_links
import make_reference
import numpy as np
import pytest

from keras_lrsched import schedules

DOCS = Path(__file__).parents[2] / "docs"
SITE = DOCS.parent / "build" / "site"
PAGE = "methods/explorer.html"

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not (SITE / PAGE).exists(), reason="needs the site that `make docs` builds"),
]


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *arguments):
        pass


@pytest.fixture(scope="module")
def address():
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=SITE))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


@pytest.fixture
def page(browser, address):
    """The explorer, with its first schedules drawn; nothing may fail or come from elsewhere."""
    context = browser.new_context(viewport={"width": 1200, "height": 900})
    context.grant_permissions(["clipboard-read", "clipboard-write"])
    page = context.new_page()
    wrong = []
    page.on("pageerror", lambda error: wrong.append(str(error)))
    page.on("requestfailed", lambda request: wrong.append(request.url))
    page.on("request", lambda request: wrong.extend([] if request.url.startswith((address, "data:")) else [request.url]))
    page.goto(f"{address}/{PAGE}")
    page.wait_for_selector("path[data-schedule=wsd]", state="attached")
    yield page
    assert wrong == []
    context.close()


def path(page, name):
    return page.locator(f"path[data-schedule={name}]").get_attribute("d")


def drawn(page, name):
    """The values that the curve shows, by the numbers at its axis."""
    points = np.array([point.split(",") for point in path(page, name)[1:].split("L")], "float64")
    labels = [float(text) for text in page.locator("text.se-y").all_text_contents()]
    lines = [float(line.get_attribute("y1")) for line in page.locator("line.se-grid").all()]
    slope, start = np.polyfit(lines, labels, 1)
    return slope * points[:, 1] + start, abs(slope)


def code(page, name):
    return page.locator(f"article[data-schedule={name}] code").inner_text()


def executed(text, steps=1000):
    names: dict = {}
    exec(text, names)
    return names["schedule"].values(np.linspace(0, steps, 501).astype(int))


def is_as_executed(page, name):
    values, pixel = drawn(page, name)
    np.testing.assert_allclose(values, executed(code(page, name)), atol=0.02 * pixel + 1e-9)
    return True


def test_links():
    assert list(check_links.problems(SITE)) == []


def test_every_public_name_is_on_its_page():
    for room in make_reference.ROOMS:
        for name in importlib.import_module(f"keras_lrsched.{room}").__all__:
            html = (SITE / make_reference.address(room, name)).with_suffix(".html").read_text(encoding="utf-8")
            assert f'id="keras_lrsched.{room}.{name}"' in html, name


WRITTEN = sorted(path.relative_to(DOCS).with_suffix(".html").as_posix() for path in DOCS.rglob("*.md"))
GENERATED = [
    "methods/fidelity.html",
    "benchmarks/measurements.html",
    "methods/schedules/index.html",
    "methods/schedules/REXDecay.html",
]


@pytest.mark.parametrize("width", [390, 1440])
def test_pages_fit_and_wide_tables_scroll(browser, address, width):
    """The page itself never scrolls sideways; a table that is wider than the page does, within its frame."""
    page = browser.new_page(viewport={"width": width, "height": 900})
    for name in WRITTEN + GENERATED:
        page.goto(f"{address}/{name}")
        page.wait_for_load_state("load")
        assert page.evaluate("document.documentElement.scrollWidth") <= width, name
        hidden = page.evaluate(HIDDEN_TABLES)
        assert not hidden, f"{name}: {hidden}"
    page.close()


HIDDEN_TABLES = """[...document.querySelectorAll(".md-content table")].filter((table) => {
  const frame = table.closest(".md-typeset__scrollwrap") || table.parentElement;
  const fits = table.getBoundingClientRect().right <= document.documentElement.clientWidth;
  return !fits && !["auto", "scroll"].includes(getComputedStyle(frame).overflowX);
}).map((table) => table.innerText.slice(0, 80))"""


def test_choose_two_and_change_one(page):
    for name in ("cosine", "linear", "wsd"):
        page.uncheck(f"input[name={name}]")
    assert page.locator("path.se-curve").count() == 0
    page.check("input[name=rex]")
    page.check("input[name=linear]")
    page.wait_for_selector("path[data-schedule=rex]", state="attached")
    assert page.locator("path.se-curve").count() == 2
    assert is_as_executed(page, "rex")
    assert is_as_executed(page, "linear")

    before = path(page, "rex"), path(page, "linear"), code(page, "rex")
    page.focus("article[data-schedule=rex] input[name=a]")
    page.keyboard.press("ArrowRight")
    assert path(page, "rex") != before[0]
    assert path(page, "linear") == before[1]
    assert code(page, "rex") != before[2]
    assert "REXDecay(0.0, decay_steps=950, warmup_target=0.01, warmup_steps=50, a=0.75, b=0.25)" in code(page, "rex")
    assert is_as_executed(page, "rex")


def test_the_run_changes_all(page):
    page.focus("input[name=steps]")
    page.keyboard.press("ArrowRight")
    page.focus("input[name=peak]")
    page.keyboard.press("Home")
    page.focus("input[name=warmup]")
    page.keyboard.press("Home")
    assert "schedule = LinearDecay(1.0, decay_steps=10000)" in code(page, "linear")
    values, pixel = drawn(page, "linear")
    np.testing.assert_allclose(values, executed(code(page, "linear"), steps=10_000), atol=0.02 * pixel)


def test_values_are_read_by_keyboard(page):
    page.focus("input[name=cursor]")
    page.keyboard.press("ArrowRight")
    (step,) = re.findall(r"step (\d+)", page.locator(".se-step").inner_text())
    assert step == "502"
    shown = float(page.locator("article[data-schedule=cosine] > output").inner_text())
    assert shown == pytest.approx(executed(code(page, "cosine"))[251], rel=1e-3)


def test_copied_line_gives_the_curve(page):
    page.select_option("article[data-schedule=wsd] select[name=cooldown]", "cosine")
    page.click("article[data-schedule=wsd] button")
    page.wait_for_function("document.querySelector('article[data-schedule=wsd] button').textContent === 'Copied'")
    copied = page.evaluate("navigator.clipboard.readText()")
    assert 'cooldown="cosine"' in copied
    values, pixel = drawn(page, "wsd")
    np.testing.assert_allclose(values, executed(copied), atol=0.02 * pixel)


def test_all_schedules_and_not_more_than_eight(page):
    for name in schedules.names():
        for other in page.locator(".se-list input:checked").evaluate_all("boxes => boxes.map((box) => box.name)"):
            page.uncheck(f"input[name={other}]")
        page.check(f"input[name={name}]")
        page.wait_for_selector(f"path[data-schedule={name}]", state="attached")
        assert is_as_executed(page, name)
    for name in schedules.names()[:7]:
        page.check(f"input[name={name}]")
    assert page.locator(".se-list input:disabled").count() == len(schedules.names()) - 8
    assert "8 at a time" in page.locator(".se-message").inner_text()


def test_logarithmic(page):
    before = path(page, "cosine")
    page.check("input[name=logarithmic]")
    assert path(page, "cosine") != before
    assert "NaN" not in path(page, "cosine")


def test_fits_a_narrow_window_in_the_dark(browser, address):
    context = browser.new_context(viewport={"width": 390, "height": 800}, color_scheme="dark")
    page = context.new_page()
    page.goto(f"{address}/{PAGE}")
    page.wait_for_selector("path[data-schedule=wsd]", state="attached")
    assert page.evaluate("document.body.dataset.mdColorScheme") == "slate"
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    context.close()
