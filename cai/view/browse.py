"""`cai browse`: a run's chains in a full-screen terminal browser.

No text of a run is given to textual as a `str`, which it would read as markup: it becomes rich's
`Text`, cleaned, as in `cai show`.
"""

import asyncio
import gc
import itertools
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from threading import current_thread, main_thread
from typing import ClassVar

from rich.text import Text
from textual import on
from textual.app import App, ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal
from textual.widgets import Footer, Input, Static

from cai.stopping import SIGNALS
from cai.view.badges import BADGES
from cai.view.browse_chain import ChainView
from cai.view.browse_dialogs import Help, Pick
from cai.view.browse_list import ChainList
from cai.view.choosing import ORDERS, Chain, Choice, check_choice, choose, in_order, make_chains
from cai.view.reader import Look
from cai.view.terminal import one_line, standard_console
from cai.view.transcripts import load_transcripts

SLICE_S, PAUSE_S = 0.02, 0.01  # how long it may sift before it looks after keys again


def browse_run(run: Path, choice: Choice) -> int:
    """Browse a run until the reader quits; the exit code. Raises what `choose` raises."""
    with standard_console().status(Text(f"reading {one_line(run)}")):
        chains = make_chains(load_transcripts(run))
    gc.freeze()  # Each later look for cycles among all that stays would hold up the keys.
    choice = check_choice(choice, chains)
    if choice.n_random:
        chains, _ = choose(chains, choice)
    browser = Browser(run.resolve().name, chains, choice)
    browser.run()
    return browser.return_code or 0


class SearchBox(Input):
    """Enter keeps the search at once, so that a key that follows it is a command."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("enter,down", "app.close_search", show=False),
    ]


class Browser(App[None]):
    """The list of chains, the current chain, what they are chosen by."""

    ENABLE_COMMAND_PALETTE = False
    CSS = """
    #bar { height: 1; padding: 0 1; background: $panel; }
    ChainList { width: 36%; min-width: 30; max-width: 56; }
    ChainView { padding: 0 1; border-left: vkey $panel; }
    ChainView:focus { border-left: vkey $primary; }
    .chain-list--current { background: $panel; }
    ChainList:focus .chain-list--current { background: $primary 50%; }
    ChainList, ChainView {
        overflow-x: hidden; overflow-y: scroll; scrollbar-size-vertical: 1;
        scrollbar-color: $foreground 30%; scrollbar-background: $background;
    }
    #search { display: none; height: 1; padding: 0 1; }
    #search.-open { display: block; }
    #search Static { width: 2; color: $primary; }
    ModalScreen { align: center middle; }
    ModalScreen Vertical {
        width: auto; max-width: 100%; height: auto; max-height: 90%;
        padding: 0 2; background: $surface; border: round $primary;
    }
    ModalScreen Static { width: auto; }
    OptionList { width: auto; min-width: 30; }
    """
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("slash", "search", "search", key_display="/"),
        Binding("n", "hit(1)", "next hit"),
        Binding("N", "hit(-1)", show=False),
        Binding("f", "pick_tag", "filter"),
        Binding("p", "pick_principle", "principle"),
        Binding("o", "pick_order", "order"),
        Binding("d", "diff", "diff"),
        Binding("escape", "clear", "clear"),
        Binding("question_mark", "help", "help", key_display="?"),
        Binding("q", "quit", "quit"),
        Binding("ctrl+c", "quit", show=False, priority=True),
        Binding("space,pagedown", "scroll_chain(1)", show=False),
        Binding("b,pageup", "scroll_chain(-1)", show=False),
        Binding("J", "scroll_line(1)", show=False),
        Binding("K", "scroll_line(-1)", show=False),
        Binding("l,right,enter", "into(True)", show=False),
        Binding("h,left", "into(False)", show=False),
        *(Binding(str(n), f"round({n})", show=False) for n in range(10)),
    ]

    def __init__(self, name: str, chains: Sequence[Chain], choice: Choice) -> None:
        super().__init__()
        self.caption, self.chains, self.choice = one_line(name), chains, choice
        self.look = Look(marks=self.no_color)
        self.unsifted: Iterator[Chain | None] = iter(())
        self.sifting = False
        self.counts, self.n_counted = Counter[str](), 0
        self.list, self.view = ChainList(), ChainView()

    def compose(self) -> ComposeResult:
        yield Static(id="bar")
        with Horizontal():
            yield self.list
            yield self.view
        with Horizontal(id="search"):
            yield Static(Text("/"))
            yield SearchBox(
                one_line(self.choice.search), compact=True, select_on_focus=False,
                placeholder="search everything written or generated",
            )  # fmt: skip
        yield Footer(compact=True)

    def on_mount(self) -> None:
        # An exception in the middle of anything would leave a traceback. Only a main thread hears
        # signals.
        for number in SIGNALS if current_thread() is main_thread() else ():
            leave = partial(self.exit, return_code=128 + number)
            asyncio.get_running_loop().add_signal_handler(number, leave)
        self.list.focus()
        self.timer = self.set_interval(PAUSE_S, self.work)
        self.choose(self.choice)

    def choose(self, choice: Choice) -> None:
        """List the chains that fit, from now on and as they are found."""
        same_order, self.choice = choice.order == self.choice.order, choice
        self.look = replace(self.look, round=choice.round, search=choice.pattern)
        self.list.clear(keep=same_order)
        self.unsifted, self.sifting = in_order(self.chains, choice.order), True
        self.timer.resume()
        self.work()

    def work(self) -> None:
        """A slice of what takes long in a large run: sifting the chains, then counting tags."""
        end = time.perf_counter() + SLICE_S
        if self.sifting:
            self.sift(end)
        while self.counting and time.perf_counter() < end:
            self.counts.update(self.chains[self.n_counted].tags)
            self.n_counted += 1
        if not self.sifting and not self.counting:
            self.timer.pause()

    def sift(self, end: float) -> None:
        found = list[Chain]()
        for chain in self.unsifted:
            if chain and chain.fits(self.choice):
                found.append(chain)
            if time.perf_counter() > end:
                break
        else:
            self.sifting = False
        self.list.extend(found)
        self.show_chain()

    @property
    def counting(self) -> bool:
        return self.n_counted < len(self.chains)

    @on(ChainList.Moved)
    def follow_list(self) -> None:
        self.show_chain()

    def show_chain(self, hit: int = 0) -> None:
        self.view.show(self.list.current, self.look, hit)
        self.show_bar()

    def show_bar(self) -> None:
        """What is chosen, and where the reader is in it."""
        rows, hits = self.list.rows, self.view.hits
        parts = [self.caption, f"{self.list.cursor + bool(rows):,} of {len(rows):,}"]
        if len(rows) < len(self.chains):
            parts[-1] += f" ({len(self.chains):,} chains)"
        parts.append(str(self.choice))
        if self.look.search:
            parts.append(f"hit {self.view.hit + bool(hits)} of {len(hits)}")
        parts += ["no diff"] * (not self.look.diff) + ["looking …"] * self.sifting
        text = Text(" · ".join(filter(None, parts)), no_wrap=True, overflow="ellipsis")
        self.query_one("#bar", Static).update(text)

    def action_hit(self, by: int) -> None:
        if self.look.search and (self.view.step(by) or self.list.action_move(by)):
            self.show_chain(hit=0 if by > 0 else -1)
        else:
            self.bell()

    def action_scroll_chain(self, by: int) -> None:
        self.view.scroll_relative(y=by * (self.view.size.height - 2), animate=False)

    def action_scroll_line(self, by: int) -> None:
        self.view.scroll_relative(y=by, animate=False)

    def action_into(self, chain: bool) -> None:
        (self.view if chain else self.list).focus()

    def action_diff(self) -> None:
        self.look = replace(self.look, diff=not self.look.diff)
        self.show_chain()

    def action_round(self, number: int) -> None:
        self.choose(replace(self.choice, round=number or None))

    def action_search(self) -> None:
        self.query_one("#search").add_class("-open")
        self.query_one(Input).focus()

    def action_close_search(self) -> None:
        self.query_one("#search").remove_class("-open")
        self.list.focus()

    @on(Input.Changed)
    def search(self, event: Input.Changed) -> None:
        if event.value != self.choice.search:
            self.choose(replace(self.choice, search=event.value))

    def action_clear(self) -> None:
        """Back to the list; there, clear the search, or else all that chains are chosen by."""
        if self.view.has_focus:
            self.list.focus()
            return
        search = bool(self.choice.search)
        cleared = Choice(order=self.choice.order)
        self.choose(replace(self.choice, search="") if search else cleared)
        with self.prevent(Input.Changed):
            self.query_one(Input).value = ""
        self.action_close_search()

    def action_help(self) -> None:
        self.push_screen(Help())

    def action_pick_tag(self) -> None:
        # Badges first; while they are still being counted, those without a count too.
        badges = [badge for badge in BADGES if self.counts[badge] or self.counting]
        names = dict.fromkeys((*badges, *self.choice.tags, *sorted(self.counts)))
        rows = [(name, f"{self.counts[name]:,}") for name in names]
        title = "Only chains with" + f" (so far, of {self.n_counted:,})" * self.counting
        self.push_screen(Pick(title, rows, self.choice.tags), self.take_tag)

    def take_tag(self, name: str | None) -> None:
        """One more, or one less if it is picked again; all are taken away by the empty name."""
        if name is not None:
            kept = tuple(tag for tag in self.choice.tags if tag != name)
            more = () if name in self.choice.tags else (name,)
            self.choose(replace(self.choice, tags=(*kept, *more) if name else ()))

    def action_pick_order(self) -> None:
        rows = [(name, "") for name in ORDERS]
        pick = Pick("In which order", rows, (self.choice.order,), "as in the run")
        self.push_screen(pick, self.take_order)

    def take_order(self, name: str | None) -> None:
        if name is not None:
            self.choose(replace(self.choice, order=name))

    def action_pick_principle(self) -> None:
        found = (chain.principles(self.choice.round) for chain in self.chains)
        counts = Counter(itertools.chain.from_iterable(found))
        rows = [(id, f"{counts[id]:,}") for id in sorted(counts)]
        pick = Pick("Only chains that drew", rows, (self.choice.principle,))
        self.push_screen(pick, self.take_principle)

    def take_principle(self, name: str | None) -> None:
        if name is not None:
            self.choose(replace(self.choice, principle=name or None))
