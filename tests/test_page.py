"""The transcript page as a file: what is in it and that nothing in it is more than data."""

import base64
import json
import re
import zlib
from pathlib import Path
from typing import Any

import pytest
from chromium import required
from page_runs import edge_run, hostile_run, rich_run
from payloads import PAYLOADS
from run_folder import BAD, GOOD, HOSTILE, STAGES, build_run, make_prompts

from cai.errors import ConfigError
from cai.view.page import (
    ASSETS,
    SCRIPTS,
    STYLES,
    assemble,
    asset,
    group,
    pack,
    source_hash,
    write_page,
)
from cai.words import word_change


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return rich_run(tmp_path_factory.mktemp("runs") / "demo")


@pytest.fixture(scope="module")
def page(run: Path) -> str:
    return write_page(run).read_text()


def blocks(page: str) -> dict[str, Any]:
    """The page's data by the id of its block."""
    found: dict[str, Any] = {}
    for kind, id, text in re.findall(r'<script type="([^"]+)" id="([^"]+)">(.*?)</script>', page):
        packed = kind == "text/plain"
        found[id] = json.loads(zlib.decompress(base64.b64decode(text)) if packed else text)
    return found


def chains(page: str) -> list[dict[str, Any]]:
    data = blocks(page)
    rows = [row for n in range(len(data["run"]["chunks"])) for row in data[f"chunk-{n}"]]
    assert [len(data[f"chunk-{n}"]) for n in range(len(data) - 2)] == data["run"]["chunks"]
    return rows


@pytest.mark.parametrize("text", PAYLOADS)
def test_data_survives_and_cannot_leave_its_block(text: str) -> None:
    page = assemble(text, "", "", {"run": {text: [text]}, "chunk-0": pack(json.dumps([text]))})
    assert blocks(page) == {"run": {text: [text]}, "chunk-0": [text]}
    assert page.count("<script") == 3
    assert page.count("</script>") == 3
    data = page[page.index('id="run">') + 9 : page.index("</script>")]
    assert not set(data) & set("<>&\u2028\u2029")
    assert data.isascii()


def test_title_is_escaped() -> None:
    page = assemble("</title><script>alert(1)</script>", "", "", {})
    assert "<title>&lt;/title&gt;&lt;script&gt;alert(1)&lt;/script&gt;</title>" in page


def test_policy_allows_the_assets_by_hash_and_nothing_else(page: str) -> None:
    (policy,) = re.findall(r'http-equiv="Content-Security-Policy" content="([^"]+)"', page)
    rules = dict(rule.strip().split(" ", 1) for rule in policy.split(";"))
    assert rules["default-src"] == "'none'"
    assert rules["script-src"] == source_hash(asset(*SCRIPTS))
    assert rules["style-src"] == source_hash(asset(*STYLES))
    assert rules["require-trusted-types-for"] == "'script'"
    assert "unsafe" not in policy
    assert f"<script>{asset(*SCRIPTS)}</script>" in page
    assert f"<style>{asset(*STYLES)}</style>" in page


def test_nothing_in_the_page_can_load(page: str) -> None:
    assert not re.search(r"""(?:src|srcset|action)=["']""", page)
    assert set(re.findall(r'href="([^"]*)"', page)) == {"#overview", "#principles"}
    code = asset(*SCRIPTS)
    for word in (
        "innerHTML",
        "outerHTML",
        "insertAdjacentHTML",
        "document.write",
        "eval(",
        "fetch(",
    ):
        assert word not in code
    assert "</script" not in code
    assert "<!--" not in code


@pytest.mark.parametrize("path", sorted(ASSETS.glob("*.*")), ids=lambda path: path.name)
def test_assets_are_small_and_plain(path: Path) -> None:
    text = path.read_text()
    assert text.count("\n") <= 300
    assert "\r" not in text
    assert "@import" not in text
    assert "url(" not in text


def test_chains_of_the_page(page: str) -> None:
    rows, index = chains(page), blocks(page)["run"]["chains"]
    assert index["id"] == [prompt.id for prompt in make_prompts(24)]
    first = rows[0]
    assert [round["round"] for round in first["rounds"]] == [1, 2]
    assert first["rounds"][1]["change"] == 0
    assert first["response"]["reward"] is not None
    assert first["annotations"][0]["author"] == "Ada"
    assert index["annotations"][:2] == [1, 0]
    assert index["head"][5].endswith("Number5.")
    assert index["reward"][3] == pytest.approx(rows[3]["answers"][2]["reward"], abs=1e-3)


def test_failed_texts_are_no_change(tmp_path: Path) -> None:
    index = blocks(write_page(edge_run(tmp_path / "run")).read_text())["run"]["chains"]
    partly, revision, critique, whole = (index["change"][i] for i in (0, 1, 12, 13))
    assert partly == pytest.approx(word_change(BAD, GOOD), abs=1e-3)
    assert (revision, critique) == (None, None)
    assert whole > 0
    assert index["changes"][0] == [pytest.approx(partly), None]
    assert index["changes"][1] == index["changes"][12] == [None]
    assert [index["length"][i] for i in (0, 1, 12)] == [
        24,
        *(len(text.split()) for text in (HOSTILE, BAD)),
    ]


def test_pairs_of_the_page(page: str) -> None:
    rows = chains(page)
    (reasoned,), (assumed,), (unscored,) = (rows[i]["pairs"] for i in (4, 5, 6))
    assert (reasoned["first"], reasoned["second"], reasoned["p"]) == ("sample 0", "sample 1", 0.55)
    assert reasoned["orders"] == [0.8, 0.3]
    assert [label["reasoning"]["text"] for label in reasoned["labels"]] == [
        "Because 0 harms less.",
        "Because 1 harms less.",
    ]
    assert assumed["labels"] == []
    assert assumed["preference"] == {"chosen": "sample 0", "rejected": "sample 1", "p": 1.0}
    assert "p" not in unscored
    assert unscored["labels"][0]["unscored"] == "no verdict at all"
    stages = {(pair["stage"], pair["first"], pair["second"]) for pair in rows[3]["pairs"]}
    assert stages == {("evaluate", "base", "sft"), ("evaluate", "base", "rl")}


def test_overview_of_the_page(page: str) -> None:
    overview = blocks(page)["run"]["overview"]
    assert [stage["name"] for stage in overview["stages"]] == list(STAGES)
    assert [curve["title"][:3] for curve in overview["curves"]] == ["SFT", "Rew", "RL:", "RL:"]
    assert overview["selection"]["chosen"] == 40
    assert ["learnt from: human.jsonl", "12"] in overview["sources"]
    assert overview["evaluation"][0][0] == "mean reward"
    assert any("held-out prompts" in warning for warning in overview["warnings"])


@pytest.mark.parametrize("n_stages", range(len(STAGES) + 1))
def test_page_of_a_run_that_stopped_early(tmp_path: Path, n_stages: int) -> None:
    run = build_run(tmp_path / "run", stages=STAGES[:n_stages])
    page = write_page(run).read_text()
    assert len(chains(page)) == 24
    assert blocks(page)["run"]["overview"]["missing"] == [
        name for name in STAGES if not list(run.glob(f"0?-{name}"))
    ]


def test_page_of_an_empty_folder_and_of_none(tmp_path: Path) -> None:
    page = write_page(tmp_path, tmp_path / "page.html").read_text()
    assert blocks(page)["run"]["chains"]["id"] == []
    with pytest.raises(ConfigError, match="no such run folder"):
        write_page(tmp_path / "none")


def test_every_hostile_text_survives(tmp_path: Path) -> None:
    page = write_page(hostile_run(tmp_path / "run"), tmp_path / "out.html").read_text()
    rows = chains(page)
    assert [row["response"]["text"] for row in rows] == list(PAYLOADS)
    assert [row["answers"][2]["error"] for row in rows] == list(PAYLOADS)
    assert len(re.findall(r"<script[ >]", page)) == 3 + len(blocks(page)["run"]["chunks"])


@pytest.mark.parametrize(("ci", "outcome"), [("", pytest.skip), ("1", pytest.fail)])
def test_without_a_browser_tests_skip_but_fail_in_ci(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, ci: str, outcome: Any
) -> None:
    monkeypatch.setenv("CI", ci)
    with pytest.raises(outcome.Exception, match="apt-get install chromium, or set CHROMIUM"):
        required(tmp_path / "none")


def test_groups_hold_every_row_in_order() -> None:
    rows = ["x" * 150_000] * 7 + ["y" * 900_000, "z"]
    found = list(group(rows))
    assert [row for rows in found for row in rows] == rows
    assert [len(rows) for rows in found] == [3, 3, 2, 1]
    assert list(group([])) == []
