"""Chains are pure: they are played here against canned completions."""

from itertools import pairwise

import pytest
from canned import PRINCIPLES, PROMPT, play, says

from cai.chains.revision import RevisionSetup, Voice, revision_chain
from cai.constitution import Principle
from cai.prompts import Templates
from cai.records import Sampling


def setup(
    principles: list[Principle] = PRINCIPLES, rounds: int = 2, seed: int = 0
) -> RevisionSetup:
    voice = Voice("base", "m@1", Sampling())
    return RevisionSetup(
        (), principles, Templates(), rounds, seed, voice, voice._replace(role="critic"), voice
    )


ANSWERS = [
    says(text) for text in (" He is a fool. ", "Rude.", "He errs.", "Still rude.", "He is new.")
]


def test_a_chain_is_one_growing_conversation() -> None:
    requests, records = play(revision_chain(PROMPT, setup()), ANSWERS)
    assert [r.type for r in records] == ["response", "critique", "revision", "critique", "revision"]
    for one, two in pairwise(requests):
        assert two.messages[: len(one.messages)] == one.messages
    assert [m.role for m in requests[-1].messages] == ["user", "assistant"] * 4 + ["user"]
    assert records[0].text == "He is a fool."
    assert [r.role for r in requests] == ["base", "critic", "base", "critic", "base"]


def test_records_name_parents_rounds_and_principles() -> None:
    _, records = play(revision_chain(PROMPT, setup()), ANSWERS)
    parents = [getattr(record, "parent_id", None) for record in records]
    assert parents == [None, *(record.id for record in records[:-1])]
    assert [getattr(record, "round", 0) for record in records] == [0, 1, 1, 2, 2]
    drawn = [getattr(record, "principle_id", None) for record in records]
    assert drawn[1] == drawn[2]
    assert drawn[3] == drawn[4]


def test_each_round_asks_under_its_drawn_principle() -> None:
    requests, records = play(revision_chain(PROMPT, setup()), ANSWERS)
    number = str(getattr(records[1], "principle_id", ""))[1:]
    assert requests[1].messages[-1].content.startswith(f"C{number}")
    assert requests[2].messages[-1].content.startswith(f"R{number}")


@pytest.mark.parametrize("n_good", range(5))
def test_a_failed_generation_ends_the_chain_with_its_reason(n_good: int) -> None:
    answers = [*ANSWERS[:n_good], says("", "error")]
    _, records = play(revision_chain(PROMPT, setup()), answers)
    assert len(records) == n_good + 1
    assert records[-1].generation.error == "why"


def test_ids_change_with_what_made_a_record_and_nothing_else() -> None:
    def ids(seed: int = 0, principles: list[Principle] = PRINCIPLES) -> list[str]:
        return [
            r.id for r in play(revision_chain(PROMPT, setup(principles, seed=seed)), ANSWERS)[1]
        ]

    assert ids() == ids()
    assert not set(ids()) & set(ids(seed=1))
    drawn = {
        getattr(r, "principle_id", None) for r in play(revision_chain(PROMPT, setup()), ANSWERS)[1]
    }
    for i, principle in enumerate(PRINCIPLES):
        edited = [
            p.model_copy(update={"critique": "new"}) if p is principle else p for p in PRINCIPLES
        ]
        assert (ids(principles=edited) == ids()) == (f"p{i}" not in drawn)
