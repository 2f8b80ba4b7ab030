"""Conversations as token ids, the same in every trainer and in every scorer."""

from typing import Any

from transformers import AutoTokenizer

from cai.engines.encode import PLAIN_TEMPLATE, ChatEncoder, Conversation

PAD_TOKENS = ("<|endoftext|>", "<|finetune_right_pad_id|>", "<pad>", "[PAD]", "<|pad|>", "<unk>")
ADDED_PAD_TOKEN = "<|cai_pad|>"
SAMPLE = (
    {"role": "user", "content": "Hello."},
    {"role": "assistant", "content": "Hello."},
)


class Chat:
    """A tokenizer with a chat template: benign rows get the ids that TRL's trainers give them, and
    a text that spells a control token the ids that it had when it was generated."""

    def __init__(self, path: str) -> None:
        """Load the local folder `path`; a base model gets the engines' plain dialogue template."""
        self.tokenizer: Any = AutoTokenizer.from_pretrained(
            path, trust_remote_code=False, local_files_only=True
        )
        if self.tokenizer.chat_template is None:
            self.tokenizer.chat_template = PLAIN_TEMPLATE
        self.own_pad_id: int | None = self.tokenizer.pad_token_id
        """What the folder itself names."""
        if self.own_pad_id is None:
            self.tokenizer.pad_token = self.tokenizer.eos_token
        self._encoder = ChatEncoder(self.tokenizer)

    def messages(self, conversation: Conversation) -> list[dict[str, str]]:
        """The turns for an encoder that is not ours (TRL's, in RL): contents without structure."""
        return [
            {"role": m["role"], "content": self._encoder.harmless(m["content"])}
            for m in conversation
        ]

    def ids(self, conversation: Conversation) -> list[int]:
        """Ids of a whole conversation."""
        return self._encoder.encode_conversation(conversation, waiting=False)

    def prompt_ids(self, conversation: Conversation) -> list[int]:
        """Ids of a conversation that waits for a response; the response's first id comes next."""
        return self._encoder.encode_conversation(conversation, waiting=True)

    def text_ids(self, text: str) -> list[int]:
        """Ids of a response."""
        return self._encoder.encode_text(text)

    def set_distinct_pad(self, model: Any) -> None:
        """Give tokenizer and model a pad token that no conversation holds; add one if need be.

        A sequence classifier reads its score at the last token that is not padding. Where padding
        is the end-of-turn token, that is the wrong place, and the model fails to learn (trl#2758).
        """
        tokenizer = self.tokenizer
        vocabulary = tokenizer.get_vocab()
        used = {tokenizer.eos_token_id, tokenizer.bos_token_id, *self.ids(SAMPLE)}
        candidates = (tokenizer.pad_token, *PAD_TOKENS, tokenizer.unk_token)
        free = (name for name in candidates if vocabulary.get(name, next(iter(used))) not in used)
        tokenizer.add_special_tokens({"pad_token": next(free, ADDED_PAD_TOKEN)})
        # An added token is one more that no text may spell.
        self._encoder = ChatEncoder(tokenizer)
        if len(tokenizer) > model.get_input_embeddings().num_embeddings:
            model.resize_token_embeddings(len(tokenizer))
        model.config.get_text_config().pad_token_id = tokenizer.pad_token_id
