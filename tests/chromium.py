"""A page in a real browser: Debian's Chromium, driven by Playwright, from file://."""

import importlib.util
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

CHROMIUM = Path(os.environ.get("CHROMIUM", "/usr/bin/chromium"))
# What may be in the document at most: nothing that loads, and one script that runs.
FORBIDDEN = """() => ({
  elements: document.querySelectorAll("img, iframe, object, embed, link, base, video, audio, source, " +
    "template, form:not(dialog > form), style ~ style, meta[http-equiv=refresh], applet, frame, use").length,
  scripts: [...document.scripts].filter((s) => !s.type).length,
  polluted: ({}).polluted ?? null,
  violations: window.violations,
})"""
WATCH = """
  window.violations = [];
  addEventListener("securitypolicyviolation", (e) => window.violations.push(e.violatedDirective));
"""
# Texts whose contrast is under WCAG AA, as they are painted: through every background and opacity
# above them, in what is marked by a search too, and in placeholders.
CONTRAST = """() => {
  const canvas = new OffscreenCanvas(1, 1).getContext("2d", {willReadFrequently: true});
  const parse = (text) => {
    canvas.clearRect(0, 0, 1, 1);
    canvas.fillStyle = text;
    canvas.fillRect(0, 0, 1, 1);
    const [r, g, b, a] = canvas.getImageData(0, 0, 1, 1).data;
    return {rgb: [r, g, b], alpha: a / 255};
  };
  const mix = (under, over, share) => under.map((c, i) => c * (1 - share) + over[i] * share);
  const over = ({rgb, alpha}, under) => mix(under, rgb, alpha);
  const light = (rgb) => {
    const [x, y, z] = rgb.map((c) => (c /= 255) <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4);
    return 0.2126 * x + 0.7152 * y + 0.0722 * z;
  };
  const painted = (nodes, under, ink, marked) => {
    const [node, ...rest] = nodes, style = getComputedStyle(node);
    let paper = over(parse(style.backgroundColor), under);
    if (!rest.length && marked) paper = over(parse(marked), paper);
    const pair = rest.length ? painted(rest, paper, ink, marked) : [paper, over(parse(ink), paper)];
    return pair.map((colour) => mix(under, colour, Number(style.opacity)));
  };
  const found = [];
  const look = (node, style, text, marked) => {
    const nodes = [];
    for (let one = node; one; one = one.parentElement) nodes.unshift(one);
    const ink = node.namespaceURI.endsWith("svg") ? style.fill : style.color;
    const [low, high] = painted(nodes, [255, 255, 255], ink, marked).map(light).sort((a, b) => a - b);
    const size = parseFloat(getComputedStyle(node).fontSize);
    const large = size >= 24 || (size >= 18.66 && getComputedStyle(node).fontWeight >= 600);
    const ratio = (high + 0.05) / (low + 0.05);
    if (ratio < (large ? 3 : 4.5)) found.push([text.slice(0, 40), node.className?.baseVal ?? node.className, ratio]);
    return ratio;
  };
  for (const node of document.querySelectorAll("body *")) {
    if (!node.checkVisibility() || node.closest(":disabled, script, option")) continue;
    const text = [...node.childNodes].filter((c) => c.nodeType === 3).map((c) => c.data).join("").trim();
    if (text) look(node, getComputedStyle(node), text);
    if (node.placeholder) look(node, getComputedStyle(node, "::placeholder"), node.placeholder);
  }
  for (const [kind, ranges] of CSS.highlights)
    for (const range of ranges) {
      const node = range.startContainer.parentElement, style = getComputedStyle(node, `::highlight(${kind})`);
      look(node, style, `${kind}: ${range}`, style.backgroundColor);
    }
  return found;
}"""


def required(path: Path = CHROMIUM) -> Any:
    """Playwright. Where it or Chromium is missing the test is skipped, in CI it fails."""
    wanted = ""
    if importlib.util.find_spec("playwright") is None:
        wanted = "playwright is not installed: pip install playwright"
    elif not path.exists():
        wanted = f"no Chromium at {path}: apt-get install chromium, or set CHROMIUM to another one"
    if wanted and os.environ.get("CI"):
        pytest.fail(wanted, pytrace=False)
    if wanted:
        pytest.skip(wanted)
    from playwright import sync_api

    return sync_api


@contextmanager
def launched() -> Iterator[Any]:
    with required().sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=str(CHROMIUM), args=["--no-sandbox", "--disable-gpu"]
        )
        yield browser
        browser.close()


class Watched:
    """A page, and what it did that it must not do."""

    def __init__(self, page: Any) -> None:
        self.page = page
        self.errors: list[str] = []
        self.dialogs: list[str] = []
        self.requests: list[str] = []
        page.set_default_timeout(300_000)  # What is slow on a busy machine is no failure.
        page.add_init_script(WATCH)
        page.on("pageerror", lambda error: self.errors.append(str(error)))
        page.on("console", lambda m: self.errors.append(m.text) if m.type == "error" else None)
        page.on("dialog", self.dismiss)
        page.on("request", lambda request: self.requests.append(request.url))

    def dismiss(self, dialog: Any) -> None:
        self.dialogs.append(dialog.message)
        dialog.dismiss()

    def open(self, path: Path, hash: str = "") -> Any:
        self.page.goto("about:blank")
        self.requests.clear()
        self.page.goto(f"{path.as_uri()}{hash}")
        self.page.wait_for_selector("html[data-ready=all]")
        return self.page

    def check(self) -> None:
        """Nothing failed, nothing was asked for or loaded, no foreign script or element is there."""
        assert self.errors == []
        assert self.dialogs == []
        asked = {url.partition("#")[0] for url in self.requests if not url.startswith("blob:")}
        assert asked == {self.requests[0].partition("#")[0]}
        assert self.page.evaluate(FORBIDDEN) == {
            "elements": 0,
            "scripts": 1,
            "polluted": None,
            "violations": [],
        }


def until(page: Any, condition: str) -> None:
    """Wait for a condition. (Playwright's own way is refused by the page's policy: it is an eval.)"""
    ends = time.monotonic() + 60
    while time.monotonic() < ends:
        if page.evaluate(f"Boolean({condition})"):
            return
        page.wait_for_timeout(25)
    raise AssertionError(f"never true: {condition}")


def in_both_themes(page: Any, name: str) -> None:
    """Every text can be read in both, which differ."""
    paper: set[str] = set()
    for theme in ("light", "dark"):
        page.evaluate(f"setting('theme', '{theme}')")
        assert page.evaluate(CONTRAST) == [], (name, theme)
        paper.add(page.evaluate("getComputedStyle(document.body).backgroundColor"))
    assert len(paper) == 2


def prints_light(page: Any) -> None:
    """What is printed is the reading pane, whole and dark on white, whatever the screen shows."""
    page.set_viewport_size({"width": 1400, "height": 300})
    page.evaluate("setting('theme', 'dark')")
    page.emulate_media(media="print", color_scheme="dark")
    assert not page.locator("#side").is_visible()
    assert not page.locator("#bar").is_visible()
    assert page.locator("#reader .text").first.is_visible()
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    assert page.evaluate(CONTRAST) == []
    # All of it, over as many sheets as it takes: nothing is cut off at the height of a screen.
    height = page.evaluate("document.getElementById('reader').scrollHeight")
    assert page.evaluate("document.documentElement.scrollHeight") >= height > 300
    assert (
        page.evaluate("getComputedStyle(document.getElementById('reader')).overflowY") == "visible"
    )
    page.emulate_media(media="screen")
    sheets = page.pdf(format="A4").count(b"/Type /Page\n")
    assert height / 1400 < sheets < height / 500
