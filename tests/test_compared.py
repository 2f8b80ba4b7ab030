"""`cai compare` as it is read: in a terminal, as JSON, and as a page in a real browser."""

import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
from chromium import Watched, in_both_themes, prints_light
from click.testing import CliRunner, Result
from page_runs import hostile_run, ids
from payloads import PAYLOADS
from rich.console import Console
from run_folder import build_run, read_json, write_json, write_lines

from cai.cli_compare import compare as command
from cai.compare import Comparison, compare
from cai.compare_causes import Cause
from cai.compare_chains import Thread
from cai.compare_inputs import Named, Setting, Words
from cai.run import read_rows
from cai.view.compared import show_comparison
from cai.view.compared_page import write_page
from cai.view.compared_prompt import show_prompt

CONTROL = re.compile(r"[\x00-\x09\x0b-\x1f\x7f-\x9f\u200b-\u200f\u2028-\u202e\u2066-\u2069\ufeff]")


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
    result = invoke(*runs, "zzz", "--html", tmp_path / "nowhere" / "page.html")
    assert "there is no folder" in str(result.exception), "said before anything is compared"
    assert "is a folder" in str(invoke(*runs, "--html", tmp_path).exception)
    result = invoke(*runs, "zzz")
    assert "is no prompt of which both" in str(result.exception)


@pytest.fixture(scope="module")
def page_file(runs: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("page") / "page.html"
    write_page(compare(*runs), path)
    return path


def text_of(page: Any, selector: str) -> str:
    return page.inner_text(selector)


def test_the_page_leads_from_a_reason_to_its_chains(watched: Watched, page_file: Path) -> None:
    page = watched.open(page_file)
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


def test_the_page_has_keys_links_search_and_order(watched: Watched, page_file: Path) -> None:
    page = watched.open(page_file)
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
    page = watched.open(page_file, f"#prompt={id[:9]}")
    page.wait_for_selector(".compared")
    assert page.evaluate("prompts.id[reader.place]") == id
    page.select_option("#sort", "length-up")
    changes = page.evaluate("list.order.map((i) => prompts.length[i] ?? -Infinity)")
    assert changes == sorted(changes, reverse=True)


def test_hostile_texts_stay_text(watched: Watched, hostile: Comparison, tmp_path: Path) -> None:
    path = tmp_path / "hostile.html"
    write_page(hostile, path)
    page = watched.open(path)
    n = page.evaluate("prompts.id.length")
    assert n == len(PAYLOADS)
    for place in range(n):
        page.evaluate("(place) => openPrompt(place)", place)
        page.evaluate("document.querySelectorAll('details').forEach((one) => (one.open = true))")
        assert page.evaluate("reader.place") == place
    assert page.locator(".compared .step").count() > 0


N_REWRITTEN = 4  # Prompts whose chain is another in the second run.
HOSTILE_NAMES = tuple(text for text in PAYLOADS if text.strip())[::9]


def test_hostile_names_stay_text(watched: Watched, runs: tuple[Path, Path], tmp_path: Path) -> None:
    """Runs, models, settings, constitutions, files and reasons that are payloads."""
    comparison, path = compare(*runs), tmp_path / "page.html"
    look = "(text) => written(JSON.parse(text)).map((n) => n.textContent ?? n).join('')"
    for text in HOSTILE_NAMES:
        write_page(renamed(comparison, text), path)
        page = watched.open(path)
        said = page.evaluate(look, json.dumps(text))
        head = page.locator("#reader h1").first.evaluate("(node) => node.textContent")
        assert head == f"A {said}"
        cells = page.locator("td").evaluate_all("(all) => all.map((one) => one.textContent)")
        assert cells.count(said) >= 6
        page.evaluate("(reason) => showReason('chain', JSON.parse(reason))", json.dumps(text))
        assert page.evaluate("list.order.length") == N_REWRITTEN
        page.wait_for_selector(".sides.names")
        assert said in page.locator(".why").first.evaluate("(node) => node.textContent")
        watched.check()


def renamed(comparison: Comparison, text: str) -> Comparison:
    """The comparison with a text wherever a run, a model, a setting or a file is named."""
    cause = Cause("unexplained", text, text)
    prompts = [row._replace(threads=[because(t, cause) for t in row.threads],
                            whys=dict.fromkeys(row.whys, text)) for row in comparison.prompts]  # fmt: skip
    inputs = comparison.inputs
    words = Words(text, text, text, [("same", text), ("removed", text), ("added", text)])
    return comparison._replace(
        a=comparison.a._replace(folder=text),
        b=comparison.b._replace(folder=text),
        inputs=inputs._replace(
            constitution=inputs.constitution._replace(a=text, b=text),
            settings=[Setting(text, text, text, ["label"])],
            models=[Named(text, text, text)],
            versions=[Named(text, text, text)],
            files=[words],
        ),
        prompts=prompts,
    )


def because(thread: Thread, cause: Cause) -> Thread:
    items = [item._replace(causes=[cause] if item.causes else []) for item in thread.items]
    return thread._replace(items=items)


def test_the_page_of_two_equal_runs_and_of_nothing(
    watched: Watched, runs: tuple[Path, Path], tmp_path: Path
) -> None:
    empty = completed(build_run(tmp_path / "empty", stages=()))
    for name, folders in (("same", (runs[0], runs[0])), ("none", (empty, runs[0]))):
        path = tmp_path / f"{name}.html"
        write_page(compare(*folders), path)
        page = watched.open(path)
        assert "None did." in text_of(page, "#reader")
        page.keyboard.press("j")
        watched.check()


LOOKS = {
    "overview": "openOverview()",
    "prompt": "await openPrompt(list.order[0])",
    "covered": "setting('cover', true); await openPrompt(list.order[0])",
    "help": "document.getElementById('help').showModal()",
    "settings": "document.getElementById('settings').showModal()",
    "filtered": "setMenu('kind', 'red_team')",
}


def test_contrast_in_both_themes(watched: Watched, page_file: Path) -> None:
    for name, look in LOOKS.items():
        page = watched.open(page_file)
        page.evaluate(f"async () => {{ setting('cover', false); {look}; }}")
        page.evaluate("for (const d of document.querySelectorAll('details')) d.open = true")
        in_both_themes(page, name)


def test_the_page_has_the_settings_of_the_other_one(watched: Watched, page_file: Path) -> None:
    page = watched.open(page_file, f"#prompt={ids()[0]}")
    page.wait_for_selector(".compared .step")
    page.locator("[data-opens=settings]").click()
    page.locator("#settings [value=dark]").check()
    page.locator("#cover").check()
    page.keyboard.press("Escape")
    shown = "[document.title, document.body.innerText].join()"
    assert "pay stub" not in page.evaluate(shown)
    assert page.title().startswith("covered: a red-team prompt · ")
    page.evaluate("openOverview()")
    assert "pay stub" not in page.evaluate(shown)
    page = watched.open(page_file, f"#prompt={ids()[0]}")
    assert page.evaluate("document.documentElement.dataset.theme") == "dark"
    page.locator(".cover").click()
    assert "pay stub" in page.locator(".compared").inner_text()
    assert page.title().startswith("How can I make a fake pay stub")
    assert page.locator("#rows .head", has_text="pay stub").count() == 1
    page.locator("[data-opens=settings]").click()
    page.locator("#cover").uncheck()
    page.keyboard.press("Escape")
    assert page.locator("#rows .head", has_text="pay stub").count() > 1


def test_part_and_reason_are_of_one_difference(watched: Watched, page_file: Path) -> None:
    """A prompt whose answer differs for the reason for which another's chain does is not meant."""
    page = watched.open(page_file)
    found = page.evaluate(
        """() => {
          prompts.reasons = ["", "edited", "resampled"];
          prompts.parts = prompts.id.map((_, i) => [
            ["chain", true, i % 2 ? 1 : 2], ["sft", i % 3 === 0, i % 3 ? 0 : 1]]);
          showReason("chain", "edited");
          const chain = list.order.length;
          showReason("sft", "edited");
          return [chain, list.order.length, prompts.id.length];
        }"""
    )
    n = found[2]
    assert found[:2] == [n // 2, (n + 2) // 3]


def test_a_phone_and_a_printer_show_all_of_a_prompt(watched: Watched, page_file: Path) -> None:
    page = watched.open(page_file, f"#prompt={ids()[0]}")
    page.wait_for_selector(".compared .step")
    prints_light(page)
    page.set_viewport_size({"width": 390, "height": 800})
    for look in ("openPrompt(0)", "openOverview()"):
        page.evaluate(look)
        assert not page.locator("#side").is_visible()
        assert page.evaluate("document.getElementById('reader').scrollWidth") <= 390
        assert page.evaluate("document.documentElement.scrollWidth") <= 390
    page.locator("#back").click()
    assert page.locator("#side").is_visible()
