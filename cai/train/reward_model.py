"""Reads scores from a trained reward model, with the same tokens as it was trained on."""

import math
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForSequenceClassification

from cai.errors import ConfigError
from cai.train.setup import on_gpu
from cai.train.tokens import Chat, Conversation


def load_classifier(path: str, dtype: torch.dtype) -> Any:
    """The model of a local folder with one scalar head; a new head if the folder has none."""
    return AutoModelForSequenceClassification.from_pretrained(
        path,
        num_labels=1,
        dtype=dtype,
        trust_remote_code=False,
        local_files_only=True,
        use_safetensors=True,
    )


class RewardModel:
    """A trained reward model, ready to score conversations. Higher is better."""

    def __init__(self, path: str | Path, max_length: int, batch_size: int) -> None:
        """Load the folder `path`. `max_length` is in tokens, `batch_size` in conversations."""
        self.chat = Chat(str(path))
        self.model = load_classifier(str(path), torch.bfloat16 if on_gpu() else torch.float32)
        own, configured = self.chat.own_pad_id, self.model.config.get_text_config().pad_token_id
        self.pad_id: int | None = configured if own is None else own
        if on_gpu():
            exact_head(self.model)
            self.model.to(torch.device("cuda", torch.cuda.current_device()))
        self.model.eval()
        self.max_length = max_length
        self.batch_size = batch_size
        self.n_truncated = 0
        """Conversations so far that lost tokens at their left."""
        self.n_not_finite = 0
        """Conversations so far whose score was NaN or infinite."""

    def score(
        self,
        conversations: Sequence[Conversation],
        on_batch: Callable[[int], None] = lambda _: None,
    ) -> list[float | None]:
        """One scalar for each, in order; none where it is not finite.

        `on_batch` hears the size of each micro-batch that is done.
        """
        ids = [self.chat.ids(conversation) for conversation in conversations]
        self.n_truncated += sum(len(row) > self.max_length for row in ids)
        ids = [row[-self.max_length :] for row in ids]
        scores: list[float | None] = [None] * len(ids)
        for batch in by_length(ids, self.batch_size):
            values = self.forward([ids[i] for i in batch])
            for i, value in zip(batch, values.tolist(), strict=True):
                scores[i] = value if math.isfinite(value) else None
            on_batch(len(batch))
        self.n_not_finite += scores.count(None)
        return scores

    @torch.inference_mode()
    def forward(self, batch: list[list[int]]) -> torch.Tensor:
        """Scores [len(batch)] of one micro-batch, padded at the right as in training."""
        pad_id = unused_end(batch) if self.pad_id is None else self.pad_id
        # the score is read at the last token that is not this one: a config may name another
        self.model.config.get_text_config().pad_token_id = pad_id
        ids, mask = padded(batch, pad_id)
        device = self.model.device
        output = self.model(input_ids=ids.to(device), attention_mask=mask.to(device))
        return output.logits[:, 0].float().cpu()


def exact_head(model: Any) -> None:
    """Compute the scalar in float32: bfloat16 resolves scores around 2 to 0.016 only."""

    def widen(_: Any, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
        return (inputs[0].float(),)

    head = head_of(model)
    head.float()
    head.register_forward_pre_hook(widen)


def head_of(model: Any) -> Any:
    """The layer that makes a score of the last hidden state, without a bias.

    Raises ConfigError for an architecture that has no such layer (encoders).
    """
    head: Any = getattr(model, "score", None)
    if not isinstance(head, torch.nn.Linear) or getattr(head, "bias", None) is not None:
        raise ConfigError(
            f"{type(model).__name__}: expected a linear score head without a bias, as decoder-only "
            "language models have; name another model: models.reward"
        )
    return head


def by_length(ids: Sequence[Sequence[int]], size: int) -> Iterator[list[int]]:
    """Indices into `ids`, `size` at a time, longest first: memory runs out at once or never."""
    order = sorted(range(len(ids)), key=lambda i: -len(ids[i]))
    yield from (order[start : start + size] for start in range(0, len(order), size))


def unused_end(batch: Sequence[Sequence[int]]) -> int:
    """A token id that no row ends in, for a model that names no padding."""
    return min({*range(len(batch) + 1)} - {row[-1] for row in batch})


def padded(batch: Sequence[Sequence[int]], pad_id: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Token ids and attention mask, both [len(batch), longest], padded at the right."""
    width = max(map(len, batch))
    ids = torch.full((len(batch), width), pad_id, dtype=torch.long)
    mask = torch.zeros((len(batch), width), dtype=torch.long)
    for i, row in enumerate(batch):
        ids[i, : len(row)] = torch.tensor(row, dtype=torch.long)
        mask[i, : len(row)] = 1
    return ids, mask
