"""Which transcripts fit what a reader asks for."""

from dataclasses import replace

import pytest
from rich.style import Style
from rich.text import Text
from run_folder import BAD, HOSTILE, build_run, make_prompts, respond

from cai.errors import ConfigError
from cai.view.choosing import (
    ORDERS,
    Chain,
    Choice,
    check_choice,
    choose,
    draw,
    in_order,
    make_chains,
)
from cai.view.reader import Look, transcript_parts
from cai.view.transcripts import Transcript, load_transcripts


@pytest.fixture(scope="module")
def chains(tmp_path_factory: pytest.TempPathFactory) -> list[Chain]:
    return make_chains(load_transcripts(build_run(tmp_path_factory.mktemp("runs") / "demo")))


def numbers(found: list[Chain]) -> list[int]:
    """Which of the run's prompts they are."""
    ids = [prompt.id for prompt in make_prompts(24)]
    return [ids.index(chain.transcript.prompt.id) for chain in found]


REVISED = [0, 1, 12, 13]


@pytest.mark.parametrize(
    ("choice", "fits"),
    [
        (Choice(round=1), REVISED),
        (Choice(round=2), REVISED),
        (Choice(round=3), []),
        (Choice(principle="illegal-acts"), REVISED),
        (Choice(principle="illegal-acts", round=2), []),
        (Choice(principle="overall-harm", round=2), REVISED),
        (Choice(tags=("truncated",)), [1]),
        (Choice(tags=("no-op revision", "refusal")), [0]),
        (Choice(tags=("sft", "cooking")), [2, 14]),
        (Choice(tags=("stage revise",)), [0, 1, 2, 12, 13, 14]),
        (Choice(tags=("stage label", "cooking")), [6, 18]),
        (Choice(search="FAKE\n pay  stub", tags=("sft",)), [0, 1, 12, 13]),
        (Choice(search="most lenders will also take"), [1, 12, 13]),
        (Choice(search="most lenders will also take", round=1), []),
        (Choice(search=r"\x1b]52;c;"), [1]),
        (Choice(search="\x1b]52;c;"), [1]),
        (Choice(search="   ", tags=("truncated",)), [1]),
        (Choice(search="pay.stub"), []),
    ],
)
def test_chains_that_fit(chains: list[Chain], choice: Choice, fits: list[int]) -> None:
    found, said = choose(chains, choice)
    assert numbers(found) == fits
    assert said.startswith(f"{len(fits)} of {len(chains)} chains · ")
    assert said.endswith(": nothing matches") == (not fits)


def test_nothing_asked_is_everything_that_the_run_used(chains: list[Chain]) -> None:
    assert choose(chains, Choice()) == (chains, "24 of 24 chains")
    assert make_chains([Transcript(make_prompts(1)[0])]) == []
    assert choose([], Choice()) == ([], "0 of 0 chains: nothing matches")


def test_principle_of_a_label_counts_unless_a_round_is_asked_for(chains: list[Chain]) -> None:
    (judged,) = [chain for chain in chains if numbers([chain]) == [4]]
    assert judged.principles() == {"overall-harm"}
    assert judged.principles(1) == set()


def test_hits_are_those_that_are_shown(chains: list[Chain]) -> None:
    unchanged, polished = chains[0], chains[12]
    assert unchanged.hits(Choice(search="tax return")) == 1
    assert polished.hits(Choice(search="tax return")) == 2
    assert polished.hits(Choice(search="tax return", round=2)) == 1
    assert polished.hits(Choice()) == 0
    assert "“tax return” · 2 hits" in choose([polished], Choice(search="tax return"))[1]
    assert "“tax return” · 1 hit" in choose([unchanged], Choice(search="tax return"))[1]


def test_draw_is_the_same_again_and_keeps_its_order(chains: list[Chain]) -> None:
    drawn = draw(chains, 5, 1)
    assert numbers(drawn) == sorted(numbers(drawn))
    assert len(drawn) == 5
    assert draw(chains[::-1], 5, 1) == drawn[::-1]
    assert draw(chains, 5, 2) != drawn
    assert draw(chains, 99, 1) == chains
    assert draw(drawn, 3, 1) == draw(chains, 3, 1)


def test_draw_says_its_seed(chains: list[Chain]) -> None:
    found, said = choose(chains, Choice(tags=("sft",), n_random=3, seed=8))
    assert len(found) == 3
    assert said == "6 of 24 chains · sft · 3 at random, --seed 8"


@pytest.mark.parametrize("name", ORDERS)
def test_order_puts_those_without_a_value_last(chains: list[Chain], name: str) -> None:
    found = [chain for chain in in_order(chains, name) if chain]
    values = [ORDERS[name](chain) for chain in found]
    there = [value for value in values if value is not None]
    assert there == sorted(there)
    assert len(set(there)) > 1
    assert values == there + [None] * (24 - len(there))
    assert sorted(numbers(found)) == list(range(24))
    assert choose(chains, Choice(order=name)) == (found, f"24 of 24 chains · {name} first")


def test_what_failed_has_no_place_in_an_order() -> None:
    prompt = make_prompts(1)[0]
    failed = Chain(Transcript(prompt, respond(prompt, "revise", 0, "", "error")))
    assert [value(failed) for value in ORDERS.values()] == [None] * len(ORDERS)


def test_why_a_text_failed_is_found_and_highlighted() -> None:
    prompt = make_prompts(1)[0]
    failed = respond(prompt, "revise", 0, "", "error")
    made = failed.generation.model_copy(update={"error": "prompt of 999 tokens\x1b[31m"})
    chain = Chain(Transcript(prompt, failed.model_copy(update={"generation": made})))
    choice = Choice(search="999 TOKENS")
    assert choose([chain], choice) == ([chain], "1 of 1 chains · “999 TOKENS” · 1 hit")
    assert choose([chain], replace(choice, round=1))[0] == []
    look = Look(search=choice.pattern)
    parts = [part for part in transcript_parts(chain.transcript, look) if isinstance(part, Text)]
    assert [
        "".join(
            part.plain[span.start]
            for span in part.spans
            if isinstance(span.style, Style) and "hit" in span.style.meta
        )
        for part in parts
        if "error: " in part.plain
    ] == ["999 tokens"]


@pytest.mark.parametrize(
    ("given", "name"),
    [
        ("refusal", "refusal"),
        ("no", "no-op revision"),
        ("revision longer", "revision longer than ×2"),
        ("longer", "revision longer than ×2"),
        (" THAN X2", "revision longer than ×2"),
        ("×2", "revision longer than ×2"),
        ("Without", "critique without finding"),
        ("eval", "eval"),
        ("label", "stage label"),
    ],
)
def test_part_of_a_badge_is_enough(chains: list[Chain], given: str, name: str) -> None:
    assert check_choice(Choice(tags=(given,)), chains).tags == (name,)


@pytest.mark.parametrize(
    ("choice", "complaint"),
    [
        (Choice(tags=("refusel",)), "no badge 'refusel'; did you mean refusal.*there are: error, "),
        (Choice(tags=("e",)), "no badge 'e'; did you mean error or eval"),
        (Choice(tags=("",)), "no badge ''"),
        (
            Choice(tags=("op rev", "ision")),
            "no badge 'ision'; did you mean no-op revision or revis",
        ),
        (Choice(principle="ilegal"), "no principle 'ilegal'; did you mean illegal-acts"),
        (Choice(principle=HOSTILE), "there are: illegal-acts, overall-harm"),
    ],
)
def test_unknown_names_are_refused_with_those_there_are(
    chains: list[Chain], choice: Choice, complaint: str
) -> None:
    with pytest.raises(ConfigError, match=complaint) as caught:
        choose(chains, choice)
    assert str(caught.value).isprintable()


def test_what_is_asked_for_is_said_without_control_characters() -> None:
    said = str(Choice(2, HOSTILE, (HOSTILE,), HOSTILE))
    assert said.isprintable()
    assert said.startswith("round 2 · principle Sure")


def test_area_of_any_text_can_be_chosen() -> None:
    prompt = make_prompts(1)[0].model_copy(update={"area": "odd area"})
    chain = Chain(Transcript(prompt, response=respond(prompt, "revise", 0, BAD)))
    assert choose([chain], Choice(tags=("odd",)))[0] == [chain]
