"""Human preference pairs, split so that no dialogue serves two purposes."""

import itertools
import random
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from cai.errors import ConfigError
from cai.preferences import Pair as HumanPair
from cai.preferences import read_pairs
from cai.records import Prompt, derive_seed, digest
from cai.reproduce.gaps import Pair
from cai.reproduce.options import HumanSizes, Work
from cai.sources import openings

MIN_PROMPTS = 2
"""An interval needs two observations."""


class Split(NamedTuple):
    """Pairs by the purpose of their dialogue; each part's dialogues in an order drawn by the seed.

    Dialogues that begin with the same words count as one.
    """

    test: list[HumanPair]
    tuning: list[HumanPair]
    training: list[HumanPair]


def load_split(work: Work) -> tuple[Split, dict[str, Any]]:
    """The data's pairs, and what became of its rows. Raises ConfigError if a part is empty."""
    options, sizes = work.options, work.options.sizes.human
    pairs, reading = read_pairs(options.data, options.seed, options.skip_bad)
    short = [pair for pair in pairs if n_chars(pair) <= sizes.max_chars]
    split = split_pairs(short, sizes, options.seed)
    if not all(split):
        raise ConfigError(
            f"{options.data}: {len(short)} pairs of at most {sizes.max_chars:,} characters are too "
            "few to split into test, tuning and training"
        )
    counts = {"n_long": len(pairs) - len(short), **{f"n_{k}": len(v) for k, v in named(split)}}
    return split, {**reading.summary(), **counts}


def named(split: Split) -> Iterable[tuple[str, list[HumanPair]]]:
    """The parts with their names."""
    return split._asdict().items()


def n_chars(pair: HumanPair) -> int:
    """Characters of the longer side, the dialogue before it included."""
    before = sum(len(message.content) for message in pair.messages)
    return before + max(len(pair.chosen), len(pair.rejected))


def split_pairs(pairs: Sequence[HumanPair], sizes: HumanSizes, seed: int) -> Split:
    """Each dialogue's purpose is drawn by the seed."""
    groups = in_order({pair.group for pair in pairs}, seed)
    n_test, n_tuning = (round(share * len(groups)) for share in (sizes.test, sizes.tuning))
    place = {group: i for i, group in enumerate(groups)}
    ordered = sorted(pairs, key=lambda pair: place[pair.group])
    ends = (0, n_test, n_test + n_tuning, len(groups))
    return Split(
        *(
            [pair for pair in ordered if start <= place[pair.group] < end]
            for start, end in itertools.pairwise(ends)
        )
    )


def in_order(groups: Iterable[str], seed: int) -> list[str]:
    """Dialogues in an order drawn by the seed."""
    return sorted(groups, key=lambda group: (derive_seed("reproduce", seed, group), group))


def as_pair(pair: HumanPair) -> Pair:
    """The pair as a reward model is given it."""
    prompt = [message.model_dump() for message in pair.messages]
    return Pair(prompt, pair.chosen, pair.rejected, pair.p_chosen)


def in_batches(pairs: Sequence[HumanPair], size: int, seed: int) -> list[HumanPair]:
    """The pairs in an order in which each `size` in a row are of similar length.

    Little padding: on a CPU half of the time. Which batch comes when is drawn by the seed.
    """
    ordered = sorted(pairs, key=n_chars)
    batches = [ordered[start : start + size] for start in range(0, len(ordered), size)]
    # a last one that is not full would end every epoch elsewhere: it stays at the end
    full = [batch for batch in batches if len(batch) == size]
    random.Random(derive_seed("reproduce batches", seed)).shuffle(full)
    rest = [batch for batch in batches if len(batch) < size]
    return [pair for batch in (*full, *rest) for pair in batch]


class Prompts(NamedTuple):
    """Prompts of the tuning dialogues; no dialogue is in both parts."""

    training: list[Prompt]
    unseen: list[Prompt]
    n_long: int
    """Left out: more characters than `RlSizes.max_chars`."""


def make_prompts(pairs: Iterable[HumanPair], work: Work) -> Prompts:
    """Every human turn starts a prompt. Raises ConfigError if there are too few."""
    sizes, seed = work.options.sizes.rl, work.options.seed
    found = {prompt.id: prompt for pair in pairs for prompt in prompts_of(pair)}
    short = [one for one in found.values() if n_prompt_chars(one) <= sizes.max_chars]
    groups = in_order({prompt.group for prompt in short}, seed)
    measuring = set(groups[: len(groups) // 2])
    ordered = sorted(short, key=lambda prompt: (derive_seed("order", seed, prompt.id), prompt.id))
    unseen = [prompt for prompt in ordered if prompt.group in measuring][: sizes.n_unseen]
    training = [prompt for prompt in ordered if prompt.group not in measuring]
    if min(len(unseen), len(training)) < MIN_PROMPTS:
        raise ConfigError(
            f"{work.options.data}: {len(short)} prompts of at most {sizes.max_chars} characters in "
            "the tuning dialogues are too few for RL; give more data"
        )
    return Prompts(training, unseen, len(found) - len(short))


def prompts_of(pair: HumanPair) -> Iterable[Prompt]:
    """A prompt for each human turn of the dialogue."""
    for messages in openings(pair.messages, "all"):
        yield Prompt(
            id=digest("prompt", [[m.role, m.content] for m in messages]),
            messages=messages,
            kind="red_team",
            area="reproduce",
            source=pair.place,
            group=pair.group,
            split="eval",
        )


def n_prompt_chars(prompt: Prompt) -> int:
    """Characters of the whole dialogue so far."""
    return sum(len(message.content) for message in prompt.messages)
