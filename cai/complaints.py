"""A YAML document as a checked model: nothing is converted, and every mistake has its place."""

import difflib
import json
import re
from collections.abc import Callable, Iterator
from typing import Any, TypeVar, cast

from pydantic import BaseModel, ValidationError

from cai.errors import ConfigError
from cai.strict_yaml import MAX_SHOWN, Document, Location, short

MAX_COMPLAINTS = 20
YES_OR_NO = {"yes": "true", "on": "true", "y": "true", "no": "false", "off": "false", "n": "false"}
Checked = TypeVar("Checked", bound=BaseModel)


def dotted(path: Location) -> str:
    """A value's place in the data, as it is written after `--set`."""
    return ".".join(short(str(part)) for part in path)


def validated(
    document: Document, model: type[Checked], named: Callable[[Location], str] = dotted
) -> Checked:
    """The document's data as a `model`, nothing converted but a whole number where any is asked.

    Raises ConfigError with a line for each thing that is wrong; `named` says how a place is named.
    """
    try:
        # As JSON: there a strict model takes a list for a tuple, and no "010" for the number 10.
        text = json.dumps(document.data, ensure_ascii=False).encode()
        return model.model_validate_json(text, strict=True)
    except UnicodeEncodeError as error:
        bad = short(error.object[max(0, error.start - 20) : error.end])
        raise ConfigError(f"{document.source}: not UTF-8 text: {bad}") from error
    except ValidationError as error:
        raise ConfigError("\n".join(complaints(error, document, model, named))) from error


def complaints(
    error: ValidationError,
    document: Document,
    model: type[BaseModel],
    named: Callable[[Location], str] = dotted,
) -> Iterator[str]:
    """One line for each thing that pydantic found wrong, with its place and what was expected."""
    found = error.errors(include_url=False)
    for item in found[:MAX_COMPLAINTS]:
        path = place_in(document.data, item["loc"], item["type"] == "missing")
        place, field = document.place(path), named(path)
        if item["type"] == "extra_forbidden":
            yield f"{place}: unknown key '{field}'; {suggestion(path, model)}"
        elif item["type"] == "missing":
            yield f"{place}: {field} is missing"
        else:
            message = item["msg"].removeprefix("Value error, ")
            hint = remedy(item["type"], item["input"])
            yield f"{place}: {field}: {message}{hint} (found {repr(item['input'])[:MAX_SHOWN]})"
    if len(found) > MAX_COMPLAINTS:
        yield f"and {len(found) - MAX_COMPLAINTS} more"


def place_in(data: Any, location: Location, is_missing: bool) -> Location:
    """`location` as the data has it: pydantic puts the names of a union's branches into it."""
    path: list[str | int] = []
    for part in location:
        inside = cast(Any, data if isinstance(data, dict | list) else ())
        if part in (inside if isinstance(inside, dict) else range(len(inside))):
            path.append(part)
            data = inside[part]
    return (*path, location[-1]) if is_missing else tuple(path)


def remedy(kind: str, value: Any) -> str:
    """What to write instead of a value that another reader of YAML would have converted."""
    if kind == "bool_type" and isinstance(value, str) and value.lower() in YES_OR_NO:
        return f": write {YES_OR_NO[value.lower()]}"
    if kind == "string_type" and isinstance(value, bool | int | float):
        return ": put it in quotes"
    if kind.startswith("int_") and isinstance(value, str | float):
        whole = re.fullmatch(r"([-+]?)0*([0-9]{1,18})(\.0)?", str(value))
        return f": write {whole[1]}{whole[2]}" if whole else ""
    return ""


def suggestion(path: Location, model: type[BaseModel]) -> str:
    """What may be meant by a key that `model` does not have at `path`."""
    return did_you_mean(str(path[-1]), fields_at(path[:-1], model))


def did_you_mean(key: str, known: list[str]) -> str:
    """The one of `known` that `key` may be meant for, or all of them."""
    near = difflib.get_close_matches(short(key), known, 1, cutoff=0.5)
    return f"did you mean '{near[0]}'?" if near else f"known are: {', '.join(known)}"


def fields_at(path: Location, model: type[BaseModel]) -> list[str]:
    """Field names of the model that sits at `path` inside `model`."""
    for part in path:
        if isinstance(part, str) and part in model.model_fields:
            inner = inner_model(model.model_fields[part].annotation)
            model = inner or model
    return list(model.model_fields)


def inner_model(annotation: Any) -> type[BaseModel] | None:
    """The pydantic model inside `X`, `X | None`, `list[X]`, `tuple[X, ...]`."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    for inner in getattr(annotation, "__args__", ()):
        if found := inner_model(inner):
            return found
    return None
