"""Messages become token ids; text inside a message can never become a control token.

A chat template joins turns with control tokens (`<|im_start|>`, `<eos>`…). If a message's content
holds the text of such a token, a plain `apply_chat_template` turns it into the real one, and the
text can close its own turn (transformers#29279). Here the text of every control token inside a
content is masked before the template runs. What then looks like a control token is the template's;
it is written as an alias that no content can foresee, and the whole is encoded by a copy of the
tokenizer that knows only the aliases. Last, an id of a control token that is no alias (a normaliser
can make `<s>` of wide letters) is encoded letter by letter. Benign conversations get the ids of
`apply_chat_template`.

A template's literals (`[INST]`, `### Response:`) are made of ordinary ids: a content that spells
one is changed, by a space after the first character. Records keep the text.

A raw prompt is the text of its messages without any template, protected in the same way; a benign
one gets the ids of `tokenizer.encode`, less an end token that some tokenizers add.
"""

import re
import secrets
import unicodedata
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any, NamedTuple

import jinja2

from cai.engines.base import Request
from cai.engines.structure import Aliases, any_of, structure_of
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
PLAIN_TURN = re.compile(r"\n{2,}(?=(?:Human|Assistant|System):)")

Conversation = Sequence[Mapping[str, str]]
"""Turns with `role` and `content`, as trainers' rows hold them."""


class Choices(NamedTuple):
    """A prompt and the continuations to be scored, as ids."""

    prompt: list[int]
    continuations: list[list[int]]


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
        if getattr(tokenizer, "backend_tokenizer", None) is None:
            raise ConfigError(
                f"{tokenizer.name_or_path}: {type(tokenizer).__name__} has no fast tokenizer: "
                "expected a folder with tokenizer.json; convert it with AutoTokenizer and save it"
            )
        self.tokenizer = tokenizer
        # A checkpoint of a base model carries the plain template.
        self.plain = tokenizer.chat_template in (None, PLAIN_TEMPLATE)
        self.stop: tuple[str, ...] = (PLAIN_STOP,) if self.plain else ()
        """Texts that end a turn of the plain template."""
        self._template: str = PLAIN_TEMPLATE if self.plain else tokenizer.get_chat_template()
        self.structure = structure_of(tokenizer, None if self.plain else self._template)
        self._control = any_of(self.structure.control)
        self._literal = any_of(self.structure.literals)
        self._ids = self.structure.control
        # An id for unknown characters is no structure, unless it is another token too.
        shared = {tokenizer.bos_token_id, tokenizer.eos_token_id}
        unknown = {tokenizer.unk_token_id} - shared
        self._forbidden = set(self._ids.values()) - unknown
        self._folds = folds_width(tokenizer)
        self._start = start_ids(tokenizer)

    @cached_property
    def _aliases(self) -> Aliases:
        return Aliases(self.tokenizer, self._ids, self._forbidden)

    def encode(self, messages: Sequence[Message], raw: bool = False) -> list[int]:
        """Ids of the prompt. A last message of the assistant's is left open, to be continued."""
        return self._encode_rendered(self._render(messages, raw))

    def encode_conversation(self, conversation: Conversation, waiting: bool) -> list[int]:
        """Ids of closed turns; `waiting`: the assistant's next turn is begun."""
        nonce, masks = secrets.token_hex(8), dict[str, str]()
        turns = [self._turn(m["role"], m["content"], nonce, masks) for m in conversation]
        return self._encode_rendered(Rendered(self._apply(turns, waiting), masks, nonce, []))

    def encode_text(self, text: str) -> list[int]:
        """Ids of a text by itself."""
        nonce, masks = secrets.token_hex(8), dict[str, str]()
        return self._encode_rendered(Rendered(self._mask(text, nonce, masks), masks, nonce, []))

    def harmless(self, content: str) -> str:
        """A content of which no other encoder makes structure. Where ids can be given, give ids."""
        content = spaced(self._control, self._inside_turn(content))
        while span := self._control_span(content):
            start, end = span
            letters = " ".join(content[start:end]) if end - start > 1 else ""
            content = content[:start] + letters + content[end:]
        return content

    def _control_span(self, content: str) -> tuple[int, int] | None:
        """Where the tokenizer makes a control token of a text that spells none."""
        encoding = self.tokenizer.backend_tokenizer.encode(content, add_special_tokens=False)
        pairs = zip(encoding.ids, encoding.offsets, strict=True)
        found = (span for id_, span in pairs if id_ in self._forbidden and span[0] < span[1])
        return next(found, None)

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
        turns = [self._turn(m.role, m.content, nonce, masks) for m in messages]
        opened = turns.pop()["content"] if turns and turns[-1]["role"] == "assistant" else None
        text = self._apply(turns, True)
        if opened is not None:
            text += (" " if self.plain else "") + opened
        return Rendered(text, masks, nonce, [])

    def _turn(self, role: str, content: str, nonce: str, masks: dict[str, str]) -> dict[str, str]:
        return {"role": role, "content": self._mask(self._inside_turn(content), nonce, masks)}

    def _apply(self, turns: list[dict[str, str]], waiting: bool) -> str:
        try:
            return self.tokenizer.apply_chat_template(
                turns,
                chat_template=self._template,
                add_generation_prompt=waiting,
                tokenize=False,
            )
        except (jinja2.TemplateError, ValueError) as error:
            roles = ", ".join(turn["role"] for turn in turns)
            raise ConfigError(
                f"the model's chat template refuses a conversation of {roles}: {error}; a template "
                "without a system role wants a constitution without system_prompt"
            ) from error

    def _continued(self, rendered: Rendered, choice: str) -> Rendered:
        """The prompt and a choice as one text; a token's text that ends in the choice is text."""
        text, nonce, masks = rendered.text + choice, rendered.nonce, dict(rendered.masks)
        masked = self._mask(text, nonce, masks, len(rendered.text))
        return rendered._replace(text=masked, masks=masks)

    def _inside_turn(self, content: str) -> str:
        """A content without the template's literals: it opens no other turn."""
        pattern = PLAIN_TURN if self.plain else self._literal
        if self._folds and not pattern.search(content):
            folded = unicodedata.normalize("NFKC", content)
            content = folded if pattern.search(folded) else content
        return PLAIN_TURN.sub("\n", content) if self.plain else spaced(pattern, content)

    def _mask(self, text: str, nonce: str, masks: dict[str, str], trusted: int = 0) -> str:
        """Mask control tokens' texts that end after the first `trusted` characters."""

        def mask(match: re.Match[str]) -> str:
            if match.end() <= trusted:
                return match[0]
            key = f"\ue000{nonce}.{len(masks)}\ue001"
            masks[key] = match[0]
            return key

        return self._control.sub(mask, text)

    def _encode_rendered(self, rendered: Rendered) -> list[int]:
        """The text as it stands if that is safe, with aliases if it is not."""
        text, masks = rendered.text, rendered.masks
        if not masks:
            ids: list[int] = self.tokenizer.encode(text, add_special_tokens=False)
            structure = [self._ids[token] for token in self._control.findall(text)]
            if structure == [id_ for id_ in ids if id_ in self._forbidden]:
                return rendered.start + ids
        aliases = self._aliases
        text = self._control.sub(lambda match: aliases.of[match[0]], text)
        for mask, token in masks.items():
            text = text.replace(mask, token)
        return rendered.start + aliases.encode(text)


def spaced(pattern: re.Pattern[str], content: str) -> str:
    """`content` with a space after the first character of whatever the pattern finds."""
    while pattern.search(content):
        content = pattern.sub(lambda match: f"{match[0][0]} {match[0][1:]}", content)
    return content


def folds_width(tokenizer: Any) -> bool:
    """Whether the tokenizer's normaliser makes the usual letters of wide ones (NFKC)."""
    normalizer = tokenizer.backend_tokenizer.normalizer
    return normalizer is not None and "<x>" in normalizer.normalize_str("＜ｘ＞").casefold()


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
