"""What opens above the chains in `cai browse`: a list to pick from, and the keys."""

from collections.abc import Container, Sequence
from typing import ClassVar

from rich.text import Text
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical
from textual.screen import ModalScreen
from textual.widgets import OptionList, Static

from cai.view.terminal import one_line

KEYS = (
    ("j k  ↓ ↑", "next or previous chain"),
    ("g G", "first or last chain"),
    ("ctrl-d ctrl-u", "a screenful of chains further or back"),
    ("space b", "scroll the chain by a screenful"),
    ("J K", "scroll the chain by a line"),
    ("l h  → ←", "into the chain, where j k g G scroll it, and back"),
    ("/", "search all that was written or generated"),
    ("n N", "next or previous hit, on into the next chain"),
    ("f", "only chains with a badge, of a stage, kind, area or split;"),
    ("", "again for one more, or for one less"),
    ("p", "only chains that drew a principle"),
    ("o", "order: of the run, by reward, by change or by length"),
    ("1…9  0", "only that round; all rounds"),
    ("d", "revisions as diffs or as plain text"),
    ("esc", "back to the list; clear the search; then every filter"),
    ("q", "quit"),
)
ROW = "in the list: id, rounds (2r), reward of the last text, badges, area"
LONGEST_NAME = 50  # columns


class Pick(ModalScreen[str | None]):
    """Pick one of some names; the result is empty for the first row, and none for no change."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape,q", "dismiss(None)", show=False),
        Binding("j", "step(1)", show=False),
        Binding("k", "step(-1)", show=False),
    ]

    def __init__(
        self, title: str, rows: Sequence[tuple[str, str]], picked: Container[str], none: str = "all"
    ) -> None:
        """`rows`: names and what stands behind them; the first one is `none` of them."""
        super().__init__()
        self.caption, self.rows, self.picked = title, [("", ""), *rows], picked
        self.none = none

    def compose(self) -> ComposeResult:
        names = [one_line(name)[:LONGEST_NAME] for name, _ in self.rows]
        width = max(map(len, names))
        texts = [
            f"{'✓' if name in self.picked else ' '} {shown:{width}} {fact:>7}"
            for shown, (name, fact) in zip(names, self.rows, strict=True)
        ]
        texts[0] = f"  {self.none}"
        with Vertical():
            yield Static(Text(self.caption, "bold"))
            yield OptionList(*map(Text, texts), markup=False, compact=True)

    def on_mount(self) -> None:
        picked = (i for i, (name, _) in enumerate(self.rows) if name and name in self.picked)
        self.query_one(OptionList).highlighted = next(picked, 0)

    def action_step(self, by: int) -> None:
        options = self.query_one(OptionList)
        options.action_cursor_down() if by > 0 else options.action_cursor_up()

    def on_option_list_option_selected(self, event: OptionList.OptionSelected) -> None:
        self.dismiss(self.rows[event.option_index][0])


class Help(ModalScreen[None]):
    """The keys; any of them closes it."""

    def compose(self) -> ComposeResult:
        text = Text("Keys\n", "bold")
        for keys, what in KEYS:
            text.append(f"\n{keys:14}", "not bold cyan").append(what, "not bold")
        text.append(f"\n\n{ROW}", "not bold dim")
        with Vertical():
            yield Static(text)

    def on_key(self) -> None:
        self.dismiss()
