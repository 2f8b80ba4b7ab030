"""YAML must be strict, bounded and never surprise."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from bombs.corpus import BOMBS
from hypothesis import given, settings
from hypothesis import strategies as st

from cai import strict_yaml
from cai.complaints import MAX_COMPLAINTS, validated
from cai.config import RunConfig
from cai.errors import ConfigError
from cai.strict_yaml import MAX_BYTES, load_yaml, parse_scalar, parse_yaml

PARSERS = ["libyaml", "python"]
SLOW_BYTES = 50_000
"""Beyond this PyYAML's own parser takes seconds."""


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
        ("12345678901234567890", 12345678901234567890),
        ("9" * 41, "9" * 41),
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


@pytest.fixture(params=PARSERS)
def parser(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Both of PyYAML's parsers: libyaml, and the one that is there where it was not built in."""
    if request.param == "python":
        monkeypatch.setattr(strict_yaml, "LOADER", yaml.SafeLoader)
    elif strict_yaml.LOADER is yaml.SafeLoader:
        pytest.skip("PyYAML was built without libyaml")
    return request.param


def outcome(path: Path, data: bytes) -> Any:
    """What a file is read as: its data, or the complaint."""
    path.write_bytes(data)
    try:
        return load_yaml(path).data
    except ConfigError as error:
        return error


def test_every_bomb_is_refused_or_means_what_it_says(parser: str, tmp_path: Path) -> None:
    for name, (data, says) in BOMBS.items():
        if parser == "python" and len(data) > SLOW_BYTES:
            continue
        found = outcome(tmp_path / "b.yaml", data)
        assert isinstance(found, ConfigError) == bool(says), f"{name}: {found!r:.200}"
        # the two parsers notice half a character at different times, and say so in other words
        expected = ("NUL or half", "not YAML") if says == "character" else (says,)
        assert not says or any(word in str(found) for word in expected), f"{name}: {found}"


def test_both_parsers_read_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    small = {
        name: data for name, (data, says) in BOMBS.items() if len(data) <= SLOW_BYTES and not says
    }
    assert len(small) > 20
    found = []
    for loader in (strict_yaml.LOADER, yaml.SafeLoader):
        monkeypatch.setattr(strict_yaml, "LOADER", loader)
        found.append({name: outcome(tmp_path / "b.yaml", data) for name, data in small.items()})
    assert found[0] == found[1]


@pytest.mark.torture
def test_no_bomb_costs_more_than_a_moment() -> None:
    script = Path(__file__).parent / "torture" / "yaml_fuzz.py"
    command = [sys.executable, str(script), "bombs"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    summary = json.loads(done.stdout)
    assert summary["count"] == len(BOMBS) >= 60
    # how long each takes is measured by `make torture`: here other tests run beside it
    large = {name for name, found in summary["bad"].items() if found["code"] or found["mb"] > 200}
    assert (summary["crashes"], large) == (0, set())


@pytest.mark.parametrize(
    "kind", ["fifo", "device", "folder"], ids=["a pipe", "an endless file", "a folder"]
)
def test_only_files_are_read(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "x"
    if kind == "fifo":
        os.mkfifo(path)
    elif kind == "device":
        path.symlink_to("/dev/zero")
    else:
        path.mkdir()
    with pytest.raises(ConfigError, match="not a file"):
        load_yaml(path)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("seed: 010", "seed: Input should be a valid integer: write 10 (found '010')"),
        ("seed: 1e3", "write 1000 (found 1000.0)"),
        ("seed: '7'", "write 7"),
        ("seed: 1_0", "valid integer (found '1_0')"),
        ("seed: 0x10", "valid integer"),
        ("prompts: {skip_bad: no}", "write false (found 'no')"),
        ("prompts: {skip_bad: On}", "write true"),
        ("prompts: {skip_bad: 0}", "valid boolean"),
        ("max_error_rate: '0.5'", "valid number"),
        ("max_error_rate: .5", "valid number"),
        ("models: {base: 1.0}", "put it in quotes (found 1.0)"),
        ("sft: {lora: {r: 1e1}}", "sft.lora.r: Input should be a valid integer: write 10"),
    ],
)
def test_nothing_is_converted(text: str, says: str) -> None:
    with pytest.raises(ConfigError) as caught:
        validated(parse_yaml(f"constitution: c\n{text}", "f"), RunConfig)
    assert says in str(caught.value)
    assert str(caught.value).startswith("f:2:")


def test_a_whole_number_serves_where_any_number_is_asked() -> None:
    text = "constitution: c\nmax_error_rate: 1\nengine: {stall_s: 1e3}"
    config = validated(parse_yaml(text, "f"), RunConfig)
    assert (config.max_error_rate, config.engine.stall_s) == (1.0, 1000.0)


def test_a_mistake_inside_a_union_has_its_own_place() -> None:
    text = "constitution: c\nrl:\n  rewards:\n    - kind: length\n      weight: much"
    with pytest.raises(ConfigError, match=r"^f:5:15: rl\.rewards\.0\.weight: .* valid number"):
        validated(parse_yaml(text, "f"), RunConfig)


def test_complaints_are_few_short_and_printable() -> None:
    text = "".join(f'"k{i}\\e[2J{"x" * 500}": 1\n' for i in range(1000))
    with pytest.raises(ConfigError) as caught:
        validated(parse_yaml(text, "f"), RunConfig)
    lines = str(caught.value).splitlines()
    assert len(lines) == MAX_COMPLAINTS + 1
    # and the constitution is missing
    assert lines[-1] == f"and {1001 - MAX_COMPLAINTS} more"
    assert "\x1b" not in str(caught.value)
    assert max(map(len, lines[1:])) < 500


def test_text_of_the_command_line_that_is_no_text() -> None:
    with pytest.raises(ConfigError, match="not YAML"):
        parse_yaml("a: \udcff", "--set a")
    document = parse_yaml("constitution: c", "f")
    document.data["constitution"] = "\udcff"
    with pytest.raises(ConfigError, match="not UTF-8"):
        validated(document, RunConfig)


LEAVES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(10**30), 10**30),
    st.floats(allow_nan=False, allow_infinity=False),
    # JSON lets control characters stand, and writes what is beyond 16 bits as two escapes
    st.text(st.characters(max_codepoint=0xD7FF, exclude_categories=["Cc", "Cf", "Zl", "Zp"])),
    st.sampled_from(["no", "on", "010", "0x1F", "1e3", "12:30", "~", "", "<<", "=", ".inf", "1_0"]),
)
TREES = st.recursive(
    LEAVES,
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.text("abc: -#\n'\"é", min_size=1, max_size=5), inner, max_size=4)
    ),
    max_leaves=20,
)


@settings(max_examples=150, deadline=None)
@given(tree=TREES, indent=st.sampled_from([2, 4]), wide=st.booleans())
def test_what_is_written_in_json_is_read_as_it_is(tree: Any, indent: int, wide: bool) -> None:
    """JSON is YAML, and the one writer whose numbers and texts nobody has to guess at."""
    text = json.dumps({"a": tree}, indent=indent, ensure_ascii=not wide)
    assert parse_yaml(text, "f").data == {"a": tree}


@settings(max_examples=150, deadline=None)
@given(
    seed=st.sampled_from([d for d, _ in BOMBS.values() if len(d) < 500]),
    at=st.integers(0, 500),
    cut=st.integers(0, 20),
    put=st.binary(max_size=6)
    | st.sampled_from([b"*a", b"&a", b"!", b"- ", b"? ", b"\n", b"{", b'"']),
)
def test_a_damaged_file_is_refused_or_read(
    tmp_path_factory: pytest.TempPathFactory, seed: bytes, at: int, cut: int, put: bytes
) -> None:
    found = outcome(tmp_path_factory.getbasetemp() / "m.yaml", seed[:at] + put + seed[at + cut :])
    assert isinstance(found, ConfigError) or is_plain(found)


def is_plain(data: Any) -> bool:
    """Whether data is only what the reader may make: mappings, lists, texts, numbers, words."""
    if isinstance(data, dict):
        return all(type(key) is str and is_plain(value) for key, value in data.items())
    return (
        all(map(is_plain, data))
        if isinstance(data, list)
        else type(data) in (str, int, float, bool, type(None))
    )
