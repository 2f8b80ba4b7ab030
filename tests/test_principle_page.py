"""What each principle did: numbers computed by hand."""

from pathlib import Path

import pytest
from run_folder import build_run

from cai.constitution import Principle
from cai.view.principle_page import Agreement, Drawn, agreements, drawn, principle_rows
from cai.view.transcripts import load_transcripts, read_principles

KIND = Principle(id="kind", critique="Is it unkind?", revision="Make it kind.", weight=2.0)


def test_numbers_of_a_principle() -> None:
    rounds = [
        Drawn("kind", 0.5, 1.0, 2.0),
        Drawn("kind", 0.0, 2.0, 2.0),
        Drawn("kind", None, None, None),
        Drawn("kind", 0.1, 3.0, None),
        Drawn("odd", 1.0, None, None),
    ]
    judged = [Agreement("kind", True), Agreement("kind", False), Agreement("odd", True)]
    kind, odd = principle_rows(["kind", "odd"], {"kind": KIND}, rounds, judged)
    assert (kind["n_drawn"], kind["n_without_revision"], kind["n_pairs"]) == (4, 1, 2)
    assert kind["changed"]["value"] == pytest.approx(2 / 3)
    assert kind["change"]["value"] == pytest.approx(0.2)
    assert kind["before"]["value"] == 1.5
    assert kind["after"]["value"] == 2.0
    assert kind["gain"]["value"] == 0.5
    assert kind["agree"]["value"] == 0.5
    assert (kind["critique"], kind["weight"], kind["known"]) == ("Is it unkind?", 2.0, True)
    assert (odd["known"], odd["n_drawn"], odd["gain"]) == (False, 1, None)


def test_a_principle_that_was_never_drawn_has_no_numbers() -> None:
    (row,) = principle_rows(["kind"], {"kind": KIND}, [], [])
    assert row["n_drawn"] == row["n_pairs"] == 0
    assert {row[name] for name in ("changed", "change", "before", "after", "gain", "agree")} == {
        None
    }


def test_rounds_and_pairs_of_a_run(tmp_path: Path) -> None:
    run = build_run(tmp_path / "run")
    transcripts = load_transcripts(run)
    first, second = drawn(transcripts[0])
    assert (first.principle_id, second.principle_id) == ("illegal-acts", "overall-harm")
    assert first.change is not None
    assert first.change > 0.5
    assert second.change == 0
    assert first.after == second.before == transcripts[0].rewards[transcripts[0].versions()[1].id]
    assert [agreements(transcripts[i])[0].agrees for i in (4, 5)] == [False, True]
    rounds = [one for transcript in transcripts for one in drawn(transcript)]
    judged = [one for transcript in transcripts for one in agreements(transcript)]
    rows = principle_rows(read_principles(run), read_principles(run), rounds, judged)
    assert [(row["id"], row["n_drawn"]) for row in rows] == [
        ("overall-harm", 4),
        ("illegal-acts", 4),
    ]
