"""YAML must be strict, bounded and never surprise."""

from typing import Any

import pytest

from cai.errors import ConfigError
from cai.strict_yaml import MAX_BYTES, load_yaml, parse_scalar, parse_yaml


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("no", "no"),
        ("on", "on"),
        ("010", "010"),
        ("0o10", "0o10"),
        ("12:30", "12:30"),
        ("2024-01-01", "2024-01-01"),
        ("1_000", "1_000"),
        (".inf", ".inf"),
        ("1e999", "1e999"),
        ("true", True),
        ("null", None),
        ("7", 7),
        ("-3", -3),
        ("1e-5", 1e-5),
        ("0.5", 0.5),
    ],
)
def test_plain_scalars(text: str, value: Any) -> None:
    assert parse_scalar(text) == value
    assert type(parse_scalar(text)) is type(value)


def test_quoted_scalars_are_text() -> None:
    assert parse_yaml('a: "7"', "f").data == {"a": "7"}


@pytest.mark.parametrize(
    ("text", "place", "says"),
    [
        ("a: 1\nb: 2\na: 3", "f:3:1", "twice"),
        ("a: &x 1\nb: *x", "f:1:4", "alias"),
        ("a: !!python/object/apply:os.system [ls]", "f:1:4", "tag"),
        ("a: 1\n---\nb: 1", "f:2:1", "second document"),
        ("a: [1, 2", "f:1:", "not YAML"),
        ("? [a, b]\n: 1", "f:1:3", "a key must be a word"),
        ("[" * 60 + "]" * 60, "f:1:51", "nested deeper"),
        ("a: \x07", "f", "not YAML"),
    ],
)
def test_complaints_name_the_place(text: str, place: str, says: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_yaml(text, "f")
    assert str(caught.value).startswith(place)
    assert says in str(caught.value)


def test_an_alias_bomb_is_refused_before_anything_is_built() -> None:
    bomb = "a: &a [x,x]\n" + "\n".join(
        f"{c}: &{c} [*{p},*{p}]" for p, c in zip("abcdefgh", "bcdefghi", strict=True)
    )
    with pytest.raises(ConfigError, match="alias"):
        parse_yaml(bomb, "f")


def test_files_that_cannot_be_read(tmp_path: Any) -> None:
    big = tmp_path / "big.yaml"
    big.write_bytes(b"#" * (MAX_BYTES + 1))
    latin = tmp_path / "latin.yaml"
    latin.write_bytes(b"a: \xff")
    for path, says in (
        (big, "at most"),
        (latin, "not UTF-8"),
        (tmp_path / "none", "cannot be read"),
    ):
        with pytest.raises(ConfigError, match=says):
            load_yaml(path)


def test_marks_point_to_values() -> None:
    document = parse_yaml("a:\n  - x: 1\n    y: 2\n", "f")
    assert document.place(("a", 0, "y")) == "f:3:8"
    assert document.place(("a", 0, "missing")) == "f:2:5"
