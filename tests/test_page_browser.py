"""The transcript page in a real browser: Chromium, driven by Playwright, from file://."""

import json
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
from chromium import CONTRAST, Watched, in_both_themes, prints_light, until
from page_runs import edge_run, hostile_run, ids, rename, rich_run, rows, shown
from payloads import PAYLOADS
from run_folder import STAGES, build_run

from cai.annotations import import_annotations, read_annotations
from cai.view.page import write_page
from cai.words import common_rows, split_words

LEAVES = "dispatchEvent(new Event('beforeunload', { cancelable: true }))"
"""Whether the page can be closed without a question."""


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return rich_run(tmp_path_factory.mktemp("runs") / "demo")


@pytest.fixture(scope="module")
def report(run: Path) -> Path:
    return write_page(run)


@pytest.fixture(scope="module")
def edges(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_page(edge_run(tmp_path_factory.mktemp("runs") / "edges"))


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


def test_badges_and_menus_filter(watched: Watched, report: Path) -> None:
    page = watched.open(report)
    page.locator("#filters > summary").click()
    page.locator("#badges button", has_text="no-op revision").click()
    assert rows(page) == [ids()[0]]
    page.locator("#badges button", has_text="refusal").click()
    assert rows(page) == [ids()[0]]
    page.locator("#badges button", has_text="no-op revision").click()
    refusals = rows(page)
    page.locator("#badges button", has_text="orders disagree").click()
    both = rows(page)
    assert 0 < len(both) < len(refusals)
    assert both == [id for id in refusals if "orders disagree" in badges_of(page, id)]
    for chip in reversed(page.locator("#active .chip").all()):
        chip.click()
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


def badges_of(page: Any, id: str) -> list[str]:
    return page.evaluate("(id) => chains.badges[chains.id.indexOf(id)].map((b) => BADGES[b])", id)


MENUS = [
    ("split", "preference", [4, 5, 6, 16, 17, 18]),
    ("split", "sft", [0, 1, 2, 12, 13, 14]),
    ("kind", "look_alike", [3, 7, 11, 15, 19, 23]),
    ("area", "cooking", [2, 6, 10, 14, 18, 22]),
    ("rounds", "2", [0, 1, 12, 13]),
    ("judged_under", "illegal-acts", []),
    ("principle", "illegal-acts", [0, 1, 12, 13]),
]


def test_menus(watched: Watched, report: Path) -> None:
    page = watched.open(report)
    page.locator("#filters > summary").click()
    for menu, value, places in MENUS:
        page.locator(f"#menu-{menu}").select_option(value)
        assert rows(page) == [ids()[i] for i in places], menu
        said = page.locator(f"#menu-{menu} option:checked").inner_text()
        assert said == f"{value.replace('_', ' ')} ({len(places)})"
        assert page.locator("#count").inner_text() == f"{len(places)} of 24 chains"
        page.locator(f"#menu-{menu}").select_option("")


def test_prompts_that_wait_are_counted_among_all(watched: Watched, tmp_path: Path) -> None:
    page = watched.open(write_page(build_run(tmp_path / "run", stages=("revise",))))
    assert page.locator("#count").inner_text() == "6 chains"
    for stage, said in (("none yet", "18 of 24 chains"), ("revise", "6 chains")):
        page.evaluate("(stage) => setMenu('stage', stage)", stage)
        assert page.locator("#count").inner_text() == said


@pytest.mark.parametrize("key", ["reward", "change", "length"])
def test_sorts(watched: Watched, edges: Path, key: str) -> None:
    page = watched.open(edges)
    for way in ("up", "down"):
        page.locator("#sort").select_option(f"{key}-{way}")
        values = page.evaluate(f"list.order.map((place) => chains.{key}[place])")
        known = [value for value in values if value is not None]
        assert len(set(known)) > 1
        assert 0 < len(known) < len(values) or key == "length"
        assert known == sorted(known, reverse=way == "down")
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


def test_failed_texts_are_no_changes(watched: Watched, edges: Path) -> None:
    page = watched.open(edges, f"#prompt={ids()[0]}&round=2")
    failed = page.locator("#round-2")
    assert "Error: the prompt is too long" in failed.inner_text()
    assert "changed" not in failed.inner_text()
    assert page.locator("#round-2 ins, #round-2 del").count() == 0
    assert page.locator(".path .arrow").all_inner_texts()[1] == "→"
    for place, missing in ((1, "Error: the prompt is too long"), (12, "There is no revision")):
        page.evaluate(f"openChain({place})")
        until(
            page,
            f"reader.chain && document.querySelector('#reader').innerText.includes('{missing}')",
        )
        assert "% changed" not in page.locator("#reader").inner_text()
    page.evaluate("openPrinciple(principles[1].id)")
    assert "100 %" not in page.locator(".links").first.inner_text()


def test_unspaced_texts_differ_inline(watched: Watched, edges: Path) -> None:
    page = watched.open(edges, f"#prompt={ids()[13]}&round=1")
    removed, added = (
        "".join(page.locator(f"#round-1 {tag}").all_inner_texts()) for tag in ("del", "ins")
    )
    assert 0 < len(removed) < 5
    assert 0 < len(added) < 5


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


def test_a_diff_holds_both_texts_and_marks_little(watched: Watched, report: Path) -> None:
    page = watched.open(report)
    every = page.evaluate("(all) => all.map(([one, other]) => wordDiff(one, other))", DIFFS)
    for (one, other), parts in zip(DIFFS, every, strict=True):
        old = "".join(text + " " for kind, text in parts if kind != "added")
        assert "".join(old.split()) == "".join(one.split())
        assert "".join(text for kind, text in parts if kind != "removed") == other
        a, b = split_words(one), split_words(other)
        kept = len(split_words("".join(text for kind, text in parts if kind == "same")))
        best = len(b) - common_rows(a, b)[-1].bit_count()
        # Not marked: the words that both have, but for one or two between larger changes.
        if len(a) + len(b) <= 4_000:
            assert best - 2 * len(parts) <= kept <= best
            assert kept > 0.4 * best or not best


SPLITS = [
    ("", []),
    ("two words", ["two", "words"]),
    ("今日は tea 二杯。", ["今", "日", "は", "tea", "二", "杯", "。"]),
    ("カタカナ、ok", ["カ", "タ", "カ", "ナ", "、ok"]),
    ("ไทย ລາວ", ["ไทย", "ລາວ"]),
    ("한국어 단어", ["한국어", "단어"]),
    ("a\u0085b\x1cc\u3000d\u200be\ufefff\xa0g", ["a", "b", "c", "d\u200be\ufefff", "g"]),
    ("\n\n led", ["led"]),
    ("\ud840\udc0b".encode("utf-16", "surrogatepass").decode("utf-16") + "字", ["𠀋", "字"]),
]


def test_page_and_metrics_split_texts_alike(watched: Watched, report: Path) -> None:
    page = watched.open(report)
    look = "(all) => all.map((text) => (text.match(WORDS) ?? []).map(bare).filter(Boolean))"
    found = page.evaluate(look, [text for text, _ in SPLITS])
    assert found == [words for _, words in SPLITS] == [split_words(text) for text, _ in SPLITS]


def test_spaces_are_those_of_python(watched: Watched, report: Path) -> None:
    page = watched.open(report)
    every = [chr(code) for code in range(0x10000) if not 0xD800 <= code < 0xE000]
    found = page.evaluate("(all) => all.filter((one) => !(one.match(WORDS).map(bare)[0]))", every)
    assert found == [one for one in every if one.isspace()]


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
    assert page.get_by_role("status").filter(has_text="not kept in this browser").count() == 1
    assert "keeps no stars and notes" in (page.locator("#settings").text_content() or "")
    assert page.evaluate(LEAVES) is False
    with page.expect_download():
        page.locator("#export").click()
    assert page.evaluate(LEAVES) is True
    assert page.locator("#unkept").inner_text() == ""


def test_a_full_browser_says_that_a_note_is_not_kept(watched: Watched, report: Path) -> None:
    page = watched.open(report, f"#prompt={ids()[0]}")
    page.keyboard.press("s")
    assert page.locator("#unkept").inner_text() == ""
    assert "stay in this browser" in (page.locator("#settings").text_content() or "")
    page.evaluate("void (Storage.prototype.setItem = () => { throw new DOMException('full'); })")
    page.keyboard.press("s")
    assert "export before you close" in page.locator("#unkept").inner_text()
    with page.expect_download():
        page.locator("#export").click()
    assert page.evaluate(LEAVES) is True


def test_red_team_texts_wait_for_a_click_if_asked(watched: Watched, report: Path) -> None:
    page = watched.open(report, f"#prompt={ids()[0]}")
    page.locator("[data-opens=settings]").click()
    page.locator("#cover").check()
    page.keyboard.press("Escape")
    assert page.locator("#reader .text").all_inner_texts() == ["from Ada"]
    assert "pay stub" not in page.locator("body").inner_text()
    page.locator(".cover").first.click()
    assert "pay stub" in page.locator("#reader").inner_text()
    assert "pay stub" in page.title()
    page.keyboard.press("j")
    page.wait_for_selector(".cover")
    assert page.title() == "covered: a red-team prompt · demo"


def test_covered_texts_show_nowhere(watched: Watched, report: Path) -> None:
    for look in ("openChain(0)", "openChain(4)", "openPrinciple('overall-harm')"):
        page = watched.open(report)
        page.evaluate(f"(async () => {{ await {look}; setting('cover', true); }})()")
        page.evaluate("for (const d of document.querySelectorAll('details')) d.open = true")
        page.evaluate("search('the')")
        text = page.evaluate(
            """() => [document.title, location.href, document.body.innerText,
              ...[...document.querySelectorAll("[title], [aria-label]")].map((one) =>
                `${one.title} ${one.getAttribute("aria-label")}`)].join("\\n")"""
        )
        assert "covered: a red-team prompt" in text
        for secret in ("stub", "neighbour", "helps with fraud", "verdict at all"):
            assert secret not in text, look


def test_settings_hold_in_every_tab(browser: Any, report: Path) -> None:
    context = browser.new_context()
    one, two = (Watched(context.new_page()) for _ in range(2))
    pages = [tab.open(report, f"#prompt={ids()[0]}") for tab in (one, two)]
    pages[0].evaluate("setting('author', 'Ada')")
    pages[1].evaluate("setting('theme', 'dark')")
    assert pages[1].evaluate("settings.author") == "Ada"
    pages[0].locator("[data-opens=settings]").click()
    pages[0].locator("#cover").check()
    pages[1].wait_for_selector(".cover")
    for tab in (one, two):
        tab.check()
    context.close()


def test_notes_of_two_tabs_are_both_kept(browser: Any, report: Path) -> None:
    context = browser.new_context()
    one, two = (Watched(context.new_page()) for _ in range(2))
    pages = [tab.open(report, f"#prompt={ids()[0]}") for tab in (one, two)]
    pages[0].keyboard.press("s")
    until(pages[1], "document.getElementById('star').textContent === '★ starred'")
    pages[1].evaluate("setNote(2, { star: true })")
    pages[0].evaluate("setNote(1, { note: 'one' })")
    pages[1].evaluate("setNote(0, { note: 'two' })")
    until(pages[0], "document.querySelector('#note textarea').value === 'two'")
    kept = [
        ["★" if row["star"] else "", row["note"]] for row in pages[0].evaluate("annotationRows()")
    ]
    assert sorted(kept) == [["", "one"], ["★", ""], ["★", "two"]]
    for page in pages:
        page.reload()
        page.wait_for_selector("html[data-ready=all]")
        assert page.locator("#export").inner_text() == "Export 3 annotations"
    for tab in (one, two):
        tab.check()
    context.close()


def test_a_write_of_the_same_moment_is_not_lost(browser: Any, report: Path) -> None:
    context = browser.new_context()
    one, two = (Watched(context.new_page()) for _ in range(2))
    pages = [tab.open(report, f"#prompt={ids()[0]}") for tab in (one, two)]
    pages[0].evaluate("setNote(1, { note: 'one' })")
    until(pages[1], "notes.size === 1")
    # What the second tab would write had it not heard of the first one's yet.
    pages[1].evaluate(
        "notes.clear(); localStorage.setItem(NOTES_KEY, '[]'); setNote(0, { note: 'two' })"
    )
    for page in pages:
        until(page, "JSON.parse(localStorage.getItem(NOTES_KEY)).length === 2")
        until(page, "document.getElementById('export').textContent === 'Export 2 annotations'")
    for tab in (one, two):
        tab.check()
    context.close()


def test_a_write_takes_in_what_no_event_told(watched: Watched, report: Path) -> None:
    page = watched.open(report)
    page.evaluate(
        """() => {
          const other = [["elsewhere", { star: true, note: "", time: "2026-01-01T00:00:00Z" }]];
          localStorage.setItem(NOTES_KEY, JSON.stringify(other));
          setNote(0, { star: true });
        }"""
    )
    kept = page.evaluate("JSON.parse(localStorage.getItem(NOTES_KEY)).map(([id]) => id)")
    assert sorted(kept) == sorted(["elsewhere", ids()[0]])


def test_the_page_says_the_command_that_imports(watched: Watched, report: Path) -> None:
    page = watched.open(report)
    page.locator("[data-opens=settings]").click()
    command = page.locator("#settings code")
    assert command.inner_text() == "cai annotate import annotations-demo.jsonl RUN --author NAME"
    page.locator("#author").fill("Ada")
    assert command.inner_text() == "cai annotate import annotations-demo.jsonl RUN"


N_JUDGED = 5 + 12  # Pairs of samples but the assumed one, and every held-out prompt.


def test_a_card_tells_drawn_from_judged(watched: Watched, report: Path) -> None:
    page = watched.open(report, f"#prompt={ids()[4]}")
    card = page.locator("#reader aside.principle").first
    said = card.locator("button").all_inner_texts()
    assert said == ["drawn in 4 chains", f"{N_JUDGED} chains judged under it"]
    card.locator("button", has_text="drawn in").click()
    assert rows(page) == [ids()[i] for i in (0, 1, 12, 13)]
    page.evaluate("openChain(4)")
    page.wait_for_selector("aside.principle >> text=judged under it")
    page.locator("button", has_text="judged under it").first.click()
    until(page, "filters.menus.judged_under === 'overall-harm'")
    assert len(rows(page)) == N_JUDGED


def test_many_areas_are_counted_once_and_cut(watched: Watched, report: Path) -> None:
    page = watched.open(report)
    found = page.evaluate(
        """() => {
          chains.area = chains.id.map((_, i) => `area ${i % 2 ? "z" : i}`);
          for (let i = 0; i < 40; i++) {
            for (const column of Object.values(chains)) column.push(structuredClone(column[0]));
            chains.area[chains.area.length - 1] = `more ${i}`;
          }
          let asked = 0;
          const areas = FACETS.area;
          FACETS.area = (i) => (asked++, areas(i));
          const box = [...chainCounts().querySelectorAll(".bars")].at(-1);
          return [asked, chains.id.length, box.querySelectorAll("li").length,
            box.querySelector("li").textContent, box.querySelector(".note").textContent];
        }"""
    )
    assert found[0] == found[1]
    assert found[2:] == [30, "area z12", "and 23 more, all in the filter's menu"]


LOOKS = {
    "overview": "openOverview()",
    "principles": "openPrinciples()",
    "principle": "openPrinciple('illegal-acts')",
    "chain": "openChain(0)",
    "diff": "openChain(12)",
    "judged": "openChain(4)",
    "answers": "openChain(3)",
    "missing": "openMissing('x')",
    "covered": "setting('cover', true); await openChain(0)",
    "help": "document.getElementById('help').showModal()",
    "settings": "document.getElementById('settings').showModal()",
    "found": "await search('a'); await openChain(12); await stepHit(1)",
    "found in a diff": "await search('most'); await openChain(12); await stepHit(1)",
    "filtered": "toggleBadge(BADGES.indexOf('refusal')); setMenu('kind', 'red_team')",
    "noted": "await openChain(0); toggleStar(); writeNote()",
}


def test_contrast_in_both_themes(watched: Watched, report: Path) -> None:
    for name, look in LOOKS.items():
        page = watched.open(report)
        page.evaluate(f"async () => {{ setting('cover', false); {look}; }}")
        page.evaluate("for (const d of document.querySelectorAll('details')) d.open = true")
        if "found" in name:
            assert page.evaluate("[...CSS.highlights.keys()].sort()") == [
                "current",
                "hit",
                "listed",
            ]
        in_both_themes(page, name)


PALE = (
    "#name { opacity: 0.5 }",
    "#bar { opacity: 0.4 }",
    "#query::placeholder { color: #aaa }",
    "::highlight(hit) { background-color: #777; color: #888 }",
    "#count { color: rgb(0 0 0 / 0.4) }",
)


def test_what_the_contrast_test_sees(watched: Watched, report: Path) -> None:
    page = watched.open(report, f"#prompt={ids()[12]}")
    page.evaluate("setting('theme', 'light'); search('lender')")
    assert page.evaluate(CONTRAST) == []
    change = "(style) => document.adoptedStyleSheets[0].replaceSync(style)"
    page.evaluate("() => { document.adoptedStyleSheets = [new CSSStyleSheet()]; }")
    for style in PALE:
        page.evaluate(change, style)
        assert page.evaluate(CONTRAST) != [], style


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
    prints_light(watched.open(report, f"#prompt={ids()[12]}"))


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


ATTEMPTS = """async (url) => {
  const add = (tag, change) => { const one = document.createElement(tag); change(one); document.body.append(one); };
  const tries = {
    html: () => { document.body.innerHTML = "<b>x</b>"; },
    script: () => add("script", (one) => { one.textContent = "window.ran = 1"; }),
    handler: () => document.body.setAttribute("onclick", "window.ran = 1"),
    eval: () => (0, eval)("window.ran = 1"),
    src: () => add("script", (one) => { one.src = url; }),
    style: () => document.body.setAttribute("style", "display: none"),
    img: () => add("img", (one) => { one.src = url; }),
    background: () => { document.body.style.backgroundImage = `url(${url})`; },
    media: () => add("audio", (one) => { one.src = url; }),
    frame: () => add("iframe", (one) => { one.src = url; }),
    object: () => add("object", (one) => { one.data = url; }),
    link: () => add("link", (one) => { one.rel = "stylesheet"; one.href = url; }),
    font: () => new FontFace("x", `url(${url})`).load(),
    form: () => add("form", (one) => { one.action = url; one.target = "_blank"; queueMicrotask(() => one.submit()); }),
    fetch: () => fetch(url, { mode: "no-cors" }),
    beacon: () => { if (!navigator.sendBeacon(url)) throw new Error("refused"); },
    xhr: () => { const one = new XMLHttpRequest(); one.open("GET", url, false); one.send(); },
    socket: () => { new WebSocket(url.replace("http", "ws")); },
    events: () => { new EventSource(url); },
    module: () => import(url),
  };
  const done = [];
  // A debugger's own call may eval whatever the policy says: from here on it is the page's.
  await new Promise((resolve) => setTimeout(resolve));
  for (const [name, run] of Object.entries(tries))
    try { await run(); done.push(name); } catch { /* Refused. */ }
  await new Promise((resolve) => setTimeout(resolve, 300));
  document.body.click();
  return done;
}"""


@pytest.fixture
def server() -> Iterator[tuple[str, list[str]]]:
    """An address, and what was asked for there."""
    asked: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            page = self.path == "/"
            self.send_response(200 if page else 204)
            self.send_header("Content-Type", "text/html")
            self.end_headers()
            asked.extend([] if page else [self.path])

        do_POST = do_GET

        def log_message(self, format: str, *args: object) -> None:
            """Nothing is printed."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as found:
        Thread(target=found.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{found.server_port}/x", asked
        found.shutdown()


def test_what_the_policy_refuses(browser: Any, report: Path, server: tuple[str, list[str]]) -> None:
    """The page's own Content-Security-Policy, were a script ever to get into it."""
    url, asked = server
    context = browser.new_context()
    page = Watched(context.new_page()).open(report)
    done = page.evaluate(ATTEMPTS, url)
    refused = {
        "html",
        "script",
        "handler",
        "eval",
        "src",
        "object",
        "font",
        "fetch",
        "xhr",
        "module",
    }
    assert not refused & set(done)
    assert page.evaluate("window.ran ?? null") is None
    assert page.locator("#reader h1").is_visible()
    assert asked == []
    violated = set(page.evaluate("window.violations"))
    directives = "img media frame font connect form-action script style"
    missing = [name for name in directives.split() if not any(v.startswith(name) for v in violated)]
    assert missing == []
    # They are attempts: a page without the policy runs and asks.
    bare = context.new_page()
    bare.goto(url.removesuffix("x"))
    bare.evaluate(ATTEMPTS, url)
    assert bare.evaluate("window.ran") == 1
    for _ in range(300):
        if len(asked) > 8:
            break
        bare.wait_for_timeout(100)
    assert len(asked) > 8
    context.close()


def test_names_that_cannot_be_seen_are_spelt_everywhere(watched: Watched, report: Path) -> None:
    page = watched.open(report)
    page.evaluate(
        "chains.area[0] = 'odd\\u202earea'; chains.head[0] = 'a\\u200bhead'; overview.name = 'r\\u202en';"
        "document.getElementById('menus').replaceChildren(...Object.keys(FACETS).map(menu));"
        "setMenu('area', 'odd\\u202earea')"
    )
    assert page.locator("#active .chip").inner_text() == r"area: odd\u202earea ×"
    option = page.locator("#menu-area option", has_text="odd")
    assert option.text_content() == r"odd\u202earea (1)"
    for shows in ("openOverview()", "openPrinciples()", "openPrinciple(principles[0].id)"):
        page.evaluate(shows)
        assert r"r\u202en" in page.title()
    page.evaluate("openChain(0)")
    assert page.title() == r"a\u200bhead · r\u202en"
