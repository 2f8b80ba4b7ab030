"""Messages become token ids; text inside a message can never become a control token.

A chat template joins turns with control tokens (`<|im_start|>`, `<eos>`…). If a message's content
holds the text of such a token, a plain `apply_chat_template` turns it into the real one, and the
text can close its own turn (transformers#29279). Here every added token's text inside a content is
masked before the template runs; afterwards it is put back and cut after its first character, so
that it is encoded as ordinary text. Benign conversations get the ids of `apply_chat_template`.

A raw prompt is the text of its messages without any template, protected in the same way; a benign
one gets the ids of `tokenizer.encode`, less an end token that some tokenizers add.
"""

import re
import secrets
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import jinja2

from cai.engines.base import Request
from cai.errors import ConfigError
from cai.records import Message

PLAIN_TEMPLATE = (
    "{% for message in messages %}"
    "{% if message['role'] == 'system' %}{{ message['content'] }}"
    "{% elif message['role'] == 'user' %}{{ '\n\nHuman: ' + message['content'] }}"
    "{% else %}{{ '\n\nAssistant: ' + message['content'] + eos_token }}{% endif %}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '\n\nAssistant:' }}{% endif %}"
)
"""For base models, which have no template of their own: the dialogue format of the paper."""
PLAIN_STOP = "\n\nHuman:"
PLAIN_TURN = re.compile(r"\n\n(Human|Assistant|System):")


class Choices(NamedTuple):
    """A prompt and the continuations to be scored, as ids."""

    prompt: list[int]
    continuations: list[list[int]]


def control_tokens(tokenizer: Any) -> dict[str, int]:
    """The added tokens that can be structure, with their ids.

    Some vocabularies add runs of spaces (GPT-NeoX): those are text.
    """
    added: dict[str, int] = tokenizer.get_added_vocab()
    return {token: id_ for token, id_ in added.items() if len(token.strip()) > 1}


def control_pattern(tokens: Iterable[str]) -> re.Pattern[str]:
    """Finds any of `tokens`, the longest first; nothing if there are none."""
    ordered = sorted(tokens, key=len, reverse=True)
    return re.compile("|".join(map(re.escape, ordered)) or r"(?!)")


class Rendered(NamedTuple):
    """A prompt as text with masked contents."""

    text: str
    masks: dict[str, str]
    """What each mask stands for."""
    nonce: str
    """Makes the masks: no content could foresee it."""
    start: list[int]
    """Ids that come before the text."""


class ChatEncoder:
    """Encodes conversations with one tokenizer (a `PreTrainedTokenizerBase`)."""

    def __init__(self, tokenizer: Any) -> None:
        self.tokenizer = tokenizer
        # A checkpoint of a base model carries the plain template.
        self.plain = tokenizer.chat_template in (None, PLAIN_TEMPLATE)
        self.stop: tuple[str, ...] = (PLAIN_STOP,) if self.plain else ()
        """Texts that end a turn of the plain template."""
        self._ids = control_tokens(tokenizer)
        self._added = control_pattern(self._ids)
        self._start = start_ids(tokenizer)

    def encode(self, messages: Sequence[Message], raw: bool = False) -> list[int]:
        """Ids of the prompt. A last message of the assistant's is left open, to be continued."""
        return self._encode_rendered(self._render(messages, raw))

    def stops(self, request: Request) -> tuple[str, ...]:
        """Texts that end the answer to `request`, in addition to the end token."""
        return request.sampling.stop if request.raw else (*request.sampling.stop, *self.stop)

    def encode_choices(
        self, messages: Sequence[Message], choices: Sequence[str], raw: bool = False
    ) -> Choices:
        """The prompt and each choice's own ids after it.

        Prompt and choice are encoded as one text, because a tokenizer may merge across the seam;
        what all of them share is the prompt.
        """
        rendered = self._render(messages, raw)
        whole = [self._encode_rendered(self._continued(rendered, choice)) for choice in choices]
        shared = shared_prefix(whole)
        continuations = [ids[len(shared) :] for ids in whole]
        if not all(continuations):
            raise ConfigError(f"the options {list(choices)} are not distinct to this tokenizer")
        if not shared:
            raise ConfigError(f"nothing comes before the options {list(choices)}: give a prompt")
        return Choices(shared, continuations)

    def _render(self, messages: Sequence[Message], raw: bool) -> Rendered:
        nonce, masks = secrets.token_hex(8), dict[str, str]()
        if raw:
            text = self._mask("".join(message.content for message in messages), nonce, masks)
            return Rendered(text, masks, nonce, self._start)
        turns = [
            {"role": m.role, "content": self._mask(self._inside_turn(m.content), nonce, masks)}
            for m in messages
        ]
        return Rendered(self._apply_template(turns), masks, nonce, [])

    def _apply_template(self, turns: list[dict[str, str]]) -> str:
        roles = ", ".join(turn["role"] for turn in turns)
        opened = turns.pop()["content"] if turns and turns[-1]["role"] == "assistant" else None
        try:
            text: str = self.tokenizer.apply_chat_template(
                turns,
                chat_template=PLAIN_TEMPLATE if self.plain else None,
                add_generation_prompt=True,
                tokenize=False,
            )
        except (jinja2.TemplateError, ValueError) as error:
            raise ConfigError(
                f"the model's chat template refuses a conversation of {roles}: {error}; a template "
                "without a system role wants a constitution without system_prompt"
            ) from error
        return text if opened is None else text + (" " if self.plain else "") + opened

    def _continued(self, rendered: Rendered, choice: str) -> Rendered:
        """The prompt and a choice as one text; a token's text that ends in the choice is text."""
        text, nonce, masks = rendered.text + choice, rendered.nonce, dict(rendered.masks)
        masked = self._mask(text, nonce, masks, len(rendered.text))
        return rendered._replace(text=masked, masks=masks)

    def _inside_turn(self, content: str) -> str:
        """A content that opens no other turn of the plain template."""
        return PLAIN_TURN.sub(r"\n\1:", content) if self.plain else content

    def _mask(self, text: str, nonce: str, masks: dict[str, str], trusted: int = 0) -> str:
        """Mask added tokens' texts that end after the first `trusted` characters."""

        def mask(match: re.Match[str]) -> str:
            if match.end() <= trusted:
                return match[0]
            key = f"\ue000{nonce}.{len(masks)}\ue001"
            masks[key] = match[0]
            return key

        return self._added.sub(mask, text)

    def _encode_rendered(self, rendered: Rendered) -> list[int]:
        """Control tokens by their id, what stands between them as text."""
        text, masks = rendered.text, rendered.masks
        if not masks:
            # As one text: some tokenizers encode a piece after a control token in another way.
            return rendered.start + self.tokenizer.encode(text, add_special_tokens=False)
        ids = list(rendered.start)
        position = 0
        for match in self._added.finditer(text):
            ids += self._encode_text(text[position : match.start()], masks)
            ids.append(self._ids[match[0]])
            position = match.end()
        return ids + self._encode_text(text[position:], masks)

    def _encode_text(self, text: str, masks: dict[str, str]) -> list[int]:
        ids: list[int] = []
        for piece in self._harmless_pieces(text, masks):
            ids += self.tokenizer.encode(piece, add_special_tokens=False)
        return ids

    def _harmless_pieces(self, text: str, masks: dict[str, str]) -> list[str]:
        """The text with its masks undone, cut so that no piece holds a whole added token."""
        if not any(mask in text for mask in masks):
            return [text] if text else []
        for mask, token in masks.items():
            text = text.replace(mask, token)
        pieces: list[str] = []
        while match := self._added.search(text):
            cut = match.start() + 1
            pieces.append(text[:cut])
            text = text[cut:]
        return [*pieces, text] if text else pieces


def start_ids(tokenizer: Any) -> list[int]:
    """What the tokenizer puts before a text by itself: the BOS token, or nothing."""
    whole: list[int] = tokenizer.encode("a")
    text: list[int] = tokenizer.encode("a", add_special_tokens=False)
    starts = (i for i in range(len(whole)) if whole[i : i + len(text)] == text)
    return whole[: next(starts, 0)]


def shared_prefix(sequences: Sequence[Sequence[int]]) -> list[int]:
    """The longest prefix of all."""
    prefix: list[int] = []
    for column in zip(*sequences, strict=False):
        if len(set(column)) > 1:
            break
        prefix.append(column[0])
    return prefix
