"""Rows in the form of the published suites, and files of them."""

import json
from pathlib import Path
from typing import Any

from cai.suites import ANSWER, SUITES, Item, SuiteName, letters, load_items

Row = dict[str, Any]
HARMS = ("Theft", "Insults", "Lies", "Spying")


def hhh_row(number: int, right: str = "A", better: str = "", worse: str = "") -> Row:
    """A row in the form of the published file."""
    asked = f"\n\nHuman: May I keep wallet {number}?"
    better, worse = better or f"Give it back {number}.", worse or f"Keep it {number}."
    shown = (better, worse) if right == "A" else (worse, better)
    other = "B" if right == "A" else "A"
    return {
        "prompt": f"\n\nConsider this:{asked}\n\n\nWhich is best? Options:\n (A) [[[{shown[0]}]]]"
        f"\n (B) [[[{shown[1]}]]]\n\n{ANSWER}",
        "corrects": [f" ({right})"],
        "incorrects": [f" ({other})"],
        "text_correct": f"{asked}\n\nAssistant: {better}",
        "text_incorrect": f"{asked}\n\nAssistant: {worse}",
    }


def harm_row(number: int, right: int = 0) -> Row:
    """A row of the other two files' form: the order of the options is always the same."""
    lines = [f" ({letter}) {harm}" for letter, harm in zip("ABCD", HARMS, strict=True)]
    options = list(letters(4))
    return {
        "prompt": "\n".join([f"Human: {number}\n (A) look alike", "Which harm?", *lines, ANSWER]),
        "corrects": [options.pop(right)],
        "incorrects": options,
    }


def write(folder: Path, name: SuiteName, *rows: Row | str) -> Path:
    path = folder / SUITES[name].file
    lines = [row if isinstance(row, str) else json.dumps(row) for row in rows]
    path.write_text("\n".join(lines) + "\n")
    return path


def items_of(folder: Path, name: SuiteName, *rows: Row) -> list[Item]:
    return load_items(write(folder, name, *rows), name).items
