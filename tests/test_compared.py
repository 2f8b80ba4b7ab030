"""`cai compare` as it is read: in a terminal, as JSON, and as a page in a real browser."""

import json
import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from page_runs import hostile_run
from payloads import PAYLOADS
from rich.console import Console
from run_folder import build_run, read_json, write_json, write_lines

from cai.cli_compare import compare as command
from cai.compare import Comparison, compare
from cai.run import read_rows
from cai.view.compared import show_comparison
from cai.view.compared_page import write_page
from cai.view.compared_prompt import show_prompt

CONTROL = re.compile(r"[\x00-\x09\x0b-\x1f\x7f-\x9f\u200b-\u200f\u2028-\u202e\u2066-\u2069\ufeff]")
CHROMIUM = os.environ.get("CHROMIUM", "/usr/bin/chromium")
WATCH = """
  window.violations = [];
  addEventListener("securitypolicyviolation", (e) => window.violations.push(e.violatedDirective));
"""
FOREIGN = """() => [document.querySelectorAll("img, iframe, object, embed, link, base, video, audio, " +
  "form:not(dialog > form), meta[http-equiv=refresh]").length,
  [...document.scripts].filter((s) => !s.type).length, window.violations.length]"""


def completed(run: Path) -> Path:
    """The synthetic run with a constitution that says everything one has to say."""
    path = run / "inputs" / "constitution.json"
    write_json(path, read_json(path) | dict.fromkeys(("description", "source", "license"), "x"))
    return run


def rewritten(run: Path, copy: Path) -> Path:
    """A copy in which one principle is edited and what it asked for came out otherwise."""
    shutil.copytree(run, copy)
    constitution = read_json(copy / "inputs" / "constitution.json")
    edited = constitution["principles"][0]
    edited["critique"] += " Briefly."
    write_json(copy / "inputs" / "constitution.json", constitution)
    path = copy / "01-revise" / "records.jsonl"
    rows, ids = list(read_rows(path)), dict[str, str]()
    for row in rows:
        if row.get("principle_id") == edited["id"] or row.get("parent_id") in ids:
            ids[row["id"]] = row["id"][::-1]
            row |= {"id": row["id"][::-1], "text": f"{row['text']} Otherwise."}
            row["parent_id"] = ids.get(row["parent_id"], row["parent_id"])
    write_lines(path, rows)
    return copy


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("runs")
    one = completed(build_run(folder / "one"))
    return one, rewritten(one, folder / "two")


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> Comparison:
    folder = tmp_path_factory.mktemp("hostile")
    one = completed(hostile_run(folder / "one"))
    return compare(one, rewritten(one, folder / "two"))


def printed(comparison: Comparison, width: int = 100, prompt: int | None = None) -> str:
    console = Console(width=width, markup=False, highlight=False, emoji=False, color_system=None)
    with console.capture() as capture:
        if prompt is None:
            show_comparison(comparison, console)
        else:
            show_prompt(comparison._replace(prompts=[comparison.prompts[prompt]]), console)
    return capture.get()


def invoke(*arguments: str | Path) -> Result:
    return CliRunner().invoke(command, [str(one) for one in arguments])


def test_the_terminal_says_what_differs_and_why(runs: tuple[Path, Path]) -> None:
    text = printed(compare(*runs))
    assert "principle overall-harm: edited" in text
    assert (
        "critique: Look for anything that could hurt someone (overall-harm). {+Briefly.+}" in text
    )
    assert "1 principles are the same in harmless 1.0 and harmless 1.0." in text
    assert re.search(r"principle overall-harm: its critique text was\s+edited", text)
    assert "not compared" not in text
    assert "Every number is the same: labelled pairs, answer of base, answer of sft" in text
    assert re.search(r"Both chains side by side: cai compare \S+one\s+\S+two \w{8}", text)


def test_two_equal_runs_take_few_lines(runs: tuple[Path, Path]) -> None:
    text = printed(compare(runs[0], runs[0]))
    assert "Everything is the same" in text
    assert "prompts that changed" not in text
    assert len(text.splitlines()) < 35


def test_a_prompt_is_shown_side_by_side_where_there_is_room(runs: tuple[Path, Path]) -> None:
    comparison = compare(*runs)
    wide, narrow = (printed(comparison, width, 0) for width in (110, 50))
    assert "from critique 2 on: principle overall-harm: its critique text was edited" in wide
    assert "revision 2" in wide
    beside = [line for line in wide.splitlines() if line.count("overall-harm: Look for") == 2]
    assert beside
    assert not any(line.count("overall-harm: Look for") == 2 for line in narrow.splitlines())
    assert "{+Otherwise.+}" in wide
    assert "response  the same" in wide


@pytest.mark.parametrize("prompt", [None, *range(0, len(PAYLOADS), 7)])
def test_no_control_character_of_a_run_reaches_the_terminal(
    hostile: Comparison, prompt: int | None
) -> None:
    assert not CONTROL.search(printed(hostile, 100, prompt))


def test_json_has_everything(runs: tuple[Path, Path]) -> None:
    result = invoke(*runs, "--json")
    assert result.exit_code == 0
    data = json.loads(result.stdout)
    assert [p["id"] for p in data["inputs"]["constitution"]["principles"]] == ["overall-harm"]
    chain = data["prompts"][0]["threads"][0]
    assert chain["items"][3]["causes"][0]["kind"] == "principle edited"
    assert data["prompts"][0]["whys"]["chain"].startswith("from critique 2 on")
    one = json.loads(invoke(*runs, data["prompts"][3]["prompt"]["id"][:10], "--json").stdout)
    assert one["prompts"] == [data["prompts"][3]]


def test_the_command_writes_a_page_and_names_what_is_wrong(
    runs: tuple[Path, Path], tmp_path: Path
) -> None:
    page = tmp_path / "page.html"
    assert invoke(*runs, "--html", page).exit_code == 0
    assert page.read_text().startswith("<!doctype html>")
    result = invoke(runs[0], tmp_path / "nowhere")
    assert "no run there" in str(result.exception)
    result = invoke(*runs, "zzz")
    assert "is no prompt of which both" in str(result.exception)


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    if not Path(CHROMIUM).exists():
        pytest.skip(f"no Chromium at {CHROMIUM}")
    with api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


class Opened:
    """A page, and what it did that it must not do."""

    def __init__(self, browser: Any, path: Path, hash: str = "") -> None:
        self.page = browser.new_page(viewport={"width": 1300, "height": 900})
        self.wrong: list[str] = []
        self.page.add_init_script(WATCH)
        self.page.on("pageerror", lambda error: self.wrong.append(str(error)))
        self.page.on("console", lambda m: self.wrong.append(m.text) if m.type == "error" else None)
        self.page.on("dialog", self.dismiss)
        self.page.goto(f"{path.as_uri()}{hash}")
        self.page.on("request", lambda request: self.wrong.append(request.url))
        self.page.wait_for_selector("html[data-ready=all]")

    def dismiss(self, dialog: Any) -> None:
        self.wrong.append(dialog.message)
        dialog.dismiss()

    def check(self) -> None:
        assert self.wrong == []
        assert self.page.evaluate(FOREIGN) == [0, 1, 0]
        self.page.close()


@pytest.fixture(scope="module")
def page_file(runs: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("page") / "page.html"
    write_page(compare(*runs), path)
    return path


def text_of(page: Any, selector: str) -> str:
    return page.inner_text(selector)


def test_the_page_leads_from_a_reason_to_its_chains(browser: Any, page_file: Path) -> None:
    opened = Opened(browser, page_file)
    page = opened.page
    assert re.fullmatch(r"\S+one and \S+two", page.title())
    page.click(".parted button:has-text('principle overall-harm: its critique text was edited')")
    page.wait_for_selector(".why")
    assert "from critique 2 on" in text_of(page, ".why")
    assert (
        page.locator(".step", has=page.locator("h3", has_text="critique 2")).locator("ins").count()
        > 0
    )
    assert (
        page.locator(".step", has=page.locator("h3", has_text="response")).locator(".sides").count()
        == 0
    )
    n = page.evaluate("list.order.length")
    assert text_of(page, "#count").startswith(f"{n} of ")
    assert page.locator("#rows li").count() == n
    opened.check()


def test_the_page_has_keys_links_search_and_order(browser: Any, page_file: Path) -> None:
    opened = Opened(browser, page_file)
    page = opened.page
    place = "reader.place"
    page.keyboard.press("j")
    page.wait_for_selector(".chain-bar")
    first = page.evaluate(place)
    page.keyboard.press("j")
    page.wait_for_selector(f'#rows a[data-place="{page.evaluate("list.order[1]")}"][aria-current]')
    assert page.evaluate(place) != first
    page.keyboard.press("k")
    page.wait_for_selector(f'#rows a[data-place="{first}"][aria-current]')
    page.keyboard.press("/")
    page.keyboard.type("critique text was edited")
    assert page.evaluate("list.order.every(isChanged)")
    assert 0 < page.evaluate("list.order.length") < page.evaluate("prompts.id.length")
    page.keyboard.press("Escape")
    id = page.evaluate("prompts.id[list.order[1]]")
    again = Opened(browser, page_file, f"#prompt={id[:9]}")
    again.page.wait_for_selector(".compared")
    assert again.page.evaluate("prompts.id[reader.place]") == id
    again.page.select_option("#sort", "length-up")
    changes = again.page.evaluate("list.order.map((i) => prompts.length[i] ?? -Infinity)")
    assert changes == sorted(changes, reverse=True)
    opened.check()
    again.check()


def test_hostile_texts_stay_text(browser: Any, hostile: Comparison, tmp_path: Path) -> None:
    path = tmp_path / "hostile.html"
    write_page(hostile, path)
    opened = Opened(browser, path)
    page = opened.page
    n = page.evaluate("prompts.id.length")
    assert n == len(PAYLOADS)
    for place in range(n):
        page.evaluate("(place) => openPrompt(place)", place)
        page.evaluate("document.querySelectorAll('details').forEach((one) => (one.open = true))")
        assert page.evaluate("reader.place") == place
    assert page.locator(".compared .step").count() > 0
    opened.check()


def test_the_page_of_two_equal_runs_and_of_nothing(
    browser: Any, runs: tuple[Path, Path], tmp_path: Path
) -> None:
    empty = completed(build_run(tmp_path / "empty", stages=()))
    for name, folders in (("same", (runs[0], runs[0])), ("none", (empty, runs[0]))):
        path = tmp_path / f"{name}.html"
        write_page(compare(*folders), path)
        opened = Opened(browser, path)
        assert "None did." in text_of(opened.page, "#reader")
        opened.page.keyboard.press("j")
        opened.check()
