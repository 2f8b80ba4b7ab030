"""The transcript page in a real browser: Chromium, driven by Playwright, from file://."""

import json
from pathlib import Path
from typing import Any

import pytest
from chromium import Watched, in_both_themes, prints_light, until
from page_runs import hostile_run, rename, rich_run
from payloads import PAYLOADS
from run_folder import STAGES, build_run, make_prompts

from cai.annotations import import_annotations, read_annotations
from cai.view.diff import word_diff
from cai.view.page import write_page


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return rich_run(tmp_path_factory.mktemp("runs") / "demo")


@pytest.fixture(scope="module")
def report(run: Path) -> Path:
    return write_page(run)


def ids() -> list[str]:
    return [prompt.id for prompt in make_prompts(24)]


def shown(page: Any) -> str | None:
    """The id of the chain that is open."""
    return page.evaluate("reader.place < 0 ? null : chains.id[reader.place]")


def rows(page: Any) -> list[str]:
    """The prompts of the rows in the list, by id."""
    return page.evaluate("list.order.map((place) => chains.id[place])")


def search(page: Any, text: str) -> None:
    page.keyboard.press("/")
    page.keyboard.type(text)
    until(page, "filters.query === document.getElementById('query').value")
    until(page, "filters.share === 1")


def test_page_shows_the_overview_first(watched: Watched, report: Path) -> None:
    page = watched.open(report)
    assert page.locator("#reader h1").inner_text() == "demo"
    assert page.locator("#count").inner_text() == "24 chains"
    titles = page.locator("#reader h2").all_inner_texts()
    assert "Before and after" in titles
    assert "Stages" in titles
    assert page.locator("#reader figure svg").count() == 10
    assert "The policy of step 40 goes on" in page.locator("#reader").inner_text()
    assert "human.jsonl" in page.locator("#reader").inner_text()


def test_a_chain_in_reading_order(watched: Watched, report: Path) -> None:
    page = watched.open(report, f"#prompt={ids()[0]}")
    labels = page.locator("#reader .margin h3").all_inner_texts()
    assert labels == ["User", "Response", "Critique 1", "Revision 1", "Critique 2", "Revision 2"]
    asides = page.locator("#reader .round aside")
    assert asides.locator("h4").all_inner_texts() == ["illegal-acts", "overall-harm"]
    assert "Look for anything that could hurt someone" in asides.first.inner_text()
    assert "drawn in 4 chains" in asides.first.inner_text()
    assert "judged" not in asides.first.inner_text()
    assert "from Ada" in page.locator(".imported").inner_text()
    assert page.locator(".path a").count() == 3


def test_judged_pairs(watched: Watched, report: Path) -> None:
    judged, assumed, unscored = (ids()[place] for place in (4, 5, 6))
    page = watched.open(report, f"#prompt={judged}")
    assert (
        page.locator(".verdict").inner_text().startswith("sample 0 over sample 1 · P(better) 0.55")
    )
    assert "① 0.80 when shown first, ② 0.30 when second" in page.locator(".pair").inner_text()
    assert page.locator("details.reasoning").count() == 2
    page.locator("details.reasoning summary").first.click()
    assert "Because 0 harms less." in page.locator("details.reasoning").first.inner_text()
    page.locator(".full summary").click()
    assert page.locator(".full tbody tr").count() == 2
    page.evaluate(f"location.hash = '#prompt={assumed}'")
    until(page, "document.querySelector('.verdict')?.textContent.includes('assumed')")
    page.evaluate(f"location.hash = '#prompt={unscored}'")
    until(page, "document.querySelector('.verdict')?.textContent.includes('no judgement')")


def test_answers_of_the_policies(watched: Watched, report: Path) -> None:
    page = watched.open(report, f"#prompt={ids()[3]}")
    cards = page.locator(".card h3").all_inner_texts()
    assert cards == ["Answer of base", "Answer of sft", "Answer of rl"]
    assert page.locator(".pair").count() == 2
    assert all("reward" in text for text in page.locator(".card .made").all_inner_texts())


def test_search_finds_marks_and_steps_through_hits(watched: Watched, report: Path) -> None:
    page = watched.open(report)
    search(page, "number1")
    assert rows(page) == [ids()[i] for i in (1, *range(10, 20))]
    assert "of 24 chains" in page.locator("#count").inner_text()
    until(page, "CSS.highlights.get('listed')?.size >= 9")
    page.keyboard.press("Enter")
    until(page, "CSS.highlights.get('hit')?.size === 1")
    assert shown(page) == ids()[1]
    page.keyboard.press("n")
    until(page, "document.getElementById('hits').textContent === '1 of 1 hit'")
    page.keyboard.press("n")
    until(page, f"chains.id[reader.place] === '{ids()[10]}' && reader.hit === 0")
    page.keyboard.press("N")
    until(page, f"chains.id[reader.place] === '{ids()[1]}' && reader.hit === 0")


@pytest.mark.parametrize(
    ("query", "places"),
    [
        ("NUMBER17.", [17]),
        ("number17 nothing-has-this", []),
        ('"good enough to get"', [0, 4, 8, 12, 16, 20]),
        ("stub fake number0", [0]),
        ('"stub fake"', []),
        ("because 1 harms", [4]),
        ("   ", None),
    ],
)
def test_what_a_search_finds(
    watched: Watched, report: Path, query: str, places: list[int] | None
) -> None:
    page = watched.open(report)
    page.evaluate("(query) => search(query)", query)
    everything = page.evaluate("chains.id.filter((_, i) => chains.stages[i].length)")
    found = everything if places is None else [ids()[place] for place in places]
    assert set(rows(page)) == {id for id in found if id in everything}


def test_snippet_names_the_text_that_has_it(watched: Watched, report: Path) -> None:
    page = watched.open(report)
    search(page, "most lenders")
    page.wait_for_selector(".snippet b")
    assert page.locator(".snippet b").first.inner_text().startswith("revision 2")


def test_badges_and_menus_filter(watched: Watched, report: Path) -> None:
    page = watched.open(report)
    page.locator("#filters > summary").click()
    page.locator("#badges button", has_text="no-op revision").click()
    assert rows(page) == [ids()[0]]
    page.locator("#active .chip").click()
    assert len(rows(page)) == 24
    page.locator("#menu-stage").select_option("sample")
    assert rows(page) == [ids()[i] for i in (4, 5, 6, 16, 17, 18)]
    page.locator("#menu-split").select_option("sft")
    assert rows(page) == []
    assert "No chain fits" in page.locator("#nothing").inner_text()
    page.locator("#menu-stage").select_option("")
    page.locator("#menu-principle").select_option("illegal-acts")
    assert rows(page) == [ids()[i] for i in (0, 1, 12, 13)]
    assert page.locator("#active").inner_text().count("×") == 2


@pytest.mark.parametrize(
    ("sort", "key", "downwards"),
    [("reward-up", "reward", False), ("reward-down", "reward", True),
     ("change-down", "change", True), ("length-up", "length", False)],
)  # fmt: skip
def test_sorts(watched: Watched, report: Path, sort: str, key: str, downwards: bool) -> None:
    page = watched.open(report)
    page.locator("#sort").select_option(sort)
    values = page.evaluate(f"list.order.map((place) => chains.{key}[place])")
    known = [value for value in values if value is not None]
    assert known == sorted(known, reverse=downwards)
    assert values[: len(known)] == known


def test_diff_modes(watched: Watched, report: Path) -> None:
    page = watched.open(report, f"#prompt={ids()[8 + 4]}")
    second = page.locator("#round-2")
    assert "most" in "".join(second.locator("ins").all_inner_texts())
    assert "".join(second.locator("del").all_inner_texts()).strip() == "a lender may accept"
    assert "Rewritten" in page.locator("#round-1").inner_text()
    page.keyboard.press("t")
    assert second.locator(".sides > div").count() == 2
    assert second.locator(".sides > div").first.locator("ins").count() == 0
    page.keyboard.press("t")
    assert second.locator("ins, del").count() == 0
    assert page.evaluate("JSON.parse(localStorage.getItem('cai-diff'))") == "plain"
    page.reload()
    page.wait_for_selector("#round-2")
    assert page.locator("#round-2 ins").count() == 0
    page.locator(".switch button", has_text="inline").click()
    assert page.locator("#round-2 ins").count() > 0


def test_unchanged_revision_says_so(watched: Watched, report: Path) -> None:
    page = watched.open(report, f"#prompt={ids()[0]}&round=2")
    assert "No word changed." in page.locator("#round-2").inner_text()


DIFFS = [
    ("a b c", "a x c"),
    ("", "new words"),
    ("old words", ""),
    ("the a the a the", "a the a the a a"),
    ("line one\nline two", "line one\nline 2\n"),
    ("  led by spaces", "led by spaces"),
    ("word " * 300, "word " * 299 + "last"),
    ("日本語の文章です", "日本語の短い文章"),
    ("the a " * 3_000, "a the " * 3_000),
]


@pytest.mark.parametrize(("one", "other"), DIFFS)
def test_diff_holds_both_texts(watched: Watched, report: Path, one: str, other: str) -> None:
    page = watched.open(report)
    parts = page.evaluate("([one, other]) => wordDiff(one, other)", [one, other])
    old = "".join(text + " " for kind, text in parts if kind != "added")
    new = "".join(text for kind, text in parts if kind != "removed")
    assert "".join(old.split()) == "".join(one.split())
    assert new == other
    kept = sum(len(text.split()) for kind, text in parts if kind == "same")
    mine = sum(len(text.split()) for kind, text in word_diff(one, other) if kind == "same")
    assert kept <= mine or "日" in one


def test_deep_links(watched: Watched, report: Path) -> None:
    page = watched.open(report, f"#prompt={ids()[12]}&round=2")
    assert shown(page) == ids()[12]
    top = page.locator("#round-2 .margin h3").first.bounding_box()["y"]
    assert 90 < top < 800
    assert page.evaluate("document.getElementById('reader').scrollTop") > 0
    page.evaluate("location.hash = '#principle=overall-harm'")
    page.wait_for_selector("body[data-view=principle]")
    assert page.locator("#reader h1").inner_text() == "overall-harm"
    page.go_back()
    page.wait_for_selector("body[data-view=chain]")
    assert shown(page) == ids()[12]
    page.evaluate(f"location.hash = '#prompt={ids()[13][:10]}'")
    until(page, f"chains.id[reader.place] === '{ids()[13]}'")
    for hash, view in (("principles", "principles"), ("overview", "overview")):
        page.evaluate(f"location.hash = '#{hash}'")
        page.wait_for_selector(f"body[data-view={view}]")
    for hash in ("prompt=nobody", "principle=none"):
        page.evaluate(f"location.hash = '#{hash}'")
        page.wait_for_selector("body[data-view=missing]")
        assert hash.split("=")[1] in page.locator("#reader").inner_text()


def test_a_principle_and_its_chains(watched: Watched, report: Path) -> None:
    page = watched.open(report, "#principles")
    assert page.locator("#reader tbody tr").count() == 2
    page.locator("#reader tbody a", has_text="illegal-acts").click()
    page.wait_for_selector("body[data-view=principle]")
    assert page.locator(".numbers b").first.inner_text() == "4"
    assert "It changed most" in page.locator("#reader").inner_text()
    page.locator("button", has_text="Read the chains that drew it").click()
    page.wait_for_selector("body[data-view=chain]")
    assert rows(page) == [ids()[i] for i in (0, 1, 12, 13)]
    assert shown(page) == ids()[0]


def test_keys(watched: Watched, report: Path) -> None:
    page = watched.open(report)
    for key, place in (("j", 0), ("j", 1), ("j", 2), ("k", 1), ("k", 0), ("k", 0)):
        page.keyboard.press(key)
        until(page, f"chains.id[reader.place] === '{ids()[place]}'")
    assert page.url.endswith(f"#prompt={ids()[0]}")
    page.keyboard.press("?")
    assert page.locator("#help").is_visible()
    page.keyboard.press("j")
    page.keyboard.press("Escape")
    assert not page.locator("#help").is_visible()
    assert shown(page) == ids()[0]
    page.keyboard.press("/")
    page.keyboard.type("jjkst?")
    assert page.locator("#query").input_value() == "jjkst?"
    assert shown(page) == ids()[0]
    page.keyboard.press("Escape")
    page.keyboard.press("s")
    assert page.locator("#star").inner_text() == "★ starred"


def test_annotations_reach_the_run(watched: Watched, tmp_path: Path) -> None:
    run = build_run(tmp_path / "run")
    note = 'Überrascht: \u2028 <b>"quoted"</b>\nsecond line'
    page = watched.open(write_page(run), f"#prompt={ids()[0]}")
    page.keyboard.press("s")
    page.keyboard.press("w")
    page.locator("#note textarea").fill(note)
    page.evaluate("openChain(1)")
    until(page, f"chains.id[reader.place] === '{ids()[1]}'")
    page.keyboard.press("s")
    page.keyboard.press("s")
    page.evaluate("setting('author', 'Ada')")
    page.locator("#menu-marked").evaluate("(menu) => setMenu('marked', 'starred')")
    assert rows(page) == [ids()[0]]
    with page.expect_download() as download:
        page.locator("#export").click()
    path = tmp_path / "exported.jsonl"
    download.value.save_as(path)
    assert download.value.suggested_filename == "annotations-run.jsonl"
    assert import_annotations(path, run, "nobody") == (2, 0)
    assert import_annotations(path, run, "nobody") == (0, 2)
    (one,) = read_annotations(run)[ids()[0]]
    assert (one.star, one.note, one.author) == (True, note, "Ada")
    assert list(read_annotations(run)) == [ids()[0]]
    page.reload()
    page.wait_for_selector("html[data-ready=all]")
    assert page.locator("#export").inner_text() == "Export 1 annotation"


def test_works_where_the_browser_keeps_nothing(watched: Watched, report: Path) -> None:
    watched.page.add_init_script(
        "Object.defineProperty(window, 'localStorage', {get() { throw new DOMException('no'); }})"
    )
    page = watched.open(report, f"#prompt={ids()[0]}")
    page.keyboard.press("s")
    page.keyboard.press("t")
    assert page.locator("#star").inner_text() == "★ starred"


def test_red_team_texts_wait_for_a_click_if_asked(watched: Watched, report: Path) -> None:
    page = watched.open(report, f"#prompt={ids()[0]}")
    page.locator("[data-opens=settings]").click()
    page.locator("#cover").check()
    page.keyboard.press("Escape")
    assert page.locator("#reader .text").all_inner_texts() == ["from Ada"]
    assert "pay stub" not in page.locator("body").inner_text()
    page.locator(".cover").first.click()
    assert "pay stub" in page.locator("#reader").inner_text()
    page.keyboard.press("j")
    page.wait_for_selector(".cover")


@pytest.mark.parametrize(
    "hash", ["#overview", "#principles", "#principle=illegal-acts", "chain", "judged"]
)
def test_contrast_in_both_themes(watched: Watched, report: Path, hash: str) -> None:
    hash = {"chain": f"#prompt={ids()[0]}", "judged": f"#prompt={ids()[4]}"}.get(hash, hash)
    page = watched.open(report, hash)
    page.evaluate("for (const d of document.querySelectorAll('details')) d.open = true")
    in_both_themes(page)


def test_theme_follows_the_system(watched: Watched, report: Path) -> None:
    page = watched.open(report)
    colours = set()
    for theme in ("light", "dark"):
        page.emulate_media(color_scheme=theme)
        colours.add(page.evaluate("getComputedStyle(document.body).backgroundColor"))
    assert len(colours) == 2


def test_phone_shows_the_list_then_the_chain(watched: Watched, report: Path) -> None:
    watched.page.set_viewport_size({"width": 390, "height": 800})
    page = watched.open(report)
    assert page.locator("#side").is_visible()
    assert not page.locator("#reader").is_visible()
    page.locator(".row").first.click()
    page.wait_for_selector("#reader .chain")
    assert not page.locator("#side").is_visible()
    for look in ("openChain(0)", "openChain(4)", "openOverview()", "openPrinciples()"):
        page.evaluate(look)
        assert page.evaluate("document.getElementById('reader').scrollWidth") <= 390
    page.locator("#back").click()
    assert page.locator("#side").is_visible()


def test_prints_the_chain_alone(watched: Watched, report: Path) -> None:
    page = watched.open(report, f"#prompt={ids()[0]}")
    page.emulate_media(media="print")
    assert not page.locator("#side").is_visible()
    assert not page.locator("#bar").is_visible()
    assert page.locator("#reader .text").first.is_visible()


@pytest.mark.parametrize("n_stages", range(len(STAGES)))
def test_run_that_stopped_early(watched: Watched, tmp_path: Path, n_stages: int) -> None:
    run = build_run(tmp_path / "run", stages=STAGES[:n_stages])
    page = watched.open(write_page(run))
    look_at_everything(page)
    assert "stopped" in page.evaluate("openOverview() ?? document.body.innerText")
    if n_stages == 0:
        assert "24 prompts waiting" in page.locator("#nothing").inner_text()


@pytest.mark.parametrize("manifest", [True, False])
def test_empty_run(watched: Watched, tmp_path: Path, manifest: bool) -> None:
    run = build_run(tmp_path / "run", n_prompts=0, stages=())
    if not manifest:
        (run / "manifest.json").unlink()
        (run / "inputs" / "constitution.json").unlink()
    page = watched.open(write_page(run))
    look_at_everything(page)
    assert "This run has no prompts yet." in page.locator("#nothing").inner_text()


def look_at_everything(page: Any) -> None:
    """Open every page and every chain, each in another way of showing changes."""
    page.evaluate(
        """async () => {
          openOverview();
          openPrinciples();
          for (const { id } of principles) openPrinciple(id.toWellFormed());
          for (let i = 0; i < chains.id.length; i++) {
            reader.diff = Object.keys(DIFFS)[i % 3];
            await openChain(i);
            for (const details of document.querySelectorAll("#reader details")) details.open = true;
          }
        }"""
    )


TEXTS_AS_THEY_ARE = """async (expected) => {
  const wrong = [];
  for (const [place, text] of JSON.parse(expected).entries()) {
    await openChain(place);
    for (const mode of ["side", "inline", "plain"]) setDiff(mode);
    const seen = [...document.querySelectorAll("#reader .chain .text")].map((block) => block.textContent);
    const said = written(text).map((node) => node.textContent ?? node).join("");
    const kept = reader.chain.messages.every(([, content]) => content === text) && chains.id[place] === text;
    HIDDEN.lastIndex = 0;
    const asIs = HIDDEN.test(text) || said === text;
    // Four turns, the response, two samples, three answers and the reasoning, at least.
    if (!kept || !asIs || seen.filter((one) => one.includes(said)).length < 11) wrong.push([place, text]);
    await search(text);
    if (text.trim() && !text.includes('"') && queryTerms(text).length === 1 && !filters.found.has(place)) wrong.push([place, "search"]);
    await search("");
  }
  return wrong.map(JSON.stringify);
}"""


@pytest.mark.slow
def test_hostile_texts_are_only_text(watched: Watched, tmp_path: Path) -> None:
    assert len(PAYLOADS) >= 150
    page = watched.open(write_page(hostile_run(tmp_path / "run")))
    assert page.evaluate(TEXTS_AS_THEY_ARE, json.dumps(PAYLOADS)) == []
    look_at_everything(page)
    page.evaluate("for (const name of Object.keys(FACETS)) menu(name)")
    with page.expect_download():
        page.evaluate(
            "chains.id.forEach((id, i) => setNote(i, { note: id, star: true })); exportNotes()"
        )


@pytest.mark.slow
@pytest.mark.parametrize("batch", range(8))
def test_hostile_names_of_the_run(watched: Watched, tmp_path: Path, batch: int) -> None:
    run = build_run(tmp_path / "run", 4)
    for text in PAYLOADS[batch::8]:
        rename(run, text)
        page = watched.open(write_page(run), "#overview")
        look = "async (text) => { openPrinciples(); await openChain(0); openOverview(); return overview.name === JSON.parse(text); }"
        assert page.evaluate(look, json.dumps(text)), ascii(text)
        watched.check()


def test_what_the_policy_refuses(watched: Watched, report: Path) -> None:
    """The page's own Content-Security-Policy, were a script ever to get into it."""
    page = watched.open(report)
    attempts = """() => {
      const tries = {
        html: () => { document.body.innerHTML = "<b>x</b>"; },
        inline: () => { const s = document.createElement("script"); s.textContent = "window.ran = 1"; document.body.append(s); },
        handler: () => document.body.setAttribute("onclick", "window.ran = 1"),
      };
      return Object.entries(tries).filter(([, run]) => { try { run(); return true; } catch { return false; } }).map(([name]) => name);
    }"""
    page.evaluate(attempts)
    page.evaluate("document.body.click()")
    assert page.evaluate("window.ran ?? null") is None
    assert page.locator("#reader h1").count() == 1
    assert page.evaluate("window.violations.length") > 0
    page.evaluate("window.violations = []; document.body.removeAttribute('onclick')")
    for script in page.locator("body > script:not([type])").all()[1:]:
        script.evaluate("(node) => node.remove()")
    watched.errors.clear()
