"""`cai plan`: what `cai run` with the same options would do. Nothing is written, nothing pulled."""

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from cai.config import RunConfig
from cai.earlier import find_base
from cai.errors import ConfigError
from cai.footprint import Footprint, footprint
from cai.forecast import Forecast
from cai.forecasting import forecast, timed
from cai.models import Model, find_model
from cai.opening import load_manifest, make_context, refuse_changes, run_folder
from cai.pace import Pace, measure_pace
from cai.pipeline import plan
from cai.prepare import check_installed, check_models, named_models, prepare, resolve_models
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


def plan_run(
    options: Options, asked: PlanOptions, say: Callable[[str], None] = lambda _: None
) -> Plan:
    """Check the inputs as the run would, then forecast it. `say` hears what is being measured."""
    if asked.rate and asked.measure:
        raise ConfigError("--rate and --measure exclude each other: give the rate or measure it")
    stages = plan(asked.until)
    base = find_base(asked.base) if asked.base else None
    prepared = prepare(options, stages)
    models, missing = models_at_hand(prepared.config)
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
        found = timed(found, measure(context, found, say))
    return Plan(found, footprint(context, found), missing)


def measure(context: RunContext, found: Forecast, say: Callable[[str], None]) -> Pace:
    """How fast this machine generates, and trains what is to be trained."""
    say(f"measuring: {context.models['base'].name} generates a batch")
    with tempfile.TemporaryDirectory() as scratch:
        log = Path(scratch) / "engine.log"
        pace = measure_pace(context.config.engine, context.models["base"], context.prompts, log)
    training = measure_training(context, found.stages, say)
    steps = f" and the first steps of {', '.join(training)}" if training else ""
    lacks = "there are no rows to train on"
    return pace._replace(origin=pace.origin + steps, training=training, lacks=lacks)


def models_at_hand(config: RunConfig) -> tuple[dict[str, Model], list[str]]:
    """Each role's model, and the names of those that would have to be pulled: each stands in by its
    name."""
    if config.engine.kind == "fake":
        return resolve_models(config), []
    roles = named_models(config)
    found = {name: find_model(name) for name in dict.fromkeys(roles.values())}
    models = {
        role: found[name] or Model(name, Path(name), "missing") for role, name in roles.items()
    }
    missing = [name for name, model in found.items() if model is None]
    if not missing:
        check_models(config, models)
    return models, missing
