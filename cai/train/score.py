"""Scores responses: the reward model's scalar, and how far a policy has moved from the base."""

import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import torch

from cai.engines.encode import shared_prefix
from cai.errors import ConfigError
from cai.run import read_rows, write_rows
from cai.train import folder as files
from cai.train.jobs import ScoreJob
from cai.train.reward_model import RewardModel, by_length, padded
from cai.train.setup import free_memory, load_policy, on_gpu
from cai.train.tokens import Chat

Row = dict[str, Any]
OnBatch = Callable[[int], None]
"""Hears how many texts a model has read."""


class Span(NamedTuple):
    """Ids of a prompt and its text; the last `n_text` are the text's. `cut`: some did not fit.

    The text's are those that a policy generates: its end token too if it ended by itself, but
    nothing that a chat template adds after it.
    """

    ids: list[int]
    n_text: int
    cut: bool


class Done:
    """How many readings of a text are done, of `total`, as steps in the folder's metrics."""

    def __init__(self, folder: Path, total: int) -> None:
        self.folder, self.total, self.n = folder, total, 0

    def add(self, n: int) -> None:
        self.n += n
        files.append_metrics(self.folder, {"step": self.n, "max_steps": self.total})


def train(job: ScoreJob, folder: Path) -> dict[str, Any]:
    """Score the folder's rows, leave `scores.jsonl`, return what `result.json` says."""
    start = time.monotonic()
    rows = list(read_rows(folder / files.ROWS))
    tokenizer_of = job.base or job.reward_model
    if tokenizer_of is None:
        raise ConfigError("score: the job names neither a reward model nor a base model")
    chat = Chat(tokenizer_of)
    spans = [span(chat, row, job.max_length) for row in rows]
    n_rewards = len(rows) if job.reward_model else 0
    n_kls = sum(row["policy"] is not None for row in rows)
    done = Done(folder, n_rewards + 2 * n_kls)
    rewards, cut = score_rewards(job, rows, done.add)
    kls = divergences(job, rows, spans, chat, done.add)
    lines: list[Row] = [
        {
            "id": row["id"],
            "reward": rewards[i],
            "n_tokens": spans[i].n_text,
            "kl": kls[i],
            "truncated": cut[i] or (row["policy"] is not None and spans[i].cut),
        }
        for i, row in enumerate(rows)
    ]
    write_rows(folder / files.SCORES, lines)
    n_found = sum((line["reward"] is not None) + (line["kl"] is not None) for line in lines)
    return {
        "n_rows": len(rows),
        "n_truncated": sum(line["truncated"] for line in lines),
        "n_not_finite": n_rewards + n_kls - n_found,
        "seconds": round(time.monotonic() - start, 3),
    }


def span(chat: Chat, row: Row, max_length: int) -> Span:
    """Tokenise one row, for every model alike. What does not fit is cut from the left."""
    ids = chat.ids([*row["prompt"], {"role": "assistant", "content": row["text"]}])
    n_prompt = len(shared_prefix([chat.prompt_ids(row["prompt"]), ids]))
    end = chat.tokenizer.eos_token_id
    if end in ids[n_prompt:]:
        last = len(ids) - 1 - ids[::-1].index(end)
        ids = ids[: last + row["ended"]]
    n_text = len(ids) - n_prompt
    kept = ids[-max_length:]
    # the first id of all has nothing before it, hence no probability
    return Span(kept, min(n_text, len(kept) - 1), len(kept) < len(ids))


def score_rewards(
    job: ScoreJob, rows: list[Row], on_batch: OnBatch
) -> tuple[list[float | None], list[bool]]:
    """The reward model's score of each row, and whether it read the row cut."""
    if job.reward_model is None:
        return [None] * len(rows), [False] * len(rows)
    model = RewardModel(job.reward_model, job.max_length, job.batch_size)
    conversations = [
        [*row["prompt"], {"role": "assistant", "content": row["text"]}] for row in rows
    ]
    cut = [len(model.chat.ids(messages)) > job.max_length for messages in conversations]
    return model.score(conversations, on_batch), cut


def divergences(
    job: ScoreJob, rows: list[Row], spans: list[Span], chat: Chat, on_batch: OnBatch
) -> list[float | None]:
    """log P_policy - log P_base of each row's text, in nats.

    None without a policy, or where it is not finite. Loads each model once, one at a time. Raises
    ConfigError if there is a policy but no base.
    """
    kls: list[float | None] = [None] * len(rows)
    policies = {row["policy"]: None for row in rows if row["policy"] is not None}
    if policies and job.base is None:
        raise ConfigError("score: rows name a policy, but the job names no base to compare it with")
    having = [i for i, row in enumerate(rows) if row["policy"] is not None]
    base = log_probabilities(job.base, [spans[i] for i in having], job.batch_size, chat, on_batch)
    of_base = dict(zip(having, base, strict=True))
    for policy in policies:
        own = [i for i in having if rows[i]["policy"] == policy]
        texts = [spans[i] for i in own]
        values = log_probabilities(policy, texts, job.batch_size, chat, on_batch)
        for i, value in zip(own, values, strict=True):
            gap = value - of_base[i]
            kls[i] = gap if math.isfinite(gap) else None
    return kls


@torch.inference_mode()
def log_probabilities(
    path: str | None,
    spans: list[Span],
    batch_size: int,
    chat: Chat,
    on_batch: OnBatch = lambda _: None,
) -> list[float]:
    """log P(text | prompt) in nats of each span, under the model of the folder `path`."""
    if path is None or not spans:
        return []
    # float32 even for bfloat16 weights: the sum over a text's tokens adds up their rounding
    model = load_policy(path, None)
    model.to("cuda" if on_gpu() else "cpu").eval()
    totals = [0.0] * len(spans)
    for batch in by_length([item.ids for item in spans], batch_size):
        chosen = [spans[i] for i in batch]
        for i, value in zip(batch, batch_log_probabilities(model, chosen, chat), strict=True):
            totals[i] = value
        on_batch(len(batch))
    del model
    free_memory()
    return totals


def batch_log_probabilities(model: Any, spans: list[Span], chat: Chat) -> list[float]:
    """The same for one micro-batch. Only the texts' positions get logits."""
    ids, mask = padded([item.ids for item in spans], chat.tokenizer.pad_token_id)
    first = min(len(item.ids) - item.n_text - 1 for item in spans)
    ids, mask = ids.to(model.device), mask.to(model.device)
    keep = ids.shape[1] - first
    logits = model(input_ids=ids, attention_mask=mask, logits_to_keep=keep).logits
    totals: list[float] = []
    for row, tokens, item in zip(logits, ids, spans, strict=True):
        end = len(item.ids)
        start = end - item.n_text
        at = row[start - 1 - first : end - 1 - first].float().log_softmax(-1)
        picked = at.gather(-1, tokens[start:end, None])
        totals.append(picked.double().sum().item())
    return totals
