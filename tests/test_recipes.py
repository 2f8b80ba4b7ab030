"""The shipped recipes, and that `paper` has the values of Bai et al. 2022 (arXiv 2212.08073)."""

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from cai.cli import main
from cai.constitution import find_constitution, load_constitution
from cai.resolve import Options, resolve_config
from cai.resources import packaged
from cai.run import write_rows
from cai.sections import Label

RECIPES = sorted(path.stem for path in packaged("recipes").glob("*.yaml"))
PAPER: dict[str, object] = {
    # section 3.2: four critique-revision pairs per prompt, sampled at T = 1, few-shot (3.1)
    "revise.rounds": 4,
    "revise.exemplars": "on",
    "revise.response.temperature": 1.0,
    "revise.critique.temperature": 1.0,
    "revise.revision.temperature": 1.0,
    # sections 3.1 and 3.4: fine-tuning on all revisions, 73 to 27 with helpful samples
    "sft.use": "all",
    "sft.helpful_ratio": 0.27,
    "sft.lora": None,
    "sft.trainer.num_train_epochs": 1,
    "sft.trainer.lr_scheduler_type": "constant",
    # section 4.1: one comparison of two samples per prompt, soft labels from log-probabilities
    "sample.k": 2,
    "sample.sampling.temperature": 1.0,
    "label.mode": "logprob",
    "label.exemplars": "on",
    "label.pairing": "random",
    "label.revision_pairs": "off",
    "label.ensemble": 1,
    "label.reasoning.temperature": 1.0,
    "preferences.ai": True,
    "reward.method": "pairwise",
    "reward.labels": "soft",
    "reward.margin": 0.0,
    "reward.lora": None,
    "reward.trainer.num_train_epochs": 1,
    # section 4.2: r = r_PM - 0.001 KL; PPO is not to be had
    "rl.method": "rloo",
    "rl.lora": None,
    "rl.trainer.beta": 0.001,
    "rl.trainer.temperature": 1.0,
    "rl.trainer.normalize_advantages": False,
    "rl.trainer.reward_clip_range": None,
    "evaluate.sampling.temperature": 1.0,
}


def printed(*settings: str) -> dict[str, Any]:
    """The JSON that `cai check --verbose` prints of the paper recipe."""
    arguments = ["check", "--constitution", "harmless.yaml", "--recipe", "paper", "--verbose"]
    options = [part for setting in settings for part in ("--set", setting)]
    result = CliRunner().invoke(main, [*arguments, *options], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    assert "16 principles, 16 for revision, 16 for preference" in result.output
    return json.loads(result.output[result.output.index("\n{\n") :])


def at(values: dict[str, Any], key: str) -> object:
    """The value of a dotted key. Raises KeyError if there is none."""
    found: Any = values
    for part in key.split("."):
        found = found[part]
    return found


@pytest.fixture(scope="module")
def paper() -> dict[str, Any]:
    return printed()


@pytest.mark.parametrize("name", RECIPES)
def test_every_recipe_resolves(name: str) -> None:
    assert resolve_config(Options(constitution="harmless.yaml", recipe=name)).recipe == name


@pytest.mark.parametrize("name", RECIPES)
def test_trl_takes_every_recipes_trainer_options(name: str, tmp_path: Path) -> None:
    import trl

    config = resolve_config(Options(constitution="harmless.yaml", recipe=name))
    place = {"output_dir": str(tmp_path), "use_cpu": True, "bf16": False, "report_to": "none"}
    trl.SFTConfig(**place, **config.sft.trainer)
    trl.RewardConfig(**place, **config.reward.trainer)
    assert config.rl.method == "rloo"
    trl.RLOOConfig(**place, **config.rl.trainer)


@pytest.mark.parametrize(("key", "value"), PAPER.items(), ids=PAPER)
def test_the_paper_recipe_prints_the_papers_values(
    paper: dict[str, Any], key: str, value: object
) -> None:
    assert at(paper, key) == value


def test_a_step_of_fine_tuning_takes_1024_sequences(paper: dict[str, Any]) -> None:
    trainer = paper["sft"]["trainer"]
    n = trainer["per_device_train_batch_size"] * trainer["gradient_accumulation_steps"]
    assert n == 1024


def test_human_comparisons_of_helpfulness_join_as_the_comment_says(tmp_path: Path) -> None:
    """Sections 4.1 and 4.2: 135,296 of them beside 182,831 labels."""
    ratio = 135_296 / (135_296 + 182_831)
    rows = [{"prompt": f"How {i}?", "chosen": f"So {i}.", "rejected": "No."} for i in range(4)]
    write_rows(tmp_path / "helpful.jsonl", rows)
    sources = f"preferences.sources=[{tmp_path / 'helpful.jsonl'}]"
    found = printed(sources, f"preferences.ratio={ratio:.3f}")["preferences"]
    assert (found["ai"], found["ratio"]) == (True, 0.425)


def test_only_labels_after_reasoning_are_clamped(paper: dict[str, Any]) -> None:
    assert Label.model_validate(paper["label"]).bounds is None
    assert Label.model_validate(printed("label.mode=cot")["label"]).bounds == (0.4, 0.6)


def test_the_reward_is_the_reward_model_alone(paper: dict[str, Any]) -> None:
    (term,) = paper["rl"]["rewards"]
    assert (term["kind"], term["weight"]) == ("reward_model", 1.0)


def test_the_collapse_guard_is_on(paper: dict[str, Any]) -> None:
    bounds = {name for name, value in paper["rl"]["health"].items() if value is not None}
    assert {"max_kl", "min_entropy", "min_distinct_2"} <= bounds


def test_every_principle_is_as_likely_as_any_other() -> None:
    constitution = load_constitution(find_constitution("harmless.yaml"))
    for principles in (constitution.for_revision(), constitution.for_preference()):
        assert len(principles) == 16
        assert {principle.weight for principle in principles} == {1.0}
