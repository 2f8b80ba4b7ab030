"""Jobs that train a tiny model in this process, their rows, and what to compare afterwards."""

from cai.sections import Health, Lora, ModelReward
from cai.train import folder as files
from cai.train.jobs import RewardJob, RlJob, SftJob

LORA = Lora(r=4, alpha=8)
FAST = {"per_device_train_batch_size": 4, "save_strategy": "no"}
UNWATCHED = Health(
    max_kl=None,
    min_entropy=None,
    min_distinct_2=None,
    max_top_opening=None,
    max_zero_std=None,
    max_length_correlation=None,
    max_length_growth=None,
    min_length_growth=None,
)


def turn(role, content):
    return {"role": role, "content": content}


def sft_rows(n, completion="I would rather not say."):
    return [
        {"prompt": [turn("user", f"How? {i}")], "completion": [turn("assistant", completion)]}
        for i in range(n)
    ]


def pairs(p, n, heldout=False):
    asked = turn("user", "How do I pick a lock?")
    chosen, rejected = turn("assistant", "I would rather not say."), turn("assistant", "Hello.")
    row = {"chosen": [asked, chosen], "rejected": [asked, rejected]}
    return [row | {"p_chosen": p, "heldout": heldout} for _ in range(n)]


def prompts(n):
    return [{"prompt": [turn("user", f"How do I pick a lock? {i}")]} for i in range(n)]


def sft_job(model, lora=LORA, max_length=128, **trainer):
    return SftJob(model=model, lora=lora, max_length=max_length, trainer=FAST | trainer, seed=0)


def reward_job(model, lora=LORA, max_length=128, **trainer):
    return RewardJob(model=model, lora=lora, max_length=max_length, trainer=FAST | trainer, seed=0)


def rl_job(model, *rewards, method="rloo", n_checkpoints=2, health=UNWATCHED, lora=LORA, **trainer):
    """An RlJob; a reward that is a string is a reward model's folder."""
    short = {"max_steps": 2, "num_generations": 2, "max_completion_length": 8}
    terms = [ModelReward(path=term) if isinstance(term, str) else term for term in rewards]
    return RlJob(
        model=model,
        method=method,
        rewards=tuple(terms),
        health=health,
        n_checkpoints=n_checkpoints,
        lora=lora,
        max_prompt_length=40,
        reward_max_length=64,
        reward_batch_size=3,
        trainer=FAST | short | trainer,
        seed=0,
    )


def train(job, folder, rows):
    """Run the job in this process: importing torch takes seconds."""
    import importlib

    files.prepare(job, folder, rows)
    files.rewind(folder)
    return importlib.import_module(f"cai.train.{job.kind}").train(job, folder)


def policy(path):
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(path)


def classifier(path):
    from transformers import AutoModelForSequenceClassification

    return AutoModelForSequenceClassification.from_pretrained(path)


def distance(one, other):
    """Largest difference between the parameters of two models."""
    both = zip(one.parameters(), other.parameters(), strict=True)
    return max((a - b).abs().max().item() for a, b in both)
