"""The config: precedence, complaints, shipped recipes."""

from pathlib import Path

import pytest

from cai.errors import ConfigError
from cai.forbidden import ENGINE, TRAINER
from cai.resolve import Options, engine_fields, resolve_config, trainer_fields
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
    ("setting", "says"),
    [
        ("sft.trainer.trust_remote_code=true", "sft.trainer.trust_remote_code is not a setting"),
        ("sft.trainer.model_init_kwargs={trust_remote_code: true}", "is not a setting"),
        (
            "rl.trainer.generation_kwargs={custom_generate: x/y}",
            "generation_kwargs.custom_generate is",
        ),
        ("reward.trainer.push_to_hub=true", "reward.trainer.push_to_hub is not a setting"),
        ("sft.trainer.resume_from_checkpoint=/tmp/x", "is not a setting"),
        ("sft.trainer.chat_template_path=x.jinja", "is not a setting"),
        ("engine.options.trust_remote_code=true", "--set engine.options.trust_remote_code: engine"),
        ("engine.options={load_format: pt}", "engine.options.load_format is not a setting"),
        ("engine.options.tokenizer=x/y", "is not a setting"),
        (
            "engine.options={speculative_config: {load_format: pt}}",
            "speculative_config.load_format",
        ),
        ("engine.options.distributed_executor_backend=os.system", "is not a setting"),
        (
            "engine.options={compilation_config: {backend: evil.backend}}",
            "compilation_config.backend",
        ),
        ("engine.options={a: [{b: evil.code}]}", "engine.options.a.0.b is not a setting"),
        ("sft.trainer.bf16=no", "sft.trainer.bf16 wants bool"),
        ("sft.trainer.max_steps=010", "sft.trainer.max_steps wants int (found '010')"),
        ("sft.trainer.max_steps=1e3", "wants int (found 1000.0)"),
        ("sft.trainer.learning_rate=fast", "wants float"),
        ("sft.trainer.seed=1", "is set by cai itself"),
    ],
)
def test_options_of_other_libraries_that_are_refused(setting: str, says: str) -> None:
    with pytest.raises(ConfigError) as caught:
        resolve_config(Options(constitution="c", settings=[setting]))
    assert says in str(caught.value)


def test_options_of_other_libraries_that_pass() -> None:
    settings = [
        "sft.trainer={save_strategy: no, learning_rate: 1, save_steps: 0.5, bf16: false}",
        "sft.trainer.lr_scheduler_kwargs={num_cycles: 2}",
        "rl.trainer={generation_kwargs: {top_k: 3}, max_grad_norm: null}",
        "engine.options={quantization: fp8, enforce_eager: true, tensor_parallel_size: 2}",
        "engine.options.distributed_executor_backend=mp",
    ]
    config = resolve_config(Options(constitution="c", settings=settings))
    # "no" is what transformers calls it
    assert config.sft.trainer["save_strategy"] == "no"
    assert config.engine.options["quantization"] == "fp8"


def test_every_forbidden_name_is_an_option_somewhere() -> None:
    """A name that upstream has changed would forbid nothing."""
    nested = {"custom_generate", "weights_only", "use_safetensors"}
    trainers = {*trainer_fields("sft"), *trainer_fields("rloo"), *trainer_fields("grpo")}
    engine = set(engine_fields())
    if engine:
        assert nested | trainers | engine >= TRAINER | ENGINE


@pytest.mark.parametrize("name", ["../x", "a/b", "/tmp/x", "", "..", ".x", "a\nb", "x" * 65, "~"])
def test_a_recipes_name_is_no_path(name: str, tmp_path: Path) -> None:
    file = tmp_path / "c.yaml"
    file.write_text(f"constitution: c\nrecipe: {name!r}\n".replace("'a\\nb'", '"a\\nb"'))
    with pytest.raises(ConfigError, match=r"c\.yaml:2:9: recipe: String should match"):
        resolve_config(Options(config=str(file)))


def test_a_recipe_may_have_any_ordinary_name(tmp_path: Path) -> None:
    for name in ("my recipe", "größe-2.1", "x" * 64):
        (tmp_path / f"{name}.yaml").write_text("seed: 1\n")
        options = Options(constitution="c", recipe=str(tmp_path / f"{name}.yaml"))
        assert resolve_config(options).recipe == name


def test_a_complaint_names_the_setting_that_replaced_the_file(tmp_path: Path) -> None:
    file = tmp_path / "c.yaml"
    file.write_text("constitution: c\nrevise:\n  rounds: 3\n")
    with pytest.raises(ConfigError, match=r"^--set revise: revise\.rounds: "):
        resolve_config(Options(config=str(file), settings=["revise={rounds: 0}"]))


@pytest.mark.parametrize("key", ["", ".", "a.", ".a", "a..b", "a." * 60 + "b", "x" * 100_000])
def test_keys_that_are_none(key: str) -> None:
    with pytest.raises(ConfigError) as caught:
        resolve_config(Options(constitution="c", settings=[f"{key}=1"]))
    assert len(str(caught.value)) < 1000


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
