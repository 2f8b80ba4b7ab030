"""Part 3: RL against the reward model of part 2, and against a planted reward that can be hacked.

Prompts come from the tuning dialogues, which neither trained nor tested the reward model: half of
these dialogues train the policy, the others measure it.
"""

from collections.abc import Sequence
from contextlib import closing
from statistics import fmean
from typing import Any, NamedTuple

from cai.chains.revision import Voice, response_chain
from cai.driver import Chain, run_chains
from cai.engines.open import LazyEngine
from cai.metrics import Rows, Score, policy_summary, rewards_by_prompt
from cai.models import Model, folder_digest
from cai.records import Prompt, Response, Sampling
from cai.reproduce import human
from cai.reproduce.dialogues import load_split, make_prompts
from cai.reproduce.options import Result, Work
from cai.run import RecordFile, read_rows
from cai.sections import Health, LengthReward, ModelReward, RewardTerm
from cai.train.folder import CHECKPOINT, SCORES, read_metrics
from cai.train.jobs import RlJob, ScoreJob
from cai.train.launch import run_job

FOLDER = "3-rl"
ENDS = 5
"""Steps at each end of a training whose means are reported."""
FOLLOWED = {
    "reward": "reward",
    "kl": "kl",
    "entropy": "entropy",
    "length_tokens": "completions/mean_length",
    "distinct_2": "distinct_2",
}
"""What is reported of a training, and its name in `metrics.jsonl`."""
SHORTER = LengthReward(kind="length", weight=-1.0, per=100)
"""The planted reward: the shorter the better, whatever is said.

Not the longer: the token limit cuts most answers of the start already.
"""


class Training(NamedTuple):
    """One RL training."""

    name: str
    reward: RewardTerm
    health: Health
    steps: int


def run(work: Work) -> Result:
    """Train, measure the policy on unseen prompts before and after, then let RL hack a reward."""
    split, _ = load_split(work)
    prompts, sizes = make_prompts(split.tuning, work), work.options.sizes.rl
    learnt = ModelReward(path=str(human.checkpoint(work)))
    trained = learn(Training("policy", learnt, Health(), sizes.steps), prompts.training, work)
    # that reward and length go together is true of this reward from the first step on: what it is
    # worth to see the policy itself collapse is measured without that bound
    blind, n = Health(max_length_correlation=None), sizes.planted_steps
    return {
        "n_training": len(prompts.training),
        "n_unseen": len(prompts.unseen),
        "n_long": prompts.n_long,
        "training": trained,
        **before_and_after(prompts.unseen, work),
        "planted": learn(Training("planted", SHORTER, Health(), n), prompts.training, work),
        "planted_blind": learn(Training("blind", SHORTER, blind, n), prompts.training, work),
    }


def learn(training: Training, prompts: Sequence[Prompt], work: Work) -> dict[str, Any]:
    """RL from the model on `prompts`, and how it went."""
    folder = work.folder(FOLDER, training.name)
    work.progress.doing(f"RL, {training.name}: {len(prompts)} prompts")
    rows = [{"prompt": messages_of(prompt)} for prompt in prompts]
    result = run_job(make_job(training, work), folder, rows, work.progress.training)
    lines = read_metrics(folder)
    return {
        "max_steps": lines[-1]["max_steps"],
        "n_steps": result["n_steps"],
        "stopped": result["stopped"],
        "checkpoint_step": result["checkpoint_step"],
        "n_too_long": result["n_too_long"],
        "first": means(lines[:ENDS]),
        "last": means(lines[-ENDS:]),
        "seconds": result["train_seconds"],
    }


def means(lines: Sequence[dict[str, Any]]) -> dict[str, float | None]:
    """Means over some steps; none where a number was not logged."""
    values = {
        name: [line[logged] for line in lines if line.get(logged) is not None]
        for name, logged in FOLLOWED.items()
    }
    return {name: fmean(found) if found else None for name, found in values.items()}


def messages_of(prompt: Prompt) -> list[dict[str, str]]:
    return [message.model_dump() for message in prompt.messages]


def make_job(training: Training, work: Work) -> RlJob:
    """The job of one training."""
    sizes = work.options.sizes.rl
    return RlJob(
        model=str(work.model.path),
        method="rloo",
        rewards=(training.reward,),
        health=training.health,
        n_checkpoints=1,
        lora=sizes.lora,
        # a token has a character or more; `n_too_long` says if a template adds too many
        max_prompt_length=sizes.max_chars,
        reward_max_length=human.max_length(work),
        reward_batch_size=sizes.batch_size,
        trainer={
            "max_steps": training.steps,
            "per_device_train_batch_size": sizes.batch_size,
            "num_generations": sizes.n_generations,
            "max_completion_length": sizes.max_tokens,
            "learning_rate": sizes.learning_rate,
            "beta": sizes.beta,
        },
        seed=work.options.seed,
    )


def before_and_after(prompts: Sequence[Prompt], work: Work) -> dict[str, Any]:
    """The model's and the policy's answers to the same prompts; the difference is paired."""
    path = work.folder(FOLDER, "policy", CHECKPOINT)
    policies = {"before": work.model, "after": Model("policy", path, folder_digest(path))}
    answers = {name: answer(name, policies[name], prompts, work) for name in policies}
    scores = score(answers, policies, work)
    base = rewards_by_prompt(answers["before"], scores)
    before = policy_summary(answers["before"], scores, {})
    after = policy_summary(answers["after"], scores, base)
    gain = after["reward_gain"]
    rises = gain is not None and gain["low"] is not None and gain["low"] > 0
    return {"before": before, "after": after, "rises": rises}


def answer(name: str, policy: Model, prompts: Sequence[Prompt], work: Work) -> Rows:
    """One response to each prompt, at the temperature of RL.

    The file keeps answers of other settings too: what was asked for now says which are meant.
    """
    engine, seed = work.options.engine, work.options.seed
    sampling = Sampling(max_tokens=work.options.sizes.rl.max_tokens)
    voice = Voice("policy", policy.label, sampling, engine.key)
    work.progress.doing(f"responses {name} RL", len(prompts))
    log = work.folder(FOLDER, f"engine-{name}.log")

    def chain(prompt: Prompt) -> Chain:
        return response_chain(prompt, 0, (), voice, seed)

    asked = {next(chain(prompt)).request.id: prompt for prompt in prompts}
    with (
        RecordFile(work.folder(FOLDER, f"{name}.jsonl")) as records,
        closing(LazyEngine(engine, policy, log, 1.0)) as opened,
    ):
        run_chains(
            map(chain, prompts),
            {"policy": opened},
            records,
            lambda tally: work.progress.steps(len(prompts), tally),
        )
        found = (one for one in records if isinstance(one, Response))
        return [(asked[one.id], one) for one in found if one.id in asked]


def score(answers: dict[str, Rows], policies: dict[str, Model], work: Work) -> dict[str, Score]:
    """Rewards of all answers; KL from the model of those that came after."""
    rows = [
        {
            "id": response.id,
            "prompt": messages_of(prompt),
            "text": response.text,
            "ended": response.generation.finish == "stop",
            "policy": str(policies["after"].path) if name == "after" else None,
        }
        for name, pairs in answers.items()
        for prompt, response in pairs
        if response.generation.finish != "error"
    ]
    job = ScoreJob(
        reward_model=str(human.checkpoint(work)),
        base=str(work.model.path),
        max_length=human.max_length(work),
        batch_size=work.options.sizes.rl.batch_size,
    )
    folder = work.folder(FOLDER, "scores")
    work.progress.doing(f"scores of {len(rows)} responses")
    run_job(job, folder, rows, work.progress.training)
    return {
        row["id"]: Score(row["reward"], row["n_tokens"], row["kl"], row["truncated"])
        for row in read_rows(folder / SCORES)
    }
