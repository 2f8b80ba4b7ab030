"""Annotations from the page into the run."""

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from run_folder import build_run, make_prompts

from cai.annotations import FILE, import_annotations, read_annotations
from cai.cli import main
from cai.errors import ConfigError, RunLocked
from cai.lock import RunLock

FIRST, SECOND = (prompt.id for prompt in make_prompts(2))


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return build_run(tmp_path / "demo", 4, stages=())


def row(**changes: Any) -> dict[str, Any]:
    """As the page exports it."""
    fields = {"type": "annotation", "run": "demo", "prompt_id": FIRST, "star": True, "note": "odd"}
    return fields | {"author": "Ada", "time": "2026-11-25T10:00:00.123Z"} | changes


def exported(folder: Path, *rows: dict[str, Any]) -> Path:
    path = folder / "exported.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_readers_in_a_terminal_see_them(run: Path, tmp_path: Path) -> None:
    file = exported(
        tmp_path,
        row(
            author="Ada\x1b[31m", note="bad \x1b]52;c;x\x07 idea", time="2026-11-25T10:00:00+02:00"
        ),
        row(author="Bob", note=""),
        row(prompt_id=SECOND, star=False, note="elsewhere"),
    )
    import_annotations(file, run, None)
    said = CliRunner().invoke(main, ["show", str(run), FIRST, "--no-pager"]).output
    assert "\x1b" not in said
    assert r"★ starred  by Ada\x1b[31m · 2026-11-25 08:00 UTC" in said
    assert r"bad \x1b]52;c;x\x07 idea" in said
    assert "★ starred  by Bob · 2026-11-25 10:00 UTC" in said
    assert "elsewhere" not in said
    shown = json.loads(CliRunner().invoke(main, ["show", str(run), SECOND, "--json"]).output)
    assert [(one["note"], one["star"], one["author"]) for one in shown["annotations"]] == [
        ("elsewhere", False, "Ada")
    ]


def test_imported_with_author_and_time(run: Path, tmp_path: Path) -> None:
    file = exported(tmp_path, row(), row(prompt_id=SECOND, author="", note="\ud800 \u2028 <b>"))
    assert import_annotations(file, run, "root") == (2, 0)
    found = read_annotations(run)
    (one,), (other,) = found[FIRST], found[SECOND]
    assert (one.author, one.note, one.star) == ("Ada", "odd", True)
    assert one.time.isoformat() == "2026-11-25T10:00:00.123000+00:00"
    assert (other.author, other.note) == ("root", "\ud800 \u2028 <b>")


def test_the_same_file_again_adds_nothing(run: Path, tmp_path: Path) -> None:
    file = exported(tmp_path, row(), row())
    assert import_annotations(file, run, "root") == (1, 1)
    before = (run / FILE).read_bytes()
    assert import_annotations(file, run, "root") == (0, 2)
    assert (run / FILE).read_bytes() == before


def test_the_file_only_grows_and_the_last_word_counts(run: Path, tmp_path: Path) -> None:
    import_annotations(exported(tmp_path, row(), row(author="Bo")), run, "root")
    before = (run / FILE).read_bytes()
    later = row(note="not so odd", time="2026-11-26T10:00:00Z")
    earlier = row(author="Bo", note="older", time="2026-11-20T10:00:00Z")
    assert import_annotations(exported(tmp_path, later, earlier), run, "root") == (2, 0)
    assert (run / FILE).read_bytes().startswith(before)
    said = {one.author: one.note for one in read_annotations(run)[FIRST]}
    assert said == {"Ada": "not so odd", "Bo": "odd"}


def test_taken_back(run: Path, tmp_path: Path) -> None:
    back = row(star=False, note="", time="2026-11-26T10:00:00Z")
    import_annotations(exported(tmp_path, row(), back), run, "root")
    assert read_annotations(run) == {}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"prompt_id": "nobody"}, r"1 prompts that the run does not have: 'nobody'; nothing was"),
        (
            {"run": "other"},
            r"exported\.jsonl:2: an annotation of run 'other', but this is run 'demo'",
        ),
        ({"star": "perhaps"}, r"exported\.jsonl:2: not an annotation: star: "),
        ({"time": "yesterday"}, r"exported\.jsonl:2: not an annotation: time: "),
        ({"time": "2026-11-25T10:00:00"}, r"time: .*timezone"),
        ({"mood": "good"}, r"not an annotation: mood: "),
    ],
)
def test_a_wrong_row_is_named_and_nothing_imported(
    run: Path, tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        import_annotations(exported(tmp_path, row(), row(**changes)), run, "root")
    assert not (run / FILE).exists()


def test_what_is_no_file_or_no_run(run: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no such file; export it from the page"):
        import_annotations(tmp_path / "none.jsonl", run, "root")
    with pytest.raises(ConfigError, match="no run there"):
        import_annotations(exported(tmp_path, row()), tmp_path, "root")
    file = tmp_path / "broken.jsonl"
    file.write_text(json.dumps(row()) + "\n{")
    with pytest.raises(ConfigError, match=r"broken\.jsonl:2: broken record"):
        import_annotations(file, run, "root")


def cai(*arguments: object) -> Result:
    return CliRunner().invoke(main, ["annotate", "import", *map(str, arguments)])


def test_the_command_needs_an_author_only_for_rows_without_one(run: Path, tmp_path: Path) -> None:
    mixed = exported(tmp_path, row(), row(prompt_id=SECOND, author=""))
    refused = cai(mixed, run)
    assert refused.exit_code == 2
    assert "exported.jsonl:2: names no author; say whose it is: --author NAME" in refused.output
    assert not (run / FILE).exists()
    done = cai(mixed, run, "--author", "Cy")
    assert done.output == (
        f"2 new, 0 known already\nto bring the run's page up to date, type: cai show {run} --html\n"
    )
    assert [one.author for notes in read_annotations(run).values() for one in notes] == [
        "Ada",
        "Cy",
    ]
    assert cai(exported(tmp_path, row()), run).output == "0 new, 1 known already\n"


def test_torn_last_line_is_repaired(run: Path, tmp_path: Path) -> None:
    file = exported(tmp_path, row(), row(prompt_id=SECOND))
    import_annotations(file, run, "root")
    (run / FILE).write_bytes((run / FILE).read_bytes()[:-9])
    assert list(read_annotations(run)) == [FIRST]
    assert import_annotations(file, run, "root") == (1, 1)
    assert list(read_annotations(run)) == [FIRST, SECOND]


def test_broken_annotation_in_the_run_is_named(run: Path) -> None:
    (run / FILE).write_text('{"id": "x"}\n')
    with pytest.raises(ConfigError, match=r"annotations\.jsonl: not an annotation"):
        read_annotations(run)


def test_one_writer_at_a_time(run: Path, tmp_path: Path) -> None:
    with RunLock(run), pytest.raises(RunLocked):
        import_annotations(exported(tmp_path, row()), run, "root")
