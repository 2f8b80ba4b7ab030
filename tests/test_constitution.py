"""A constitution is what people edit: every mistake must be named where it stands."""

from collections import Counter
from pathlib import Path

import pytest

from cai.constitution import Principle, draw, find_constitution, load_constitution
from cai.errors import ConfigError
from cai.resources import packaged

HEADER = 'name: t\nversion: "1"\ndescription: d\nsource: s\nlicense: l\nprinciples:\n'
GOOD = "  - {id: kind, critique: c, revision: r, preference: p}\n"


def write(folder: Path, text: str) -> Path:
    path = folder / "c.yaml"
    path.write_text(text)
    return path


@pytest.mark.parametrize(
    "path", sorted(packaged("constitutions").glob("*.yaml")), ids=lambda p: p.stem
)
def test_shipped_constitutions_load(path: Path) -> None:
    constitution = load_constitution(path)
    assert len(constitution.for_revision()) >= 10
    assert len(constitution.for_preference()) >= 10


def test_harmless_has_sixteen_whole_principles() -> None:
    constitution = load_constitution(find_constitution("harmless.yaml"))
    assert len(constitution.for_revision()) == len(constitution.for_preference()) == 16


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        (
            HEADER + GOOD + "  - {id: b, critiqe: c}\n",
            ["c.yaml:8:", "critiqe", "did you mean 'critique'"],
        ),
        (
            HEADER + GOOD + "  - {id: b, critique: 7}\n",
            ["c.yaml:8:", "principle 'b', field critique", "string"],
        ),
        (HEADER + GOOD + '  - {id: b, critique: ""}\n', ["c.yaml:8:", "principle 'b'", "empty"]),
        (HEADER + GOOD + "  - {id: b}\n", ["c.yaml:8:", "none of critique, revision, preference"]),
        (HEADER + GOOD + "  - {id: Bad Id, critique: c}\n", ["c.yaml:8:", "lowercase words"]),
        (HEADER + GOOD + GOOD, ["c.yaml:8:", "'kind' stands here a second time"]),
        (
            HEADER + GOOD.replace("preference: p", "weight: 0"),
            ["c.yaml:7:", "weight", "greater than 0"],
        ),
        (HEADER.replace('"1"', "1.0") + GOOD, ["c.yaml:2:10", "version", "string"]),
        (HEADER.replace("license: l\n", "") + GOOD, ["c.yaml:1:1", "license is missing"]),
        (HEADER + "  []\n", ["c.yaml:7:3", "principles"]),
        (HEADER.replace('"1"', "[principles.99]") + GOOD, ["c.yaml:2:10", "version", "string"]),
        (HEADER.replace('"1"', "principles.0") + "  - 7\n", ["c.yaml:7:5", "principles.0: Input"]),
        (HEADER + "  - {id: b, tags: [1]}\n", ["c.yaml:7:", "principle 'b', field tags.0"]),
        (HEADER + "  - {id: b, x.y: 1}\n", ["c.yaml:7:", "principle 'b', field x.y'; known are"]),
        (HEADER.replace("principles:\n", "principles: {0: {id: a}}\n"), ["c.yaml:6:13", "array"]),
        ("- a\n", ["c.yaml:1:1", "expected a mapping"]),
        ("", ["c.yaml:1:1", "expected a mapping"]),
    ],
)
def test_complaints(tmp_path: Path, text: str, parts: list[str]) -> None:
    with pytest.raises(ConfigError) as caught:
        load_constitution(write(tmp_path, text))
    for part in parts:
        assert part in str(caught.value)


def test_all_mistakes_are_named_at_once(tmp_path: Path) -> None:
    text = HEADER + "  - {id: a, critiqe: c}\n  - {id: b, critique: 3}\n"
    with pytest.raises(ConfigError) as caught:
        load_constitution(write(tmp_path, text))
    assert "c.yaml:7" in str(caught.value)
    assert "c.yaml:8" in str(caught.value)


def test_a_run_that_needs_a_field_names_the_principle_that_lacks_it(tmp_path: Path) -> None:
    text = HEADER + "  - {id: half, critique: c}\n  - {id: other, preference: p}\n"
    constitution = load_constitution(write(tmp_path, text))
    with pytest.raises(ConfigError, match="'half' lacks revision"):
        constitution.for_revision()
    only_revisions = load_constitution(
        write(tmp_path, HEADER + "  - {id: a, critique: c, revision: r}\n")
    )
    with pytest.raises(ConfigError, match="'a' lacks preference"):
        only_revisions.for_preference()


def test_a_draw_is_a_function_of_its_key_and_uniform() -> None:
    principles = [Principle(id=f"p{i}", critique="c") for i in range(16)]
    drawn = [draw(principles, 0, f"prompt-{i}", 1).id for i in range(16_000)]
    assert drawn == [draw(principles, 0, f"prompt-{i}", 1).id for i in range(16_000)]
    counts = Counter(drawn)
    # Chi-square with 15 degrees of freedom: 37.7 is the 99.9 % point.
    assert sum((n - 1000) ** 2 / 1000 for n in counts.values()) < 37.7


def test_weights_shift_the_draw() -> None:
    principles = [Principle(id="a", critique="c", weight=3.0), Principle(id="b", critique="c")]
    share = Counter(draw(principles, i).id for i in range(8000))["a"] / 8000
    assert abs(share - 0.75) < 0.02


def test_editing_one_text_moves_no_draw() -> None:
    before = [Principle(id=f"p{i}", critique="c") for i in range(16)]
    after = [p.model_copy(update={"critique": "edited"}) if p.id == "p3" else p for p in before]
    assert [draw(before, i).id for i in range(500)] == [draw(after, i).id for i in range(500)]


def test_an_unknown_name_gets_a_suggestion() -> None:
    with pytest.raises(ConfigError, match=r"did you mean harmless\.yaml"):
        find_constitution("harmles.yaml")
