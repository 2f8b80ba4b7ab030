"""What a reader may want to look at."""

from dataclasses import replace
from typing import Any

import pytest
from run_folder import BAD, GOOD, generation, judge, make_prompts, respond

from cai.records import Critique, Revision, digest
from cai.view.badges import BADGES, badges, finds_nothing
from cai.view.transcripts import Answer, Round, Transcript

PROMPT = make_prompts(1)[0]


def critique(text: str, number: int = 1, finish: Any = "stop") -> Critique:
    fields: dict[str, Any] = {"parent_id": "r", "round": number, "principle_id": "honesty"}
    return Critique(
        id=digest(text, number), prompt_id="p", text=text, generation=generation(finish), **fields
    )


def revision(text: str, number: int = 1, finish: Any = "stop") -> Revision:
    fields: dict[str, Any] = {"parent_id": "c", "round": number, "principle_id": "honesty"}
    return Revision(
        id=digest(text, number), prompt_id="p", text=text, generation=generation(finish), **fields
    )


def chain(response: str, *rounds: tuple[str, str]) -> Transcript:
    made = [
        Round(n, "honesty", None, critique(found, n), revision(text, n))
        for n, (found, text) in enumerate(rounds, 1)
    ]
    return Transcript(PROMPT, response=respond(PROMPT, "revise", 0, response), rounds=tuple(made))


def test_a_plain_chain_has_none() -> None:
    assert badges(chain("Open a template.", ("It helps with fraud.", "Ask a lender."))) == []
    assert badges(Transcript(PROMPT)) == []


@pytest.mark.parametrize(
    ("transcript", "expected"),
    [
        (chain("a b c", ("It is rude.", "a  b\nc ")), ["no-op revision"]),
        (chain("a b c", ("It is rude.", "x y z")), []),
        (
            chain("one two", ("It is short.", "one two three four five")),
            ["revision longer than ×2"],
        ),
        (chain("one two", ("It is short.", "one two three four")), []),
        (chain("", ("It is empty.", "one two three four")), []),
        (chain("one two", ("No critique needed.", "one three")), ["critique without finding"]),
        (chain("one two", ("  ", "one three")), ["critique without finding"]),
        (chain("Sure.", ("It complies.", GOOD)), ["revision longer than ×2", "refusal"]),
        (chain(GOOD, ("It refuses.", BAD)), []),
        (chain("犬と猫", ("短い。", "犬と 猫")), ["no-op revision"]),
        (chain("犬と猫", ("短い。", "犬と猫とうさぎ")), ["revision longer than ×2"]),
    ],
)
def test_badges_of_revisions(transcript: Transcript, expected: list[str]) -> None:
    assert badges(transcript) == expected


@pytest.mark.parametrize("finish", ["error", "length"])
def test_badge_of_how_a_text_ended(finish: Any) -> None:
    badge = {"error": "error", "length": "truncated"}[finish]
    made = Round(1, "honesty", None, critique("It is rude.", 1, finish), None)
    assert badge in badges(Transcript(PROMPT, rounds=(made,)))
    answer = Answer("rl", respond(PROMPT, "rl", 0, BAD, finish))
    assert badges(Transcript(PROMPT, answers=(answer,))) == [badge]


def test_a_revision_that_failed_changed_nothing() -> None:
    whole = chain("", ("It is empty.", ""), ("It is empty.", ""))
    assert "no-op revision" in badges(whole)
    rounds = [replace(r, revision=revision("", r.number, "error")) for r in whole.rounds]
    assert badges(replace(whole, rounds=tuple(rounds))) == ["error"]


def test_a_judgement_in_one_order_only_is_unscored() -> None:
    one, other = respond(PROMPT, "s", 0, BAD), respond(PROMPT, "s", 1, GOOD)
    there, back = judge(one, other, 0.9), judge(other, one, 0.2)
    lost = judge(other, one, None)
    assert badges(Transcript(PROMPT, labels=(there, back))) == []
    assert badges(Transcript(PROMPT, labels=(there, lost))) == ["judge unscored"]
    assert badges(Transcript(PROMPT, comparisons=(there, lost))) == ["judge unscored"]


def test_orders_that_disagree() -> None:
    one, other = respond(PROMPT, "s", 0, BAD), respond(PROMPT, "s", 1, GOOD)
    labels = (judge(one, other, 0.9), judge(other, one, 0.8))
    assert badges(Transcript(PROMPT, labels=labels)) == ["orders disagree"]


def test_badges_come_in_one_order() -> None:
    found = badges(
        chain("I can't help with that.", ("No critique needed.", "I can't help with that."))
    )
    assert found == ["no-op revision", "critique without finding", "refusal"]
    assert [badge for badge in BADGES if badge in found] == found


@pytest.mark.parametrize(
    "text",
    [
        "",
        "No critique needed.",
        "No revisions are necessary.",
        "There is nothing harmful in the assistant's response.",
        "I find nothing harmful here. Its tone is friendly. It can stay as it is.",
        "The assistant's response does not contain anything harmful or unethical.",
        "The response doesn’t include any harmful content.",
        "I don't see any problems with this response.",
        "There are no issues with the response.",
        "The response is not harmful, toxic or illegal.",
        "The assistant's last response is appropriate and respectful.",
    ],
)
def test_a_critique_that_finds_nothing(text: str) -> None:
    assert finds_nothing(critique(text))


@pytest.mark.parametrize(
    "text",
    [
        "The response helps with fraud.",
        "The response does not address how dangerous this is.",
        "It fails to say that it is illegal.",
        "There is nothing harmful in its tone, but it gives away an address.",
        "The response is appropriate, although it could be kinder.",
        "The response suggests that it is fine to lie.",
        "Nothing in the response warns the user.",
        "The assistant should not give any advice on weapons.",
        "It does not contain a warning.",
        "It says that no one is harmed, which is wrong.",
    ],
)
def test_a_critique_that_finds_something(text: str) -> None:
    assert not finds_nothing(critique(text))


def test_a_critique_that_failed_says_nothing_about_its_response() -> None:
    assert not finds_nothing(critique("", finish="error"))
