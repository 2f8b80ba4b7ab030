"""Which transcripts a reader wants to see: by round, principle, tag, text, or drawn at random."""

import difflib
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

from cai.errors import ConfigError
from cai.records import Critique, Response, Revision, digest
from cai.view.badges import BADGES, badges
from cai.view.page_index import STAGES, last_text, stages
from cai.view.principle_page import chain_change
from cai.view.terminal import clean, one_line
from cai.view.transcripts import Transcript
from cai.words import split_words


@dataclass(frozen=True, slots=True)
class Choice:
    """What transcripts are chosen by; all of it has to fit, and nothing given fits them all."""

    round: int | None = None
    principle: str | None = None
    """The id of one that was drawn for the round, or for any round or label."""
    tags: tuple[str, ...] = ()
    """Badges, stages that made something of the prompt, or the prompt's kind, area or split."""
    search: str = ""
    n_random: int | None = None
    """So many of those that fit, drawn at random with `seed`."""
    seed: int = 0
    order: str = ""
    """One of `ORDERS`; empty: as in the run."""

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
            self.order and f"{self.order} first",
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
        return {prompt.kind, prompt.area, prompt.split, *self.badges, *self.stages}

    @property
    def stages(self) -> list[str]:
        return [f"stage {name}" for name, there in stages(self.transcript).items() if there]

    @property
    def last(self) -> Response | Revision | None:
        """What the run ended with."""
        return last_text(self.transcript)

    @property
    def reward(self) -> float | None:
        """Of the last text."""
        return self.transcript.rewards.get(self.last.id) if self.last else None

    @property
    def n_tokens(self) -> int | None:
        """Of the last text."""
        return self.last.generation.n_tokens if self.last else None

    @cached_property
    def change(self) -> float | None:
        return chain_change(self.transcript)

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


def negative(value: float | None) -> float | None:
    return None if value is None else -value


ORDERS: Mapping[str, Callable[[Chain], float | None]] = {
    "highest reward": lambda chain: negative(chain.reward),
    "lowest reward": lambda chain: chain.reward,
    "largest change": lambda chain: negative(chain.change),
    "smallest change": lambda chain: chain.change,
    "longest": lambda chain: negative(chain.n_tokens),
    "shortest": lambda chain: chain.n_tokens,
}


def in_order(chains: Iterable[Chain], order: str) -> Iterator[Chain | None]:
    """The chains in one of `ORDERS`, those without a value last. As that takes long in a large run,
    a None comes for each chain that has been looked at."""
    if not order:
        yield from chains
        return
    keyed = list[tuple[float | None, Chain]]()
    for chain in chains:
        keyed.append((ORDERS[order](chain), chain))
        yield None
    keyed.sort(key=lambda pair: (pair[0] is None, pair[0] or 0))
    yield from (chain for _, chain in keyed)


def shown_texts(transcript: Transcript, choice: Choice) -> Iterator[str]:
    """Each message, generated text and error that a reader of the transcript sees, cleaned.

    A revision that changes nothing is not shown again."""
    errors = list[Response | Critique | Revision | None]()
    texts = [message.content for message in transcript.prompt.messages]
    before = transcript.response.text if transcript.response else ""
    if choice.round is None:
        texts.append(before)
        errors.append(transcript.response)
    for round in transcript.rounds:
        critique, revision = round.critique, round.revision
        after = revision.text if revision else before
        if choice.round in (None, round.number):
            texts += [critique.text] if critique else []
            texts += [after] if split_words(after) != split_words(before) else []
            errors += [critique, revision]
        before = after
    if choice.round is None:
        more = [*transcript.samples, *(answer.response for answer in transcript.answers)]
        texts += [one.text for one in more]
        errors += more
        texts += [reasoning.text for reasoning in transcript.reasonings]
    return map(clean, [*texts, *(one.generation.error or "" for one in errors if one)])


def make_chains(transcripts: Iterable[Transcript]) -> list[Chain]:
    """The transcripts that a reader can choose from: those of which the run made something."""
    return [Chain(transcript) for transcript in transcripts if transcript.used]


def choose(chains: Sequence[Chain], choice: Choice) -> tuple[list[Chain], str]:
    """The chains that are wanted, and a line that says how many of which.

    Raises ConfigError for a principle or tag that the run does not have."""
    choice = check_choice(choice, chains)
    ordered = in_order(chains, choice.order)
    found = fitting = [chain for chain in ordered if chain and chain.fits(choice)]
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
    names = [*BADGES, *(f"stage {name}" for name in STAGES), *tags]
    found = tuple(find_name(tag, names, "badge") for tag in choice.tags)
    return replace(choice, principle=principle, tags=found)


def find_name(given: str, known: Sequence[str], what: str) -> str:
    """The one of `known` that is `given`, or the only one that begins with it or has it in it, in
    any case and with x for ×."""
    if given in known:
        return given
    wanted, names = plain(given), [(name, plain(name)) for name in known]
    begun = [name for name, text in names if wanted and text.startswith(wanted)]
    fits = begun or [name for name, text in names if wanted and wanted in text]
    if len(fits) == 1:
        return fits[0]
    near = fits or difflib.get_close_matches(given, known, 3)
    hint = f"did you mean {' or '.join(map(one_line, near))}? " if near else ""
    listed = ", ".join(map(one_line, known)) or "none"
    raise ConfigError(f"this run has no {what} '{one_line(given)}'; {hint}there are: {listed}")


def plain(name: str) -> str:
    return name.strip().casefold().replace("×", "x")
