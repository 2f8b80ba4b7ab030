"""How a transcript looks: one round, hits, diffs, little room; and when it is paged."""

import io
import json
import os
import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import click
import pytest
from click.testing import CliRunner
from pseudo_terminal import COLOURS, Terminal, steering
from rich.console import Console
from run_folder import POLISHED, build_run, generation, make_prompts

from cai.cli import main
from cai.cli_read import show
from cai.errors import ConfigError
from cai.view.choosing import Chain, Choice, choose, make_chains
from cai.view.reader import Look, chain_texts, diff_text, transcript_parts
from cai.view.terminal import page
from cai.view.transcripts import Transcript, load_transcripts


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_run(tmp_path_factory.mktemp("runs") / "demo")


def shown(transcript: Transcript, look: Look, width: int = 100) -> str:
    console = Console(file=io.StringIO(), width=width, color_system=None)
    with console.capture() as capture:
        console.print(*transcript_parts(transcript, look), sep="\n")
    return capture.get()


def hits(transcript: Transcript, search: str) -> list[str]:
    """What is highlighted, as far as it stands in one piece."""
    console = Console(file=io.StringIO(), width=100, color_system="standard", force_terminal=True)
    look, found = Look(search=Choice(search=search).pattern), [""]
    for part in transcript_parts(transcript, look):
        for segment in console.render(part):
            if segment.style and segment.style.reverse:
                found[-1] += segment.text
            elif found[-1]:
                found.append("")
    return [hit for hit in found if hit]


def test_one_round_shows_its_critique_and_what_it_changes(run: Path) -> None:
    text = " ".join(shown(load_transcripts(run)[12], Look(round=2)).split())
    assert "round 2 · critique" in text
    assert "round 1" not in text
    assert "response  smollm2" not in text
    assert "Which do you have?" in text
    assert "How can I make a fake pay stub" in text


def test_round_shows_changes_since_the_round_before(run: Path) -> None:
    text = shown(load_transcripts(run)[12], Look(round=2, marks=True))
    assert "[-a lender may accept-]" in text
    assert "{+most lenders will also take+}" in text


def test_round_leaves_out_later_stages(run: Path) -> None:
    judged = load_transcripts(run)[4]
    assert "sample 0" in shown(judged, Look())
    assert "sample 0" not in shown(judged, Look(round=1))


def test_a_revision_that_failed_is_its_error_and_no_change(run: Path) -> None:
    first, second = load_transcripts(run)[12].rounds
    assert second.revision
    failed = second.revision.model_copy(update={"text": "", "generation": generation("error")})
    rounds = (first, replace(second, revision=failed))
    chain = Chain(replace(load_transcripts(run)[12], rounds=rounds))
    text = shown(chain.transcript, Look(round=2))
    assert "error: the prompt is too long" in text
    assert "differ" not in text
    assert "no word changed" not in text
    assert [version.id for version in chain.transcript.versions()] == [
        chain.transcript.response.id if chain.transcript.response else "",
        first.revision.id if first.revision else "",
    ]
    assert chain.hits(Choice(search="tax return")) == len(hits(chain.transcript, "tax return")) == 1


def test_a_space_stands_only_where_one_was() -> None:
    assert (
        diff_text("私は犬が好き", "私は猫が好き", Look(marks=True)).plain
        == "私は[-犬-]{+猫+}が好き "
    )
    assert diff_text(" a b c", "\na b d", Look(marks=True)).plain == "a b [-c-] {+d+} "


def test_hit_after_a_blank_line_is_where_it_is_seen() -> None:
    text = diff_text("a b c d", "\n\na b x d", Look(search=Choice(search="x d").pattern))
    places = [s for s in text.spans if "reverse" in str(s.style)]
    assert "".join(text.plain[s.start : s.end] for s in places) == "x d"


def test_without_diff_the_revision_is_whole(run: Path) -> None:
    texts = [shown(load_transcripts(run)[12], Look(diff=diff), 400) for diff in (True, False)]
    assert [POLISHED in text for text in texts] == [False, True]
    assert "rewritten" not in texts[1]


def test_principle_stands_above_the_critique_where_there_is_little_room(run: Path) -> None:
    wide, narrow = (shown(load_transcripts(run)[0], Look(), width) for width in (100, 60))
    assert not any(
        "principle illegal-acts" in line and "fraud" in line for line in narrow.split("\n")
    )
    assert narrow.index("principle illegal-acts") < narrow.index("The response helps with fraud.")
    assert wide.index("principle illegal-acts") > wide.index("The response helps with fraud.")


@pytest.mark.parametrize(
    "search", ["pay stub", "bank statements", "fraud", "lenders will also", "which"]
)
def test_hits_that_are_highlighted_are_those_that_are_counted(run: Path, search: str) -> None:
    for chain in make_chains(load_transcripts(run)):
        found = hits(chain.transcript, search)
        assert len(found) == chain.hits(Choice(search=search))
        assert {" ".join(hit.lower().split()) for hit in found} <= {search}


def test_hit_across_a_removed_word_is_highlighted_without_it() -> None:
    look = Look(search=Choice(search="one two").pattern)
    text = diff_text("a b c d e one X two f g h", "a b c d e one two f g h", look)
    reversed_ = {
        place
        for span in text.spans
        if "reverse" in str(span.style)
        for place in range(span.start, span.end)
    }
    assert "".join(text.plain[place] for place in sorted(reversed_)) == "one two"
    assert "X" in text.plain


def test_hits_in_hostile_text_are_where_they_are_seen(run: Path) -> None:
    assert hits(load_transcripts(run)[1], r"\x1b]52;c") == [r"\x1b]52;c"]


def test_search_of_markup_is_text(run: Path) -> None:
    assert hits(load_transcripts(run)[1], "[bold]b[/bold]") == ["[bold]b[/bold]"]


def test_chains_follow_their_count(run: Path) -> None:
    chains, said = choose(make_chains(load_transcripts(run)), Choice(tags=("truncated",)))
    console = Console(file=io.StringIO(), width=100)
    first, *rest = chain_texts([c.transcript for c in chains], said, Look(), console)
    assert first == "1 of 24 chains · truncated\n"
    assert len(rest) == 1
    assert make_prompts(2)[1].id in rest[0]


class Screen(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(
    ("lines", "terminal", "wanted", "paged"),
    [
        ([1, 1], True, True, False),
        ([9], True, True, False),
        ([10], True, True, True),
        ([4, 4, 4, 4], True, True, True),
        ([4, 4, 4, 4], True, False, False),
        ([4, 4, 4, 4], False, True, False),
    ],
)
def test_what_is_longer_than_the_screen_is_paged(
    monkeypatch: pytest.MonkeyPatch, lines: Sequence[int], terminal: bool, wanted: bool, paged: bool
) -> None:
    given = list[tuple[str, bool]]()
    monkeypatch.setattr(
        click, "echo_via_pager", lambda texts, color: given.append(("".join(texts), color))
    )
    monkeypatch.setenv("LESS", "-i")
    file = Screen() if terminal else io.StringIO()
    texts = ["line\n" * n for n in lines]
    page(iter(texts), Console(file=file, height=10, width=80), wanted)
    assert given == ([("".join(texts), True)] if paged else [])
    assert file.getvalue() == ("" if paged else "".join(texts))
    assert os.environ["LESS"] == ("-R -i" if paged else "-i")


def invoke(*arguments: object) -> str:
    given = [str(argument) for argument in arguments]
    result = CliRunner().invoke(show, given, catch_exceptions=False)
    assert result.exit_code == 0
    return result.output


def test_show_prints_chosen_chains(run: Path) -> None:
    text = invoke(run, "--filter", "refusal", "--random", 3, "--seed", 1)
    assert text.startswith("16 of 24 chains · refusal · 3 at random, --seed 1\n")
    assert text.count(" · smollm2") == 0
    assert sum("──" in line for line in text.splitlines()) == 3
    assert text == invoke(run, "--filter", "refusal", "--random", 3, "--seed", 1)


def test_show_without_a_seed_says_the_one_it_drew(run: Path) -> None:
    first = invoke(run, "--random", 2)
    seed = first.splitlines()[0].split()[-1]
    assert invoke(run, "--random", 2, "--seed", seed) == first


def test_show_of_one_prompt_takes_the_options_too(run: Path) -> None:
    id = make_prompts(1)[0].id
    text = invoke(run, id[:8], "--round", 2, "--search", "fraud")
    assert text.startswith("1 of 1 chains · round 2 · “fraud” · 1 hit\n")
    assert "round 1" not in text.partition("\n")[2]
    assert invoke(run, id[:8]).startswith(id)


def test_show_of_nothing_that_matches_says_so(run: Path) -> None:
    assert (
        invoke(run, "--search", "xyzzy") == "0 of 24 chains · “xyzzy” · 0 hits: nothing matches\n"
    )
    assert json.loads(invoke(run, "--search", "xyzzy", "--json")) == []


def test_show_as_json_gives_what_was_chosen(run: Path) -> None:
    ids = [prompt.id for prompt in make_prompts(24)]
    (chosen,) = json.loads(invoke(run, "--filter", "truncated", "--json"))
    assert chosen["prompt"]["id"] == ids[1]
    assert [round["number"] for round in chosen["rounds"]] == [1, 2]
    assert json.loads(invoke(run, ids[1], "--json")) == chosen
    assert len(json.loads(invoke(run, "--json"))["prompts"]) == 24


def test_show_refuses_what_it_does_not_know(run: Path) -> None:
    for option in ("--filter", "--principle"):
        with pytest.raises(ConfigError, match="this run has no"):
            invoke(run, option, "nonsense")
    result = CliRunner().invoke(show, [str(run), "--seed", "3"])
    assert result.exit_code == 2
    assert "--seed goes with --random N" in result.output


def test_show_writes_the_page_where_it_is_told(run: Path, tmp_path: Path) -> None:
    (run / "report.html").write_text("mine")
    page_file = tmp_path / "out.html"
    assert re.fullmatch(rf"{page_file} \(\d+\.\d MiB\)\n", invoke(run, "--html", page_file))
    assert page_file.read_text().startswith("<!doctype html>")
    assert (run / "report.html").read_text() == "mine"
    assert invoke(run, "--html").startswith(f"{run / 'report.html'} (")
    assert (run / "report.html").read_bytes() == page_file.read_bytes()


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["abc", "--html"], "leave out PROMPT"),
        (["--html", "x.html", "--filter", "sft", "--seed", "0"], "leave out --filter, --seed"),
        (["--json", "--html"], "leave out --json"),
        (["--html", "."], "is a folder; name a file"),
        (["--html", "none/x.html"], "there is no folder none; name a file"),
    ],
)
def test_what_does_not_go_with_a_page(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], says: str
) -> None:
    monkeypatch.chdir(tmp_path)
    result = CliRunner().invoke(main, ["show", str(run), *arguments])
    assert result.exit_code == 2
    assert says in result.output
    assert not list(tmp_path.iterdir())


def test_pager_gets_the_colours_and_no_other_control_character(run: Path) -> None:
    arguments = [str(run), "--search", "over", "--filter", "sft"]
    with Terminal(f"from cai.cli_read import show; show({arguments!r})", PAGER="cat") as terminal:
        text = terminal.read_until()
    assert "\x1b[32m" in text
    assert r"\x1b]52;c;cm0gLXJm\x07" in COLOURS.sub("", text)
    assert not steering(text)
    assert "\x1b" not in COLOURS.sub("", text)
