"""The terminal browser: keys, filters, hits, and that what a model wrote is only ever text."""

import asyncio
import signal
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner
from pseudo_terminal import COLOURS, Terminal, steering
from run_folder import HOSTILE, build_run, generation, make_prompts, respond
from textual.geometry import Region
from textual.pilot import Pilot
from textual.strip import Strip
from textual.widget import Widget
from textual.widgets import Input, OptionList

from cai.cli_read import browse
from cai.constitution import Principle
from cai.errors import ConfigError
from cai.records import Critique, Message, Revision
from cai.stopping import SIGNALS
from cai.view.browse import Browser
from cai.view.browse_dialogs import Pick
from cai.view.browse_list import ChainList
from cai.view.choosing import Chain, Choice, choose, in_order, make_chains
from cai.view.terminal import clean
from cai.view.transcripts import Round, Transcript, load_transcripts

Check = Callable[[Browser, Pilot[None]], Awaitable[None]]


@pytest.fixture(scope="module")
def chains(tmp_path_factory: pytest.TempPathFactory) -> list[Chain]:
    return make_chains(load_transcripts(build_run(tmp_path_factory.mktemp("runs") / "demo")))


def browsed(
    chains: Sequence[Chain],
    check: Check,
    choice: Choice | None = None,
    size: tuple[int, int] = (120, 40),
) -> Browser:
    """The browser after `check` has used it."""
    app = Browser("demo", chains, choice or Choice())

    async def run() -> None:
        async with app.run_test(size=size) as pilot:
            await settled(app, pilot)
            await check(app, pilot)

    asyncio.run(run())
    return app


async def settled(app: Browser, pilot: Pilot[None]) -> None:
    await pilot.pause()
    while app.sifting or app.counting:
        await pilot.pause(0.01)
    await pilot.pause()


async def press(app: Browser, pilot: Pilot[None], *keys: str) -> None:
    await pilot.press(*keys)
    await settled(app, pilot)


def lines(widget: Widget) -> list[str]:
    """What the widget shows."""
    return [strip.text for strip in widget.render_lines(Region(0, 0, *widget.size))]


def screen(app: Browser) -> str:
    """Everything that any widget shows, cut at its sides."""
    found = [
        widget for widget in app.screen.walk_children() if widget.display and not widget.children
    ]
    return "\n".join(line for widget in found for line in lines(widget))


def bar(app: Browser) -> str:
    return lines(app.query_one("#bar"))[0].strip()


def test_list_and_chain_stand_beside_each_other(chains: list[Chain]) -> None:
    async def check(app: Browser, _: Pilot[None]) -> None:
        shown = lines(app.list)
        assert shown[0].startswith(" How can I make a fake pay stub")
        assert shown[1].split()[1:3] == ["2r", f"{chains[0].reward:+.2f}"]
        assert " ".join(shown[1].split()[3:]) == "no-op revision, refusal fraud"
        assert shown[9].split()[1:] == ["orders", "disagree", "fraud"], "neither rounds nor reward"
        assert any("principle illegal-acts" in line for line in lines(app.view))
        assert bar(app) == "demo · 1 of 24"

    browsed(chains, check, size=(150, 40))


MOVES = {
    "j j k": 1,
    "k": 0,
    "down up": 0,
    "G j": 23,
    "end home": 0,
    "ctrl+d ctrl+u": 0,
    "l j h j": 1,
}
SCROLLS = {"space": True, "space b": False, "J J": True, "J K": False, "l j": True, "l G g": False}


def test_keys_move_in_the_list(chains: list[Chain]) -> None:
    async def check(app: Browser, pilot: Pilot[None]) -> None:
        for keys, row in MOVES.items():
            await press(app, pilot, "h", "g", *keys.split())
            assert (keys, app.list.cursor) == (keys, row)
            assert app.view.shown
            assert app.view.shown[0] is chains[row]
            assert f"{row + 1} of 24" in bar(app)
            line = " ".join(lines(app.list)[2 * row - app.list.scroll_offset.y + 1].split())
            assert line.startswith(chains[row].transcript.prompt.id[:8])

    browsed(chains, check)


def test_keys_scroll_the_chain(chains: list[Chain]) -> None:
    async def check(app: Browser, pilot: Pilot[None]) -> None:
        for keys, scrolled in SCROLLS.items():
            await press(app, pilot, "h", "j", "g", *keys.split())
            assert (keys, app.view.scroll_offset.y > 0) == (keys, scrolled)

    browsed(chains, check, size=(80, 24))


def test_search_lists_what_has_it_and_goes_through_the_hits(chains: list[Chain]) -> None:
    tax = Choice(search="tax")
    fit, _ = choose(chains, tax)
    hits = [(row, hit) for row, chain in enumerate(fit) for hit in range(chain.hits(tax))]

    async def check(app: Browser, pilot: Pilot[None]) -> None:
        await press(app, pilot, "slash", *"tax", "enter")
        assert app.list.rows == fit
        assert app.list.has_focus
        n = fit[0].hits(tax)
        assert bar(app) == f"demo · 1 of {len(fit)} (24 chains) · “tax” · hit 1 of {n}"
        for key, way in (("n", hits[1:5]), ("N", hits[3::-1]), ("N", hits[:1])):
            for row, hit in way:
                await press(app, pilot, key)
                assert (app.list.cursor, app.view.hit) == (row, hit)

    browsed(chains, check)


def test_search_box_follows_what_is_typed_and_escape_clears_it(chains: list[Chain]) -> None:
    async def check(app: Browser, pilot: Pilot[None]) -> None:
        await press(app, pilot, "j", "slash", *"xyz")
        assert app.list.rows == []
        assert "0 of 0 (24 chains) · “xyz” · hit 0 of 0" in bar(app)
        assert app.view.lines == []
        await press(app, pilot, "n", "j", "escape")
        assert len(app.list.rows) == 24
        assert app.query_one(Input).value == ""
        assert app.list.has_focus
        assert app.list.cursor == 1
        await press(app, pilot, "f", "escape", "n", "k")
        assert bar(app) == "demo · 1 of 24"

    browsed(chains, check)


def test_hit_is_brought_into_view(chains: list[Chain]) -> None:
    async def check(app: Browser, pilot: Pilot[None]) -> None:
        await press(app, pilot, "l", "G", "h")
        assert app.view.scroll_offset.y > 0
        await press(app, pilot, "j", "k")
        assert any("lenders" in line for line in lines(app.view))

    browsed(chains, check, Choice(search="lenders"), size=(80, 20))


def test_filter_picks_a_tag_with_counts(chains: list[Chain]) -> None:
    async def check(app: Browser, pilot: Pilot[None]) -> None:
        await press(app, pilot, "f")
        assert isinstance(app.screen, Pick)
        rows = [" ".join(line.split()) for line in lines(app.screen.query_one(OptionList))]
        assert rows[:4] == ["all", "orders disagree 10", "no-op revision 1", "truncated 1"]
        assert not any("✓" in row for row in rows)
        await press(app, pilot, "j", "j", "k", "j", "j", "enter")
        assert app.list.rows == choose(chains, Choice(tags=("truncated",)))[0]
        assert "1 of 1 (24 chains) · truncated" in bar(app)
        await press(app, pilot, "f", "g", "q")
        assert len(app.list.rows) == 1
        # One more: the cursor begins at what is picked.
        await press(app, pilot, "f", "down", "enter")
        assert app.choice.tags == ("truncated", "refusal")
        assert app.list.rows == choose(chains, app.choice)[0]
        await press(app, pilot, "f")
        rows = [" ".join(line.split()) for line in lines(app.screen.query_one(OptionList))]
        assert [row for row in rows if "✓" in row] == ["✓ truncated 1", "✓ refusal 16"]
        # One less.
        await press(app, pilot, "enter")
        assert app.choice.tags == ("refusal",)
        assert len(app.list.rows) == 16
        await press(app, pilot, "f", "home", "enter")
        assert len(app.list.rows) == 24

    browsed(chains, check)


def test_stages_are_among_the_filters(chains: list[Chain]) -> None:
    async def check(app: Browser, pilot: Pilot[None]) -> None:
        await press(app, pilot, "f")
        box = app.screen.query_one(OptionList)
        names = [name for name, _ in app.screen.rows] if isinstance(app.screen, Pick) else []
        box.highlighted = names.index("stage label")
        await press(app, pilot, "enter")
        assert app.list.rows == [c for c in chains if c.transcript.labels] != []
        assert "stage label" in bar(app)

    browsed(chains, check)


def test_order_is_picked_and_is_no_filter(chains: list[Chain]) -> None:
    async def check(app: Browser, pilot: Pilot[None]) -> None:
        await press(app, pilot, "j", "j", "o", "down", "enter")
        assert "1 of 24 · highest reward first" in bar(app)
        assert app.list.rows == [chain for chain in in_order(chains, "highest reward") if chain]
        await press(app, pilot, "f", "down", "enter", "escape")
        assert app.choice == Choice(order="highest reward")
        await press(app, pilot, "o", "home", "enter")
        assert app.list.rows == chains

    browsed(chains, check)


def test_a_hit_over_two_lines_is_one_and_neighbours_are_two() -> None:
    prompt = make_prompts(1)[0]
    text = "one two " * 40 + "onetwo" + "abab"
    chain = Chain(Transcript(prompt, respond(prompt, "revise", 0, text)))

    async def check(app: Browser, _: Pilot[None]) -> None:
        n = chain.hits(app.choice)
        assert n == {"one two": 40, "ab": 2}[app.choice.search]
        assert bar(app).endswith(f"hit 1 of {n}")

    for search in ("one two", "ab"):
        browsed([chain], check, Choice(search=search), size=(81, 40))


def test_principle_and_round_narrow_it_together(chains: list[Chain]) -> None:
    async def check(app: Browser, pilot: Pilot[None]) -> None:
        await press(app, pilot, "p", "j", "enter", "2")
        assert app.list.rows == []
        await press(app, pilot, "1")
        assert len(app.list.rows) == 4
        assert "round 1 · principle illegal-acts" in bar(app)
        assert not any("round 2" in line for line in lines(app.view))
        await press(app, pilot, "0", "escape")
        assert app.choice == Choice()

    browsed(chains, check)


def test_a_revision_that_failed_is_its_error(chains: list[Chain]) -> None:
    whole = chains[12].transcript
    last = whole.rounds[1].revision
    assert last
    failed = last.model_copy(update={"text": "", "generation": generation("error")})
    rounds = (whole.rounds[0], replace(whole.rounds[1], revision=failed))

    async def check(app: Browser, pilot: Pilot[None]) -> None:
        for _ in range(2):
            shown = " ".join(line.text for line in map(Strip, app.view.lines))
            assert "error: the prompt is too long" in shown
            assert "no word changed" not in shown
            assert "differ" not in shown
            await press(app, pilot, "d")

    browsed([Chain(replace(whole, rounds=rounds))], check, Choice(round=2), size=(160, 40))


def test_diff_can_be_turned_off(chains: list[Chain]) -> None:
    async def check(app: Browser, pilot: Pilot[None]) -> None:
        assert any("a lender may accept" in " ".join(line.split()) for line in lines(app.view))
        await press(app, pilot, "d")
        assert not any("a lender may accept" in line for line in lines(app.view))
        assert "no diff" in bar(app)

    one = [chains[12]]
    browsed(one, check, Choice(round=2), size=(160, 40))


def test_diff_key_and_going_into_the_chain_keep_the_place(chains: list[Chain]) -> None:
    async def check(app: Browser, pilot: Pilot[None]) -> None:
        await press(app, pilot, "n", "d", "d", "l")
        assert app.view.has_focus
        assert "hit 2 of 3" in bar(app)
        await press(app, pilot, "escape")
        assert app.list.has_focus
        assert "hit 2 of 3" in bar(app)

    browsed([chains[12]], check, Choice(search="employer"))


def test_help_lists_the_keys_and_any_key_closes_it(chains: list[Chain]) -> None:
    async def check(app: Browser, pilot: Pilot[None]) -> None:
        await press(app, pilot, "question_mark")
        assert "next or previous hit" in screen(app)
        await press(app, pilot, "x")
        assert app.screen is app.screen_stack[0]

    browsed(chains, check, size=(80, 24))


@pytest.mark.parametrize("key", ["q", "ctrl+c"])
def test_quit(chains: list[Chain], key: str) -> None:
    async def check(app: Browser, pilot: Pilot[None]) -> None:
        await pilot.press(key)
        assert app._exit

    assert browsed(chains, check).return_code == 0


def test_click_chooses_a_chain(chains: list[Chain]) -> None:
    async def check(app: Browser, pilot: Pilot[None]) -> None:
        await pilot.click(ChainList, offset=(5, 7))
        await settled(app, pilot)
        assert app.list.cursor == 3

    browsed(chains, check)


def test_run_of_nothing_opens(chains: list[Chain]) -> None:
    async def check(app: Browser, pilot: Pilot[None]) -> None:
        await press(app, pilot, "j", "k", "G", "n", "d", "space", "f", "escape", "p", "escape")
        assert bar(app) == "demo · 0 of 0 · no diff"

    browsed([], check)


@pytest.mark.parametrize("size", [(80, 24), (120, 40), (40, 10), (10, 3)])
def test_any_size_shows_within_its_width(chains: list[Chain], size: tuple[int, int]) -> None:
    async def check(app: Browser, pilot: Pilot[None]) -> None:
        await press(app, pilot, "j", "space", "slash", "a", "enter", "n", "f", "escape")
        for widget in (app.list, app.view):
            assert {len(line) for line in lines(widget)} <= {widget.size.width}

    browsed(chains, check, size=size)


def test_ten_thousand_chains_are_listed_in_slices(chains: list[Chain]) -> None:
    many = [Chain(chains[i % 24].transcript) for i in range(10_000)]

    async def check(app: Browser, pilot: Pilot[None]) -> None:
        await press(app, pilot, "G")
        assert "10,000 of 10,000" in bar(app)
        app.choose(Choice(search="bank statements", tags=("sft",)))
        assert app.sifting
        assert len(app.list.rows) < 1_667
        assert "looking …" in bar(app)
        await settled(app, pilot)
        assert app.list.rows == choose(many, app.choice)[0]

    browsed(many, check)


PAYLOADS = (
    HOSTILE,
    "[@click=app.quit]x[/] [$primary]y[/$primary] [on red]z",
    "[/] [[/b]] \\[b] [link='https://evil.example']",
    "\x1b]0;title\x07 \x1bP+q544e\x1b\\ \x1b[?1049l \x1b[6n \x1bc",
    "".join(map(chr, (*range(32), *range(127, 160)))),
    "\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069\u061c",
    "\ud800 \ue000 \U000e0041 \ufeff \u2028\u2029 \u00ad",
)


def hostile_chain(payload: str) -> Chain:
    """A chain that has the payload in every text and name."""
    prompt = make_prompts(1)[0].model_copy(
        update={
            "area": payload,
            "source": payload,
            "messages": (Message(role="user", content=payload),),
        }
    )
    made = generation().model_copy(update={"model": payload, "error": payload, "finish": "error"})
    shared = {"prompt_id": prompt.id, "round": 1, "principle_id": payload, "generation": made}
    principle = Principle(id="p", critique=payload).model_copy(update={"id": payload})
    critique = Critique.model_validate({"id": "c", "parent_id": "r", "text": payload, **shared})
    revision = Revision.model_validate(
        {"id": "v", "parent_id": "c", "text": f"x {payload}", **shared}
    )
    response = respond(prompt, "revise", 0, payload).model_copy(update={"generation": made})
    rounds = (Round(1, payload, principle, critique, revision),)
    return Chain(Transcript(prompt, response, rounds, principles={payload: principle}))


def test_hostile_text_is_only_text() -> None:
    text = "\n".join(PAYLOADS)
    chains = [hostile_chain(text)]

    async def check(app: Browser, pilot: Pilot[None]) -> None:
        for key in ("d", "f", "escape", "p", "escape", "slash"):
            await press(app, pilot, key)
            assert not steering(screen(app))
        shown = " ".join(line.text.strip() for line in map(Strip, app.view.lines))
        for payload in PAYLOADS:
            assert clean(payload)[:12].split()[0] in shown
        app.query_one(Input).value = clean(PAYLOADS[1])
        await settled(app, pilot)
        assert app.list.rows == chains
        assert not steering(screen(app))

    browsed(chains, check, Choice(tags=(text,), principle=text), size=(200, 40))


def test_no_raw_byte_of_a_hostile_run_reaches_a_terminal(tmp_path: Path) -> None:
    run = build_run(tmp_path / "run")
    code = f"from cai.cli_read import browse; browse([{str(run)!r}, '--filter', 'sft'])"
    with Terminal(code) as terminal:
        terminal.read_until("tmp")
        terminal.press("j")
        terminal.read_until("gnp.exe")
        terminal.press("q")
        text = terminal.read_until()
        assert terminal.process.wait(10) == 0
    assert not steering(text)
    assert r"\x1b]52;c;" in COLOURS.sub("", text)


@pytest.mark.parametrize("number", SIGNALS)
def test_a_signal_closes_it(chains: list[Chain], number: int) -> None:
    async def check(app: Browser, pilot: Pilot[None]) -> None:
        signal.raise_signal(number)
        await pilot.pause(0.1)

    assert browsed(chains, check).return_code == 128 + number


def test_browse_needs_a_terminal(chains: list[Chain]) -> None:
    with pytest.raises(ConfigError, match="needs a terminal; elsewhere use: cai show RUN"):
        CliRunner().invoke(browse, ["RUN"], catch_exceptions=False)
