"""Searching the transcript page in a real browser: what is found, shown, marked and opened."""

from pathlib import Path
from typing import Any

import pytest
from chromium import Watched, until
from page_runs import edge_run, ids, rich_run, rows, shown

from cai.view.page import write_page


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_page(rich_run(tmp_path_factory.mktemp("runs") / "demo"))


@pytest.fixture(scope="module")
def edges(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_page(edge_run(tmp_path_factory.mktemp("runs") / "edges"))


def search(page: Any, text: str) -> None:
    page.keyboard.press("/")
    page.keyboard.type(text)
    until(page, "filters.query === document.getElementById('query').value")
    until(page, "filters.share === 1")


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


TYPE = """(text) => {
  const query = document.getElementById("query");
  query.value = text;
  query.dispatchEvent(new Event("input"));
}"""


def test_enter_opens_what_was_typed_and_not_what_was_listed(watched: Watched, report: Path) -> None:
    page = watched.open(report)
    page.locator("#query").focus()
    page.evaluate(f"""() => {{
      ({TYPE})("number17");
      const enter = {{ key: "Enter", bubbles: true }};
      document.getElementById("query").dispatchEvent(new KeyboardEvent("keydown", enter));
    }}""")
    until(page, "reader.place >= 0")
    assert shown(page) == ids()[17]


def test_a_filter_ends_the_search_before_it(watched: Watched, report: Path) -> None:
    page = watched.open(report)
    page.evaluate(f"() => {{ ({TYPE})('number1'); showOnly('kind', 'helpful'); }}")
    page.wait_for_timeout(120)
    helpful = rows(page)
    assert page.evaluate("[filters.query, filters.found, list.terms.length]") == ["", None, 0]
    page.evaluate(
        """async () => {
          const [read] = library.ready.splice(0, 1, undefined), going = search("number1");
          showOnly("kind", "helpful");
          library.ready[0] = read;
          await going;
        }"""
    )
    assert page.evaluate("[filters.query, filters.found, list.terms.length]") == ["", None, 0]
    assert rows(page) == helpful


MARKED = """() => [reader.hits.length, reader.hits.map((ranges) => ranges.map(String).join("")),
  reader.hits.map((ranges) => ranges[0].startContainer.parentElement.closest("[id]").id)]"""


# Across words that the diff shows as removed, and in them.
PHRASES = [
    ("prove, most lenders", ["round-2"]),
    ("also take bank", ["round-2"]),
    ("a lender may accept", ["round-1"]),
    ("a lender may accept most", []),
]


def test_a_diff_is_searched_as_the_text_it_shows(watched: Watched, report: Path) -> None:
    page = watched.open(report, f"#prompt={ids()[12]}")
    assert page.locator("#round-2 del").count() > 0
    for query, where in PHRASES:
        page.evaluate("(query) => search(query)", f'"{query}"')
        assert page.evaluate(MARKED) == [len(where), [query] * len(where), where]
        assert (ids()[12] in rows(page)) == bool(where)
        assert page.locator("#hits").inner_text() == f"{len(where)} hit{'s' * (len(where) != 1)}"
        page.keyboard.press("n")
        current = "[...CSS.highlights.get('current') ?? []].map(String).join('')"
        assert page.evaluate(current) == (query if where else "")


PLACES = [
    ("aaa", ["aaa", "a"], [[0, 3]]),
    ("aaaa", ["aaa", "a"], [[0, 3], [3, 4]]),
    ("abcabc", ["abc", "b", "ca"], [[0, 3], [3, 6]]),
    ("abab", ["ab", "ba"], [[0, 2], [2, 4]]),
    ("xyz", ["q"], []),
]


def test_hits_do_not_overlap(watched: Watched, report: Path) -> None:
    page = watched.open(report)
    for text, terms, found in PLACES:
        look = "([text, terms]) => places(text, terms)"
        assert page.evaluate(look, [text, terms]) == found, (text, terms)


def test_a_count_that_was_cut_says_so(watched: Watched, edges: Path) -> None:
    page = watched.open(edges, f"#prompt={ids()[14]}")
    for query, said in (("zeal", "500+ hits"), ("over", "500 hits"), ("zeal,", "1 hit")):
        page.evaluate("(query) => search(query)", query)
        assert page.locator("#hits").inner_text() == said


def test_no_character_is_cut_in_half(watched: Watched, report: Path) -> None:
    page = watched.open(report)
    cuts = """(text) => [...text + "xx"].flatMap((_, from) => [...text + "xx"].map((_, to) =>
      cut(text, from, to))).filter((part) => !part.isWellFormed())"""
    assert page.evaluate(cuts, "a\U0001f600b\U0001f600\U0001f600") == []
    found = """(text) => snippet({ messages: [["user", text]], rounds: [], samples: [], answers: [],
      pairs: [] }, ["needle"])[1]"""
    for before in ("x", ""):
        said = page.evaluate(found, before + "\U0001f600" * 40 + "needle" + "\U0001f600" * 99)
        assert "needle" in said
        assert "\ufffd" not in said
        assert said.encode("utf-8")
