"""`cai plan`: what `cai run` with the same options would do. Nothing is written, nothing pulled."""

import importlib.util
import tempfile
from pathlib import Path
from typing import NamedTuple

from cai.config import RunConfig
from cai.earlier import find_base
from cai.errors import ConfigError
from cai.footprint import Footprint, footprint
from cai.forecast import Forecast
from cai.forecasting import forecast, timed
from cai.models import EMBEDDED, PULLED, Model, cache_folder, resolve_model
from cai.opening import load_manifest, make_context, refuse_changes, run_folder
from cai.pace import Pace, measure_pace
from cai.pipeline import plan
from cai.prepare import check_installed, named_models, prepare, resolve_models
from cai.resolve import Options
from cai.stages.context import RunContext
from cai.training_pace import measure_training

RATE_LACKS = "a rate of generating tells nothing of training, --measure times both"


class PlanOptions(NamedTuple):
    """What `cai plan` is asked beside what the run is."""

    out: str | None = None
    until: str | None = None
    base: str | None = None
    rate: float | None = None
    """Tokens generated per second."""
    measure: bool = False


class Plan(NamedTuple):
    forecast: Forecast
    footprint: Footprint
    missing: list[str]
    """Models that are not on this machine: taken for ones without a chat template, size unknown."""


def plan_run(options: Options, asked: PlanOptions) -> Plan:
    """Check the inputs as the run would, then forecast it."""
    if asked.rate and asked.measure:
        raise ConfigError("--rate and --measure exclude each other: give the rate or measure it")
    stages = plan(asked.until)
    base = find_base(asked.base) if asked.base else None
    prepared = prepare(options, stages)
    missing = missing_models(prepared.config)
    models = models_at_hand(prepared.config, missing)
    folder = run_folder(prepared, asked.out)
    if folder.is_dir() and any(folder.iterdir()) and not missing:
        refuse_changes(prepared, folder, load_manifest(folder), models)
    context = make_context(prepared, folder, models, base)
    if asked.measure and missing:
        raise ConfigError(f"--measure: {missing[0]} is not here; type: cai model pull {missing[0]}")
    given = f"--rate {asked.rate or 0:g}, loading left out"
    pace = Pace(given, asked.rate, lacks=RATE_LACKS) if asked.rate else None
    found = forecast(context, stages, pace)
    if asked.measure:
        check_installed(prepared.config, stages)
        found = timed(found, measure(context, found))
    return Plan(found, footprint(context, found), missing)


def measure(context: RunContext, found: Forecast) -> Pace:
    """How fast this machine generates, and trains what is to be trained."""
    with tempfile.TemporaryDirectory() as scratch:
        log = Path(scratch) / "engine.log"
        pace = measure_pace(context.config.engine, context.models["base"], context.prompts, log)
    training = measure_training(context, found.stages)
    steps = f" and the first steps of {', '.join(training)}" if training else ""
    lacks = "there are no rows to train on"
    return pace._replace(origin=pace.origin + steps, training=training, lacks=lacks)


def missing_models(config: RunConfig) -> list[str]:
    """The models named in the config that would have to be pulled."""
    if config.engine.kind == "fake":
        return []
    return [name for name in dict.fromkeys(named_models(config).values()) if not is_here(name)]


def models_at_hand(config: RunConfig, missing: list[str]) -> dict[str, Model]:
    """Each role's model; one that is missing stands in by its name."""
    if not missing:
        return resolve_models(config)
    return {
        role: Model(name, Path(name), "missing") if name in missing else resolve_model(name)
        for role, name in named_models(config).items()
    }


def is_here(name: str) -> bool:
    """Whether a model needs no download: of a pull that broke off there are no weights. A name of
    no model at all passes: resolving it says so."""
    if name == EMBEDDED:
        return (cache_folder() / "models" / EMBEDDED / "cai.json").is_file()
    if Path(name).is_dir() or name.count("/") != 1 or name.startswith((".", "~", "/")):
        return True
    if importlib.util.find_spec("huggingface_hub") is None:
        return False
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import LocalEntryNotFoundError

    repo, _, revision = name.partition("@")
    try:
        found = snapshot_download(
            repo, revision=revision or None, allow_patterns=PULLED, local_files_only=True
        )
    except (LocalEntryNotFoundError, ValueError):
        return False
    return any(Path(found).glob("*.safetensors"))
