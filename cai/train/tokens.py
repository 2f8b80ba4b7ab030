"""Conversations as token ids, the same in every trainer and in every scorer."""

from collections.abc import Mapping, Sequence
from typing import Any

from transformers import AutoTokenizer

from cai.engines.encode import PLAIN_TEMPLATE, control_pattern, control_tokens

Conversation = Sequence[Mapping[str, str]]

PAD_TOKENS = ("<|endoftext|>", "<|finetune_right_pad_id|>", "<pad>", "[PAD]", "<|pad|>", "<unk>")
ADDED_PAD_TOKEN = "<|cai_pad|>"
SAMPLE = (
    {"role": "user", "content": "Hello."},
    {"role": "assistant", "content": "Hello."},
)


class Chat:
    """A tokenizer with a chat template, as TRL's trainers use it: the template and nothing else.

    Text that spells a control token (`<|im_end|>`) would become that token in a chat template, and
    close its own turn (transformers#29279). Here it gets a space after its first character.
    """

    def __init__(self, path: str) -> None:
        """Load the local folder `path`; a base model gets the engines' plain dialogue template."""
        self.tokenizer: Any = AutoTokenizer.from_pretrained(
            path, trust_remote_code=False, local_files_only=True
        )
        if self.tokenizer.chat_template is None:
            self.tokenizer.chat_template = PLAIN_TEMPLATE
        if self.tokenizer.pad_token is None:
            self.tokenizer.pad_token = self.tokenizer.eos_token
        self.control = control_pattern(control_tokens(self.tokenizer))

    def text(self, content: str) -> str:
        """`content` without control tokens."""
        while self.control.search(content):
            content = self.control.sub(lambda match: f"{match[0][0]} {match[0][1:]}", content)
        return content

    def messages(self, conversation: Conversation) -> list[dict[str, str]]:
        """The turns, their contents without control tokens."""
        return [{"role": m["role"], "content": self.text(m["content"])} for m in conversation]

    def ids(self, conversation: Conversation) -> list[int]:
        """Ids of a whole conversation."""
        return self._apply(conversation, False)

    def prompt_ids(self, conversation: Conversation) -> list[int]:
        """Ids of a conversation that waits for a response; the response's first id comes next."""
        return self._apply(conversation, True)

    def text_ids(self, text: str) -> list[int]:
        """Ids of a response."""
        return self.tokenizer.encode(self.text(text), add_special_tokens=False)

    def _apply(self, conversation: Conversation, prompt: bool) -> list[int]:
        encoded = self.tokenizer.apply_chat_template(
            self.messages(conversation),
            tokenize=True,
            return_dict=True,
            add_generation_prompt=prompt,
        )
        return encoded["input_ids"]

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
        if len(tokenizer) > model.get_input_embeddings().num_embeddings:
            model.resize_token_embeddings(len(tokenizer))
        model.config.get_text_config().pad_token_id = tokenizer.pad_token_id
