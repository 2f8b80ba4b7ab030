"""Fixtures of the tests that train: a tiny random language model, and a reward model on it.

A test module uses them by `pytest_plugins = ["tiny_fixtures"]`.
"""

import pytest
from tiny_model import pairs, reward_job, train

from cai.environment import TELEMETRY_OFF

TEMPLATE = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
CONTROL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
TEXTS = ["How do I pick a lock?", "I would rather not say.", "user assistant system", "Hello."]


@pytest.fixture
def quiet(monkeypatch):
    monkeypatch.delenv("CAI_NUM_PROCESSES", raising=False)
    for name, value in TELEMETRY_OFF.items():
        monkeypatch.setenv(name, value)


@pytest.fixture(scope="session")
def tiny(tmp_path_factory):
    path = tmp_path_factory.mktemp("tiny")
    make_tiny(path)
    return str(path)


def make_tiny(path, hidden_size=32):
    """A random two-layer Llama of two heads with a ChatML template and no pad token."""
    import torch
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    raw = Tokenizer(models.BPE())
    raw.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    raw.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=320, special_tokens=CONTROL, initial_alphabet=alphabet, show_progress=False
    )
    raw.train_from_iterator(TEXTS, trainer)
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=raw, eos_token="<|im_end|>")
    tokenizer.chat_template = TEMPLATE
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=hidden_size,
        intermediate_size=2 * hidden_size,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=2,
        max_position_embeddings=256,
        eos_token_id=tokenizer.eos_token_id,
        bos_token_id=None,
        initializer_range=0.1,
    )
    LlamaForCausalLM(config).save_pretrained(path)
    tokenizer.save_pretrained(path)


@pytest.fixture(scope="session")
def reward_path(tiny, tmp_path_factory):
    """A reward model, trained a little."""
    folder = tmp_path_factory.mktemp("reward")
    train(reward_job(tiny, max_steps=2), folder, pairs(0.9, 8))
    return str(folder / "checkpoint")
