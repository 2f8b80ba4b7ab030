"""`cai judge-test`: what is measured of a judge, and that nothing is asked twice."""

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from canned import PRINCIPLES, PROMPT
from click.testing import CliRunner, Result
from fake_run import start

from cai.chains.judging import Trial, make_trial, trial_chains
from cai.chains.labelling import LabelSetup
from cai.chains.revision import Voice
from cai.cli import main
from cai.driver import run_chains
from cai.engines.base import Completion, Request
from cai.engines.fake import FakeEngine
from cai.judge_metrics import is_chance, measure
from cai.judge_test import overheard
from cai.preferences import Pair
from cai.prompts import Templates
from cai.records import Sampling
from cai.run import RecordFile, StoredRecord, read_json, read_rows, write_rows
from cai.view.judged import warnings

JUDGE = Voice("judge", "j@1", Sampling())
LABELS = LabelSetup(PRINCIPLES, Templates(), False, 0, JUDGE)


def pairs(n: int) -> list[Pair]:
    return [
        Pair(f"id{i}", PROMPT.messages, f"good {i}", f"bad {i}", 1.0, f"g{i}", "s", f"s:{i}")
        for i in range(n)
    ]


def first_is_good(request: Request) -> bool:
    question = request.messages[0].content
    return "good" in question.partition("[response A")[2].partition("[response B")[0]


def second_is_good(request: Request) -> bool:
    return "good" in request.messages[0].content.partition("[response B")[2]


def judge_with(p: Any, text: str = "Verdict: A") -> Any:
    """An engine function: P(first) of a request, and what it writes."""

    def answer(request: Request) -> Completion:
        if not request.choices:
            return Completion(request.id, text, "stop")
        value = p(request)
        if value is None:
            return Completion(request.id, "", "error", error="too long")
        return Completion(
            request.id, "", "stop", choice_logprobs=(math.log(value), math.log(1 - value))
        )

    return answer


def measured(
    answer: Any, folder: Path, n: int = 40, setup: LabelSetup = LABELS, n_written: int = 4
) -> dict[str, Any]:
    trial = make_trial(pairs(n), 3, n_written)
    return measure(trial, records_of(answer, folder, trial, setup))


def records_of(answer: Any, folder: Path, trial: Trial, setup: LabelSetup) -> list[StoredRecord]:
    heard: list[StoredRecord] = []
    chains = trial_chains(trial, setup, replace(setup, mode="text"))
    with RecordFile(folder / "records.jsonl") as records:
        engines = {"judge": FakeEngine(function=answer)}
        run_chains((overheard(chain, heard) for chain in chains), engines, records)
    return heard


def knowing(request: Request) -> float:
    one, two = first_is_good(request), second_is_good(request)
    return 0.5 if one and two else 0.8 if one else 0.2


def test_a_judge_that_knows_is_right_and_even(tmp_path: Path) -> None:
    found = measured(judge_with(knowing), tmp_path)
    assert found["accuracy"]["value"] == 1.0
    assert found["accuracy"]["n"] == found["n_pairs"] == 40
    assert found["p_right"]["value"] == pytest.approx(0.8)
    assert found["ece"] == pytest.approx(0.2)
    assert [(row["from"], row["n"], row["value"]) for row in found["reliability"]] == [
        (0.8, 40, 1.0)
    ]
    assert found["same_slot"]["value"] == 0.0
    assert found["p_first"]["value"] == pytest.approx(0.5)
    assert found["identical"] == {
        "n": 3, "p_first": 0.5, "p_first_averaged": 0.5, "largest_deviation": 0.0,
    }  # fmt: skip
    assert sum(row["n"] for row in found["by_principle"]) == 40
    assert not is_chance(found)


def test_a_judge_that_likes_a_slot_is_found_out(tmp_path: Path) -> None:
    found = measured(judge_with(lambda _: 0.9), tmp_path)
    assert found["accuracy"]["value"] == 0.5
    assert found["same_slot"]["value"] == 1.0
    assert found["p_first"]["value"] == pytest.approx(0.9)
    assert found["identical"]["p_first"] == pytest.approx(0.9)
    assert found["identical"]["p_first_averaged"] == pytest.approx(0.5)
    assert is_chance(found)


@pytest.mark.parametrize(
    ("mode", "reason"), [("logprob", "the engine does not give"), ("cot", "label.n_cot averages")]
)
def test_identical_responses_that_are_not_even_are_a_warning(
    tmp_path: Path, mode: str, reason: str
) -> None:
    found = measured(judge_with(knowing), tmp_path) | {"judge": "j", "label": {"mode": mode}}
    assert not list(warnings(found))
    found["identical"]["largest_deviation"] = 0.02
    (line,) = warnings(found)
    assert "up to 0.020 from P = 0.5" in line
    assert reason in line


def test_a_judge_that_is_always_wrong_is_no_better(tmp_path: Path) -> None:
    found = measured(judge_with(lambda request: 1 - knowing(request)), tmp_path)
    assert found["accuracy"]["high"] < 0.5
    assert is_chance(found)


def test_pairs_without_a_judgement_are_counted_and_not_wrong(tmp_path: Path) -> None:
    def sometimes(request: Request) -> float | None:
        return None if "good 7" in request.messages[0].content else knowing(request)

    found = measured(judge_with(sometimes), tmp_path, n=10)
    assert found["n_unscored"] == 1
    assert found["accuracy"]["n"] == 9
    assert found["unscored_reasons"] == {"too long": 2}


def test_refusals_in_words_are_counted_and_are_no_labels(tmp_path: Path) -> None:
    answer = judge_with(knowing, "I can't help with comparing these.")
    found = measured(answer, tmp_path)
    assert found["refusals"]["n_verdicts"] == found["refusals"]["n_without_verdict"] == 4
    assert found["refusals"]["refused"]["value"] == 1.0
    assert found["n_unscored"] == 0
    assert found["accuracy"]["value"] == 1.0


def test_a_judge_that_writes_is_measured_by_what_it_writes(tmp_path: Path) -> None:
    def write(request: Request) -> Completion:
        text = "Verdict: A" if first_is_good(request) else "Verdict: B"
        return Completion(request.id, text, "stop")

    found = measured(write, tmp_path, setup=replace(LABELS, mode="text"), n_written=0)
    assert found["accuracy"]["value"] == 1.0
    assert found["p_outside"] is None
    assert found["refusals"]["n_verdicts"] == 2 * 43


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    rows = [{"prompt": f"How {i}?", "chosen": f"So {i}.", "rejected": "No."} for i in range(30)]
    write_rows(tmp_path / "pairs.jsonl", rows)
    return tmp_path / "pairs.jsonl"


def run_command(*arguments: object) -> Result:
    fake = ("--set", "engine.kind=fake")
    return CliRunner().invoke(main, ["judge-test", *map(str, arguments), *fake])


def test_the_command_reports_warns_and_asks_nothing_twice(
    data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    result = run_command("some-model", "--data", data, "--n", 20)
    assert result.exit_code == 0, result.output
    assert "same slot preferred in both orders" in result.output
    assert "0 broken, 20 used, left out: 10 over_n" in " ".join(result.output.split())
    assert "WARNING: some-model@fake is right on" in result.output
    assert "not better than chance" in result.output
    (folder,) = Path("runs/judge-tests").iterdir()
    assert (folder / "plots" / "reliability.png").read_bytes().startswith(b"\x89PNG")
    n = len(list(read_rows(folder / "records.jsonl")))
    assert n == 2 * (20 + 16) + 16
    assert read_json(folder / "result.json")["rows"]["left_out"] == {"over_n": 10}
    monkeypatch.setattr(FakeEngine, "submit", None)
    again = run_command("some-model", "--data", data, "--n", 20, "--json")
    assert json.loads(again.output.partition("{")[1] + again.output.partition("{")[2])["seed"] == 0
    assert len(list(read_rows(folder / "records.jsonl"))) == n


def test_pairs_without_a_better_side_are_counted(data: Path) -> None:
    even = [
        {"prompt": f"Why {i}?", "chosen": "b", "rejected": "c", "p_chosen": 0.5} for i in range(6)
    ]
    write_rows(Path("mixed.jsonl"), [*read_rows(data), *even])
    result = run_command("some-model", "--data", "mixed.jsonl", "--n", 33)
    assert result.exit_code == 0, result.output
    (folder,) = Path("runs/judge-tests").iterdir()
    found = read_json(folder / "result.json")
    rows = found["rows"]
    assert rows["left_out"].keys() == {"over_n", "undecided"}
    assert found["n_pairs"] == rows["n_used"] == 33 - rows["left_out"]["undecided"]
    assert rows["n_rows"] == 36 == rows["n_used"] + sum(rows["left_out"].values())


def test_strict_refuses_a_judge_at_chance(data: Path) -> None:
    result = run_command("some-model", "--data", data, "--strict")
    assert result.exit_code == 4
    assert "Error: some-model@fake: right on" in result.output


def test_the_judge_of_a_run_is_tested_under_its_settings(data: Path, tmp_path: Path) -> None:
    run = start(tmp_path / "run", "models.judge=strict-judge", "label.mode=cot", until="revise")
    result = run_command(run, "--data", data, "--n", 4, "--json")
    assert result.exit_code == 0, result.output
    found = json.loads(result.output[result.output.index("{") :])
    assert found["judge"] == "strict-judge@fake"
    assert found["label"]["mode"] == "cot"
    assert found["refusals"]["n_reasonings"] == 2 * 8
    assert found["at_chance"]


def test_a_run_keeps_its_seed_and_its_templates(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = start(tmp_path / "run", "seed=7", until="revise")
    template = run / "inputs" / "compare.jinja"
    template.write_text(template.read_text() + "\nOnly in this run.\n")
    asked: list[str] = []
    submit = FakeEngine.submit

    def listen(self: FakeEngine, request: Request) -> None:
        asked.append("".join(message.content for message in request.messages))
        submit(self, request)

    monkeypatch.setattr(FakeEngine, "submit", listen)
    result = run_command(run, "--data", data, "--n", 4, "--json")
    assert result.exit_code == 0, result.output
    assert json.loads(result.output[result.output.index("{") :])["seed"] == 7
    # 4 pairs and 4 of identical responses, both in two orders; verdicts in words have a template
    # of their own
    assert sum("Only in this run." in text for text in asked) == 2 * 8


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--data", "nowhere.jsonl"], "nowhere.jsonl: not there"),
        (["--data", "broken.jsonl"], "broken.jsonl:1"),
        (["--data", "even.jsonl"], "no pair in it that says which side is better"),
        (["--data", "pairs.jsonl", "--constitution", "nowhere"], "nowhere"),
        (["--data", "pairs.jsonl", "--set", "label.modes=x"], "label.modes"),
    ],
)
def test_bad_input_is_named(data: Path, arguments: list[str], message: str) -> None:
    Path("broken.jsonl").write_text("{\n")
    write_rows(
        Path("even.jsonl"), [{"prompt": "a", "chosen": "b", "rejected": "c", "p_chosen": 0.5}]
    )
    result = run_command("some-model", *arguments)
    assert result.exit_code == 2
    assert message in result.output
