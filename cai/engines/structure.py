"""What of a prompt is structure: control tokens, and the texts that a chat template writes itself.

A control token is an id of its own. A template's literal (`[INST]`, `### Response:`) is made of the
ids of ordinary text, so that a content which spells it cannot be told from the template.
"""

import copy
import re
import secrets
import unicodedata
from collections.abc import Collection, Iterable, Iterator, Mapping
from typing import Any, NamedTuple

import jinja2
from tokenizers import AddedToken

BRACKETED = re.compile(r"[<\[]+[^\s<>\[\]{}]*[^\W\d_][^\s<>\[\]{}]*[>\]]+")
"""A text that is a token in all but name: `[INST]`, `<<SYS>>`, `<|user|>`."""
CONTENTS = tuple(f"qz{number}zq" for number in range(4))
"""Contents of the conversation that shows what the template puts between them."""
CONTENT = re.compile("|".join(CONTENTS))
TURNS = tuple(zip(("system", "user", "assistant", "user"), CONTENTS, strict=True))


class Structure(NamedTuple):
    """What makes structure under one tokenizer and one chat template."""

    control: dict[str, int]
    """Control tokens with their ids."""
    literals: frozenset[str]
    """Texts of the template that are no control tokens."""


def structure_of(tokenizer: Any, template: str | None) -> Structure:
    """The structure of `template`; none: only control tokens are structure."""
    control = control_tokens(tokenizer)
    if template is None:
        return Structure(control, frozenset())
    shown = show(tokenizer, template)
    control |= bracketed_ids(tokenizer, shown, control)
    pattern = any_of(control)
    written = {
        piece
        for constant in (*constants(template), *CONTENT.split(shown))
        for text in pattern.split(constant)
        for piece in BRACKETED.findall(text)
    }
    return Structure(control, frozenset(written | headers(shown, pattern)))


def control_tokens(tokenizer: Any) -> dict[str, int]:
    """The added and special tokens that can be structure, with their ids.

    Some vocabularies add runs of spaces (GPT-NeoX): those are text.
    """
    tokens: dict[str, int] = dict(tokenizer.get_added_vocab())
    special: list[str] = tokenizer.all_special_tokens
    tokens |= dict(zip(special, tokenizer.convert_tokens_to_ids(special), strict=True))
    return {token: id_ for token, id_ in tokens.items() if len(token.strip()) > 1}


def any_of(texts: Iterable[str]) -> re.Pattern[str]:
    """Finds any of `texts`, the longest first; nothing if there are none."""
    ordered = sorted(texts, key=len, reverse=True)
    return re.compile("|".join(map(re.escape, ordered)) or r"(?!)")


def show(tokenizer: Any, template: str) -> str:
    """A conversation in the template; empty if it refuses every one that is tried."""
    for turns in (TURNS, TURNS[1:], TURNS[1:2]):
        rows = [{"role": role, "content": content} for role, content in turns]
        try:
            return tokenizer.apply_chat_template(
                rows, chat_template=template, add_generation_prompt=True, tokenize=False
            )
        except (jinja2.TemplateError, ValueError):
            continue
    return ""


def bracketed_ids(tokenizer: Any, shown: str, known: dict[str, int]) -> dict[str, int]:
    """Entries of the vocabulary itself that a template uses like control tokens."""
    ids: list[int] = tokenizer.encode(shown, add_special_tokens=False)
    tokens: list[str] = tokenizer.convert_ids_to_tokens(ids)
    return {
        token: id_
        for token, id_ in zip(tokens, ids, strict=True)
        if token not in known and token in shown and BRACKETED.fullmatch(token)
    }


def constants(template: str) -> Iterator[str]:
    """The texts in a template's source. The lexer knows no tags: foreign ones do not stop it."""
    try:
        for _, kind, value in jinja2.Environment().lex(template):
            if kind in ("data", "string"):
                yield value.strip("'\"").replace("\\n", "\n")
    except jinja2.TemplateSyntaxError:
        return  # It cannot be rendered either, and that is told where it is.


def headers(shown: str, control: re.Pattern[str]) -> set[str]:
    """What opens a turn in a template whose turns are marked by words (`USER:`, `### Response:`).

    It is such a template if something other than control tokens stands between two contents.
    """
    first, *between = CONTENT.split(shown)
    if all(control.search(text) for text in between):
        return set()
    last_line = first.rstrip().rpartition("\n")[2]
    opening = [last_line] if last_line.endswith(":") else []
    texts = [control.sub("", text) for text in (*opening, *between)]
    # A bare word is a header only together with its line breaks.
    cut = [text.strip() if re.search(r"[^\w\s]", text) else text.strip(" ") for text in texts]
    return {text for text in cut if re.search(r"\w", text)}


class Aliases:
    """A copy of a tokenizer in which an alias stands for each control token, whose own text is
    text. The copy treats a text in every other way as the tokenizer does."""

    def __init__(
        self, tokenizer: Any, control: Mapping[str, int], forbidden: Collection[int]
    ) -> None:
        """`control`: the tokens that get an alias; `forbidden`: the ids that no text may have."""
        nonce, flags = secrets.token_hex(8), tokenizer.added_tokens_decoder
        self.of = {token: f"\ue000{nonce}.{i}\ue001" for i, token in enumerate(control)}
        self._unknown: tuple[int | None, str] = (tokenizer.unk_token_id, str(tokenizer.unk_token))
        self._forbidden = forbidden
        self._copy = copy.deepcopy(tokenizer.backend_tokenizer)
        self._copy.no_truncation()
        self._copy.no_padding()
        # Special tokens are those that can be switched off.
        self._copy.add_special_tokens([AddedToken(token, special=True) for token in control])
        self._copy.encode_special_tokens = True
        self._copy.add_tokens(
            [alias(self.of[token], flags.get(id_)) for token, id_ in control.items()]
        )
        self._real = {self._copy.token_to_id(self.of[token]): control[token] for token in control}

    def encode(self, text: str) -> list[int]:
        """Ids of a text with aliases; control ids come from those alone."""
        encoding = self._copy.encode(text, add_special_tokens=False)
        ids: list[int] = []
        for id_, (start, end) in zip(encoding.ids, encoding.offsets, strict=True):
            if id_ in self._real:
                ids.append(self._real[id_])
            elif self._is_spelled(id_, text[start:end]):
                ids += self._letters(text[start:end])
            else:
                ids.append(id_)
        return ids

    def _is_spelled(self, id_: int, text: str) -> bool:
        """Whether the tokenizer made a control token of `text`. An unknown character's is none."""
        unknown, name = self._unknown
        return id_ in self._forbidden or (
            id_ == unknown and name in unicodedata.normalize("NFKC", text)
        )

    def _letters(self, text: str) -> list[int]:
        """Ids of each character by itself; one that is a control token even so is left out."""
        each = (self._copy.encode(letter, add_special_tokens=False).ids for letter in text)
        return [id_ for ids in each for id_ in ids if id_ not in self._forbidden]


def alias(text: str, flags: AddedToken | None) -> AddedToken:
    """An added token that treats its surroundings as the one with `flags` does."""
    if flags is None:
        return AddedToken(text, normalized=False)
    return AddedToken(text, lstrip=flags.lstrip, rstrip=flags.rstrip, normalized=flags.normalized)
