"""Putting questions with known answers to a judge, before it labels anything."""

from typing import NamedTuple

from cai.chains.labelling import LabelSetup, ask, draw_principles, label_chain, write
from cai.chains.pairing import Candidates
from cai.driver import Chain
from cai.preferences import Pair
from cai.records import Generation, Prompt, Response, Sampling, digest

GIVEN = Generation(model="data", template=None, sampling=Sampling(), seed=0, finish="stop")
"""The provenance of a text that no model of ours has made."""


class Trial(NamedTuple):
    """What a judge is asked. In each pair of `pairs` the first response is the better one."""

    pairs: list[Candidates]
    identical: list[Candidates]
    """A response beside itself: neither is better."""
    written: list[Candidates]
    """Pairs whose verdict is asked for in words, in one order."""


def make_trial(pairs: list[Pair], n_identical: int, n_written: int) -> Trial:
    """Candidates of foreign pairs; the first `n_identical` and `n_written` of them serve twice."""
    known = [candidates(pair, pair.rejected) for pair in pairs]
    same = [candidates(pair, pair.chosen) for pair in pairs[:n_identical]]
    return Trial(known, same, known[:n_written])


def candidates(pair: Pair, other: str) -> Candidates:
    """The better response of a pair beside `other`."""
    prompt = Prompt(
        id=pair.id,
        messages=pair.messages,
        kind="red_team",
        area="",
        source=pair.place,
        group=pair.group,
        split="preference",
    )
    return Candidates(prompt, given(pair, "one", pair.chosen), given(pair, "other", other))


def given(pair: Pair, slot: str, text: str) -> Response:
    id = digest("given", pair.id, slot, text)
    return Response(id=id, prompt_id=pair.id, sample=0, text=text, generation=GIVEN)


def written_chain(pair: Candidates, setup: LabelSetup) -> Chain:
    """One verdict in words. `setup` has mode text."""
    principle = draw_principles(pair, setup)[0]
    yield write(ask(pair, principle, (), setup), setup)


def trial_chains(trial: Trial, setup: LabelSetup, written: LabelSetup) -> list[Chain]:
    """Every chain of a trial; those of known pairs first."""
    chains = [label_chain(pair, setup) for pair in (*trial.pairs, *trial.identical)]
    return [*chains, *(written_chain(pair, written) for pair in trial.written)]
