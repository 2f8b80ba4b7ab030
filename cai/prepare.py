"""Everything that can be found wrong before a token is generated."""

import importlib.util
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from cai.config import RunConfig
from cai.constitution import (
    Constitution,
    find_constitution,
    load_constitution,
    n_preference_texts,
)
from cai.errors import ConfigError, MissingDependency
from cai.models import Model, check_reward_model, model_context, model_for
from cai.pipeline import STAGES, Stage
from cai.preferences import Reading, read_foreign
from cai.prompts import Templates
from cai.records import Prompt, Split
from cai.resolve import Options, resolve_config
from cai.sections import ModelReward, reward_role
from cai.sources import SourceCount, load_prompts


class Prepared(NamedTuple):
    """A run's inputs, all checked against each other."""

    options: Options
    config: RunConfig
    constitution: Constitution
    constitution_path: Path
    templates: Templates
    prompts: list[Prompt]
    counts: list[SourceCount]
    readings: list[Reading]
    """What became of the rows of foreign preferences and ratings."""


def prepare(options: Options, stages: Sequence[Stage] = STAGES) -> Prepared:
    """Read and check constitution, config or recipe, templates and prompts together.

    Only what `stages` need is demanded of the constitution and the prompts.
    """
    config = resolve_config(options)
    path = find_constitution(config.constitution)
    constitution = load_constitution(path)
    names = {stage.name for stage in stages}
    if "revise" in names:
        constitution.for_revision()
    if names & {"label", "evaluate"}:
        check_ensemble(config, constitution)
    prompts, counts = load_prompts(config.prompts, config.seed)
    check_splits(prompts, names)
    templates = Templates(config.exemplars)
    foreign = read_foreign(config)
    readings = [*foreign.pair_readings, *foreign.rating_readings]
    return Prepared(options, config, constitution, path, templates, prompts, counts, readings)


def check_ensemble(config: RunConfig, constitution: Constitution) -> None:
    """Refuse a constitution with fewer principles for preference than a label takes."""
    n, wanted = n_preference_texts(constitution.for_preference()), config.label.ensemble
    if n < wanted:
        raise ConfigError(
            f"label.ensemble={wanted}: constitution {constitution.name} has {n} principles with a "
            f"preference text of their own; type --set label.ensemble={n} or less"
        )


def check_splits(prompts: Sequence[Prompt], stages: set[str]) -> None:
    """Refuse prompts so few that a planned stage would find none."""
    splits = Counter(prompt.split for prompt in prompts if prompt.kind == "red_team")
    needs: dict[str, Split] = {"revise": "sft", "sample": "preference", "rl": "rl"}
    for stage, split in (needs | {"evaluate": "eval"}).items():
        if stage in stages and splits[split] < 2:
            raise ConfigError(
                f"stage {stage}: {splits[split]} of {splits.total()} red-team prompts fall into "
                f"the {split} share, 2 are needed; give more, or raise prompts.shares.{split}"
            )


def check_installed(config: RunConfig, stages: Sequence[Stage]) -> None:
    """Refuse to start what would stop at a library that is not there."""
    if config.engine.kind == "fake":
        return
    wanted = {"torch": "train", "transformers": "train", "huggingface_hub": "train"}
    if config.engine.kind == "vllm":
        wanted["vllm"] = "vllm"
    if {stage.name for stage in stages} & {"sft", "reward", "rl"}:
        wanted |= {"trl": "train", "peft": "train", "datasets": "train"}
    for name, extra in wanted.items():
        if importlib.util.find_spec(name) is None:
            raise MissingDependency(
                f"{name} is not installed: pip install 'cai-toolkit[{extra}]' (on a CPU: "
                "pip install --no-deps -r requirements/cpu.txt)"
                + ("; or --set engine.kind=transformers" if name == "vllm" else "")
            )


def resolve_models(config: RunConfig) -> dict[str, Model]:
    """The local folder of each role's model."""
    roles = named_models(config)
    kind = config.engine.kind
    found = {name: model_for(name, kind) for name in dict.fromkeys(roles.values())}
    models = {role: found[name] for role, name in roles.items()}
    if kind != "fake":
        check_models(config, models)
    return models


def check_models(config: RunConfig, models: Mapping[str, Model]) -> None:
    """Refuse a reward model that is none, and a context that a model cannot hold."""
    for role, model in models.items():
        if role.startswith("rewards."):
            check_reward_model(model, f"rl.rewards, {role.removeprefix('rewards.')}")
    check_contexts(config, models)


def named_models(config: RunConfig) -> dict[str, str]:
    """The name of each role's model. `policy` and `reward` only if named; a reward model of RL that
    is not the run's own has the role `rewards.NAME`."""
    names = config.models
    roles = {"base": names.base, "critic": names.critic or names.base}
    roles["judge"] = names.judge or names.base
    roles |= {r: n for r, n in (("policy", names.policy), ("reward", names.reward)) if n}
    terms = [term for term in config.rl.rewards if isinstance(term, ModelReward)]
    return roles | {reward_role(term): term.path for term in terms if term.path}


def check_contexts(config: RunConfig, models: Mapping[str, Model]) -> None:
    """Refuse a length that was asked for and that a model cannot hold."""
    asked = {
        "engine.max_context": config.engine.max_context,
        "sft.max_length": asked_for(config.sft, "max_length"),
        "reward.max_length": asked_for(config.reward, "max_length"),
    }
    for role, model in models.items():
        limit = model_context(model.path)
        # a reward model reads what a policy wrote, and nothing else
        keys = ("reward.max_length",) if role.startswith("rewards.") else tuple(asked)
        for key, value in ((key, asked[key]) for key in keys):
            if limit and value and value > limit:
                raise ConfigError(
                    f"{key}={value}: the {role} model {model.name} holds {limit} tokens; "
                    f"type --set {key}={limit} or less"
                )


def asked_for(section: Any, field: str) -> int | None:
    """A field's value if it was set, not defaulted."""
    return getattr(section, field) if field in section.model_fields_set else None
