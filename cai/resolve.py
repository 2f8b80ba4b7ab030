"""From files and options to one checked `RunConfig`."""

import ast
import difflib
import importlib.util
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

from pydantic import ValidationError

from cai.config import RunConfig
from cai.errors import ConfigError
from cai.resources import RECIPES, find_resource
from cai.strict_yaml import Document, complaints, load_yaml, parse_yaml
from cai.train.jobs import FIXED

TRAINER_KINDS = {"pairwise": "reward", "pointwise": "rating", "rloo": "rl", "grpo": "rl"}
"""A method's kind of job, where it has another name."""


class Options(NamedTuple):
    """What the command line says of a run."""

    constitution: str | None = None
    recipe: str | None = None
    config: str | None = None
    settings: Sequence[str] = ()
    """`key=value` texts, the value as YAML."""
    model: str | None = None
    prompts: str | None = None
    seed: int | None = None
    skip_bad: bool = False


def resolve_config(options: Options) -> RunConfig:
    """The whole config, every default in it. Raises ConfigError naming place, key and remedy."""
    document = load_file(options)
    for setting in options.settings:
        apply_setting(document, setting)
    for key, value in typed_options(options).items():
        put(document, key.split("."), value, "the command line")
    if "constitution" not in document.data:
        raise ConfigError("no constitution given; type: cai run --constitution harmless.yaml")
    try:
        config = RunConfig.model_validate(document.data)
    except ValidationError as error:
        raise ConfigError("\n".join(complaints(error, document, RunConfig))) from error
    check_trainers(config, document)
    return config


def load_file(options: Options) -> Document:
    """The config file or recipe, or an empty document."""
    if options.config and options.recipe:
        raise ConfigError("--config and --recipe exclude each other: a config holds everything")
    if options.recipe:
        path = find_resource(options.recipe, RECIPES, ".yaml")
    elif options.config:
        path = Path(options.config)
    else:
        return Document("the command line", {}, {}, {})
    document = load_yaml(path)
    if not isinstance(document.data, dict):
        raise ConfigError(f"{path}:1:1: expected keys such as models, revise, sft")
    if options.recipe:
        document.data.setdefault("recipe", path.stem)
    return document


def typed_options(options: Options) -> dict[str, Any]:
    """The typed options that were given, under the config's keys."""
    given: dict[str, Any] = {
        "constitution": options.constitution,
        "models.base": options.model,
        "prompts.red_team": [options.prompts] if options.prompts else None,
        "seed": options.seed,
        "prompts.skip_bad": options.skip_bad or None,
    }
    return {key: value for key, value in given.items() if value is not None}


def apply_setting(document: Document, setting: str) -> None:
    """Merge one `--set key=value`."""
    key, equals, text = setting.partition("=")
    if not equals or not key:
        raise ConfigError(f"--set {setting}: expected key=value, such as --set revise.rounds=2")
    value = parse_yaml(text, f"--set {key}").data
    put(document, key.strip().split("."), value, f"--set {key}")


def put(document: Document, path: Sequence[str], value: Any, source: str) -> None:
    """Set a value deep inside the document's data; complaints about it then name `source`."""
    target = document.data
    for part in path[:-1]:
        if not isinstance(target.get(part), dict):
            target[part] = {}
        target = target[part]
    target[path[-1]] = value
    document.marks.pop(tuple(path), None)
    document.sources[tuple(path)] = source


def check_trainers(config: RunConfig, document: Document) -> None:
    """Compare the trainer options with the fields of the trainers' own config classes."""
    methods = (("sft", "sft"), ("reward", config.reward.method), ("rl", config.rl.method))
    for stage, method in methods:
        options: Mapping[str, Any] = getattr(config, stage).trainer
        known = trainer_fields(method)
        for key in options:
            place = f"{document.place((stage, 'trainer', key))}: {stage}.trainer.{key}"
            if key in FIXED[TRAINER_KINDS.get(method, method)]:
                raise ConfigError(f"{place}: cai sets this itself; remove it")
            if known and key not in known:
                near = difflib.get_close_matches(key, known, 1)
                hint = (
                    f"did you mean '{near[0]}'?"
                    if near
                    else f"to replace all options of the trainer: --set {stage}.trainer={{}}"
                )
                raise ConfigError(
                    f"{place} is no field of the trainer's config for {method}; {hint}"
                )


@cache
def trainer_fields(method: str) -> frozenset[str]:
    """Field names of a trainer's config class, read from its source: importing it takes seconds.

    Empty where TRL is not installed: then the trainer's own process checks.
    """
    files = [("transformers", "training_args.py")]
    if method != "pointwise":
        name = "reward" if method == "pairwise" else method
        files += [("trl", f"trainer/{name}_config.py"), ("trl", "trainer/base_config.py")]
    fields: set[str] = set()
    for package, file in files:
        spec = importlib.util.find_spec(package)
        path = Path(spec.origin).parent / file if spec and spec.origin else None
        if path is None or not path.is_file():
            return frozenset()
        fields |= annotated_names(path)
    return frozenset(fields)


def annotated_names(path: Path) -> set[str]:
    """Names annotated in the class bodies of a source file: its dataclasses' fields."""
    return {
        node.target.id
        for cls in ast.parse(path.read_text(encoding="utf-8")).body
        if isinstance(cls, ast.ClassDef)
        for node in cls.body
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name)
    }
