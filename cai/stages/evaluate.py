"""Stage evaluate: base, SFT and RL policy answer the same held-out prompts and are compared."""

from collections.abc import Iterable, Mapping, Sequence
from operator import itemgetter
from typing import Any

from cai.chains.labelling import label_chain
from cai.chains.pairing import Candidates
from cai.chains.revision import Voice, response_chain
from cai.judgements import label_pairs
from cai.metrics import Score, evaluation_summary
from cai.models import Model
from cai.records import Critique, Label, Prompt, Response, Revision
from cai.run import StoredRecord, read_rows, write_json
from cai.stages.context import Generation, Outcome, RunContext, train
from cai.stages.label import make_setup, read_labels, same_slot
from cai.train.jobs import ScoreJob
from cai.view.progress import StageProgress

COMPARISONS = (("sft", "base"), ("rl", "base"), ("rl", "sft"))
Answers = Mapping[str, Sequence[tuple[Prompt, Response]]]


def run(context: RunContext, progress: StageProgress) -> Outcome:
    """Generate, compare, score, summarise; writes `metrics.json`."""
    config = context.config.evaluate
    prompts = [
        *context.select("red_team", "eval", config.n_prompts),
        *context.select("look_alike", "eval", config.n_look_alike),
        *context.select("helpful", "eval", config.n_helpful),
    ]
    policies = {
        "base": context.models["base"],
        "sft": context.checkpoint("sft"),
        "rl": context.checkpoint("rl"),
    }
    with Generation(context, "evaluate", progress) as generation:
        answers = answer_all(context, policies, prompts, generation)
        n_identical = compare_all(context, answers, generation)
    with context.records("revise") as file:
        revised = list(file)
    scores = score_all(context, policies, answers, revised, progress)
    labels = read_labels(context, "evaluate", "labels")
    summary = evaluation_summary(
        answers,
        scores,
        {key: labels_between(labels, answers, key) for key in COMPARISONS},
        [record for record in revised if isinstance(record, Response | Critique | Revision)],
    )
    write_json(context.folder("evaluate") / "metrics.json", summary)
    judged, n_unscored = label_pairs(labels)
    n_whole = sum(r.generation.finish != "error" for rows in answers.values() for _, r in rows)
    counts = {
        "prompts": len(prompts),
        "identical_pairs": n_identical,
        "pairs": len(judged) + n_unscored,
        "unscored_pairs": n_unscored,
        "same_slot": same_slot(judged),
        "unscored_texts": sum(score.reward is None for score in scores.values()),
        **generation.counts,
    }
    return Outcome(len(prompts) * len(policies), n_whole, counts, generation.tokens)


def answer_all(
    context: RunContext,
    policies: Mapping[str, Model],
    prompts: Sequence[Prompt],
    generation: Generation,
) -> Answers:
    """Each policy's response to each prompt. The base model comes last: it is often the judge."""
    sampling, seed = context.config.evaluate.sampling, context.config.seed
    engine = context.config.engine.key
    by_id = {prompt.id: prompt for prompt in prompts}
    answers: dict[str, list[tuple[Prompt, Response]]] = {}
    for name in ("sft", "rl", "base"):
        generation.release()
        generation.doing(f"responses of {name}", len(prompts))
        voice = Voice("policy", policies[name].label, sampling, engine)
        chains = [response_chain(prompt, 0, (), voice, seed) for prompt in prompts]
        generation.run(chains, {"policy": policies[name]}, len(chains), name)
        with context.records("evaluate", name) as file:
            answers[name] = [
                (by_id[record.prompt_id], record) for record in file if isinstance(record, Response)
            ]
    return {name: answers[name] for name in policies}


def compare_all(context: RunContext, answers: Answers, generation: Generation) -> int:
    """Judge two policies' red-team answers at a time; returns how many pairs are identical."""
    setup, judge = make_setup(context), context.models["judge"]
    if judge.path != context.models["base"].path:
        generation.release()
    pairs = [pair for key in COMPARISONS for pair in pairs_between(answers, key)]
    distinct = [pair for pair in pairs if pair.one.text != pair.two.text]
    generation.doing("comparisons in both orders", setup.n_steps * len(distinct))
    chains = [label_chain(pair, setup) for pair in distinct]
    generation.run(chains, {"judge": judge}, setup.n_steps * len(distinct), "labels")
    return len(pairs) - len(distinct)


def pairs_between(answers: Answers, key: tuple[str, str]) -> list[Candidates]:
    """The two policies' whole answers to each red-team prompt."""
    one, two = ({p.id: (p, r) for p, r in answers[name]} for name in key)
    return [
        Candidates(prompt, response, two[prompt.id][1])
        for prompt, response in one.values()
        if prompt.kind == "red_team"
        and prompt.id in two
        and "error" not in (response.generation.finish, two[prompt.id][1].generation.finish)
    ]


def labels_between(labels: Iterable[Label], answers: Answers, key: tuple[str, str]) -> list[Label]:
    """The labels that compare the two policies."""
    one, two = ({response.id for _, response in answers[name]} for name in key)
    return [
        label
        for label in labels
        if (label.first_id in one and label.second_id in two)
        or (label.first_id in two and label.second_id in one)
    ]


def score_all(
    context: RunContext,
    policies: Mapping[str, Model],
    answers: Answers,
    revised: Sequence[StoredRecord],
    progress: StageProgress,
) -> dict[str, Score]:
    """Rewards of all answers and of every revision round; KL from base of the trained policies."""
    prompts = {prompt.id: prompt for prompt in context.prompts}
    rows = [
        score_row(prompt, response, None if name == "base" else policies[name])
        for name, pairs in answers.items()
        for prompt, response in pairs
        if response.generation.finish != "error"
    ]
    rows += [
        score_row(prompts[record.prompt_id], record, None)
        for record in revised
        if isinstance(record, Response | Revision)
        and prompts[record.prompt_id].kind == "red_team"
        and record.generation.finish != "error"
    ]
    progress.doing(f"scores of {len(rows)} texts")
    job = ScoreJob(
        reward_model=str(context.checkpoint("reward").path),
        base=str(policies["base"].path),
        max_length=context.config.reward.max_length,
        batch_size=context.config.rl.reward_batch_size,
    )
    # answers come in the order in which an engine was done with them
    train(context, "evaluate", job, sorted(rows, key=itemgetter("id")), progress)
    found = read_rows(context.folder("evaluate") / "scores.jsonl")
    return {
        row["id"]: Score(row["reward"], row["n_tokens"], row["kl"], row["truncated"])
        for row in found
    }


def score_row(prompt: Prompt, record: Response | Revision, policy: Model | None) -> dict[str, Any]:
    """A row of a score job."""
    return {
        "id": record.id,
        "prompt": [message.model_dump() for message in prompt.messages],
        "text": record.text,
        "ended": record.generation.finish == "stop",
        "policy": str(policy.path) if policy else None,
    }
