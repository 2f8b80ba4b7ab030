"""A chain in a terminal, word by word as it is generated.

Model text is hostile: every word passes `clean`, and none is markup.
"""

import re

from rich.cells import cell_len
from rich.console import Console
from rich.rule import Rule
from rich.text import Text

from cai.constitution import Principle
from cai.records import Critique, Prompt, Response, Revision
from cai.run import StoredRecord
from cai.view.reader import REWRITTEN, Look, diff_text
from cai.view.terminal import block, clean, heading
from cai.words import word_change

STYLES = {"critique": "yellow", "revision": "green"}


class Streamed:
    """Shows one text at a time: `begin`, `text` as it grows, `end`."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._look = Look(marks=console.no_color or console.color_system is None)
        self._before = ""
        """What a revision revises."""
        self._begin_text("")

    def _begin_text(self, style: str) -> None:
        self._style, self._shown, self._column = style, "", 0

    def say(self, text: str) -> None:
        """A line about the trial."""
        self._console.print(Text(clean(text), "dim"), soft_wrap=True)

    def complain(self, text: str) -> None:
        """What is wrong with the file."""
        self._console.print(Text(clean(text), "red"), soft_wrap=True)

    def open(self, prompt: Prompt) -> None:
        """A chain begins."""
        self._before = ""
        self._console.print(Rule(style="dim"))
        for message in prompt.messages:
            self._console.print(heading(message.role), block(message.content))

    def begin(self, record: StoredRecord, principle: Principle | None) -> None:
        """A text begins, under a principle. `record` has all of it but the text."""
        title = record.type
        if isinstance(record, Critique | Revision):
            title = f"round {record.round} · {title}"
        self._console.print(heading(title, record.generation.model))
        asks = principle and getattr(principle, record.type)
        if principle and asks:
            self._console.print(block(Text(f"{principle.id}: {clean(asks)}", "cyan")))
        self._begin_text(STYLES.get(record.type, ""))

    def text(self, so_far: str) -> None:
        """The text has grown. Its last word may grow on and is held back."""
        words = re.match(r"\s*(.*)\s", so_far, re.DOTALL)
        if words:
            self._show(words[1].rstrip())

    def end(self, record: StoredRecord) -> None:
        """The text is whole."""
        self._show(record.text or "")
        made = record.generation
        ending = {"stop": "", "length": "cut off at the limit", "error": f"error: {made.error}"}
        style = "red" if made.finish == "error" else "dim"
        said = " · ".join(filter(None, (f"{made.n_tokens:,} tokens", ending[made.finish])))
        self._console.print(Text(f"\n[{clean(said)}]\n", style), soft_wrap=True)
        if made.finish == "error":
            return
        if isinstance(record, Revision):
            self._show_changes(record.text)
        if isinstance(record, Response | Revision):
            self._before = record.text

    def _show_changes(self, text: str) -> None:
        """What a revision changed; a new text altogether is not shown a second time."""
        change = word_change(self._before, text)
        if change > REWRITTEN:
            self._console.print(heading("changes", f"rewritten: {change:.0%} of the words differ"))
        else:
            self._console.print(heading("changes"))
            self._console.print(block(diff_text(self._before, text, self._look)))

    def _show(self, text: str) -> None:
        """Print what is new of `text`, wrapped between words."""
        out = Text(style=self._style)
        for word in re.findall(r"\n|[^\S\n]+|\S+", clean(text[len(self._shown) :])):
            width = cell_len(word)
            if self._column + width > self._console.width and not word.isspace():
                out.append("\n")
                self._column = 0
            out.append(word)
            self._column = 0 if word == "\n" else self._column + width
        self._console.print(out, end="", soft_wrap=True)
        self._shown = text
