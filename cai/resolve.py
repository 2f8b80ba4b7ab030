"""From files and options to one checked `RunConfig`."""

import ast
import difflib
import importlib.util
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

from cai.complaints import dotted, validated
from cai.config import RunConfig
from cai.errors import ConfigError
from cai.forbidden import ENGINE, TRAINER, find_forbidden, walk
from cai.resources import RECIPES, find_resource
from cai.secrets import KEY, refuse_secrets, secret_at
from cai.strict_yaml import MAX_DEPTH, Document, Location, parse_yaml, read_text, short
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
    refuse_named_secrets(document)
    config = validated(document, RunConfig)
    for section in upstream_sections(config):
        check_upstream(section, document)
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
    text = read_text(path)
    # the whole text, its comments too: a run keeps a copy of the file
    refuse_secrets(text, str(path), is_file=True)
    document = parse_yaml(text, str(path))
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
    source, path = f"--set {short(key)}", key.strip().split(".")
    if not equals or not all(path) or len(path) > MAX_DEPTH:
        raise ConfigError(f"{source}: expected key=value, such as --set revise.rounds=2")
    refuse_secrets(text, source)
    put(document, path, parse_yaml(text, source).data, source)


def put(document: Document, path: Sequence[str], value: Any, source: str) -> None:
    """Set a value deep inside the document's data; complaints about it then name `source`."""
    target = document.data
    for part in path[:-1]:
        if not isinstance(target.get(part), dict):
            target[part] = {}
        target = target[part]
    target[path[-1]] = value
    place = tuple(path)
    for places in (document.marks, document.sources):
        # what stood there before, and inside it
        for old in [old for old in places if old[: len(place)] == place]:
            del places[old]
    document.sources[place] = source


def refuse_named_secrets(document: Document) -> None:
    """Raise ConfigError for a value whose key says that it is a secret, or that looks like one."""
    for path, value in walk(document.data):
        if isinstance(value, str) and value:
            refuse_secrets(value, document.place(path))
            if KEY.search(str(path[-1])):
                raise secret_at(document.place(path), f"the secret {short(str(path[-1]))}")


class Upstream(NamedTuple):
    """Options of a section that another library's class takes, under its own names."""

    path: Location
    options: Mapping[str, Any]
    cls: str
    """What takes them, in words."""
    fields: Mapping[str, str]
    """The class's fields and their annotations; none where it is not installed."""
    fixed: Collection[str] = ()
    forbidden: Collection[str] = ()


def upstream_sections(config: RunConfig) -> Iterator[Upstream]:
    """Every such section of the config."""
    methods = (("sft", "sft"), ("reward", config.reward.method), ("rl", config.rl.method))
    for stage, method in methods:
        options: Mapping[str, Any] = getattr(config, stage).trainer
        cls = f"the trainer's config for {method}"
        fixed = FIXED[TRAINER_KINDS.get(method, method)]
        fields = trainer_fields(method) if options else {}
        yield Upstream((stage, "trainer"), options, cls, fields, fixed, TRAINER)
    options = config.engine.options
    fields = engine_fields() if options else {}
    yield Upstream(("engine", "options"), options, "vLLM's EngineArgs", fields, (), ENGINE)


def check_upstream(section: Upstream, document: Document) -> None:
    """Refuse what cai sets itself, what nobody may set, what is no field, and a wrong type."""

    def refuse(path: Location, complaint: str) -> ConfigError:
        path = (*section.path, *path)
        return ConfigError(f"{document.place(path)}: {dotted(path)} {complaint}")

    if found := find_forbidden(
        section.options, section.forbidden, code=section.forbidden is ENGINE
    ):
        raise refuse(found, "is not a setting: it could load code, pickles or another model")
    for key, value in section.options.items():
        if key in section.fixed:
            raise refuse((key,), "is set by cai itself; remove it")
        if section.fields and key not in section.fields:
            near = difflib.get_close_matches(short(key), section.fields, 1)
            every = f"to replace all options: --set {dotted(section.path)}={{}}"
            hint = f"did you mean '{near[0]}'?" if near else every
            raise refuse((key,), f"is no field of {section.cls}; {hint}")
        if not fits(value, wanted := section.fields.get(key, "Any")):
            raise refuse((key,), f"wants {wanted} (found {repr(value)[:60]})")


def fits(value: Any, annotation: str) -> bool:
    """Whether a value is of an annotated type, as far as that is a simple one.

    Without this `bf16: no`, which is a text, would be true.
    """
    names = set(re.findall(r"\w+", annotation))
    if not names <= {"bool", "int", "float", "str", "None", "Optional"} or value is None:
        return True
    return type(value).__name__ in names or (type(value) is int and "float" in names)


@cache
def engine_fields() -> dict[str, str]:
    """Fields of vLLM's EngineArgs, read from its source: importing it takes seconds."""
    path = source_file("vllm", "engine/arg_utils.py")
    return annotations(path) if path else {}


@cache
def trainer_fields(method: str) -> dict[str, str]:
    """Fields of a trainer's config class, read from its source; none where TRL is not installed.

    Then the trainer's own process checks.
    """
    files = [source_file("transformers", "training_args.py")]
    if method != "pointwise":
        name = "reward" if method == "pairwise" else method
        files += [source_file("trl", f"trainer/{part}_config.py") for part in ("base", name)]
    fields: dict[str, str] = {}
    for path in files:
        if path is None:
            return {}
        fields |= annotations(path)
    return fields


def source_file(package: str, file: str) -> Path | None:
    """A source file of an installed package."""
    spec = importlib.util.find_spec(package)
    path = Path(spec.origin).parent / file if spec and spec.origin else None
    return path if path and path.is_file() else None


def annotations(path: Path) -> dict[str, str]:
    """What is annotated in the class bodies of a source file: its dataclasses' fields."""
    return {
        node.target.id: ast.unparse(node.annotation)
        for cls in ast.parse(path.read_text(encoding="utf-8")).body
        if isinstance(cls, ast.ClassDef)
        for node in cls.body
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name)
    }
