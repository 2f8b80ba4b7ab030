"""What a run measures of itself, and the bounds at which it warns or stops."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from fake_run import start
from pydantic import ValidationError

from cai.config import Guards, RunConfig
from cai.engines import fake
from cai.engines.base import Completion, Request
from cai.errors import QualityGate
from cai.guards import broken, check_cuts, lost
from cai.run import read_json, read_rows
from cai.stages.selection import win_rates
from cai.view.progress import RunProgress

BASE = {
    "n": 30,
    "n_truncated": 3,
    "length_tokens": {"value": 40.0},
    "length_correlation": 0.1,
    "distinct_2": 0.8,
    "over_refusal": {"value": 0.1, "low": 0.03, "high": 0.2},
    "helpful_refusal": None,
}


def evaluated(**changes: Any) -> dict[str, Any]:
    """What evaluate found, with an RL policy that differs from base in `changes`."""
    return {"pairs": 9, "unscored_pairs": 0, "policies": {"base": BASE, "rl": BASE | changes}}


HEALTHY = {
    "pairs": 30,
    "unscored_pairs": 6,
    "same_slot": 0.5,
    "identical_p_first": 0.54,
    "length_correlation": -0.4,
    "generated": 80,
    "from_disk": 20,
    "cut_at_limit": 20,
    "share_cut": 0.01,
}


@pytest.mark.parametrize("found", [{}, {"pairs": 0, "unscored_pairs": 0}, HEALTHY, evaluated()])
def test_at_its_bounds_a_run_is_healthy(found: dict[str, Any]) -> None:
    assert broken("label", found, Guards()) == []


@pytest.mark.parametrize(
    ("found", "bound", "said"),
    [
        (HEALTHY | {"same_slot": 0.75}, "max_same_slot", "in 75% of 24 pairs"),
        (HEALTHY | {"identical_p_first": 0.9}, "max_identical_bias", "with P 0.90"),
        (HEALTHY | {"identical_p_first": 0.1}, "max_identical_bias", "with P 0.10"),
        (HEALTHY | {"identical_p_first": 0.0}, "max_identical_bias", "with P 0.00"),
        (HEALTHY | {"length_correlation": -0.5}, "max_length_correlation", "ρ -0.50"),
        (HEALTHY | {"unscored_pairs": 7}, "max_unscored", "7 of 30 pairs"),
        (HEALTHY | {"cut_at_limit": 21}, "max_truncated", "21% of 100 texts"),
        (HEALTHY | {"share_cut": 0.02}, "max_cut_rows", "2.0% of the rows"),
        (evaluated(n_truncated=7), "max_truncated", "23% of the answers of rl"),
        (evaluated(length_correlation=0.6), "max_length_correlation", "of rl goes with"),
        (evaluated(length_tokens={"value": 61.0}), "max_length_change", "1.5 times as long"),
        (evaluated(length_tokens={"value": 10.0}), "max_length_change", "0.2 times as long"),
        (evaluated(distinct_2=0.5), "max_distinct_drop", "0.80 → 0.50"),
        (
            evaluated(over_refusal={"value": 0.5, "low": 0.3, "high": 0.7}),
            "max_refusal_rise",
            "rl refuses look-alike prompts more often than base (10% → 50%)",
        ),
    ],
)
def test_each_bound_is_broken_by_its_own_number(
    found: dict[str, Any], bound: str, said: str
) -> None:
    (one,) = broken("x", found, Guards())
    assert one.bound == bound
    assert one.text.startswith("x: ")
    assert said in one.text
    assert f"guards.{bound} is " in one.text
    assert broken("x", found, Guards.model_validate({bound: None})) == []


def test_a_rise_that_may_be_chance_is_none() -> None:
    found = evaluated(over_refusal={"value": 0.5, "low": 0.15, "high": 0.7})
    assert broken("evaluate", found, Guards()) == []


@pytest.mark.parametrize(("high", "n"), [(0.49, 1), (0.5, 0), (0.7, 0)])
def test_a_policy_that_loses_against_the_start_is_a_warning(high: float, n: int) -> None:
    rate = {"win_rate": 0.3, "low": 0.15, "high": high, "n": 24}
    assert len([*lost({"chosen_step": 8, "win_rate_over_start": rate})]) == n
    assert [*lost({"chosen_step": 8, "chosen_by": "last healthy"})] == []


def test_only_bounds_can_stop() -> None:
    with pytest.raises(ValidationError, match="max_same_slots: no such bound; there are max_same"):
        Guards.model_validate({"stop": ["max_same_slots"]})


@pytest.mark.parametrize(
    ("given", "allowed"),
    [
        ({}, 0.01),
        ({"max_cut_rows": 0}, 0.0),
        ({"max_cut_rows": None}, 1.0),
        ({"stop": []}, 1.0),
        ({"stop": ["max_same_slot"]}, 1.0),
    ],
)
def test_the_share_of_cut_rows_with_which_training_begins(
    given: dict[str, Any], allowed: float
) -> None:
    assert Guards.model_validate(given).allowed_cut == allowed


def test_one_row_of_a_hundred_may_be_cut() -> None:
    assert check_cuts(Path("rows.jsonl"), (1, 100), 0.01, "") == 0.01
    assert check_cuts(Path("rows.jsonl"), (0, 0), 0.01, "") == 0
    with pytest.raises(QualityGate, match=r"^rows.jsonl: 2 of 100 rows are long: raise it, or"):
        check_cuts(Path("rows.jsonl"), (2, 100), 0.01, "are long: raise it")


def test_bounds_do_not_decide_what_a_run_is() -> None:
    one = RunConfig(constitution="c")
    assert one.deciding() == one.model_copy(update={"guards": Guards(stop=())}).deciding()


# --- whole runs


def warnings(run: Path, stage: str) -> list[str]:
    stages = {one["name"]: one for one in read_json(run / "manifest.json")["stages"]}
    return [text.split("guards.")[1].split()[0] for text in stages[stage].get("warnings", [])]


def answering(monkeypatch: pytest.MonkeyPatch, **changes: Any) -> None:
    """Let the fake engine answer otherwise: a judge with `choices`, a trained one with `policy`."""
    stock = fake.FakeEngine._answer

    def answer(self: fake.FakeEngine, request: Request) -> Completion:
        done = stock(self, request)
        if request.choices:
            return replace(done, choice_logprobs=changes.get("choices", done.choice_logprobs))
        if "policy" not in changes or self.model.startswith("smollm"):
            return done
        text = f"{changes['policy']} {done.text.split()[0]}"
        return replace(done, text=text, n_tokens=len(text.split()))

    monkeypatch.setattr(fake.FakeEngine, "_answer", answer)


def test_a_judge_of_slots_warns_and_stops_only_where_it_is_told_to(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    answering(monkeypatch, choices=(-0.1, -3.0))
    run = start(tmp_path / "run", until="label")
    counts = read_json(run / "04-label" / "done.json")["counts"]
    assert counts["same_slot"] == 1
    assert counts["identical_p_first"] == pytest.approx(0.9478, abs=1e-3)
    assert {"max_same_slot", "max_identical_bias"} <= set(warnings(run, "label"))
    assert "position decided more than the responses" in (run / "report.md").read_text()
    identical = list(read_rows(run / "04-label" / "identical.jsonl"))
    assert len(identical) == 8
    assert all(row["first_id"] == row["second_id"] for row in identical)
    preferences = list(read_rows(run / "04-label" / "preferences.jsonl"))
    assert all(row["chosen_id"] != row["rejected_id"] for row in preferences)

    stopping = "guards.stop=[max_same_slot]"
    for _ in range(2):
        with pytest.raises(QualityGate, match=r"--set guards.max_same_slot=null") as caught:
            start(run, stopping)
        assert caught.value.exit_code == 4
        assert not (run / "05-reward").exists()
        assert read_json(run / "manifest.json")["status"] == "stopped"
    start(run, stopping, "guards.max_same_slot=null", until="reward")
    assert (run / "05-reward" / "done.json").is_file()
    assert "max_same_slot" not in warnings(run, "label")


def test_policies_that_got_worse_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    answering(monkeypatch, policy="I can't help with that.")
    run = start(tmp_path / "run", "evaluate.n_look_alike=24")
    found = set(warnings(run, "evaluate"))
    assert {"max_refusal_rise", "max_distinct_drop", "max_length_change"} <= found
    assert "rl refuses look-alike prompts" in (run / "report.md").read_text()
    assert "rl refuses look-alike prompts" in (run / "report.html").read_text()
    policies = read_json(run / "07-evaluate" / "metrics.json")["policies"]
    assert policies["base"]["length_correlation"] is not None


def test_rl_that_made_the_policy_worse_is_said_and_recorded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[str] = []

    def losing(*given: Any) -> list[dict[str, Any]]:
        bounds = {"low": 0.1, "high": 0.4, "n": 20}
        return [rate | {"win_rate": 0.2} | bounds for rate in win_rates(*given)]

    monkeypatch.setattr("cai.stages.selection.win_rates", losing)
    monkeypatch.setattr(RunProgress, "say", lambda _, text: said.append(text))
    run = start(tmp_path / "run", until="rl")
    stages = {one["name"]: one for one in read_json(run / "manifest.json")["stages"]}
    (text,) = (one for one in stages["rl"]["warnings"] if "started from" in one)
    assert "wins 20% [10%, 40%] of 20 prompts (look at rl.health and models.judge" in text
    assert f"! {text}" in said
    assert "less than the one that RL started from" in (run / "report.md").read_text()


def test_texts_cut_at_their_limit_warn(tmp_path: Path) -> None:
    run = start(tmp_path / "run", "revise.revision.max_tokens=4", until="revise")
    assert warnings(run, "revise") == ["max_truncated"]


@pytest.mark.parametrize(
    ("setting", "stage"),
    [
        ("sft.max_length=16", "02-sft"),
        ("reward.max_length=16", "05-reward"),
        ("rl.max_prompt_length=8", "06-rl"),
    ],
)
def test_cut_rows_stop_the_stage_before_it_trains(tmp_path: Path, setting: str, stage: str) -> None:
    with pytest.raises(QualityGate, match=rf"{stage}/rows.jsonl: \d+ of \d+ rows"):
        start(tmp_path / "run", setting)
    assert not (tmp_path / "run" / stage / "checkpoint").exists()
    name = stage.split("-")[1]
    run = start(tmp_path / "run", setting, "guards.max_cut_rows=null", until=name)
    assert read_json(run / stage / "done.json")["counts"]["share_cut"] > 0.01
    assert warnings(run, name) == []
    start(run, setting, "guards.stop=[]", until=name)
    assert warnings(run, name) == ["max_cut_rows"]


def test_a_healthy_run_breaks_no_bound_on_its_rows(tmp_path: Path) -> None:
    run = start(tmp_path / "run", until="sft")
    assert read_json(run / "02-sft" / "done.json")["counts"]["share_cut"] == 0
    assert warnings(run, "sft") == []
