"""Asking the items of a suite: resumed, counted, measured, shown."""

import io
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from suite_rows import Row, harm_row, hhh_row, items_of, write

from cai.accuracy import make_variant, read_outcome
from cai.chains.answering import OTHER, answer_chain, make_request, read_answer
from cai.config import Engine
from cai.engines.base import Completion, Request
from cai.engines.fake import FakeEngine
from cai.errors import ConfigError, TooManyErrors
from cai.evaluation import SuiteOptions, ask, evaluate_suite, ways_of_asking
from cai.records import Response
from cai.run import read_json
from cai.suites import ANSWER, Asked, Item, SuiteName, as_given
from cai.view.progress import RunProgress
from cai.view.suites import show_suite

pytest_plugins = ["tiny_fixtures"]

FAKE = Engine(kind="fake")


def console(width: int = 200) -> tuple[Console, io.StringIO]:
    out = io.StringIO()
    return Console(file=out, width=width, markup=False, highlight=False, emoji=False), out


def silent() -> RunProgress:
    return RunProgress(quiet=True)


def options_of(folder: Path, suite: SuiteName = "hhh", **more: Any) -> SuiteOptions:
    given: dict[str, Any] = {"model": "m", "engine": FAKE, "folder": folder / "work"} | more
    return SuiteOptions(suite, str(folder), **given)


def first_text(request: Request) -> Completion:
    """A judge that prefers the text that begins with G."""
    shown = request.messages[0].content
    position = {letter: shown.find(f"({letter}) [[[G") for letter in "AB"}
    values = [0.0 if position[letter] >= 0 else -2.0 for letter in "AB"]
    scores = tuple(value - 0.5 for value in values)
    return Completion(request.id, "", "stop", 5, choice_logprobs=(*scores, -9.0))


def asked_of(
    folder: Path, judge: Callable[[Request], Completion], *rows: Row
) -> tuple[Any, FakeEngine]:
    items, engine = items_of(folder, "hhh", *rows), FakeEngine(function=judge, capacity=3)
    ways = list(ways_of_asking(items, options_of(folder), ("chat",)))
    requests = [make_request(*way, "m@1", "engine") for way in ways]
    with silent().stage("t") as stage:
        answers = ask(requests, "m@1", engine, folder, stage)
    outcomes = [
        read_outcome(*way, *read_answer(answers[request.id]))
        for way, request in zip(ways, requests, strict=True)
    ]
    groups = [[o for o in outcomes if (o.order is not None) is s] for s in (False, True)]
    return [make_variant(group) for group in groups], engine


def test_a_judge_of_content_is_right_in_every_order(tmp_path: Path) -> None:
    rows = [hhh_row(i, "AB"[i % 2]) for i in range(20)]
    (given, exchanged), _ = asked_of(tmp_path, first_text, *rows)
    assert (given.accuracy, exchanged.accuracy) == (1.0, 1.0)
    assert given.chosen == given.correct == {"(A)": 0.5, "(B)": 0.5}
    assert exchanged.chosen == exchanged.correct


def test_a_judge_of_positions_is_found_out_by_shuffling(tmp_path: Path) -> None:
    def first_option(request: Request) -> Completion:
        return Completion(request.id, "", "stop", 5, choice_logprobs=(-0.1, -3.0, -9.0))

    (given, exchanged), _ = asked_of(tmp_path, first_option, *map(hhh_row, range(60)))
    assert given.accuracy == 1.0
    assert given.chosen == exchanged.chosen == {"(A)": 1.0}
    assert 0.3 < exchanged.accuracy < 0.7
    assert exchanged.accuracy == exchanged.correct["(A)"]


def test_what_is_on_disk_is_not_asked_again(tmp_path: Path) -> None:
    rows = [hhh_row(i) for i in range(30)]
    first, engine = asked_of(tmp_path, first_text, *rows)
    assert 30 < engine.n_asked < 60  # an order that came out as given is the same request
    again, idle = asked_of(tmp_path, first_text, *rows, hhh_row(99), hhh_row(99))
    assert idle.n_asked in (1, 2)
    assert (again[0].n, first[0].n) == (32, 30)


@pytest.mark.parametrize("scores", [(), (-1.0,), (-1.0, math.nan, -1.0), (-1.0, -math.inf, -1.0)])
def test_an_answer_without_finite_numbers_is_a_failure(
    tmp_path: Path, scores: tuple[float, ...]
) -> None:
    def odd(request: Request) -> Completion:
        even = request.messages[0].content.count("wallet 0?")
        return first_text(request) if even else Completion(request.id, "", "stop", 5, 0, 0, scores)

    (given, _), _ = asked_of(tmp_path, odd, hhh_row(0), hhh_row(1))
    assert (given.n_scored, given.n_failed, given.accuracy) == (1, 1, 1.0)


@pytest.fixture
def item(tmp_path: Path) -> Item:
    return items_of(tmp_path, "hhh", hhh_row(1))[0]


def test_a_request_stands_for_everything_that_decides_its_answer(item: Item) -> None:
    ask_one = make_request(as_given(item), "chat", "m@1", "e")
    others = [
        make_request(as_given(item), "raw", "m@1", "e"),
        make_request(as_given(item), "chat", "m@2", "e"),
        make_request(as_given(item), "chat", "m@1", "f"),
        make_request(Asked(item, item.prompt.replace("Keep", "Hide"), 0), "chat", "m@1", "e"),
        make_request(as_given(item._replace(options=("x", "y"))), "chat", "m@1", "e"),
    ]
    assert len({request.id for request in (ask_one, *others)}) == 6
    assert ask_one.choices == (" (A)", " (B)", OTHER)
    assert [request.raw for request in (ask_one, others[0])] == [False, True]


def test_an_error_keeps_its_reason(item: Item) -> None:
    request = make_request(as_given(item), "chat", "m@1", "e")
    step = next(answer_chain(request, "m@1"))
    record = step.read(Completion(request.id, "", "error", 9, error="too long"))
    assert isinstance(record, Response)
    assert read_answer(record) == (None, "too long")


@pytest.mark.parametrize("suite", ["harmful-vs-ethical", "harm-classification"])
@pytest.mark.parametrize("style", ["auto", "raw", "chat", "both"])
def test_an_evaluation_is_repeatable_and_written_whole(
    tmp_path: Path, suite: SuiteName, style: Any
) -> None:
    write(tmp_path, suite, *(harm_row(i, i % 4) for i in range(12)))
    out = tmp_path / "deep" / "result.json"
    options = options_of(tmp_path, suite, format=style, n=8, out=out)
    result = evaluate_suite(options, silent())
    assert evaluate_suite(options, silent()) == result
    assert read_json(out) == result.model_dump(mode="json")
    styles = {"auto": ["chat"], "both": ["chat", "raw"]}.get(style, [style])
    ways = [(variant.format, variant.shuffled) for variant in result.variants]
    assert ways == [(name, exchanged) for name in styles for exchanged in (False, True)]
    assert all(variant.n == variant.n_scored == 8 for variant in result.variants)
    assert all(variant.chance == 0.25 for variant in result.variants)
    assert len(result.outcomes) == 16 * len(styles)
    assert (result.n_rows, result.n_items, result.reward) == (12, 8, None)


def test_rows_that_cannot_be_taken_apart_are_asked_as_given_only(tmp_path: Path) -> None:
    odd = hhh_row(1, better="x\n (B) [[[y")
    write(tmp_path, "hhh", hhh_row(0), odd, "{", hhh_row(2))
    result = evaluate_suite(options_of(tmp_path, skip_bad=True), silent())
    assert [variant.n for variant in result.variants] == [3, 2]
    assert (result.n_not_shuffled, result.n_bad) == (1, 1)
    printer, out = console()
    show_suite(result, printer)
    assert "1 items cannot be taken apart exactly: not shuffled" in out.getvalue()
    assert "1 broken rows left out" in out.getvalue()


def test_prompts_too_long_are_named_and_not_scored(tmp_path: Path) -> None:
    long = hhh_row(1, better="[bold]word[/bold] " * 300)
    write(tmp_path, "hhh", hhh_row(0), long)
    engine = Engine(kind="fake", max_context=128)
    result = evaluate_suite(options_of(tmp_path, engine=engine), silent())
    assert [(v.n, v.n_scored, v.n_failed) for v in result.variants] == [(2, 1, 1)] * 2
    failed = [outcome for outcome in result.outcomes if outcome.failed]
    assert {outcome.row for outcome in failed} == {2}
    assert all(outcome.chosen is None for outcome in failed)
    printer, out = console()
    show_suite(result, printer)
    assert "the context holds 128" in out.getvalue()
    write(tmp_path, "hhh", long)
    with pytest.raises(TooManyErrors, match=r"none of 1 items could be scored.*--max-context"):
        evaluate_suite(options_of(tmp_path, engine=engine), silent())


def test_a_reward_model_compares_the_two_texts(tmp_path: Path) -> None:
    rows = [hhh_row(i) for i in range(20)]
    textless = {k: v for k, v in hhh_row(20).items() if not k.startswith("text")}
    write(tmp_path, "hhh", *rows, textless)
    options = options_of(tmp_path, model=None, reward_model="rm")
    result = evaluate_suite(options, silent())
    assert (result.model, result.variants, result.outcomes) == (None, (), ())
    assert result.reward is not None
    assert (result.reward.n, result.reward.n_failed) == (21, 1)
    assert 0 < result.reward.accuracy < 1
    expected = sum((s.right or 0) > (s.wrong or 0) for s in result.scores)
    assert result.reward.accuracy == expected / 20
    assert (result.scores[20].failed or "").startswith("the row has no texts to compare")
    printer, out = console()
    show_suite(result, printer)
    assert "reward model" in out.getvalue()
    assert "reward model: 20 of 21 scored" in out.getvalue()


@pytest.mark.parametrize(
    ("more", "says"),
    [
        ({"model": None}, "give --model NAME or --reward-model FOLDER"),
        ({"data": "nowhere"}, "nowhere: no 438HHHEvaluations.jsonl there; expected the folder"),
        ({"model": "./none", "engine": Engine(kind="transformers")}, "no such model"),
    ],
)
def test_unusable_options_are_refused(tmp_path: Path, more: dict[str, Any], says: str) -> None:
    write(tmp_path, "hhh", hhh_row(0))
    with pytest.raises(ConfigError, match=says):
        evaluate_suite(options_of(tmp_path)._replace(**more), silent())


def test_the_file_itself_and_the_folder_above_are_found(tmp_path: Path) -> None:
    (tmp_path / "evals").mkdir()
    path = write(tmp_path / "evals", "hhh", hhh_row(0))
    for data in (tmp_path, tmp_path / "evals", path):
        options = options_of(tmp_path)._replace(data=str(data))
        assert evaluate_suite(options, silent()).n_items == 1


@pytest.mark.parametrize("style", ["raw", "chat"])
def test_real_log_probabilities_are_those_of_the_whole_options(
    tiny: str, tmp_path: Path, style: Any
) -> None:
    """The engine's numbers against one forward pass over prompt and option."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    write(tmp_path, "harm-classification", harm_row(0))
    engine = Engine(kind="transformers", max_context=256)
    options = options_of(tmp_path, "harm-classification", model=tiny, format=style, engine=engine)
    result = evaluate_suite(options, silent())
    given = next(outcome for outcome in result.outcomes if outcome.order is None)
    tokenizer: Any = AutoTokenizer.from_pretrained(tiny)
    model: Any = AutoModelForCausalLM.from_pretrained(tiny)
    prompt = harm_row(0)["prompt"]
    if style == "chat":
        turn = [{"role": "user", "content": prompt.removesuffix(ANSWER).strip()}]
        prompt = tokenizer.apply_chat_template(turn, add_generation_prompt=True, tokenize=False)
        prompt += ANSWER
    start = tokenizer.encode(prompt)
    for option, found in zip(given.options, given.logprobs or (), strict=True):
        ids = tokenizer.encode(prompt + option)
        assert ids[: len(start)] == start
        with torch.inference_mode():
            logprobs = model(torch.tensor([ids])).logits[0].log_softmax(-1)
        whole = sum(float(logprobs[i - 1, ids[i]]) for i in range(len(start), len(ids)))
        assert found == pytest.approx(whole, abs=1e-4)


def test_a_real_reward_model_scores_both_texts(
    reward_path: str, tmp_path: Path, quiet: None
) -> None:
    long = hhh_row(2, better="word " * 400)
    write(tmp_path, "hhh", hhh_row(0), hhh_row(1, "B"), long)
    engine = Engine(kind="transformers", max_context=256)
    options = options_of(tmp_path, model=None, reward_model=reward_path, engine=engine)
    result = evaluate_suite(options, silent())
    assert result.reward is not None
    assert (result.reward.n_scored, result.reward.n_truncated) == (3, 1)
    assert [score.truncated for score in result.scores] == [False, False, True]
    assert len({score.right for score in result.scores}) == 3
    assert evaluate_suite(options, silent()) == result
