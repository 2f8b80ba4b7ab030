"""What the config offers beside the paper's way, in whole runs with the fake engine."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from fake_run import start

from cai.cli import main
from cai.errors import ConfigError, RunConflict
from cai.run import read_json, read_rows, write_rows
from cai.train.folder import step_of
from cai.view.transcripts import load_transcripts


def counts(run: Path, stage: str) -> dict[str, Any]:
    manifest = read_json(run / "manifest.json")
    return next(entry["counts"] for entry in manifest["stages"] if entry["name"] == stage)


def preferences(run: Path) -> list[dict[str, Any]]:
    return list(read_rows(run / "04-label" / "preferences.jsonl"))


def test_reasoning_comes_first_and_its_labels_are_clamped(tmp_path: Path) -> None:
    settings = ("label.mode=cot", "label.n_cot=2", "sample.n_prompts=4")
    run = start(tmp_path / "cot", *settings, until="label")
    found = counts(run, "label")
    assert found["reasonings"] == 2 * 2 * found["pairs"]
    # two orders of a pair, and one of a response beside itself
    assert found["generated"] == 2 * (2 + 1) * 2 * found["pairs"]
    assert all(0.5 <= row["p_chosen"] <= 0.6 for row in preferences(run))
    assert any(max(row["p_orders"]) > 0.6 for row in preferences(run))
    transcript = next(t for t in load_transcripts(run) if t.labels)
    assert {label.reasoning_id for label in transcript.labels} == {
        reasoning.id for reasoning in transcript.reasonings
    }
    shown = CliRunner().invoke(main, ["show", str(run), transcript.prompt.id]).output
    assert "reasoning" in shown
    off = start(tmp_path / "off", *settings, "label.clamp=off", until="label")
    assert any(row["p_chosen"] > 0.6 for row in preferences(off))


def test_written_verdicts_that_are_none_are_counted(tmp_path: Path) -> None:
    run = start(tmp_path / "text", "label.mode=text", "sample.n_prompts=4", until="label")
    found = counts(run, "label")
    assert found["unscored_pairs"] == found["pairs"] > 0
    assert found["unscored_reasons"] == {"the last line is no verdict": 2 * found["pairs"]}
    assert preferences(run) == []


def test_every_two_samples_or_the_best_and_the_worst(tmp_path: Path) -> None:
    settings = ("sample.k=3", "sample.n_prompts=4", "label.ensemble=2")
    every = start(tmp_path / "all", *settings, "label.pairing=all", until="label")
    assert counts(every, "label")["pairs"] == len(preferences(every)) == 12
    assert all(len(row["principle_ids"]) == 2 for row in preferences(every))
    ends = start(tmp_path / "ends", *settings, "label.pairing=extremes", until="label")
    found = counts(ends, "label")
    assert (found["pairs"], found["not_extreme"], len(preferences(ends))) == (12, 8, 4)
    assert {row["id"] for row in preferences(ends)} < {row["id"] for row in preferences(every)}


def test_a_pair_without_a_judgement_is_not_one_that_is_not_extreme(tmp_path: Path) -> None:
    settings = ("sample.k=3", "sample.n_prompts=4", "label.pairing=extremes", "label.mode=text")
    run = start(tmp_path / "run", *settings, until="label")
    found = counts(run, "label")
    assert (found["pairs"], found["unscored_pairs"], found["not_extreme"]) == (12, 12, 0)


@pytest.mark.parametrize("how", ["judged", "assumed"])
def test_revisions_are_paired_with_their_responses(tmp_path: Path, how: str) -> None:
    run = start(tmp_path / how, f"label.revision_pairs={how}", until="reward")
    found = counts(run, "label")
    pairs = [row for row in preferences(run) if row["origin"] == "revision"]
    assert len(pairs) == 16
    assert found["assumed_pairs"] == (16 if how == "assumed" else 0)
    assert found["pairs_of"].get("revision", 0) == (0 if how == "assumed" else 16)
    assert {row["p_chosen"] == 1.0 for row in pairs} == {how == "assumed"}
    ids = {row["id"] for row in read_rows(run / "05-reward" / "rows.jsonl")}
    assert {row["id"] for row in preferences(run)} <= ids


@pytest.fixture
def human(tmp_path: Path) -> Path:
    rows = [
        {
            "chosen": f"\n\nHuman: Question {i}?\n\nAssistant: No.",
            "rejected": f"\n\nHuman: Question {i}?\n\nAssistant: Yes.",
        }
        for i in range(30)
    ]
    write_rows(tmp_path / "human.jsonl", rows)
    return tmp_path / "human.jsonl"


def test_human_preferences_join_in_the_ratio_asked_for(tmp_path: Path, human: Path) -> None:
    settings = (f"preferences.sources=[{human}]", "preferences.ratio=0.25")
    run = start(tmp_path / "run", *settings, until="reward")
    found = counts(run, "reward")
    assert found["foreign_ratio"] == pytest.approx(0.25, abs=0.02)
    assert sum(found["pairs"].values()) == len(list(read_rows(run / "05-reward" / "rows.jsonl")))
    assert read_json(run / "manifest.json")["preference_sources"][0]["n_rows"] == 30
    assert "share of foreign pairs" in (run / "report.md").read_text()


def test_only_human_preferences_ask_no_judge_for_labels(tmp_path: Path, human: Path) -> None:
    settings = (f"preferences.sources=[{human}]", "preferences.ai=false")
    run = start(tmp_path / "run", *settings)
    assert counts(run, "sample")["generated"] == counts(run, "label")["generated"] == 0
    assert counts(run, "reward")["pairs"] == {str(human): 30}
    assert (run / "07-evaluate" / "metrics.json").is_file()


def test_a_changed_source_is_another_run(tmp_path: Path, human: Path) -> None:
    settings = (f"preferences.sources=[{human}]",)
    run = start(tmp_path / "run", *settings, until="revise")
    write_rows(human, [row | {"p_chosen": 0.7} for row in list(read_rows(human))])
    with pytest.raises(RunConflict, match=r"inputs/sources\.json"):
        start(run, *settings, until="revise")


def test_ratings_train_a_pointwise_reward_model(tmp_path: Path) -> None:
    rows = [
        {"prompt": f"Question {i}?", "response": f"Answer {i}.", "rating": i % 5} for i in range(20)
    ]
    write_rows(tmp_path / "rated.jsonl", rows)
    settings = ("reward.method=pointwise", f"reward.ratings=[{tmp_path / 'rated.jsonl'}]")
    run = start(tmp_path / "run", *settings)
    found = counts(run, "reward")
    assert found["ratings"] == {str(tmp_path / "rated.jsonl"): 20}
    assert found["n_heldout_pairs"] > 0
    rated = [
        row["rating"] for row in read_rows(run / "05-reward" / "rows.jsonl") if "rating" in row
    ]
    assert sorted(rated) == sorted([0, 1, 2, 3, 4] * 4)


@pytest.mark.parametrize("method", ["rloo", "grpo", "dpo"])
def test_the_judge_chooses_among_the_policies_kept(tmp_path: Path, method: str) -> None:
    run = start(tmp_path / "run", f"rl.method={method}", "rl.trainer={max_steps: 4}")
    found = counts(run, "rl")
    rates = read_json(run / "06-rl" / "selection.json")
    assert [rate["step"] for rate in rates] == found["candidates"] == [1, 2]
    best = max(rates, key=lambda rate: rate["win_rate"])
    assert found["chosen_by"] == "judge"
    assert found["chosen_step"] == best["step"]
    chosen = run / "06-rl" / "candidates" / f"step-{best['step']}"
    assert step_of(chosen) == best["step"]
    assert (run / "06-rl" / "checkpoint" / "config.json").read_text() == (
        chosen / "config.json"
    ).read_text()
    trained = {json.dumps(row.get("prompt")) for row in read_rows(run / "06-rl" / "rows.jsonl")}
    prompts = {row["id"]: row for row in read_rows(run / "inputs" / "prompts.jsonl")}
    selected = [prompts[r["prompt_id"]] for r in read_rows(run / "06-rl" / "select-start.jsonl")]
    assert {prompt["split"] for prompt in selected} == {"rl"}
    assert not trained & {json.dumps(prompt["messages"]) for prompt in selected}


def test_without_a_choice_the_last_healthy_policy_stays(tmp_path: Path) -> None:
    run = start(tmp_path / "run", "rl.n_select=0", until="rl")
    found = counts(run, "rl")
    assert (found["chosen_step"], found["chosen_by"]) == (2, "last healthy")
    assert not (run / "06-rl" / "selection.json").exists()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (["preferences.ai=false"], "preferences.sources is empty"),
        (["preferences.ratio=0.5"], "a ratio needs both"),
        (["label.ensemble=17"], "label.ensemble=17: constitution harmless has 16 principles"),
        (["label.n_cot=2"], "n_cot above 1 needs mode cot"),
        (["label.clamp=[0.1, 0.6]"], "two bounds as far from 0.5"),
        (["reward.margin=1"], "margin needs labels: hard"),
        (["reward.method=pointwise"], "method pointwise and ratings go together"),
        (["preferences.sources=[nowhere.jsonl]"], "nowhere.jsonl: not there"),
        (["rl.rewards=[{kind: rule, name: x, weight: 1, pattern: '('}]"], "not a regular"),
        (
            ["rl.method=dpo", "rl.trainer={}", "rl.trainer.label_smoothing=0.1"],
            "is set by cai itself",
        ),
        (["rl.method=dpo", "rl.trainer={}", "rl.trainer.betta=1"], "did you mean 'beta'"),
        (
            ["reward.method=pointwise", "reward.ratings=[x.jsonl]", "reward.trainer.margin=1"],
            "no field",
        ),
        (["rl.method=dpo"], "--set rl.trainer={}"),
        (["exemplars.cot=nowhere"], "nowhere"),
    ],
)
def test_what_does_not_fit_is_refused_before_anything_runs(
    tmp_path: Path, settings: list[str], message: str
) -> None:
    with pytest.raises(ConfigError, match=re.escape(message)):
        start(tmp_path / "run", *settings)
    assert not (tmp_path / "run").exists()
