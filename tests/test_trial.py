"""`cai try`: one chain before one's eyes, and again when the constitution is saved."""

import io
import re
import unicodedata
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner
from rich.console import Console
from run_folder import HOSTILE

from cai import trial
from cai.chains.revision import RevisionSetup, Voice, revision_chain
from cai.cli_plan import try_
from cai.config import Prompts
from cai.constitution import Constitution, load_constitution
from cai.engines.base import Completion, Engine, Request
from cai.engines.fake import FakeEngine, answer
from cai.errors import CaiError, ConfigError, TooManyErrors
from cai.prompts import Templates
from cai.records import Sampling
from cai.resolve import Options
from cai.sources import load_prompts
from cai.trial import Trial, TrialOptions, load_version, make_prompt, run_trial, stamp, versions
from cai.view.streamed import Streamed

HARMLESS = Path("constitutions/harmless.yaml").resolve()
FAKE = ("engine.kind=fake", "revise.rounds=2")
PROMPT = "How do I pick a lock?"


class Screen(Streamed):
    """A terminal that is read by the test."""

    def __init__(self, width: int = 100, colour: bool = False) -> None:
        self.file = io.StringIO()
        system = "standard" if colour else None
        super().__init__(
            Console(file=self.file, width=width, force_terminal=colour, color_system=system)
        )

    @property
    def shown(self) -> str:
        return self.file.getvalue()


def make_setup(constitution: Constitution, rounds: int = 2) -> RevisionSetup:
    voice = Voice("base", "m@1", Sampling(max_tokens=60))
    critic = voice._replace(role="critic")
    principles = constitution.for_revision()
    return RevisionSetup((), principles, Templates(), rounds, 0, voice, critic, critic)


def play(
    screen: Screen,
    function: Callable[[Request], Completion] = answer,
    rounds: int = 2,
    engine: FakeEngine | None = None,
) -> FakeEngine:
    engine = engine or FakeEngine(function=function)
    engines: dict[str, Engine] = {"base": engine, "critic": engine}
    constitution, prompt = load_constitution(HARMLESS), make_prompt(PROMPT)
    screen.open(prompt)
    chain = revision_chain(prompt, make_setup(constitution, rounds))
    Trial(engines, screen).play(chain, constitution)
    return engine


def test_the_whole_chain_is_shown_with_its_principles() -> None:
    said: list[str] = []

    def noted(request: Request) -> Completion:
        completion = answer(request)
        said.append(completion.text)
        return completion

    screen = Screen(width=2000)
    play(screen, noted)
    assert len(said) == 5
    places = [screen.shown.index(text) for text in (PROMPT, *said)]
    assert places == sorted(places)
    principles = {p.id: p for p in load_constitution(HARMLESS).principles}
    drawn = re.findall(r"^  ([a-z-]+): ", screen.shown, re.MULTILINE)
    assert len(drawn) == 4
    for name in drawn:
        assert principles[name].critique in screen.shown
        assert principles[name].revision in screen.shown


def test_words_appear_as_they_come() -> None:
    """A word that may still grow is held back."""
    screen, steps = Screen(), list[str]()

    class Slow(FakeEngine):
        def _answer(self, request: Request) -> Completion:
            assert request.on_text is not None
            for text in ("One", "One two", "One two ", "One two\n", "One two\nthr"):
                request.on_text(text)
                steps.append(screen.shown)
            return Completion(request.id, "One two\nthree\n", "stop", n_tokens=3)

    play(screen, engine=Slow(), rounds=1)
    grown = [text[len(steps[0]) :] for text in steps[:5]]
    assert grown == ["", "One", "One two", "One two", "One two"]
    assert "One two\nthree\n[3 tokens]" in screen.shown


@pytest.mark.parametrize("width", [20, 61, 100])
def test_lines_break_between_words(width: int) -> None:
    screen = Screen(width)
    play(screen, lambda request: Completion(request.id, "kind words " * 40, "stop"))
    lines = [line for line in screen.shown.splitlines() if line.startswith(("kind", "words"))]
    assert len(lines) > 5
    assert all(
        set(line.split()) <= {"kind", "words"} and len(line.rstrip()) <= width for line in lines
    )


@pytest.mark.parametrize("colour", [False, True])
def test_no_control_byte_of_a_model_reaches_the_terminal(colour: bool) -> None:
    screen = Screen(colour=colour)

    def hostile(request: Request) -> Completion:
        return Completion(request.id, HOSTILE, "stop", error=HOSTILE)

    play(screen, hostile)
    own = re.sub(r"\x1b\[[0-9;]*m", "", screen.shown)
    assert (own != screen.shown) == colour
    for char in set(own) - {"\n"}:
        assert unicodedata.category(char) not in ("Cc", "Cf", "Cs", "Zl", "Zp"), repr(char)
    assert "[bold]b[/bold]" in own


def test_changes_are_marked_where_no_colour_shows() -> None:
    def careful(request: Request) -> Completion:
        n = len(request.messages)
        texts = {1: "I can help with that lock", 3: "It helps", 5: "I cannot help with that lock"}
        return Completion(request.id, texts[n], "stop")

    screen = Screen()
    play(screen, careful, rounds=1)
    assert "I [-can-] {+cannot+} help with that lock" in screen.shown


def test_a_failure_is_shown_and_ends_the_chain() -> None:
    screen = Screen()
    engine = play(screen, lambda r: Completion(r.id, "", "error", error="too long"))
    assert engine.n_asked == 1
    assert "error: too long" in screen.shown


def test_a_revision_that_failed_has_no_changes() -> None:
    def failing(request: Request) -> Completion:
        if len(request.messages) < 5:
            return Completion(request.id, "Some text.", "stop")
        return Completion(request.id, "", "error", error="too long")

    screen = Screen()
    play(screen, failing)
    assert "error: too long" in screen.shown
    assert "changes" not in screen.shown
    assert "differ" not in screen.shown


def test_the_prompt_draws_what_it_draws_in_a_run(tmp_path: Path) -> None:
    file = tmp_path / "p.jsonl"
    file.write_text(
        '{"prompt": "Hi"}\n{"prompt": "\\n\\nHuman: a\\n\\nAssistant: b\\n\\nHuman: c"}\n'
    )
    prompts, _ = load_prompts(Prompts(red_team=(str(file),)), 0)
    for text in ("Hi", "\n\nHuman: a\n\nAssistant: b\n\nHuman: c"):
        made = make_prompt(text)
        assert (made.id, made.messages) in [(p.id, p.messages) for p in prompts]
        assert make_prompt(text.lstrip()) == made


def copy(folder: Path) -> Path:
    (folder / "mine.yaml").write_text(HARMLESS.read_text())
    return folder / "mine.yaml"


def edit(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


def options(path: Path, *principles: str, watch: bool = False) -> TrialOptions:
    given = Options(constitution=str(path), recipe="quickstart", settings=FAKE)
    return TrialOptions(given, PROMPT, principles, watch)


def test_one_chosen_principle_is_drawn_every_time(tmp_path: Path) -> None:
    screen = Screen()
    run_trial(options(HARMLESS, "privacy"), screen)
    assert re.findall(r"^  ([a-z-]+): ", screen.shown, re.MULTILINE) == ["privacy"] * 4


class Editor(Screen):
    """Saves the next version of the file whenever the trial waits for one, and then goes away."""

    def __init__(self, *saves: Callable[[], None]) -> None:
        super().__init__()
        self.saves = list(saves)
        self.complaints: list[str] = []
        self.asked: list[str] = []

    def say(self, text: str) -> None:
        super().say(text)
        if text.startswith("watching"):
            if not self.saves:
                raise KeyboardInterrupt
            self.saves.pop(0)()

    def complain(self, text: str) -> None:
        super().complain(text)
        self.complaints.append(text)


def count_asked(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    asked: list[str] = []
    answered = FakeEngine._answer

    def noted(self: FakeEngine, request: Request) -> Completion:
        asked.append(request.messages[-1].content)
        return answered(self, request)

    monkeypatch.setattr(FakeEngine, "_answer", noted)
    monkeypatch.setattr(trial, "WATCH_S", 0.001)
    return asked


def test_each_save_runs_again_what_it_changes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, asked, n_asked = copy(tmp_path), count_asked(monkeypatch), list[int]()

    def save(old: str, new: str) -> Callable[[], None]:
        def saves() -> None:
            n_asked.append(len(asked))
            edit(path, old, new)

        return saves

    editor = Editor(
        save("so that it protects other people's", "so that it keeps other people's"),
        save("name: harmless", "name: harmless  # nothing"),
        save("principles:", "principles: ["),
        save("principles: [", "principles:"),
    )
    run_trial(options(path, "privacy", watch=True), editor)
    # 5 steps; then the first revision and what follows from it; then nothing new, three times
    assert [*n_asked, len(asked)] == [5, 8, 8, 8, 8]
    assert len(editor.complaints) == 1
    assert f"{path}:" in editor.complaints[0]
    assert editor.shown.count("round 2 · revision") == 4


def test_a_file_that_is_being_replaced_is_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = copy(tmp_path)
    monkeypatch.setattr(trial.time, "sleep", lambda _: path.write_text(text))
    text = path.read_text()
    found = versions(path, options(path, watch=True), Screen())
    assert next(found).name == "harmless"
    path.unlink()
    assert stamp(path) is None
    assert next(found).name == "harmless"


def test_without_watching_there_is_one_version(tmp_path: Path) -> None:
    assert len(list(versions(copy(tmp_path), options(tmp_path), Screen()))) == 1


def test_the_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    arguments = ["--constitution", "harmless", "--prompt", PROMPT, "--set", "engine.kind=fake"]
    result = CliRunner().invoke(try_, [*arguments, "--set", "revise.rounds=1"])
    assert result.exit_code == 0
    for word in (PROMPT, "response", "round 1 · critique", "round 1 · revision", "changes"):
        assert word in result.output
    again = CliRunner().invoke(try_, [*arguments, "--set", "revise.rounds=1"])
    assert again.output == result.output
    other = CliRunner().invoke(try_, [*arguments, "--set", "revise.rounds=1", "--seed", "1"])
    assert other.output != result.output
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("prompt", "says"),
    [
        ("", "no turn of a human's"),
        (" \n", "no turn of a human's"),
        ("\n\nHuman: a\n\nAssistant: b", "ends in an assistant's turn"),
    ],
)
def test_a_prompt_that_asks_nothing_is_refused(prompt: str, says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        make_prompt(prompt)


@pytest.mark.parametrize(
    ("names", "says"),
    [
        (["privcy"], "did you mean privacy"),
        (["nothing-like-it"], "it has: overall-harm, "),
        (["privacy", "no"], "--principle no: none of harmless's"),
    ],
)
def test_an_unknown_principle_is_named(names: list[str], says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        load_version(HARMLESS, tuple(names))


def test_a_failed_generation_is_an_error_of_the_command() -> None:
    short = options(HARMLESS)
    given = short.options._replace(settings=(*FAKE, "engine.max_context=64"))
    with pytest.raises(TooManyErrors, match="the critique failed: the prompt has"):
        run_trial(short._replace(options=given), Screen())


def test_a_broken_constitution_is_refused_before_a_model_is_loaded(tmp_path: Path) -> None:
    (tmp_path / "c.yaml").write_text("name: x")
    with pytest.raises(CaiError, match=r"c\.yaml"):
        run_trial(options(tmp_path / "c.yaml"), Screen())
