"""The whole flow on the embedded model: real vLLM, real TRL, the smallest sizes that mean anything."""

from pathlib import Path

import pytest

from cai.conduct import conduct
from cai.pipeline import STAGES
from cai.resolve import Options
from cai.run import read_json, read_rows
from cai.view.progress import RunProgress

SETTINGS = [
    "engine.capacity=8",
    "engine.max_context=1024",
    "revise.n_prompts=4",
    "revise.n_helpful=2",
    "revise.rounds=1",
    "revise.response.max_tokens=12",
    "revise.critique.max_tokens=12",
    "revise.revision.max_tokens=12",
    "sft.trainer.max_steps=1",
    "sft.trainer.per_device_train_batch_size=2",
    "sample.n_prompts=5",
    "sample.sampling.max_tokens=12",
    "reward.trainer.max_steps=1",
    "reward.trainer.per_device_train_batch_size=2",
    "rl.n_prompts=4",
    "rl.n_helpful=0",
    "rl.trainer.max_steps=1",
    "rl.trainer.per_device_train_batch_size=4",
    "rl.trainer.max_completion_length=8",
    "evaluate.n_prompts=3",
    "evaluate.n_look_alike=1",
    "evaluate.n_helpful=1",
    "evaluate.sampling.max_tokens=12",
]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, embedded_model: Path) -> Path:
    options = Options(constitution="harmless.yaml", recipe="quickstart", settings=SETTINGS)
    out = tmp_path_factory.mktemp("runs") / "real"
    return conduct(options, str(out), None, None, RunProgress(quiet=True))


@pytest.mark.slow
@pytest.mark.vllm
def test_every_stage_is_done_and_counted(run: Path) -> None:
    manifest = read_json(run / "manifest.json")
    assert [(s["name"], s["status"]) for s in manifest["stages"]] == [
        (s.name, "done") for s in STAGES
    ]
    counts = {stage["name"]: stage for stage in manifest["stages"]}
    assert counts["revise"]["n_out"] == 6
    assert counts["revise"]["tokens"]["generated"] > 0
    for stage in ("sft", "reward", "rl"):
        assert counts[stage]["counts"]["n_steps"] == 1
    assert len(list(read_rows(run / "01-revise" / "records.jsonl"))) == 4 * 3 + 2


@pytest.mark.slow
@pytest.mark.vllm
def test_the_three_policies_differ_and_are_measured(run: Path) -> None:
    metrics = read_json(run / "07-evaluate" / "metrics.json")
    policies = metrics["policies"]
    assert set(policies) == {"base", "sft", "rl"}
    for name, policy in policies.items():
        assert policy["n"] == 5
        assert policy["reward"]["n"] == 5
        assert (policy["kl"] is None) == (name == "base")
    assert policies["sft"]["kl"]["value"] != 0
    assert {(row["policy"], row["against"]) for row in metrics["win_rates"]} == {
        ("sft", "base"),
        ("rl", "base"),
        ("rl", "sft"),
    }
    assert [row["round"] for row in metrics["reward_by_round"]] == [0, 1]


@pytest.mark.slow
@pytest.mark.vllm
def test_labels_are_soft_and_in_both_orders(run: Path) -> None:
    labels = list(read_rows(run / "04-label" / "records.jsonl"))
    preferences = list(read_rows(run / "04-label" / "preferences.jsonl"))
    assert len(labels) == 2 * len(preferences) > 0
    assert all(0 < label["p_first"] < 1 and label["p_outside"] < 1 for label in labels)


@pytest.mark.slow
@pytest.mark.vllm
def test_report_plots_and_checkpoints_are_there(run: Path) -> None:
    report = (run / "report.md").read_text()
    assert "## Before and after" in report
    assert {path.name for path in (run / "plots").iterdir()} == {
        "training.png",
        "reward_by_round.png",
        "before_after.png",
    }
    for stage in ("02-sft", "05-reward", "06-rl"):
        names = {path.name for path in (run / stage / "checkpoint").iterdir()}
        assert {"config.json", "model.safetensors", "tokenizer.json"} <= names
        assert not [name for name in names if name.endswith((".bin", ".pt", ".pkl"))]


@pytest.mark.slow
@pytest.mark.vllm
def test_done_means_done(run: Path) -> None:
    before = (run / "manifest.json").read_text()
    options = Options(constitution="harmless.yaml", recipe="quickstart", settings=SETTINGS)
    conduct(options, str(run), None, None, RunProgress(quiet=True))
    assert (run / "manifest.json").read_text() == before
