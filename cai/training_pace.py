"""How long training takes on this machine: each stage's own job on stand-in rows, stopped early.

The rows are as many as the run will have, so that the trainer itself says how many steps it takes,
and as long as their limits allow.
"""

import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from cai.config import Guards
from cai.forecast import CHARS_PER_TOKEN, StageForecast
from cai.pace import Training
from cai.records import Prompt, conversation
from cai.sections import ModelReward
from cai.stages import reward, rl, sft
from cai.stages.context import RunContext
from cai.train.jobs import Job, RatingJob
from cai.train.launch import run_job

N_STEPS = 3
"""Steps after which a job is stopped. The first is slower: the others are timed."""
N_FEW = 8
"""Rows of the reward model that RL is timed with."""
Row = dict[str, Any]


class Enough(Exception):
    """Ends a job whose steps have been timed."""


class Clock:
    """Takes the lines of a trainer's `metrics.jsonl` as they come."""

    def __init__(self) -> None:
        self.started, self.lines = time.monotonic(), list[Row]()
        self.first_s = 0.0
        """Seconds to the end of the first step, loading counted in."""

    def __call__(self, line: Row) -> None:
        self.first_s = self.first_s or time.monotonic() - self.started
        self.lines.append(line)
        if len(self.lines) == N_STEPS:
            raise Enough

    @property
    def seconds(self) -> float:
        """Of all steps, from those that were timed."""
        first, last = self.lines[0], self.lines[-1]
        step_s = (last["time_s"] - first["time_s"]) / (len(self.lines) - 1)
        return self.first_s + step_s * (last["max_steps"] - 1)


def measure_training(
    context: RunContext, stages: Sequence[StageForecast], say: Callable[[str], None]
) -> dict[str, Training]:
    """How long each of the stages that train will take. Raises what the stage itself would raise.

    `say` hears which is being measured. Left out: saving the result and what is measured on rows
    that are held out.
    """
    todo = {stage.name: stage.n_rows for stage in stages if stage.n_rows and not stage.done}
    if context.config.engine.kind == "fake":  # Its trainers take no time.
        return {name: Training(0.0, None, with_calls=False) for name in todo}
    with tempfile.TemporaryDirectory() as scratch:
        models = {"policy": context.models["base"], **context.models}
        # what the run will stop at is no matter of time
        config = context.config.model_copy(update={"guards": Guards(stop=())})
        inside = replace(context, run=Path(scratch), config=config, models=models, base_run=None)
        found: dict[str, Training] = {}
        for name, n_rows in todo.items():
            say(f"measuring: the first steps of {name}")
            found[name] = Training(measure_stage(inside, name, n_rows), None, with_calls=False)
        return found


def measure_stage(context: RunContext, name: str, n_rows: int) -> float:
    """The seconds of one stage on so many rows."""
    job, rows = JOBS[name](context, n_rows)
    clock = Clock()
    with suppress(Enough):
        run_job(job, context.run / f"measure-{name}", rows, clock)
        return time.monotonic() - clock.started  # It has no more steps than were timed.
    return clock.seconds


def sft_job(context: RunContext, n_rows: int) -> tuple[Job, list[Row]]:
    job = sft.make_job(context)
    n_tokens = min(context.config.revise.revision.max_tokens, job.max_length // 2)
    rows = [
        {
            "id": str(number),
            "prompt": [message.model_dump() for message in stand_in(context, number).messages],
            "completion": [{"role": "assistant", "content": text(context, number, n_tokens)}],
        }
        for number in range(n_rows)
    ]
    return job, rows


def reward_job(context: RunContext, n_rows: int) -> tuple[Job, list[Row]]:
    job = reward.make_job(context)
    rated = isinstance(job, RatingJob)
    return job, [(rating_row if rated else pair_row)(context, number) for number in range(n_rows)]


def rl_job(context: RunContext, n_rows: int) -> tuple[Job, list[Row]]:
    config = context.config.rl
    if config.method == "dpo":
        return rl.dpo_job(context), [pair_row(context, number) for number in range(n_rows)]
    if any(isinstance(term, ModelReward) and not term.path for term in config.rewards):
        make_reward_model(context)
    return rl.rl_job(context), rl.prompt_rows([stand_in(context, i) for i in range(n_rows)])


JOBS: dict[str, Callable[[RunContext, int], tuple[Job, list[Row]]]] = {
    "sft": sft_job,
    "reward": reward_job,
    "rl": rl_job,
}


def make_reward_model(context: RunContext) -> None:
    """One of the form that the reward stage will make, where RL looks for it."""
    job, rows = reward_job(context, N_FEW)
    short = {"trainer": {**reward.make_job(context).trainer, "max_steps": 1}}
    run_job(job.model_copy(update=short), context.folder("reward"), rows, lambda _: None)


def pair_row(context: RunContext, number: int) -> Row:
    one, other = (whole(context, number, words) for words in (number, number + 1))
    row = {"chosen": one, "rejected": other, "p_chosen": 0.8, "source": "stand-in"}
    return {"id": str(number), **row, "heldout": held_out(context, number)}


def rating_row(context: RunContext, number: int) -> Row:
    row = {"messages": whole(context, number, number), "rating": number % 2, "source": "stand-in"}
    return {"id": str(number), **row, "heldout": held_out(context, number)}


def held_out(context: RunContext, number: int) -> bool:
    """A fixed share of the rows, the first one among them."""
    return number % round(1 / context.config.reward.heldout) == 0


def whole(context: RunContext, number: int, words: int) -> list[Row]:
    """A conversation with a response."""
    config = context.config
    n_tokens = min(config.sample.sampling.max_tokens, config.reward.max_length // 2)
    messages = stand_in(context, number).messages
    return [m.model_dump() for m in conversation(messages, text(context, words, n_tokens))]


def stand_in(context: RunContext, number: int) -> Prompt:
    return context.prompts[number % len(context.prompts)]


def text(context: RunContext, number: int, n_tokens: int) -> str:
    """About so many tokens of words that the prompts have."""
    n_chars = round(n_tokens * CHARS_PER_TOKEN)
    words = f"{stand_in(context, number).messages[-1].content} "
    return (words * (n_chars // len(words) + 1))[:n_chars]
