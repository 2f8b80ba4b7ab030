"""Which of the policies kept during RL goes on: the one that the judge likes best.

Reward rises by exploiting the reward model too, so it does not choose (Lee et al. 2023, appendix
G): each kept policy's responses to held-out prompts are compared with those of the policy that RL
started from.
"""

from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import Any, NamedTuple

from cai.chains.labelling import label_chain
from cai.chains.pairing import Candidates
from cai.chains.revision import Voice, response_chain
from cai.judgements import label_pairs
from cai.metrics import wilson
from cai.models import Model, folder_digest
from cai.records import Prompt, Response
from cai.run import write_json
from cai.stages.context import Generation, RunContext
from cai.stages.label import make_setup, read_labels
from cai.train import folder as files
from cai.view.progress import StageProgress

START = "start"
"""The policy that RL started from."""


class Chosen(NamedTuple):
    """What the choice adds to the stage's outcome."""

    counts: dict[str, Any]
    tokens: dict[str, int]


def choose_policy(
    context: RunContext,
    result: Mapping[str, Any],
    prompts: Sequence[Prompt],
    progress: StageProgress,
) -> Chosen:
    """Make `checkpoint/` the kept policy with the highest win rate over the start; of equals the
    earliest. Writes `selection.json`.

    With one policy or none, or without prompts, there is nothing to choose: the last healthy one
    stays.
    """
    steps: list[int] = result["candidates"]
    if len(steps) < 2 or not prompts:
        return Chosen({"chosen_step": result["checkpoint_step"], "chosen_by": "last healthy"}, {})
    folder = context.folder("rl")
    policies = {START: context.policy()}
    for step in steps:
        path = folder / files.CANDIDATES / f"step-{step}"
        policies[f"step-{step}"] = Model(f"rl-{step}", path, folder_digest(path))
    with Generation(context, "rl", progress) as generation:
        answers = answer_all(context, policies, prompts, generation)
        compare_all(context, answers, generation)
    rates = win_rates(context, answers)
    scored = [rate for rate in rates if rate["n"]]
    write_json(folder / "selection.json", rates)
    if not scored:
        unscored = {"chosen_step": result["checkpoint_step"], "chosen_by": "last healthy"}
        return Chosen(unscored | {"unscored_policies": len(rates)}, generation.tokens)
    best = max(scored, key=lambda rate: (rate["win_rate"], -rate["step"]))
    files.choose(folder / files.CANDIDATES / f"step-{best['step']}", folder / files.CHECKPOINT)
    counts = {
        "chosen_step": best["step"],
        "chosen_by": "judge",
        "win_rate_over_start": {name: best[name] for name in ("win_rate", "low", "high", "n")},
        "select_prompts": len(prompts),
        **generation.counts,
    }
    return Chosen(counts, generation.tokens)


Answers = Mapping[str, Mapping[str, Response]]


def answer_all(
    context: RunContext,
    policies: Mapping[str, Model],
    prompts: Sequence[Prompt],
    generation: Generation,
) -> Answers:
    """Each policy's response to each prompt, by prompt id."""
    config = context.config
    answers: dict[str, dict[str, Response]] = {}
    for name, policy in policies.items():
        generation.release()
        generation.doing(f"responses of {name}", len(prompts))
        voice = Voice("policy", policy.label, config.sample.sampling, config.engine.key)
        chains = [response_chain(prompt, 0, (), voice, config.seed) for prompt in prompts]
        generation.run(chains, {"policy": policy}, len(chains), f"select-{name}")
        with context.records("rl", f"select-{name}") as file:
            answers[name] = {r.prompt_id: r for r in file if isinstance(r, Response)}
    return answers


def compare_all(context: RunContext, answers: Answers, generation: Generation) -> None:
    """Judge each policy's responses beside those of the start."""
    generation.release()
    setup, judge = make_setup(context), context.models["judge"]
    prompts = {prompt.id: prompt for prompt in context.prompts}
    pairs = [
        Candidates(prompts[id], response, answers[START][id])
        for name in answers
        if name != START
        for id, response in whole_pairs(answers, name)
        if response.text != answers[START][id].text
    ]
    generation.doing("comparisons in both orders", setup.n_steps * len(pairs))
    chains = [label_chain(pair, setup) for pair in pairs]
    generation.run(chains, {"judge": judge}, setup.n_steps * len(pairs), "select-labels")


def whole_pairs(answers: Answers, name: str) -> list[tuple[str, Response]]:
    """Prompt ids and responses of a policy where neither it nor the start failed."""
    return [
        (id, response)
        for id, response in answers[name].items()
        if id in answers[START]
        and "error" not in (response.generation.finish, answers[START][id].generation.finish)
    ]


def win_rates(context: RunContext, answers: Answers) -> list[dict[str, Any]]:
    """By kept policy: mean P(better than the start) with Wilson's interval; equal texts are a half.

    `n` counts prompts with a judgement or equal texts, `n_unscored` the others.
    """
    judged, _ = label_pairs(read_labels(context, "rl", "select-labels"))
    p_first = {pair.first_id: pair.p_first for pair in judged}
    p_first |= {pair.second_id: 1 - pair.p_first for pair in judged}
    rates: list[dict[str, Any]] = []
    for name in answers:
        if name == START:
            continue
        both = whole_pairs(answers, name)
        equal = {id for id, response in both if response.text == answers[START][id].text}
        found = [0.5 if id in equal else p_first.get(response.id) for id, response in both]
        known = [p for p in found if p is not None]
        value, low, high, n = wilson(fmean(known), len(known)) if known else (None, None, None, 0)
        rates.append(
            {
                "step": files.step_of(context.folder("rl") / name),
                "win_rate": value,
                "low": low,
                "high": high,
                "n": n,
                "n_identical": len(equal),
                "n_unscored": len(answers[name]) - n,
            }
        )
    return rates
