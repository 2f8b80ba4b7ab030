"""The suites: rows read, taken apart and shuffled."""

from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
from suite_rows import Row, harm_row, hhh_row, items_of, write

from cai.errors import ConfigError
from cai.records import Message
from cai.suites import (
    ANSWER,
    LINES,
    QUOTED,
    SUITES,
    SuiteName,
    draw_items,
    letters,
    load_items,
    put_together,
    shuffled,
    take_apart,
    to_messages,
)


@pytest.mark.parametrize("name", SUITES)
def test_every_published_row_is_taken_apart_and_given_back(
    shared_data: Path, name: SuiteName
) -> None:
    suite = SUITES[name]
    loaded = load_items(shared_data / "anthropic-cai" / "evals" / suite.file, name)
    assert loaded.n_bad == 0
    assert len(loaded.items) > 100
    for item in loaded.items:
        assert item.question is not None
        assert put_together(item.question, suite.form) == item.prompt
        assert item.options == letters(len(item.options))
        assert item.answered is not None


def test_a_pair_ends_in_the_texts_that_the_prompt_quotes(tmp_path: Path) -> None:
    (item,) = items_of(tmp_path, "hhh", hhh_row(1, "B"))
    assert item.question is not None
    assert item.answered is not None
    assert item.right == 1
    right, wrong = item.answered
    assert right[-1].content == item.question.texts[1] == "Give it back 1."
    assert wrong[-1].content == item.question.texts[0]
    assert [message.role for message in right] == ["user", "assistant"]


def test_a_reward_model_answers_the_question_with_each_option(tmp_path: Path) -> None:
    (item,) = items_of(tmp_path, "harm-classification", harm_row(1))
    assert item.question is not None
    assert item.answered is not None
    texts = list(item.question.texts)
    assert {before for before, _ in item.answered} == {
        Message(role="user", content=item.question.head.strip())
    }
    found = [answer.content for _, answer in item.answered]
    assert found == [texts.pop(item.right), *texts]


@pytest.mark.parametrize(
    ("row", "says"),
    [
        ("{", "not a JSON object"),
        ("[1]", "not a JSON object"),
        ("", "not a JSON object"),
        ("[" * 100_000, "not a JSON object"),
        ({"prompt": "x"}, "corrects: Field required"),
        (hhh_row(1) | {"corrects": []}, "corrects: List should have at least 1"),
        (hhh_row(1) | {"corrects": [" (A)", " (C)"]}, "corrects: List should have at most 1"),
        (hhh_row(1) | {"incorrects": [" (A)"]}, "two options are the same"),
        (hhh_row(1) | {"incorrects": [" "]}, "an option is empty"),
        (hhh_row(1) | {"prompt": "Which?"}, "expected it to end in 'The answer is:'"),
        (hhh_row(1) | {"prompt": 3}, "prompt: Input should be a valid string"),
        (hhh_row(1) | {"text_correct": "\n\nHuman: Hi"}, "end in a response"),
        (hhh_row(1) | {"text_correct": ""}, "no turn of a human's"),
    ],
)
def test_a_broken_row_is_named_or_counted(tmp_path: Path, row: Row | str, says: str) -> None:
    path = write(tmp_path, "hhh", hhh_row(0), row, hhh_row(2))
    with pytest.raises(ConfigError) as caught:
        load_items(path, "hhh")
    assert f"{path}:2: " in str(caught.value)
    assert says in str(caught.value)
    assert "--skip-bad" in str(caught.value)
    loaded = load_items(path, "hhh", skip_bad=True)
    assert [item.row for item in loaded.items] == [1, 3]
    assert loaded.n_bad == 1


def test_a_file_without_rows_or_of_broken_rows_only_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"no usable rows in it .7 broken"):
        load_items(write(tmp_path, "hhh", *["{"] * 7), "hhh", skip_bad=True)
    with pytest.raises(ConfigError, match="and 2 more"):
        load_items(write(tmp_path, "hhh", *["{"] * 7), "hhh")
    with pytest.raises(ConfigError, match="cannot be read"):
        load_items(tmp_path / "none.jsonl", "hhh")


TAIL = f"\n\n{ANSWER}"
DOUBTFUL = {
    "a mark inside an answer": f"Q\n (A) [[[x\n (B) [[[y]]]\n (B) [[[z]]]{TAIL}",
    "a mark in the conversation": f"Q\n (A) [[[old]]]\n (A) [[[x]]]\n (B) [[[z]]]{TAIL}",
    "an answer that is not closed": f"Q\n (A) [[[x\n (B) [[[z]]]{TAIL}",
    "text after the last answer": f"Q\n (A) [[[x]]]\n (B) [[[z]]] really{TAIL}",
    "another ending": f"Q\n (A) [[[x]]]\n (B) [[[z]]]\n{ANSWER}",
    "a missing option": f"Q\n (B) [[[z]]]{TAIL}",
    "options the other way round": f"Q\n (B) [[[z]]]\n (A) [[[x]]]{TAIL}",
}


@pytest.mark.parametrize("prompt", DOUBTFUL.values(), ids=DOUBTFUL)
def test_a_doubtful_prompt_is_not_taken_apart(prompt: str) -> None:
    assert take_apart(prompt, letters(2), QUOTED) is None


def test_marks_that_leave_no_doubt_stay_in_their_texts() -> None:
    first, second = "x]]]\n\n (C) [[[", "]]] y [[["
    prompt = f"Q\n (A) [[[{first}]]]\n (B) [[[{second}]]]{TAIL}"
    question = take_apart(prompt, letters(2), QUOTED)
    assert question is not None
    assert question.texts == (first, second)
    lines = f"Q\n (A) an earlier list\n (B) two\n (A) one\n (B) two\n{ANSWER}"
    found = take_apart(lines, letters(2), LINES)
    assert found is not None
    assert found.head == "Q\n (A) an earlier list\n (B) two"
    assert take_apart(f"Q\n (A) one\nmore\n (B) two\n{ANSWER}", letters(2), LINES) is None
    assert take_apart(lines, (" yes", " no"), LINES) is None


@pytest.mark.parametrize("name", ["hhh", "harm-classification"])
def test_shuffling_moves_texts_with_their_answer(tmp_path: Path, name: SuiteName) -> None:
    make: Callable[[int], Row] = hhh_row if name == "hhh" else harm_row
    form = SUITES[name].form
    for item in items_of(tmp_path, name, *map(make, range(40))):
        asked = shuffled(item, form, seed=3)
        assert asked == shuffled(item, form, seed=3)
        assert asked is not None
        assert item.question is not None
        assert asked.order is not None
        found = take_apart(asked.prompt, item.options, form)
        assert found is not None
        assert found.head == item.question.head
        assert found.texts == tuple(item.question.texts[index] for index in asked.order)
        assert found.texts[asked.right] == item.question.texts[item.right]


def test_in_shuffled_items_every_letter_is_right_as_often(tmp_path: Path) -> None:
    items = items_of(tmp_path, "harm-classification", *map(harm_row, range(400)))
    assert {item.right for item in items} == {0}
    counts = Counter(asked.right for item in items if (asked := shuffled(item, LINES, 0)))
    assert set(counts) == {0, 1, 2, 3}
    assert all(60 < n < 140 for n in counts.values())
    assert [shuffled(item, LINES, 0) for item in items] != [shuffled(i, LINES, 1) for i in items]


def test_items_are_drawn_by_the_seed_and_stay_in_order(tmp_path: Path) -> None:
    items = items_of(tmp_path, "hhh", *map(hhh_row, range(30)))
    drawn = draw_items(items, 10, seed=0)
    assert [item.row for item in drawn] == sorted({item.row for item in drawn})
    assert len(drawn) == 10
    assert drawn != items[:10]
    assert set(drawn) < set(draw_items(items, 20, seed=0))
    assert drawn != draw_items(items, 10, seed=1)
    assert draw_items(items, None, 0) == draw_items(items, 99, 0) == items


def test_raw_is_the_prompt_and_chat_opens_the_answer(tmp_path: Path) -> None:
    (item,) = items_of(tmp_path, "hhh", hhh_row(1))
    (whole,) = to_messages(item.prompt, "raw")
    assert whole.content == item.prompt
    question, opened = to_messages(item.prompt, "chat")
    assert (question.role, opened.role, opened.content) == ("user", "assistant", ANSWER)
    assert question.content.startswith("Consider this:")
    assert question.content.endswith("]]]")
