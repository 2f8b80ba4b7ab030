"""What an export is made from, and what it is before it becomes files: tables of rows."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from cai.config import RunConfig
from cai.errors import ConfigError
from cai.records import Message, Preference, Prompt, Response, Revision
from cai.view.transcripts import Transcript

Row = dict[str, Any]
Text = Response | Revision


@dataclass(frozen=True)
class RunData:
    """What an export is made from."""

    run: Path
    config: RunConfig
    manifest: Mapping[str, Any]
    constitution: Mapping[str, Any]
    transcripts: Sequence[Transcript]
    heldout: frozenset[str]
    """The dialogues (prompt groups) whose rows go to test splits."""
    as_rewarded: bool
    """Whether `heldout` follows what the run's reward model was not trained on."""


class Item(NamedTuple):
    """A row and where it goes."""

    id: str
    """Digest that stands for its texts: the order of the rows says nothing."""
    group: str
    """Its dialogue."""
    split: str
    row: Row
    cut: bool = False
    """Whether a text in it ended at the token limit."""


@dataclass
class Table:
    """The rows of a format, or of one part of it, and what was left out."""

    name: str
    """The part's name, which `load_dataset` calls a config."""
    items: list[Item]
    left_out: Counter[str] = field(default_factory=Counter[str])
    """Rows by reason."""
    notes: list[str] = field(default_factory=list[str])
    """What a reader of the card has to know about these rows."""

    def splits(self) -> dict[str, list[Row]]:
        """The rows of each split, in the order of their ids; a split without rows is not there."""
        found: dict[str, list[Row]] = {}
        ordered = sorted(self.items, key=lambda item: item.id)
        # Train splits first, as people expect them.
        for item in sorted(ordered, key=lambda item: (item.split.startswith("test"), item.split)):
            found.setdefault(item.split, []).append(item.row)
        return found


class Pair(NamedTuple):
    """A preference with its texts."""

    prompt: Prompt
    preference: Preference
    chosen: Text
    rejected: Text

    @property
    def cut(self) -> bool:
        return is_cut(self.chosen, self.rejected)


def turns(messages: Iterable[Message]) -> list[dict[str, str]]:
    return [message.model_dump() for message in messages]


def answer(text: Text) -> list[dict[str, str]]:
    """A completion of one turn."""
    return [{"role": "assistant", "content": text.text}]


def is_cut(*texts: Text) -> bool:
    return any(text.generation.finish == "length" for text in texts)


def part(data: RunData, group: str) -> str:
    return "test" if group in data.heldout else "train"


def guarded(table: Table, data: RunData) -> Table:
    """The table without what may not be in it, which is counted: dialogues of the evaluation among
    what is trained on, and text that no UTF-8 file can hold."""
    evaluated = {t.prompt.group for t in data.transcripts if t.prompt.split == "eval"}
    kept: list[Item] = []
    for item in table.items:
        if item.split.startswith("train") and item.group in evaluated:
            table.left_out["dialogue of the evaluation"] += 1
        elif not is_unicode(item.row):
            table.left_out["half a surrogate pair in a text"] += 1
        else:
            kept.append(item)
    table.items = kept
    return table


def is_unicode(value: Any) -> bool:
    """Whether every text in a JSON value can be written as UTF-8."""
    if isinstance(value, str):
        return value.isascii() or value.encode("utf-8", "ignore").decode() == value
    if isinstance(value, Mapping):
        return all(map(is_unicode, value.values()))
    return all(map(is_unicode, value)) if isinstance(value, list | tuple) else True


def pairs(data: RunData) -> list[Pair]:
    """The run's own preferences. Raises ConfigError if one names a text that is not there."""
    found: list[Pair] = []
    for transcript in data.transcripts:
        texts = {t.id: t for t in (*transcript.versions(), *transcript.samples)}
        for preference in transcript.preferences:
            ids = (preference.chosen_id, preference.rejected_id)
            missing = [id for id in ids if id not in texts]
            if missing:
                raise ConfigError(
                    f"{data.run}: preference {preference.id} is about {missing[0]}, which is "
                    "neither a sample nor a revision of this run; the run folder is damaged"
                )
            found.append(Pair(transcript.prompt, preference, *(texts[id] for id in ids)))
    return found


def pair_notes(found: Sequence[Pair]) -> list[str]:
    """What the labels of these pairs say about their own quality."""
    preferences = [pair.preference for pair in found]
    judged = [p for p in preferences if p.orders_agree is not None]
    disagree = sum(not p.orders_agree for p in judged)
    assumed = sum(p.origin == "revision" and not p.label_ids for p in preferences)
    undecided = sum(p.p_chosen == 0.5 for p in preferences)
    notes = [
        f"The judge's two orders disagree on {disagree} of {len(judged)} judged pairs.",
        f"In {assumed} pairs the revision is assumed to be better (P = 1): no model was asked, "
        "they are no AI feedback.",
        f"In {undecided} pairs P is exactly 0.5: which side is called chosen means nothing.",
    ]
    shown = (bool(judged), assumed > 0, undecided > 0)
    return [note for note, show in zip(notes, shown, strict=True) if show]
