"""Prompt sources: every row is accounted for."""

import gzip
import json
import re
import tempfile
import unicodedata
from collections import Counter, defaultdict
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cai.config import Prompts, Shares
from cai.errors import ConfigError
from cai.records import Kind, Message, Prompt
from cai.resources import packaged
from cai.sources import (
    MAX_DEPTH,
    MAX_LINE,
    Loader,
    SourceCount,
    load_prompts,
    local_path,
)
from cai.splits import group_of, select, split_of

TWO_TURNS = "\n\nHuman: one\n\nAssistant: two\n\nHuman: three\n\nAssistant: four"


def load(folder: Path, rows: list[Any], **config: Any) -> tuple[list[Prompt], SourceCount]:
    path = folder / "p.jsonl"
    path.write_text(
        "".join(f"{row if isinstance(row, str) else json.dumps(row)}\n" for row in rows)
    )
    loader = Loader(Prompts(**config), 0)
    return loader.load("red_team", [str(path)]), loader.counts[0]


def shipped(*folders: str) -> list[dict[str, Any]]:
    files = [path for folder in folders for path in (packaged("prompts") / folder).glob("*.jsonl")]
    return [json.loads(line) for path in files for line in path.read_text().splitlines()]


def test_shipped_prompts_are_as_many_and_as_varied_as_promised() -> None:
    red_team = shipped("red_team")
    assert len(red_team) >= 200
    assert len({row["area"] for row in red_team}) >= 10
    assert sum("messages" in row for row in red_team) >= 40
    assert len(shipped("helpful")) >= 100
    assert len(shipped("look_alike")) >= 60
    rows = shipped("red_team", "helpful", "look_alike")
    assert len({row["id"] for row in rows}) == len(rows)
    assert all(row["area"] and row["source"] for row in rows)
    prompts, _ = load_prompts(Prompts(), 0)
    assert len(prompts) == len(rows)


@pytest.mark.parametrize(
    ("row", "turns", "contents"),
    [
        ({"prompt": "hi"}, "auto", [["hi"]]),
        ({"prompt": "a: b: c\n\nd"}, "auto", [["a: b: c\n\nd"]]),
        ({"prompt": TWO_TURNS}, "auto", [["one"], ["one", "two", "three"]]),
        ({"chosen": TWO_TURNS, "rejected": TWO_TURNS}, "auto", [["one"], ["one", "two", "three"]]),
        ({"chosen": TWO_TURNS, "rejected": TWO_TURNS}, "last", [["one", "two", "three"]]),
        ({"chosen": TWO_TURNS, "rejected": TWO_TURNS}, "first", [["one"]]),
        (
            {
                "messages": [
                    {"role": r, "content": c}
                    for r, c in (("user", "a"), ("assistant", "b"), ("user", "c"))
                ]
            },
            "auto",
            [["a", "b", "c"]],
        ),
        ({"prompt": "\n\nHuman: x\n\nHuman: y\n\nAssistant: z"}, "auto", [["x\n\ny"]]),
        (
            {"prompt": "\n\nHuman: x\n\nAssistant: he said Human: no\n\nHuman: y"},
            "auto",
            [["x", "he said Human: no", "y"]],
        ),
    ],
)
def test_rows_become_prompts(
    tmp_path: Path, row: Any, turns: str, contents: list[list[str]]
) -> None:
    prompts, _ = load(tmp_path, [row], turns=turns)
    assert [[m.content for m in prompt.messages] for prompt in prompts] == contents


@pytest.mark.parametrize(
    "bad",
    [
        "{not json",
        "[1]",
        "",
        '{"text": "x"}',
        '{"prompt": 3}',
        '{"messages": [{"role": "bot"}]}',
        '{"messages": []}',
        *(
            pytest.param(f'{{"prompt": "x", "y": {opening * n}1{closing * n}}}', id=f"{opening}{n}")
            for opening, closing in (("[", "]"), ('{"z":', "}"))
            for n in (MAX_DEPTH, 950, 100_000)
        ),
        pytest.param(f'{{"prompt": "{"x" * MAX_LINE}"}}', id="long"),
        pytest.param("x" * (3 * MAX_LINE + 5), id="longer"),
    ],
)
def test_a_broken_line_is_named_or_counted(tmp_path: Path, bad: str) -> None:
    rows = [{"prompt": "a"}, bad, {"prompt": "b"}]
    with pytest.raises(ConfigError, match=r"p\.jsonl:2"):
        load(tmp_path, rows)
    prompts, count = load(tmp_path, rows, skip_bad=True)
    assert (len(prompts), count.n_rows, count.n_bad) == (2, 3, 1)


def test_the_longest_and_the_deepest_line_are_read(tmp_path: Path) -> None:
    room = MAX_LINE - len('{"prompt": ""}\n')
    deep = json.loads("[" * (MAX_DEPTH - 1) + "]" * (MAX_DEPTH - 1))
    prompts, _ = load(tmp_path, [{"prompt": "x" * room}, {"prompt": "y", "deep": deep}])
    assert [len(prompt.messages[0].content) for prompt in prompts] == [room, 1]
    with pytest.raises(ConfigError, match=r"p\.jsonl:1: .*more than 16 MiB"):
        load(tmp_path, [{"prompt": "x" * (room + 1)}])


def test_a_long_name_is_no_file() -> None:
    assert local_path(f"owner/{'x' * 300}") is None


def test_duplicates_are_counted(tmp_path: Path) -> None:
    prompts, count = load(tmp_path, [{"prompt": "a"}, {"prompt": "a"}, {"prompt": "b"}])
    assert (len(prompts), count.n_duplicates) == (2, 1)


def test_a_source_may_hold_nothing_new(tmp_path: Path) -> None:
    (tmp_path / "p.jsonl").write_text('{"prompt": "a"}\n')
    loader = Loader(Prompts(), 0)
    assert len(loader.load("red_team", [str(tmp_path / "p.jsonl")] * 2)) == 1
    assert [count.n_duplicates for count in loader.counts] == [0, 1]


def test_gzip_and_folders_and_unicode_line_separators(tmp_path: Path) -> None:
    with gzip.open(tmp_path / "a.jsonl.gz", "wt") as file:
        file.write(json.dumps({"prompt": "one\u2028two"}, ensure_ascii=False) + "\n")
    (tmp_path / "b.jsonl").write_text('{"prompt": "three"}')
    prompts = Loader(Prompts(), 0).load("red_team", [str(tmp_path)])
    assert [p.messages[0].content for p in prompts] == ["one\u2028two", "three"]


def test_an_empty_or_missing_source_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "empty.jsonl").write_text("")
    for name, says in (("empty.jsonl", "no prompts"), ("none.jsonl", "no such prompt")):
        with pytest.raises(ConfigError, match=says):
            Loader(Prompts(), 0).load("red_team", [str(tmp_path / name)])
    (tmp_path / "broken.jsonl.gz").write_bytes(b"no gzip")
    with pytest.raises(ConfigError, match="cannot be read"):
        Loader(Prompts(), 0).load("red_team", [str(tmp_path / "broken.jsonl.gz")])


def test_splits_follow_shares_and_never_cut_a_dialogue(tmp_path: Path) -> None:
    shares = Shares(sft=0.5, preference=0.2, rl=0.2, eval=0.1)
    splits = Counter(split_of(f"g{i}", 3, shares) for i in range(10_000))
    for name, share in (("sft", 0.5), ("preference", 0.2), ("rl", 0.2), ("eval", 0.1)):
        assert abs(splits[name] / 10_000 - share) < 0.02
    prompts, _ = load(
        tmp_path,
        [{"chosen": f"\n\nHuman: {i}{TWO_TURNS}", "rejected": TWO_TURNS} for i in range(200)],
    )
    by_group: dict[str, set[str]] = {}
    for prompt in prompts:
        by_group.setdefault(prompt.group, set()).add(prompt.split)
    assert all(len(splits) == 1 for splits in by_group.values())


def test_order_of_the_file_does_not_matter(tmp_path: Path) -> None:
    rows = [{"prompt": f"p{i % 90}", "area": f"a{i % 7}"} for i in range(100)]
    one, _ = load(tmp_path, rows)
    two, _ = load(tmp_path, rows[::-1])
    assert {p.id: (p.split, p.area) for p in one} == {p.id: (p.split, p.area) for p in two}
    assert [p.id for p in select(one, "red_team", "sft", 10, 5)] == [
        p.id for p in select(two, "red_team", "sft", 10, 5)
    ]


def test_equal_draws_are_ordered_by_id(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cai.splits.derive_seed", lambda *_: 0)
    prompts, _ = load(tmp_path, [{"prompt": f"p{i}"} for i in range(20)])
    drawn = select(prompts, "red_team", "sft", 5, 0)
    assert drawn == select(prompts[::-1], "red_team", "sft", 5, 0)
    assert [p.id for p in drawn] == sorted(p.id for p in prompts)[:5]


def spelt(text: str) -> st.SearchStrategy[str]:
    """The same words, written in another way."""
    form = st.sampled_from(["NFC", "NFD", "NFKC", "NFKD"])
    case = st.sampled_from([str, str.lower, str.upper, str.casefold])
    space = st.sampled_from([" ", "  ", "\n", "\u00a0", "\u3000"])
    edge = st.sampled_from(["", " ", "\n"])

    def write(form: Any, case: Any, space: str, edge: str) -> str:
        return edge + unicodedata.normalize(form, case(text)).replace(" ", space) + edge

    return st.builds(write, form, case, space, edge)


WORDS = ["How?", "how to kill it", "Straße naïve ﬁne", "がぎ", "Ångström Ⅳ", "\u03c3\u03c2 x"]
HUMAN = st.sampled_from(range(len(WORDS))).flatmap(
    lambda i: st.tuples(st.just(i), spelt(WORDS[i]), st.lists(st.sampled_from("ab"), max_size=2))
)
KINDS: tuple[Kind, ...] = ("red_team", "helpful", "look_alike")


@given(
    st.lists(st.tuples(st.sampled_from(KINDS), HUMAN), min_size=1, max_size=12), st.integers(0, 99)
)
def test_no_dialogue_is_in_two_splits(
    rows: list[tuple[Kind, tuple[int, str, list[str]]]], seed: int
) -> None:
    """Whatever the kinds, the spelling and the seed; and what was moved is counted."""
    beginnings: dict[str, int] = {}
    with tempfile.TemporaryDirectory() as folder:
        given: dict[str, tuple[str, ...]] = dict.fromkeys(KINDS, ())
        for number, (kind, (words, first, more)) in enumerate(rows):
            turns = [first, *more]
            beginnings[first] = words
            text = "".join(f"\n\nHuman: {turn}\n\nAssistant: ok" for turn in turns)
            messages = [
                {"role": role, "content": content}
                for turn in turns
                for role, content in (("user", turn), ("assistant", "ok"))
            ]
            row = {"messages": messages} if number % 2 else {"prompt": text}
            beginnings[first.strip()] = words
            path = Path(folder) / f"{number}.jsonl"
            path.write_text(json.dumps(row))
            given[kind] = (*given[kind], str(path))
        prompts, counts = load_prompts(Prompts(**given), seed)
    splits: dict[int, set[str]] = defaultdict(set)
    groups: dict[int, set[str]] = defaultdict(set)
    for prompt in prompts:
        words = beginnings[prompt.messages[0].content]
        splits[words].add(prompt.split)
        groups[words].add(prompt.group)
    assert all(len(found) == 1 for found in (*splits.values(), *groups.values()))
    assert len(set.union(*groups.values())) == len(groups)
    assert len({prompt.id for prompt in prompts}) == len(prompts)
    assert {p.split for p in prompts if p.kind == "look_alike"} <= {"eval"}
    moved = [
        p for p in prompts
        if p.kind != "look_alike" and p.split != split_of(p.group, seed, Shares())
    ]  # fmt: skip
    assert sum(count.n_moved for count in counts) == len(moved)
    assert all(c.n_human_turns == c.n_prompts + c.n_duplicates for c in counts)


def test_what_a_look_alike_holds_out_is_counted(tmp_path: Path) -> None:
    asked = [f"How do I kill process {i}?" for i in range(40)]
    for kind, texts in (
        ("red_team", [f"{text.upper()} " for text in asked]),
        ("helpful", [f"Another thing {i}" for i in range(9)]),
        ("look_alike", asked),
    ):
        (tmp_path / f"{kind}.jsonl").write_text(
            "".join(json.dumps({"prompt": text}) + "\n" for text in texts)
        )
    given = {kind: (str(tmp_path / f"{kind}.jsonl"),) for kind in KINDS}
    prompts, counts = load_prompts(Prompts(**given), 0)
    assert {p.split for p in prompts if p.kind != "helpful"} == {"eval"}
    assert {p.split for p in prompts if p.kind == "helpful"} != {"eval"}
    n_moved = {count.kind: count.n_moved for count in counts}
    n_drawn = sum(split_of(p.group, 0, Shares()) == "eval" for p in prompts if p.kind == "red_team")
    assert n_moved == {"look_alike": 0, "red_team": 40 - n_drawn, "helpful": 0}
    assert 0 < n_drawn < 20


@pytest.mark.timeout(60)
def test_combining_marks_take_no_quadratic_time() -> None:
    text = "a" + "\u0301\u0323" * 500_000
    assert group_of([Message(role="user", content=text)])


def test_hh_rlhf_loads_whole(shared_data: Path) -> None:
    """1,500 rows, none cut: putting the turns together again gives the text of every row."""
    path = shared_data / "hh-rlhf" / "harmless-base.jsonl.gz"
    loader = Loader(Prompts(), 0)
    prompts = loader.load("red_team", [str(path)])
    count = loader.counts[0]
    assert (count.n_rows, count.n_bad) == (1500, 0)
    assert count.n_prompts == len(prompts)
    assert count.n_human_turns == count.n_prompts + count.n_duplicates
    texts = {"".join(m.content for m in prompt.messages) for prompt in prompts}
    squeezed = {"".join(text.split()) for text in texts}
    with gzip.open(path, "rt") as file:
        rows = [json.loads(line) for line in file]
    for row in rows:
        for field in ("chosen", "rejected"):
            parts = re.split(r"\n\n(?:Human|Assistant):", row[field])
            roles = re.findall(r"\n\n(Human|Assistant):", row[field])
            last_human = max(i for i, role in enumerate(roles) if role == "Human")
            assert "".join("".join(parts[1 : last_human + 2]).split()) in squeezed


def test_a_gzip_that_was_cut_short_is_an_error(tmp_path: Path) -> None:
    rows = "".join(json.dumps({"prompt": f"{i} {'x' * (i % 97)}"}) + "\n" for i in range(3000))
    whole = gzip.compress(rows.encode())
    for size in (len(whole) // 2, len(whole) - 4):
        (tmp_path / "p.jsonl.gz").write_bytes(whole[:size])
        with pytest.raises(ConfigError, match="cannot be read"):
            Loader(Prompts(), 0).load("red_team", [str(tmp_path / "p.jsonl.gz")])
    (tmp_path / "p.jsonl.gz").write_bytes(whole[:60] + bytes(40) + whole[100:])
    with pytest.raises(ConfigError, match=r"p\.jsonl\.gz"):
        Loader(Prompts(), 0).load("red_team", [str(tmp_path / "p.jsonl.gz")])


def test_a_shared_system_turn_makes_no_group(tmp_path: Path) -> None:
    rows = [
        {"messages": [{"role": "system", "content": "Help."}, {"role": "user", "content": f"{i}"}]}
        for i in range(100)
    ]
    prompts, _ = load(tmp_path, rows)
    assert len({prompt.group for prompt in prompts}) == 100
    assert len({prompt.split for prompt in prompts}) == 4
