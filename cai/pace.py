"""How fast this machine works: as it did in an earlier run, as measured now, or as given."""

import time
from collections.abc import Collection, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any, NamedTuple

from cai.config import Engine
from cai.engines.base import Engine as OpenEngine
from cai.engines.base import Request
from cai.engines.open import open_engine
from cai.errors import EngineError
from cai.forecast import StageForecast, Tokens
from cai.manifest import hardware
from cai.models import Model
from cai.records import Prompt, Sampling, derive_seed

MEASURE_TOKENS = 64
"""Tokens of each text that is generated to measure."""

COUNTED = {"n_prompts", "n_helpful", "use", "helpful_ratio"}
"""Settings of a training stage that change nothing but its number of rows."""


class Training(NamedTuple):
    """How long a stage trained."""

    seconds: float
    n_rows: int | None
    """Rows that the time grows with; none where the number of steps is fixed."""
    with_calls: bool = True
    """Whether the stage's calls of a model, such as for choosing an RL policy, are in it."""


class Pace(NamedTuple):
    """A rate is in generated tokens a second, tokens that are read counted in by their cost."""

    origin: str
    rate: float | None = None
    load_s: float = 0.0
    """Seconds to load a model; 0 where the rates include it."""
    stage_rates: Mapping[str, float] = {}
    training: Mapping[str, Training] = {}
    lacks: str = ""
    """Why it does not tell the time of other stages."""

    def seconds(self, stage: StageForecast) -> float | None:
        """How long a stage takes; none if there is nothing to tell it from."""
        if stage.done:
            return 0.0
        if stage.n_rows is None:
            return self._generating_seconds(stage)
        known = self.training.get(stage.name)
        if known is None:
            return None
        trained = known.seconds * (stage.n_rows / known.n_rows if known.n_rows else 1)
        calls = 0.0 if known.with_calls else self._generating_seconds(stage)
        return None if calls is None else trained + calls

    def _generating_seconds(self, stage: StageForecast) -> float | None:
        if not stage.n_new:
            return 0.0
        rate = self.stage_rates.get(stage.name, self.rate)
        return stage.tokens.work / rate + self.load_s * stage.n_loads if rate else None


def pace_of_run(name: str, manifest: Mapping[str, Any], config: Mapping[str, Any]) -> Pace:
    """The pace of an earlier run: stage by stage, and of all stages that generated together.

    A stage that found records on disk says nothing: its seconds are not those of its tokens.
    """
    rates: dict[str, float] = {}
    training: dict[str, Training] = {}
    work = seconds = 0.0
    for stage in manifest["stages"]:
        if stage["status"] != "done" or not stage["seconds"]:
            continue
        if stage["name"] in ("sft", "reward", "rl"):
            steps = config[stage["name"]]["trainer"].get("max_steps", -1)
            training[stage["name"]] = Training(
                stage["seconds"], stage["n_in"] if steps < 1 else None
            )
        elif stage["counts"].get("from_disk") == 0 and stage["tokens"]:
            done = Tokens(**stage["tokens"]).work
            rates[stage["name"]] = done / stage["seconds"]
            work, seconds = work + done, seconds + stage["seconds"]
    elsewhere = " on other hardware" if manifest["hardware"] != hardware() else ""
    rate = work / seconds if seconds else None
    lacks = f"{name} has not done them"
    return Pace(f"the seconds of {name}{elsewhere}", rate, 0.0, rates, training, lacks)


def as_configured(
    pace: Pace, then: Mapping[str, Any], now: Mapping[str, Any], other_models: Collection[str]
) -> Pace:
    """The pace of a run with config `then` as far as it tells the training times of config `now`.

    Another number of steps is counted in; whatever else changes a stage's section, the engine or a
    model that it begins with (stages `other_models`) leaves its time unknown.
    """
    kept: dict[str, Training] = {}
    reasons: list[str] = []
    for stage, known in pace.training.items():
        changed = ["model"] if stage in other_models else []
        changed += [] if engine_of(then) == engine_of(now) else ["engine"]
        steps = 1.0
        for name in sorted(changed_values(then[stage], now[stage])):
            old, new = (config[stage]["trainer"].get("max_steps", -1) for config in (then, now))
            if name == "trainer.max_steps" and min(old, new) > 0:
                steps = new / old
            else:
                changed.append(f"{stage}.{name}")
        if changed:
            reasons.append(f"{stage} with another {', '.join(changed)}")
        else:
            kept[stage] = known._replace(seconds=known.seconds * steps)
    lacks = "; ".join([f"{pace.lacks}, or {reasons[0]}", *reasons[1:]]) if reasons else pace.lacks
    return pace._replace(training=kept, lacks=lacks)


def engine_of(config: Mapping[str, Any]) -> dict[str, Any]:
    """Its settings but for those that say when it is given up."""
    return {k: v for k, v in config["engine"].items() if k not in ("stall_s", "restarts")}


def changed_values(then: Mapping[str, Any], now: Mapping[str, Any]) -> set[str]:
    """What differs between two sections, but for how many rows there are: those are counted."""
    both = [(key, then.get(key), now.get(key)) for key in {*then, *now} - COUNTED]
    names = {key for key, old, new in both if key != "trainer" and old != new}
    trainers = then["trainer"], now["trainer"]
    keys = {*trainers[0], *trainers[1]}
    return names | {f"trainer.{k}" for k in keys if trainers[0].get(k) != trainers[1].get(k)}


def measure_pace(config: Engine, model: Model, prompts: Sequence[Prompt], log: Path) -> Pace:
    """Load `model` and let it generate one full batch. Raises EngineError if nothing comes."""
    started = time.monotonic()
    with closing(open_engine(config, model, log)) as engine:
        # The first step of an engine is slower than the others.
        complete(engine, [measuring_request(prompts[0], -1, 2)])
        loaded = time.monotonic()
        batch = [prompts[i % len(prompts)] for i in range(config.capacity)]
        spent = complete(
            engine, [measuring_request(p, i, MEASURE_TOKENS) for i, p in enumerate(batch)]
        )
        seconds = time.monotonic() - loaded
    if not spent.generated:
        raise EngineError(f"{model.name}: nothing was generated to measure; log: {log}")
    origin = f"{spent.generated:,} tokens generated just now"
    return Pace(origin, spent.work / seconds, loaded - started)


def measuring_request(prompt: Prompt, number: int, n_tokens: int) -> Request:
    name = f"measure-{number}"
    return Request(name, prompt.messages, Sampling(max_tokens=n_tokens), derive_seed(name))


def complete(engine: OpenEngine, requests: Sequence[Request]) -> Tokens:
    """Tokens of the answers to all requests."""
    for request in requests:
        engine.submit(request)
    prompt, cached, generated, left = 0, 0, 0, len(requests)
    while left:
        for completion in engine.poll():
            left -= 1
            prompt += completion.n_prompt_tokens
            cached += completion.n_cached_tokens
            generated += completion.n_tokens
    return Tokens(prompt, cached, generated)
