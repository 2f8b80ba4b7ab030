"""The five prompt files published with Bai et al. 2022, and the paper's label prompt.

Formats: https://github.com/anthropics/ConstitutionalHarmlessnessPaper, folder `prompts`. A text
there carries what surrounds it in a prompt, such as "\\n\\nCritique:" at its end; ours does not.
"""

import re
from collections.abc import Sequence
from typing import Any, Literal

from cai.constitution import Principle
from cai.errors import ConfigError
from cai.exemplars import (
    CotExemplar,
    Opening,
    PreferenceExemplar,
    RevisionExemplar,
    opening_turns,
)
from cai.interop.entries import (
    UNNAMED,
    Format,
    Kind,
    Sheet,
    any_field,
    fields_of,
    only_text,
    opening,
    shown,
    text_of,
    worked_round,
)
from cai.records import Message, conversation

TURN = re.compile(r"\n\n(Human|Assistant|CritiqueRequest|Critique|RevisionRequest|Revision):")
ROUND = ["CritiqueRequest", "Critique", "RevisionRequest", "Revision"]
SHORT_TURN = re.compile(r"\n\n(H|A):")
SPEAKERS = {"user": "Human", "assistant": "Assistant", "system": "System"}
COT_BEGINS = "Human: Consider the following conversation between a human"
COT_OPENING = f"{COT_BEGINS} (H) and an assistant (A):"
COT_MARKS = (
    "\n\n{}\n (A) [[[",
    "]]]\n (B) [[[",
    "]]]\n\nAssistant: Let's think step by step:",
    "\n\nHuman:\nSo the answer is: (",
)
"""What stands between conversation, first, second, reasoning and answer. Of the braces, which stand
for the principle, only these are a place for it."""
LABEL_OPENING = "Consider the following conversation between a human and an assistant:"


def label_prompt(dialogue: str, principle: str, first: str, second: str) -> str:
    """The paper's prompt for a label without reasoning; the options are " (A)" and " (B)".

    `dialogue` begins with "\\n\\nHuman: " and ends in a human's turn; `principle` is a preference
    text of an imported constitution; `first` and `second` are responses without "Assistant: "."""
    return (
        f"\n\n{LABEL_OPENING}{dialogue}\n\n{question(principle)}\n (A) [[[{first}]]]\n"
        f" (B) [[[{second}]]]\n\nThe answer is:"
    )


def unwrap(value: Any, opening: str, closing: str, place: str) -> str:
    """The text between the two marks."""
    text = text_of(value, place)
    if not text.startswith(opening) or not text.endswith(closing):
        raise ConfigError(f"{place}: expected '{opening} … {closing}', found {shown(text)}")
    return text_of(text.removeprefix(opening).removesuffix(closing), place)


def read_critique_revision(value: Any, place: str) -> Principle:
    """`{"prompt": [text], "edit_request": text}`."""
    fields = fields_of(value, place, ("prompt", "edit_request"))
    asked, at = only_text(fields["prompt"], f"{place}.prompt"), f"{place}.edit_request"
    return Principle(
        id=UNNAMED,
        critique=unwrap(asked, "CritiqueRequest:", "Critique:", f"{place}.prompt"),
        revision=unwrap(fields["edit_request"], "RevisionRequest:", "Revision:", at),
    )


def write_critique_revision(principle: Principle) -> dict[str, Any]:
    return {
        "prompt": [f"\n\nCritiqueRequest: {principle.critique}\n\nCritique:"],
        "edit_request": f"\n\nRevisionRequest: {principle.revision}\n\nRevision:",
    }


def read_preference(value: Any, place: str) -> Principle:
    """`"\\n… Options:"`."""
    return Principle(id=UNNAMED, preference=unwrap(value, "", "Options:", place))


def write_preference(principle: Principle) -> str:
    return question(principle.preference or "")


def question(text: str) -> str:
    return f"\n{text} Options:"


def read_revision_exemplar(value: Any, place: str) -> RevisionExemplar:
    """A conversation, then a critique request, a critique, a revision request and a revision."""
    turns = read_turns(value, TURN, place)
    if turns[-1] == ("Human", ""):
        turns.pop()
    names = [name for name, _ in turns]
    if names[-4:] != ROUND or not alternates(names[:-4], "Human", "Assistant"):
        wanted = f"turns of Human and Assistant, then {', '.join(ROUND)}"
        raise ConfigError(f"{place}: expected {wanted}; found {', '.join(names)[:200]}")
    texts = [text_of(text, f"{place}: {name}") for name, text in turns]
    return worked_round(texts)


def write_revision_exemplar(shot: RevisionExemplar) -> str:
    dialogue = write_turns(conversation(opening_turns(shot.prompt), shot.response))
    texts = (shot.critique_request, shot.critique, shot.revision_request, shot.revision)
    said = "".join(f"\n\n{name}: {text}" for name, text in zip(ROUND, texts, strict=True))
    return f"{dialogue}{said}\n\nHuman:"


def read_preference_exemplar(value: Any, place: str) -> PreferenceExemplar:
    """`{"prompt": "\\n\\nHuman: …\\n\\nAssistant:", "corrects": [text], "incorrects": [text]}`."""
    fields = fields_of(value, place, ("prompt", "corrects", "incorrects"))
    turns = read_turns(fields["prompt"], TURN, f"{place}.prompt")
    if turns.pop() != ("Assistant", ""):
        raise ConfigError(f"{place}.prompt: expected it to end in an empty turn 'Assistant:'")
    return PreferenceExemplar(
        prompt=read_opening(turns, ("Human", "Assistant"), f"{place}.prompt"),
        better=only_text(fields["corrects"], f"{place}.corrects"),
        worse=only_text(fields["incorrects"], f"{place}.incorrects"),
    )


def write_preference_exemplar(shot: PreferenceExemplar) -> dict[str, Any]:
    return {
        "prompt": f"{write_turns(opening_turns(shot.prompt))}\n\nAssistant:",
        "corrects": [shot.better],
        "incorrects": [shot.worse],
    }


def read_cot_exemplar(value: Any, place: str) -> CotExemplar:
    """`{"prompt": text}`: a comparison whose principle is left open, reasoning and answer."""
    fields, place = fields_of(value, place, ("prompt",)), f"{place}.prompt"
    left, texts = text_of(fields["prompt"], place), list[str]()
    for mark in COT_MARKS:
        text, found, left = left.partition(mark)
        if not found:
            raise ConfigError(f"{place}: expected {shown(mark)} after {shown(text[-40:])}")
        texts.append(text)
    preamble, _, dialogue = texts[0].partition("\n\n")
    if not preamble.startswith(COT_BEGINS) or left not in ("A)", "B)"):
        raise ConfigError(f"{place}: expected '{COT_BEGINS} …', and '(A)' or '(B)' at the end")
    first, second, reasoning = (text_of(text, place) for text in texts[1:])
    answer: Literal["A", "B"] = "A" if left == "A)" else "B"
    turns = read_turns(dialogue, SHORT_TURN, place)
    return CotExemplar(
        prompt=read_opening(turns, ("H", "A"), place),
        first=first,
        second=second,
        reasoning=reasoning,
        answer=answer,
    )


def write_cot_exemplar(shot: CotExemplar) -> dict[str, str]:
    said = opening_turns(shot.prompt)
    dialogue = "".join(f"\n\n{SPEAKERS[m.role][0]}: {m.content}" for m in said)
    texts = (shot.first, shot.second, f" {shot.reasoning}", f"{shot.answer})")
    rest = "".join(f"{mark}{text}" for mark, text in zip(COT_MARKS, texts, strict=True))
    return {"prompt": f"\n\n{COT_OPENING}{dialogue}{rest}"}


def read_turns(value: Any, turn: re.Pattern[str], place: str) -> list[tuple[str, str]]:
    """Speakers and what they say, without the white space around it."""
    before, *parts = turn.split("\n\n" + text_of(value, place))
    if before or not parts:
        raise ConfigError(f"{place}: expected it to begin with a speaker, found {shown(value)}")
    return [(name, text.strip()) for name, text in zip(parts[::2], parts[1::2], strict=True)]


def write_turns(messages: Sequence[Message]) -> str:
    return "".join(f"\n\n{SPEAKERS[message.role]}: {message.content}" for message in messages)


def read_opening(turns: list[tuple[str, str]], speakers: tuple[str, str], place: str) -> Opening:
    """Turns of human and assistant, of which the last is a human's."""
    names = [name for name, _ in turns]
    if not alternates([*names, speakers[1]], *speakers):
        wanted = f"turns of {speakers[0]} and {speakers[1]} that end in {speakers[0]}"
        raise ConfigError(f"{place}: expected {wanted}; found {', '.join(names)[:200]}")
    return opening([text_of(text, place) for _, text in turns])


def alternates(names: Sequence[str], human: str, assistant: str) -> bool:
    """Whether human and assistant speak in turns, and the assistant has the last word."""
    return len(names) >= 2 and list(names) == [human, assistant] * (len(names) // 2)


def is_instructions(data: Any) -> bool:
    return isinstance(data, dict) and any_field([*data.values()], "prompt", "edit_request")


def any_text(data: Any, *marks: str) -> bool:
    """Whether it is a list with a text that holds a mark."""
    rows: list[Any] = data if isinstance(data, list) else []
    return any(isinstance(row, str) and any(mark in row for mark in marks) for row in rows)


def is_rounds(data: Any) -> bool:
    return any_text(data, "CritiqueRequest:", "RevisionRequest:")


def is_questions(data: Any) -> bool:
    return any_text(data, "Options:") and not is_rounds(data)


def is_pairs(data: Any) -> bool:
    return any_field(data, "corrects", "incorrects")


def is_reasoned(data: Any) -> bool:
    return any_field(data, "prompt") and not is_pairs(data)


INSTRUCTIONS = Sheet(
    "principles",
    read_critique_revision,
    write_critique_revision,
    texts=("critique", "revision"),
    keyed=True,
)
QUESTIONS = Sheet(
    "principles", read_preference, write_preference, prefix="rl-", texts=("preference",)
)
ROUNDS = Sheet("revision", read_revision_exemplar, write_revision_exemplar)
PAIRS = Sheet("preference", read_preference_exemplar, write_preference_exemplar)
REASONED = Sheet("cot", read_cot_exemplar, write_cot_exemplar)
ANTHROPIC = Format(
    kinds=(
        Kind("CritiqueRevisionInstructions.json", is_instructions, (INSTRUCTIONS,)),
        Kind("RLMadisonInstructions.json", is_questions, (QUESTIONS,)),
        Kind("CritiqueRevisionFewShotPrompts.json", is_rounds, (ROUNDS,)),
        Kind("RLMadisonFewShotPrompts.json", is_pairs, (PAIRS,)),
        Kind("RLMadisonPrecogFewShotPrompts.json", is_reasoned, (REASONED,)),
    ),
    source="https://github.com/anthropics/ConstitutionalHarmlessnessPaper",
    license="none stated",
)
