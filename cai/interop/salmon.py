"""SALMON's principles: what a response should be like, as preference principles.

Format: https://github.com/IBM/SALMON, `prompts/principles`.
"""

from typing import Any, cast

from cai.constitution import Principle
from cai.errors import ConfigError
from cai.interop.entries import Format, Kind, Sheet, any_field, fields_of, shown, slug, text_of

QUESTION = "Choose the response that better fits this description."
"""A definition names what is wanted and asks nothing."""


def read_principle(value: Any, place: str) -> Principle:
    """`{"dimension": word, "definition": text, "weight": number}`, all but the weight needed."""
    known = ("weight", "negative_definition")
    fields = fields_of(value, place, ("dimension", "definition"), known)
    weight: Any = fields.get("weight", 1)
    if isinstance(weight, bool) or not isinstance(weight, int | float) or not 0 < weight <= 1e9:
        wanted = "a number above 0 and not above 1e9"
        raise ConfigError(f"{place}.weight: expected {wanted}, found {shown(weight)}")
    if "negative_definition" in fields:
        text_of(fields["negative_definition"], f"{place}.negative_definition")
    dimension = text_of(fields["dimension"], f"{place}.dimension")
    definition = text_of(fields["definition"], f"{place}.definition")
    return Principle(
        id=slug(dimension), preference=f"{QUESTION} {dimension}: {definition}", weight=float(weight)
    )


def lost(data: Any) -> dict[str, int]:
    """SALMON shows its reward model negated principles too; ours have no opposite."""
    rows = cast(list[dict[str, Any]], data)
    return {"negative_definition": sum("negative_definition" in row for row in rows)}


def is_principles(data: Any) -> bool:
    return any_field(data, "dimension", "definition")


SALMON = Format(
    kinds=(Kind("principles.json", is_principles, (Sheet("principles", read_principle),), lost),),
    source="https://github.com/IBM/SALMON",
    license="GPL-3.0 (code), CC-BY-NC-4.0 (data)",
)
