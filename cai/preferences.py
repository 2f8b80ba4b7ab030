"""Preferences from everywhere by one reader, and ratings: what reward models and DPO learn from.

A source is a JSONL(.gz) file, a folder of them or a dataset, of hh-rlhf's or TRL's rows (see
`cai.conversations`), or a run of ours. Nothing is left out without a count.
"""

import os
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from cai.config import RunConfig
from cai.conversations import SIDES, Conversation, conversations, read_each
from cai.errors import ConfigError
from cai.manifest import run_at
from cai.records import Preference, Prompt, Response, Revision, derive_seed, digest
from cai.run import read_records
from cai.sections import DatasetSource, PreferenceSource
from cai.sources import Row, SourceCount, read_source
from cai.splits import group_of
from cai.view.transcripts import of_type, stage_folder


class Pair(NamedTuple):
    """Two answers to one prompt, and how sure it is which one is better."""

    id: str
    messages: Conversation
    """The prompt: ends with a user's turn."""
    chosen: str
    rejected: str
    p_chosen: float
    """P(chosen is better), ≥ 0.5."""
    group: str
    """Stands for the dialogue, as in `cai.records.Prompt`."""
    source: str
    place: str
    """File and line, dataset and row, or run and record: enough to find it again."""


class Rating(NamedTuple):
    """A conversation, which ends with an answer, and the number that somebody gave it."""

    id: str
    messages: Conversation
    rating: float
    group: str
    source: str
    place: str


@dataclass
class Reading:
    """What became of a source's rows: `n_rows` is the sum of everything below it."""

    source: str
    n_rows: int
    n_bad: int
    """Broken rows left out (`prompts.skip_bad`)."""
    n_used: int
    left_out: dict[str, int] = field(default_factory=dict[str, int])
    """Whole rows left out, by reason."""
    digest: str = ""
    """Stands for the rows used."""

    def summary(self) -> dict[str, Any]:
        """The counts as JSON values."""
        counts = {"n_rows": self.n_rows, "n_bad": self.n_bad, "n_used": self.n_used}
        return {**counts, "left_out": self.left_out}


def in_words(summary: Mapping[str, Any]) -> str:
    """A reading's summary as one line."""
    left_out = ", ".join(f"{n} {reason}" for reason, n in summary["left_out"].items())
    return f"{summary['n_rows']} rows, {summary['n_bad']} broken, {summary['n_used']} used" + (
        f", left out: {left_out}" if left_out else ""
    )


class Foreign(NamedTuple):
    """Everything that a config takes from elsewhere, and a reading of each source."""

    pairs: list[Pair]
    pair_readings: list[Reading]
    ratings: list[Rating]
    rating_readings: list[Reading]


def read_foreign(config: RunConfig) -> Foreign:
    """Read `preferences.sources` and `reward.ratings` whole. Raises ConfigError."""
    seed, skip_bad = config.seed, config.prompts.skip_bad
    paired = [read_pairs(source, seed, skip_bad) for source in config.preferences.sources]
    rated = [read_ratings(source, skip_bad) for source in config.reward.ratings]
    return Foreign(
        pairs=[pair for pairs, _ in paired for pair in pairs],
        pair_readings=[reading for _, reading in paired],
        ratings=[rating for ratings, _ in rated for rating in ratings],
        rating_readings=[reading for _, reading in rated],
    )


def read_pairs(
    source: str | PreferenceSource, seed: int, skip_bad: bool
) -> tuple[list[Pair], Reading]:
    """A source's pairs, of which `n` are drawn by `seed`, and what became of its rows.

    Left out are rows whose sides are the same or answer different prompts (hh-rlhf has some), and
    rows that are there twice. Raises ConfigError naming file and line of a broken row (`skip_bad`:
    counts it), and if no pair is left.
    """
    spec = PreferenceSource(path=source) if isinstance(source, str) else source
    count = SourceCount(spec.path, "red_team")
    made = list(pairs_in(spec, count, skip_bad))
    pairs = [pair for pair in made if isinstance(pair, Pair)]
    left_out = Counter(reason for reason in made if isinstance(reason, str))
    distinct = list({pair.id: pair for pair in pairs}.values())
    drawn = draw(distinct, spec.n, seed, "n")
    left_out["duplicate"] = len(pairs) - len(distinct)
    left_out["over_n"] = len(distinct) - len(drawn)
    return drawn, reading_of(count, drawn, dict(+left_out))


def reading_of(
    count: SourceCount, used: Sequence[Pair | Rating], left_out: dict[str, int]
) -> Reading:
    """What became of a source. Raises ConfigError if nothing of it is used."""
    stamp = digest(*(one.id for one in used))
    reading = Reading(count.source, count.n_rows, count.n_bad, len(used), left_out, stamp)
    if not used:
        reasons = ", ".join(f"{n} {why}" for why, n in ({"broken": count.n_bad} | left_out).items())
        raise ConfigError(f"{count.source}: nothing to learn from ({count.n_rows} rows; {reasons})")
    return reading


def pairs_in(spec: PreferenceSource, count: SourceCount, skip_bad: bool) -> Iterable[Pair | str]:
    """A source's pairs; a reason in the place of one that is left out."""
    if run := run_at(spec.path):
        pairs = run_pairs(run, spec.path)
        count.n_rows = len(pairs)
        return pairs
    rows = source_rows(
        DatasetSource(path=spec.path, split=spec.split, revision=spec.revision), count, skip_bad
    )
    return read_each(rows, partial(pair_of, spec), count, skip_bad)


def source_rows(source: DatasetSource, count: SourceCount, skip_bad: bool) -> Iterator[Row]:
    """Rows as `cai.sources` reads them, but of a path of the user's, never of a shipped file."""
    path = source.path
    is_local = path.count("/") != 1 or path.startswith((".", "/", "~")) or ".jsonl" in path
    if is_local and not os.path.exists(path):  # never raises, however long
        raise ConfigError(
            f"{path}: not there; expected a JSONL(.gz) file, a folder of them, a run (for "
            "preferences), or a dataset's id such as Anthropic/hh-rlhf"
        )
    return read_source(source.model_copy(update={"column": None}), count, skip_bad)


def pair_of(spec: PreferenceSource, row: Row) -> Pair | str:
    """The pair in a row, or why there is none. `p_chosen` below 0.5 exchanges the sides."""
    missing = [name for name in SIDES if row.data.get(name) is None]
    if missing:
        raise ConfigError(f"{row.place}: expected chosen and rejected, found no {missing[0]}")
    (*before, chosen), (*other, rejected) = conversations(row)
    if before != other:
        return "prompts_differ"
    if chosen == rejected:
        return "identical"
    if before[-1].role != "user":
        raise ConfigError(f"{row.place}: expected a user's turn before the answers")
    given = row.data.get("p_chosen")
    p = spec.p_chosen if given is None else number(given, "p_chosen", row.place)
    if not 0 <= p <= 1:
        raise ConfigError(f"{row.place}: p_chosen: expected a probability, not {p:g}")
    texts = (chosen.content, rejected.content)
    chosen_text, rejected_text = texts if p >= 0.5 else texts[::-1]
    turns = [[message.role, message.content] for message in before]
    return Pair(
        id=digest("pair", turns, chosen_text, rejected_text, max(p, 1 - p)),
        messages=tuple(before),
        chosen=chosen_text,
        rejected=rejected_text,
        p_chosen=max(p, 1 - p),
        group=group_of(before),
        source=spec.path,
        place=row.place,
    )


def number(value: Any, name: str, place: str) -> float:
    """The value as a finite float. Raises ConfigError for anything else, true and false too."""
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if not is_number or not abs(value) <= sys.float_info.max:
        raise ConfigError(f"{place}: {name}: expected a finite number, not {str(value)[:40]!r}")
    return float(value)


def run_pairs(run: Path, source: str) -> list[Pair]:
    """The pairs that a run's stage label left. Raises ConfigError if it left none, or is broken."""
    path = stage_folder(run, "label") / "preferences.jsonl"
    if not path.is_file():
        raise ConfigError(
            f"{run}: no preferences in this run ({path} is not there): its stage label is not done"
        )
    preferences = of_type(read_records(path), Preference)
    prompts = {p.id: p for p in of_type(read_records(run / "inputs" / "prompts.jsonl"), Prompt)}
    texts = run_texts(run, {i for p in preferences for i in (p.chosen_id, p.rejected_id)})
    try:
        return [run_pair(one, prompts[one.prompt_id], texts, source) for one in preferences]
    except KeyError as error:
        raise ConfigError(f"{path}: the run has no record {error}, which is named here") from error


def run_texts(run: Path, ids: set[str]) -> dict[str, str]:
    """Texts of samples, and of responses and revisions, by id. Never holds a whole run."""
    texts: dict[str, str] = {}
    for stage in ("sample", "revise"):
        if ids - texts.keys():
            for record in read_records(stage_folder(run, stage) / "records.jsonl"):
                if isinstance(record, Response | Revision) and record.id in ids:
                    texts[record.id] = record.text
    return texts


def run_pair(preference: Preference, prompt: Prompt, texts: Mapping[str, str], source: str) -> Pair:
    return Pair(
        id=preference.id,
        messages=prompt.messages,
        chosen=texts[preference.chosen_id],
        rejected=texts[preference.rejected_id],
        p_chosen=preference.p_chosen,
        group=prompt.group,
        source=source,
        place=preference.id,
    )


def draw(pairs: Sequence[Pair], n: int | None, seed: int, purpose: str) -> list[Pair]:
    """`n` of them (none: all), drawn by `seed`; in the order of their ids, whatever it was."""
    drawn = sorted(pairs, key=lambda pair: (derive_seed(purpose, seed, pair.id), pair.id))[:n]
    return sorted(drawn, key=lambda pair: pair.id)


def mix(
    own: Sequence[Pair], foreign: Sequence[Pair], ratio: float | None, seed: int
) -> tuple[list[Pair], dict[str, int]]:
    """All of `own`, and of `foreign` as many as make up `ratio` of the whole, if there are so many.

    Without a ratio, or without own pairs, all of them. The second value: foreign ones left out, by
    reason.
    """
    held = {pair.id for pair in own}
    distinct = list({pair.id: pair for pair in foreign if pair.id not in held}.values())
    wanted = round(len(own) * ratio / (1 - ratio)) if ratio and own else None
    drawn = draw(distinct, wanted, seed, "ratio")
    left_out = Counter(
        duplicate=len(foreign) - len(distinct), over_ratio=len(distinct) - len(drawn)
    )
    return [*own, *drawn], dict(+left_out)


def read_ratings(source: str | DatasetSource, skip_bad: bool) -> tuple[list[Rating], Reading]:
    """A source's ratings, and what became of its rows.

    A row has a number `rating`, and a conversation in one of the forms of `cai.conversations` or in
    the source's `column`. Raises ConfigError as `read_pairs` does.
    """
    spec = DatasetSource(path=source) if isinstance(source, str) else source
    count = SourceCount(spec.path, "red_team")
    rows = source_rows(spec, count, skip_bad)
    read = read_each(rows, partial(rating_of, spec), count, skip_bad)
    found = sorted(read, key=lambda rating: rating.id)
    return found, reading_of(count, found, {})


def rating_of(spec: DatasetSource, row: Row) -> Rating:
    """The rating in a row."""
    data = row.data
    if spec.column:
        if data.get(spec.column) is None:
            raise ConfigError(f"{row.place}: expected a conversation in column '{spec.column}'")
        data = {"messages": data[spec.column]}
    messages, *others = conversations(Row(row.place, data))
    if others:
        raise ConfigError(f"{row.place}: a rating is of one conversation, this row has a pair")
    rating = number(row.data.get("rating"), "rating", row.place)
    return Rating(
        id=digest("rating", [[message.role, message.content] for message in messages], rating),
        messages=messages,
        rating=rating,
        group=group_of(messages),
        source=spec.path,
        place=row.place,
    )
