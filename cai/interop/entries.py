"""The entries of another project's file: read with their place, and given back as they stood.

A format is a set of files, a file holds one or two sheets of entries, and an entry is one of our
principles or exemplars. The forms of an entry differ in blank lines and wording that say nothing;
an entry that says what its original says is given back in the original's form, any other one (it
was edited, or was never there) is written anew.
"""

import json
import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

from cai.constitution import ID, Principle, Text
from cai.errors import ConfigError
from cai.exemplars import CotExemplar, Opening, PreferenceExemplar, RevisionExemplar
from cai.records import Message, conversation
from cai.strict_yaml import MAX_BYTES

Part = Literal["principles", "revision", "preference", "cot"]
Exemplar = RevisionExemplar | PreferenceExemplar | CotExemplar
Entry = Principle | Exemplar
UNNAMED = "unnamed"
"""The id of a principle that has no name in its entry, until `named` gives it one."""
MAX_ID = 64


class Sheet(NamedTuple):
    """A list of entries, or an object of them."""

    part: Part
    read: Callable[[Any, str], Entry]
    """An entry and its place, for a ConfigError."""
    write: Callable[[Any], Any] | None = None
    """The format's usual form of an entry; none: nothing is exported in it."""
    prefix: str = ""
    """What comes before the key or number of an entry to make a principle's id."""
    texts: tuple[Text, ...] = ()
    """The texts of a principle that it holds: each of them is needed."""
    under: str | None = None
    """The key of the file's object that it stands under; none: it is the whole file."""
    keyed: bool = False
    """Whether it is an object, whose keys are the principles' ids."""


class Kind(NamedTuple):
    """A file of a format."""

    file: str
    fits: Callable[[Any], bool]
    """Whether content looks like this file's."""
    sheets: tuple[Sheet, ...]
    lost: Callable[[Any], dict[str, int]] = lambda _: {}
    """How often content has what our model has no place for."""


class Format(NamedTuple):
    """How a project writes constitutions and exemplars."""

    kinds: tuple[Kind, ...]
    source: str
    license: str


class Sourced(NamedTuple):
    """An entry, and how it stood: a value, or a key and a value where the sheet is keyed."""

    entry: Entry
    original: Any


def read_kind(kind: Kind, data: Any, file: str) -> list[list[Sourced]]:
    """The entries of each sheet of a file. Raises ConfigError naming file and entry."""
    keys = [sheet.under for sheet in kind.sheets if sheet.under]
    if keys:
        fields_of(data, file, keys)
    return [
        read_sheet(sheet, data[sheet.under] if sheet.under else data, file) for sheet in kind.sheets
    ]


def read_sheet(sheet: Sheet, data: Any, file: str) -> list[Sourced]:
    place = f"{file}: {sheet.under}" if sheet.under else file
    if not isinstance(data, dict if sheet.keyed else list):
        wanted = "an object" if sheet.keyed else "a list"
        raise ConfigError(f"{place}: expected {wanted}, found {shown(data)}")
    rows: Any = data
    values: dict[str, Any] = rows if sheet.keyed else {str(i): v for i, v in enumerate(rows)}
    before = f"{place}." if sheet.under else f"{place}: "
    entries = [sheet.read(value, before + spelt(key)) for key, value in values.items()]
    originals = values.items() if sheet.keyed else values.values()
    return list(map(Sourced, named(sheet, entries, [*values]), originals))


def named(sheet: Sheet, entries: Sequence[Entry], keys: Sequence[str]) -> Sequence[Entry]:
    """The entries; principles under the id that they have, or one made from their key or number."""
    principles = [entry for entry in entries if isinstance(entry, Principle)]
    names = [
        f"{sheet.prefix}{key}" if principle.id == UNNAMED else principle.id
        for principle, key in zip(principles, keys, strict=False)
    ]
    return with_ids(principles, names) or entries


def with_ids(principles: Sequence[Principle], names: Sequence[str]) -> list[Principle]:
    """The principles under unique ids made from `names`."""
    ids = unique_ids(names)
    return [p.model_copy(update={"id": i}) for p, i in zip(principles, ids, strict=True)]


def write_entry(sheet: Sheet, entry: Entry) -> Any:
    """An entry in the format's usual form, as `Sourced.original` has it."""
    assert sheet.write is not None
    value = sheet.write(entry)
    return (entry.id, value) if sheet.keyed and isinstance(entry, Principle) else value


def restored(sheet: Sheet, entries: Iterable[Entry], originals: Sequence[Sourced]) -> Any:
    """A sheet's content: each entry as its original has it, where that says the same; else in the
    usual form."""
    left = [(write_entry(sheet, entry), original) for entry, original in originals]
    found: list[Any] = []
    for entry in entries:
        usual = write_entry(sheet, entry)
        same = next((index for index, pair in enumerate(left) if pair[0] == usual), None)
        found.append(usual if same is None else left.pop(same)[1])
    return dict(found) if sheet.keyed else found


def can_say(sheet: Sheet, entry: Entry) -> bool:
    """Whether what is written for an entry reads as that entry: a text may hold the format's own
    marks, a conversation may have turns that it has no name for."""
    if isinstance(entry, Principle):
        return True
    try:
        return sheet.read(write_entry(sheet, entry), "") == entry
    except ConfigError:
        return False


def unique_ids(names: Sequence[str]) -> list[str]:
    """An id of our form for each name. A name that is one already goes before those made."""
    ids, taken, last = [""] * len(names), set[str](), Counter[str]()
    for index in sorted(range(len(names)), key=lambda i: slug(names[i]) != names[i]):
        base = ids[index] = slug(names[index])
        while ids[index] in taken:
            last[base] = max(last[base], 1) + 1
            ids[index] = f"{base[: MAX_ID - 8].rstrip('-_')}-{last[base]}"
        taken.add(ids[index])
    return ids


def slug(name: str) -> str:
    """The name as lowercase words joined with hyphens."""
    if ID.fullmatch(name) and len(name) <= MAX_ID:
        return name
    words = "-".join(re.findall(r"[a-z0-9]+", name.lower()))
    lettered = words if words[:1].isalpha() else f"principle-{words}"
    return lettered[:MAX_ID].rstrip("-")


def load_json(path: Path) -> Any:
    """Content of a JSON file. Raises ConfigError for whatever would be read as something else."""
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}") from error
    if len(raw) > MAX_BYTES:
        raise ConfigError(f"{path}: {len(raw)} bytes; at most {MAX_BYTES} are read")
    try:
        return json.loads(
            raw.decode("utf-8-sig"),
            object_pairs_hook=lambda pairs: distinct(pairs, path),
            parse_constant=lambda word: refuse(f"{path}: {word} is no number of JSON"),
        )
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: not UTF-8 text (byte {error.start})") from error
    except json.JSONDecodeError as error:
        raise ConfigError(f"{path}:{error.lineno}:{error.colno}: not JSON: {error.msg}") from error
    except (RecursionError, ValueError) as error:
        raise ConfigError(f"{path}: nested too deep, or a number too long to be read") from error


def distinct(pairs: list[tuple[str, Any]], path: Path) -> dict[str, Any]:
    """An object, whose keys may stand in it once: of two the first would be lost."""
    for key, n in Counter(key for key, _ in pairs).items():
        if n > 1:
            refuse(f"{path}: the key {spelt(key)} stands twice in one object; remove one")
    return dict(pairs)


def refuse(complaint: str) -> Any:
    raise ConfigError(complaint)


def text_of(value: Any, place: str) -> str:
    """A text without the white space around it. Raises ConfigError where there is none."""
    if not isinstance(value, str) or not value.strip():
        raise ConfigError(f"{place}: expected a text, found {shown(value)}")
    if any("\ud800" <= letter <= "\udfff" for letter in value):
        raise ConfigError(f"{place}: half of a surrogate pair, which is no text: {shown(value)}")
    return value.strip()


def only_text(value: Any, place: str) -> str:
    """The text of a list of one."""
    if not isinstance(value, list) or len(value) != 1:
        raise ConfigError(f"{place}: expected a list of one text, found {shown(value)}")
    return text_of(value[0], place)


def fields_of(value: Any, place: str, needed: Sequence[str], known: Sequence[str] = ()) -> Any:
    """An object with the fields `needed`, perhaps with `known`, and with no other."""
    if not isinstance(value, Mapping):
        raise ConfigError(
            f"{place}: expected an object with {', '.join(needed)}, found {shown(value)}"
        )
    for field in needed:
        if field not in value:
            raise ConfigError(f"{place}: {field} is missing")
    for field in value:
        if field not in needed and field not in known:
            names = ", ".join((*needed, *known))
            raise ConfigError(f"{place}: unknown field {spelt(field)}; known are: {names}")
    return value


def any_field(data: Any, *fields: str) -> bool:
    """Whether it is a list with an object that has one of the fields."""
    rows: list[Any] = data if isinstance(data, list) else []
    return any(isinstance(row, dict) and any(field in row for field in fields) for row in rows)


def opening(texts: Sequence[str]) -> Opening:
    """The conversation in which the human says every other text, the first and the last."""
    if len(texts) == 1:
        return texts[0]
    return conversation((Message(role="user", content=texts[0]),), *texts[1:])


def worked_round(texts: Sequence[str]) -> RevisionExemplar:
    """A conversation, its response, and what follows: one text for each turn."""
    response, critique_request, critique, revision_request, revision = texts[-5:]
    return RevisionExemplar(
        prompt=opening(texts[:-5]),
        response=response,
        critique_request=critique_request,
        critique=critique,
        revision_request=revision_request,
        revision=revision,
    )


def spelt(key: str) -> str:
    """A key for a complaint: it may hold anything, a terminal's escape codes too."""
    return key if re.fullmatch(r"[\w-]{1,64}", key, re.ASCII) else ascii(key)[:80]


def shown(value: Any) -> str:
    """The beginning of a value, in ASCII; of a list or an object only what it is."""
    if isinstance(value, list | dict):
        return "a list" if isinstance(value, list) else "an object"
    return json.dumps(value)[:60]
