"""The config: precedence, complaints, shipped recipes."""

from pathlib import Path

import pytest

from cai.errors import ConfigError
from cai.resolve import Options, resolve_config, trainer_fields
from cai.resources import packaged


@pytest.mark.parametrize("path", sorted(packaged("recipes").glob("*.yaml")), ids=lambda p: p.stem)
def test_shipped_recipes_resolve(path: Path) -> None:
    config = resolve_config(Options(constitution="harmless.yaml", recipe=path.stem))
    assert config.recipe == path.stem


def test_options_beat_settings_beat_the_file(tmp_path: Path) -> None:
    file = tmp_path / "c.yaml"
    file.write_text("constitution: a.yaml\nseed: 1\nrevise: {rounds: 3, n_prompts: 9}\n")
    config = resolve_config(
        Options(
            config=str(file), settings=["revise.rounds=2", "seed=5"], seed=7, model="m", prompts="p"
        )
    )
    assert config.seed == 7
    assert config.revise.rounds == 2
    assert config.revise.n_prompts == 9
    assert (config.models.base, config.prompts.red_team) == ("m", ("p",))


def test_settings_take_yaml_values() -> None:
    settings = [
        "sft.lora=null",
        "sft.trainer={max_steps: 3, learning_rate: 1e-5}",
        "rl.method=grpo",
    ]
    config = resolve_config(Options(constitution="c", settings=settings))
    assert config.sft.lora is None
    assert config.sft.trainer == {"max_steps": 3, "learning_rate": 1e-5}
    assert config.rl.method == "grpo"


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("revise: {rouns: 3}", ["c.yaml:1:17", "revise.rouns", "did you mean 'rounds'"]),
        ("revise:\n  rounds: many", ["c.yaml:2:11", "revise.rounds", "integer", "'many'"]),
        ("revise:\n  rounds: 0", ["c.yaml:2:11", "greater than or equal to 1"]),
        ("sft:\n  use: some", ["c.yaml:2:8", "'all' or 'last'"]),
        ("prompts:\n  shares: {sft: 1}", ["c.yaml:2:11", "add up to 1"]),
        ("sft:\n  trainer:\n    learning_rat: 1", ["c.yaml:3:19", "did you mean 'learning_rate'"]),
        ("rl:\n  trainer:\n    num_generation: 1", ["c.yaml:3:21", "rloo", "num_generations"]),
        ("- a", ["c.yaml:1:1", "expected keys"]),
    ],
)
def test_complaints_name_place_key_and_remedy(tmp_path: Path, text: str, parts: list[str]) -> None:
    file = tmp_path / "c.yaml"
    file.write_text(text)
    with pytest.raises(ConfigError) as caught:
        resolve_config(Options(constitution="x", config=str(file)))
    for part in parts:
        assert part in str(caught.value)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (Options(), "no constitution given; type"),
        (Options(constitution="x", recipe="a", config="b"), "exclude each other"),
        (Options(constitution="x", recipe="quikstart"), r"did you mean quickstart\.yaml"),
        (Options(constitution="x", settings=["rounds"]), "expected key=value"),
        (Options(constitution="x", settings=["revise.rouns=1"]), "--set revise.rouns: unknown key"),
        (Options(constitution="x", settings=["seed=-1"]), "greater than or equal to 0"),
        (Options(constitution="x", settings=["seed=[1"]), "--set seed:1:"),
        (Options(constitution="x", config="none.yaml"), r"none\.yaml: cannot be read"),
    ],
)
def test_bad_options(options: Options, says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        resolve_config(options)


@pytest.mark.parametrize(
    ("name", "cls"),
    [
        ("sft", "SFTConfig"),
        ("reward", "RewardConfig"),
        ("rloo", "RLOOConfig"),
        ("grpo", "GRPOConfig"),
    ],
)
def test_trainer_fields_are_those_of_trl(name: str, cls: str) -> None:
    import dataclasses

    import trl

    found = trainer_fields(name)
    fields = {field.name for field in dataclasses.fields(getattr(trl, cls)) if field.init}
    assert fields <= set(found)
