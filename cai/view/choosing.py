"""Which transcripts a reader wants to see: by round, principle, tag, text, or drawn at random."""

import difflib
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

from cai.errors import ConfigError
from cai.metrics import split_words
from cai.records import digest
from cai.view.badges import BADGES, badges
from cai.view.terminal import clean, one_line
from cai.view.transcripts import Transcript


@dataclass(frozen=True, slots=True)
class Choice:
    """What transcripts are chosen by; all of it has to fit, and nothing given fits them all."""

    round: int | None = None
    principle: str | None = None
    """The id of one that was drawn for the round, or for any round or label."""
    tags: tuple[str, ...] = ()
    """Badges, or the prompt's kind, area or split."""
    search: str = ""
    n_random: int | None = None
    """So many of those that fit, drawn at random with `seed`."""
    seed: int = 0

    @property
    def pattern(self) -> re.Pattern[str] | None:
        """Finds the words of `search` in cleaned text, in any case and across line ends."""
        words = map(re.escape, one_line(self.search).split())
        return re.compile(r"\s+".join(words), re.IGNORECASE) if self.search.strip() else None

    def __str__(self) -> str:
        """For a heading; safe to print."""
        parts = (
            self.round and f"round {self.round}",
            self.principle and f"principle {self.principle}",
            *self.tags,
            self.search.strip() and f"“{self.search}”",
        )
        return " · ".join(one_line(part) for part in parts if part)


class Chain:
    """A transcript with what it is chosen by, which is worked out when it is first asked for."""

    def __init__(self, transcript: Transcript) -> None:
        self.transcript = transcript

    @cached_property
    def badges(self) -> list[str]:
        return badges(self.transcript)

    @property
    def tags(self) -> set[str]:
        prompt = self.transcript.prompt
        return {prompt.kind, prompt.area, prompt.split, *self.badges}

    def rounds(self) -> set[int]:
        return {round.number for round in self.transcript.rounds}

    def principles(self, number: int | None = None) -> set[str]:
        """The ids of the principles that were drawn, in one round or for anything."""
        found = self.transcript
        labels = () if number else (*found.labels, *found.comparisons)
        drawn = {r.principle_id for r in found.rounds if number in (None, r.number)}
        return drawn | {label.principle_id for label in labels}

    def hits(self, choice: Choice) -> int:
        """How often the text that is searched for occurs in what `choice` shows."""
        pattern = choice.pattern
        if pattern is None:
            return 0
        return sum(len(pattern.findall(text)) for text in shown_texts(self.transcript, choice))

    def fits(self, choice: Choice) -> bool:
        """Whether it is one of those that are wanted, the cheapest question first."""
        pattern = choice.pattern
        return (
            (choice.round is None or choice.round in self.rounds())
            and (choice.principle is None or choice.principle in self.principles(choice.round))
            and (pattern is None or any(map(pattern.search, shown_texts(self.transcript, choice))))
            and (not choice.tags or self.tags.issuperset(choice.tags))
        )


def shown_texts(transcript: Transcript, choice: Choice) -> Iterator[str]:
    """Each message and generated text that a reader of the transcript sees, cleaned.

    A revision that changes nothing is not shown again."""
    texts = [message.content for message in transcript.prompt.messages]
    before = transcript.response.text if transcript.response else ""
    if choice.round is None:
        texts.append(before)
    for round in transcript.rounds:
        critique, revision = round.critique, round.revision
        after = revision.text if revision else before
        if choice.round in (None, round.number):
            texts += [critique.text] if critique else []
            texts += [after] if split_words(after) != split_words(before) else []
        before = after
    if choice.round is None:
        texts += [sample.text for sample in transcript.samples]
        texts += [answer.response.text for answer in transcript.answers]
        texts += [reasoning.text for reasoning in transcript.reasonings]
    return map(clean, texts)


def make_chains(transcripts: Iterable[Transcript]) -> list[Chain]:
    """The transcripts that a reader can choose from: those of which the run made something."""
    return [Chain(transcript) for transcript in transcripts if transcript.used]


def choose(chains: Sequence[Chain], choice: Choice) -> tuple[list[Chain], str]:
    """The chains that are wanted, and a line that says how many of which.

    Raises ConfigError for a principle or tag that the run does not have."""
    choice = check_choice(choice, chains)
    found = fitting = [chain for chain in chains if chain.fits(choice)]
    if choice.n_random:
        found = draw(fitting, choice.n_random, choice.seed)
    n_hits = sum(chain.hits(choice) for chain in found)
    parts = [f"{len(fitting):,} of {len(chains):,} chains", str(choice)]
    if choice.pattern:
        parts.append(f"{n_hits:,} hit{'s' * (n_hits != 1)}")
    if choice.n_random:
        parts.append(f"{len(found):,} at random, --seed {choice.seed}")
    return found, " · ".join(filter(None, parts)) + ("" if found else ": nothing matches")


def draw(chains: Sequence[Chain], n: int, seed: int) -> list[Chain]:
    """`n` of them at random, in their own order; the same ones whatever else there is to draw."""
    order = sorted(chains, key=lambda chain: digest("show", seed, chain.transcript.prompt.id))
    drawn = set(map(id, order[:n]))
    return [chain for chain in chains if id(chain) in drawn]


def check_choice(choice: Choice, chains: Sequence[Chain]) -> Choice:
    """The choice with its names written out, of which a beginning is enough.

    Raises ConfigError for a principle or tag that the run does not have."""
    principle, prompts = choice.principle, [chain.transcript.prompt for chain in chains]
    if principle is not None:
        known = {id for c in chains for id in (*c.transcript.principles, *c.principles())}
        principle = find_name(principle, sorted(known), "principle")
    tags = dict.fromkeys(tag for p in prompts for tag in (p.kind, p.split, p.area))
    names = [*BADGES, *tags]
    found = tuple(find_name(tag, names, "badge") for tag in choice.tags)
    return replace(choice, principle=principle, tags=found)


def find_name(given: str, known: Sequence[str], what: str) -> str:
    """The one of `known` that is `given`, or the only one that begins with it."""
    fits = [name for name in known if name.startswith(given)] if given else []
    if given in known or len(fits) == 1:
        return given if given in known else fits[0]
    near = fits or difflib.get_close_matches(given, known, 3)
    hint = f"did you mean {' or '.join(map(one_line, near))}? " if near else ""
    listed = ", ".join(map(one_line, known)) or "none"
    raise ConfigError(f"this run has no {what} '{one_line(given)}'; {hint}there are: {listed}")
