"""One contract for all engines, and what they must agree on."""

import re
import signal
import time
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import pytest

from cai.config import Engine as EngineConfig
from cai.engines import process
from cai.engines.base import Completion, Engine, Request
from cai.engines.open import LazyEngine, open_engine
from cai.engines.process import EngineProcess, EngineSettings
from cai.errors import ConfigError, EngineError, MissingDependency
from cai.models import Model
from cai.records import Message, Sampling

GREEDY = Sampling(temperature=0.0, max_tokens=24)
QUESTIONS = (
    "Tell me about cats.",
    "What is 2+2?",
    "Name three colours.",
    "Write a haiku.",
    "Who are you?",
    "Say hello in French.",
    "What is rain?",
    "List two fruits.",
    "Define love.",
    "How do planes fly?",
)


def ask(
    request_id: str, text: str, sampling: Sampling = GREEDY, seed: int = 0, **more: object
) -> Request:
    messages: tuple[Message, ...] = (Message(role="user", content=text),)
    if "choices" in more and text:
        messages += (Message(role="assistant", content="The answer is:"),)
    return Request(request_id, messages, sampling, seed, **more)  # type: ignore[arg-type]


def collect(engine: Engine, requests: list[Request]) -> dict[str, Completion]:
    for request in requests:
        engine.submit(request)
    found: dict[str, Completion] = {}
    deadline = time.monotonic() + 300
    while len(found) < len(requests) and time.monotonic() < deadline:
        for completion in engine.poll():
            assert completion.id not in found, "each id once"
            found[completion.id] = completion
    assert set(found) == {request.id for request in requests}
    return found


@pytest.fixture(
    scope="module", params=["fake", "transformers", pytest.param("vllm", marks=pytest.mark.vllm)]
)
def engine(
    request: pytest.FixtureRequest, embedded_model: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Engine]:
    config = EngineConfig(kind=request.param, max_context=1024, capacity=8)
    log = tmp_path_factory.mktemp(request.param) / "engine.log"
    opened = open_engine(config, Model("m", embedded_model, "c"), log)
    yield opened
    opened.close()
    opened.close()


@pytest.fixture(scope="module")
def answers(engine: Engine) -> dict[str, Completion]:
    """One mixed batch of more requests than the engine holds at once."""
    requests = [ask(f"greedy-{i}", question) for i, question in enumerate(QUESTIONS)]
    drawn = Sampling(max_tokens=12)
    requests += [ask(f"seed-{i}", "Tell me a story.", drawn, seed=i // 2) for i in range(6)]
    requests += [ask("one-word", "Tell me a story.", Sampling(max_tokens=1))]
    requests += [ask("choice", "Is rain wet? (A) yes (B) no", choices=(" (A)", " (B) I think"))]
    requests += [
        ask("long", "word " * 4000),
        ask("long-choice", "word " * 4000, choices=("A", "B")),
        ask("empty", "", raw=True),
        ask("empty-choice", "", raw=True, choices=("one of two", "another one")),
    ]
    return collect(engine, requests)


def test_whoever_waits_for_nothing_gets_nothing(engine: Engine) -> None:
    assert engine.poll() == []


def test_a_seed_decides_the_text(answers: dict[str, Completion]) -> None:
    texts = [answers[f"seed-{i}"].text for i in range(6)]
    assert texts[0] == texts[1]
    assert texts[2] == texts[3]
    assert len(set(texts)) == 3


def test_each_request_has_its_own_limit(answers: dict[str, Completion]) -> None:
    assert answers["one-word"].n_tokens == 1
    assert answers["one-word"].finish == "length"
    assert answers["greedy-0"].n_tokens > 1


def test_choices_are_scored_not_generated(answers: dict[str, Completion]) -> None:
    choice = answers["choice"]
    assert choice.text == ""
    assert len(choice.choice_logprobs) == 2
    assert all(value < 0 for value in choice.choice_logprobs)


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("long", "tokens"),
        ("long-choice", "tokens"),
        ("empty", "has no token"),
        ("empty-choice", "has no token|nothing comes before"),
    ],
)
def test_a_prompt_that_does_not_fit_is_an_error_completion(
    answers: dict[str, Completion], name: str, why: str
) -> None:
    assert answers[name].finish == "error"
    assert re.search(why, answers[name].error or "")


@pytest.mark.vllm
def test_of_choices_that_vllm_refuses_halfway_nothing_is_left(
    embedded_model: Path, tmp_path: Path
) -> None:
    """The first token is a question with two answers, what follows the second one has three."""
    settings = EngineSettings(
        kind="vllm",
        model=str(embedded_model),
        max_context=1024,
        capacity=8,
        options={"max_logprobs": 2},
    )
    # a supervised one would be started again
    engine = EngineProcess(settings, tmp_path / "log")
    try:
        refused = ask(
            "refused", "Is rain wet?", choices=(" rain", " the cat", " the dog", " the sun")
        )
        found = collect(engine, [ask("one", QUESTIONS[0]), refused, ask("two", QUESTIONS[1])])
    finally:
        engine.close()
    assert found["refused"].finish == "error"
    assert "logprobs" in (found["refused"].error or "")
    assert {found["one"].finish, found["two"].finish} <= {"stop", "length"}


def test_who_listens_hears_the_text_grow(engine: Engine) -> None:
    """Two listeners and one who does not listen in a batch; what is told is part of the answer."""
    heard: dict[str, list[str]] = {"one": [], "two": []}
    requests = [ask(name, "Tell me a story.", on_text=heard[name].append) for name in heard]
    found = collect(engine, [*requests, ask("mute", "Tell me a story.")])
    assert found["one"].text == found["two"].text == found["mute"].text
    for name, texts in heard.items():
        assert len(set(texts)) > 3
        for before, after in pairwise([*texts, found[name].text]):
            assert after.startswith(before)


@pytest.mark.parametrize(
    ("text", "stops", "kept"),
    [
        ("Hello", (), "Hello"),
        ("caf\ufffd\ufffd", (), "caf"),
        ("Yes.\n\nHum", ("\n\nHuman:",), "Ye"),
        ("Yes, of course.", ("\n\nHuman:",), "Yes, of "),
        ("ab", ("x", "long"), ""),
    ],
)
def test_what_may_still_change_is_not_told(text: str, stops: tuple[str, ...], kept: str) -> None:
    from cai.engines.transformers import settled

    assert settled(text, stops) == kept


@pytest.fixture(scope="module")
def both(
    embedded_model: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[dict[str, Completion], ...]:
    """The same requests to transformers and to vLLM."""
    requests = [ask(f"greedy-{i}", question) for i, question in enumerate(QUESTIONS)]
    requests += [ask(f"choice-{i}", q, choices=(" (A)", " (B)")) for i, q in enumerate(QUESTIONS)]
    requests += [ask("letters", "Pick one.", choices=("A", "B", " yes, of course"))]
    results: list[dict[str, Completion]] = []
    for kind in ("transformers", "vllm"):
        log = tmp_path_factory.mktemp(kind) / "engine.log"
        settings = EngineSettings(
            kind=kind, model=str(embedded_model), max_context=1024, capacity=8
        )
        engine = EngineProcess(settings, log)
        results.append(collect(engine, requests))
        engine.close()
    return tuple(results)


@pytest.mark.vllm
def test_engines_agree_on_greedy_text(both: tuple[dict[str, Completion], ...]) -> None:
    one, two = both
    same = sum(one[f"greedy-{i}"].text == two[f"greedy-{i}"].text for i in range(10))
    assert same >= 9


@pytest.mark.vllm
def test_engines_agree_on_choices_within_a_twentieth_of_a_nat(
    both: tuple[dict[str, Completion], ...],
) -> None:
    one, two = both
    for name in [*(f"choice-{i}" for i in range(10)), "letters"]:
        pairs = zip(one[name].choice_logprobs, two[name].choice_logprobs, strict=True)
        assert all(abs(a - b) < 0.05 for a, b in pairs), name


def settings_of(model: Path, **more: object) -> EngineSettings:
    return EngineSettings(
        kind="transformers", model=str(model), max_context=256, capacity=2, **more
    )  # type: ignore[arg-type]


def test_a_child_that_dies_is_an_error_with_its_last_lines(
    embedded_model: Path, tmp_path: Path
) -> None:
    engine = EngineProcess(settings_of(embedded_model), tmp_path / "log")
    engine.submit(ask("x", "hello", Sampling(max_tokens=200)))
    engine._child.kill()
    with pytest.raises(EngineError, match="SIGKILL") as caught:
        while True:
            engine.poll()
    assert "same command continues" in str(caught.value)
    engine.close()


def test_a_child_that_cannot_start_says_why(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(EngineError, match="ended with code 1") as caught:
        EngineProcess(settings_of(tmp_path), tmp_path / "log")
    assert "Error" in str(caught.value)


def test_a_child_that_hangs_is_an_error(embedded_model: Path, tmp_path: Path) -> None:
    engine = EngineProcess(settings_of(embedded_model, stall_s=60), tmp_path / "log")
    engine._stall_s = 0.5
    engine._child.send_signal(signal.SIGSTOP)
    engine.submit(ask("x", "hello"))
    with pytest.raises(EngineError, match="made no step within"):
        for _ in range(100):
            engine.poll()
    assert engine._child.returncode is not None


def test_a_wrong_option_is_named(embedded_model: Path, tmp_path: Path) -> None:
    settings = EngineSettings(
        kind="vllm",
        model=str(embedded_model),
        max_context=256,
        capacity=2,
        options={"max_modl_len": 3},
    )
    with pytest.raises(ConfigError, match="max_modl_len"):
        EngineProcess(settings, tmp_path / "log")


def test_a_missing_library_names_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process.importlib.util, "find_spec", lambda name: None)
    settings = EngineSettings(kind="vllm", model="m", max_context=8, capacity=1)
    with pytest.raises(MissingDependency, match=r"cai-toolkit\[vllm\]"):
        EngineProcess(settings, tmp_path / "log")


def test_a_lazy_engine_loads_nothing_unasked(tmp_path: Path) -> None:
    engine = LazyEngine(EngineConfig(kind="vllm"), Model("m", tmp_path, "c"), tmp_path / "log", 1.0)
    assert engine.poll() == []
    engine.close()
    assert not (tmp_path / "log").exists()


def test_neither_side_waits_for_the_other_to_read(embedded_model: Path, tmp_path: Path) -> None:
    """More bytes in flight in both directions than the socket holds: a deadlock would stall."""
    engine = EngineProcess(settings_of(embedded_model, stall_s=120), tmp_path / "log")
    requests = [ask(f"{i}-{'x' * 6000}", "word " * 4000) for i in range(200)]
    found = collect(engine, requests)
    assert all(completion.finish == "error" for completion in found.values())
    engine.close()
