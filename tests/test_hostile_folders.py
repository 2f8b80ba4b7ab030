"""Names, templates and model folders that somebody else has made: nothing escapes, nothing runs."""

import itertools
import json
import pickle
import shutil
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import jinja2
import pytest
from fake_run import start
from test_page import blocks

from cai.constitution import find_constitution, load_constitution
from cai.engines.base import Completion, Request
from cai.engines.fake import FakeEngine
from cai.errors import ConfigError
from cai.models import check_folder, resolve_model
from cai.opening import run_folder
from cai.prepare import prepare
from cai.resolve import Options, resolve_config
from cai.resources import packaged
from cai.run import read_rows

pytest_plugins = ["tiny_fixtures"]

CANARY = Path("/tmp") / "cai-canary"
NAMES = {
    "up": "../../escaped",
    "up at the end": "x/../../../escaped",
    "only up": "..",
    "here": ".",
    "nothing": "",
    "absolute": "/tmp/cai-escaped",
    "home": "~/escaped",
    "NUL": "a\0b",
    "line break": "a\nb",
    "backslash": "..\\..\\escaped",
    "too long": "x" * 300,
    "far too long": "x" * 100_000,
    "long parts": "/".join(["y" * 250] * 20),
    "right to left": "a\u202egnp.x",
    "fullwidth slash and dots": "\uff0e\uff0e\uff0fescaped",
    "look-alike": "r\u0435d",
    "device of another system": "CON",
    "stream": "a:b",
    "trailing dot": "x.",
    "shell": "$(touch /tmp/cai-escaped)",
    "option": "--help",
    "escape sequence": "\x1b[2J",
}


@pytest.fixture(autouse=True)
def unchanged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[None]:
    """Works in `inner/inner` of a folder in which nothing may change, nor in /tmp; no canary."""
    monkeypatch.setenv("HOME", str(tmp_path))
    work = tmp_path / "inner" / "inner"
    work.mkdir(parents=True)
    monkeypatch.chdir(work)
    monkeypatch.setenv("MPLCONFIGDIR", str(work))
    CANARY.unlink(missing_ok=True)
    before = {path for path in tmp_path.rglob("*") if work not in path.parents}
    yield
    after = {path for path in tmp_path.rglob("*") if work not in path.parents}
    assert after == before
    assert not CANARY.exists()
    assert not Path("/tmp/cai-escaped").exists()


@pytest.mark.parametrize("name", NAMES.values(), ids=NAMES)
def test_a_recipes_name_stays_in_runs(name: str) -> None:
    Path("c.yaml").write_text(json.dumps({"recipe": name, "engine": {"kind": "fake"}}))
    options = Options(constitution="harmless.yaml", config="c.yaml")
    try:
        config = resolve_config(options)
    except ConfigError:
        return
    prepared = prepare(options)
    assert prepared.config == config
    folder = run_folder(prepared, None)
    assert folder.resolve().parent == Path("runs").resolve()
    assert name in ("CON", "x.") or "/" not in name


@pytest.mark.parametrize("name", NAMES.values(), ids=NAMES)
def test_a_constitutions_name_stays_in_runs(name: str) -> None:
    data = {"name": name, "version": "1", "description": "d", "source": "s", "license": "l"}
    data |= {"principles": [{"id": "a", "critique": "c", "revision": "r", "preference": "p"}]}
    Path("c.yaml").write_text(json.dumps(data))
    with suppress(ConfigError):
        found = load_constitution(Path("c.yaml"))
        prepared = SimpleNamespace(
            constitution=found,
            templates=SimpleNamespace(paths={}),
            prompts=[],
            readings=[],
            config=resolve_config(Options(constitution="c.yaml")),
        )
        folder = run_folder(prepared, None)  # type: ignore[arg-type]
        assert folder.resolve().parent == Path("runs").resolve()


@pytest.mark.parametrize(
    "name", [n for n in NAMES.values() if n != "--help"], ids=[n for n in NAMES if n != "option"]
)
def test_whatever_is_named_is_found_or_refused(name: str) -> None:
    """As a file of each kind, a model, a source of prompts: ConfigError is the only error."""
    for options in (
        Options(constitution=name),
        Options(constitution="harmless.yaml", recipe=name),
        Options(constitution="harmless.yaml", config=name),
    ):
        with suppress(ConfigError):
            resolve_config(options)
    with suppress(ConfigError):
        load_constitution(find_constitution(name))
    with pytest.raises(ConfigError):
        resolve_model(name)


class Payload:
    """Unpickled, it leaves the canary."""

    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.touch, (CANARY,))


CODE = f"open({str(CANARY)!r}, 'w').close()\n"


@pytest.fixture
def hostile(tiny: str) -> Path:
    folder = Path("model")
    shutil.copytree(tiny, folder)
    poison(folder)
    return folder


def poison(folder: Path) -> None:
    """Put everything beside a model that some loader would run."""
    for name in ("pytorch_model.bin", "training_args.bin", "optimizer.pt", "scheduler.pt"):
        (folder / name).write_bytes(pickle.dumps(Payload()))
    for name in ("adapter_model.bin", "tf_model.h5", "rng_state.pth", "flax_model.msgpack"):
        (folder / name).write_bytes(pickle.dumps(Payload()))
    (folder / "custom_generate").mkdir()
    for name in ("code.py", "custom_generate/generate.py", "__init__.py", "setup.py", "torch.py"):
        (folder / name).write_text(CODE)
    edit(
        folder / "config.json", auto_map={"AutoConfig": "code.C", "AutoModelForCausalLM": "code.M"}
    )
    edit(folder / "tokenizer_config.json", auto_map={"AutoTokenizer": ["code.T", "code.T"]})
    edit(folder / "generation_config.json", custom_generate="model")


def edit(path: Path, **values: Any) -> None:
    """Set values of a JSON file."""
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


def test_the_canary_sings_where_it_is_let(unchanged: None) -> None:
    pickle.loads(pickle.dumps(Payload()))
    assert CANARY.exists()
    CANARY.unlink()
    exec(CODE)
    assert CANARY.exists()
    CANARY.unlink()


def test_a_model_with_code_and_pickles_is_loaded_without_either(hostile: Path) -> None:
    from cai.engines.encode import ChatEncoder
    from cai.engines.process import EngineSettings
    from cai.engines.transformers import TransformersEngine
    from cai.records import Message
    from cai.train.setup import load_policy
    from cai.train.tokens import Chat

    check_folder(hostile)
    assert load_policy(str(hostile), None).generation_config is not None
    chat = Chat(str(hostile))
    assert ChatEncoder(chat.tokenizer).encode((Message(role="user", content="Hi"),), False)
    settings = EngineSettings(kind="transformers", model=str(hostile), max_context=64, capacity=1)
    TransformersEngine(settings).close()
    assert not CANARY.exists()


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("config.json", "{", "not JSON"),
        ("config.json", "[" * 100_000, "not JSON"),
        ("config.json", "[]", "expected a JSON object"),
        ("config.json", b"\xff", "not JSON"),
        ("config.json", {"model_type": "evil", "auto_map": {"AutoConfig": "code.C"}}, "own code"),
        ("config.json", {"model_type": "../llama", "auto_map": {"a": "b"}}, "own code"),
        ("config.json", {"attn_implementation": "evil/kernel"}, "is code"),
        ("adapter_config.json", {"base_model_name_or_path": "/tmp/x"}, "an adapter"),
        ("model.safetensors.index.json", {"weight_map": {"a": "../x.safetensors"}}, "names ../x"),
        ("model.safetensors.index.json", {"weight_map": {"a": "/x.safetensors"}}, "names /x"),
        (
            "model.safetensors.index.json",
            {"weight_map": {"a": "pytorch_model.bin"}},
            "names pytorch",
        ),
        ("model.safetensors.index.json", {"weight_map": {"a": "b.safetensors"}}, "is missing"),
        ("model.safetensors.index.json", {"weight_map": []}, "names no files"),
        ("model.safetensors.index.json", "{", "not JSON"),
    ],
)
def test_model_folders_that_are_refused(name: str, content: Any, says: str) -> None:
    folder = Path("m")
    folder.mkdir()
    (folder / "config.json").write_text('{"model_type": "llama"}')
    (folder / "model.safetensors").write_bytes(b"weights")
    check_folder(folder)
    raw = content if isinstance(content, str | bytes) else json.dumps(content)
    (folder / name).write_bytes(raw.encode() if isinstance(raw, str) else raw)
    with pytest.raises(ConfigError, match=says):
        resolve_model("m")


def test_code_of_its_own_beside_a_known_architecture_is_ignored() -> None:
    folder = Path("m")
    folder.mkdir()
    (folder / "model.safetensors").write_bytes(b"weights")
    config = {"model_type": "phi3", "auto_map": {"AutoConfig": "code.C"}}
    (folder / "config.json").write_text(json.dumps(config))
    check_folder(folder)


ATTEMPTS = [
    "{{ cycler.__init__.__globals__.os.system('touch CANARY') }}",
    "{{ joiner.__init__.__globals__.os.popen('touch CANARY').read() }}",
    "{{ namespace.__init__.__globals__.os.system('touch CANARY') }}",
    "{{ lipsum.__globals__['os'].system('touch CANARY') }}",
    "{{ self.__init__.__globals__.__builtins__.open('CANARY', 'w') }}",
    "{{ self._TemplateReference__context.cycler.__init__.__globals__.os.system('touch CANARY') }}",
    "{{ raise_exception.__globals__.__builtins__.open('CANARY', 'w') }}",
    "{{ raise_exception.__globals__['__builtins__']['open']('CANARY', 'w') }}",
    "{{ strftime_now.__globals__['__builtins__']['open']('CANARY', 'w') }}",
    "{{ ''.__class__.__mro__[1].__subclasses__() }}",
    "{{ ''['__class__']['__mro__'][1]['__subclasses__']() }}",
    "{{ ()|attr('__class__')|attr('__base__')|attr('__subclasses__')() }}",
    "{{ messages|attr('__class__')|attr('__mro__') }}",
    "{{ messages.append({'role': 'user', 'content': 'x'}) }}",
    "{{ messages[0].update({'content': 'x'}) }}",
    "{{ '{0.__class__.__mro__}'.format(messages) }}",
    "{{ '{0.__globals__}'.format(raise_exception) }}",
    "{{ ''.format_map({'a': messages}) }}",
    "{{ ('%s' * 3) | format(messages.__class__, 1, 2) }}",
    "{{ messages.__class__.__init__.__globals__ }}",
    "{{ (messages|map(attribute='__class__')|list) }}",
    "{{ messages|map('attr', '__class__')|list }}",
    "{{ config.items() }}",
    "{{ request.application.__globals__ }}",
    "{{ get_flashed_messages.__globals__ }}",
    "{{ url_for.__globals__ }}",
    "{% import 'os' as os %}{{ os.system('touch CANARY') }}",
    "{% include '/etc/passwd' %}",
    "{% extends '/etc/passwd' %}",
    "{% from 'os' import system %}{{ system('touch CANARY') }}",
    "{% set x = cycler.__init__ %}{{ x.__globals__.os.system('touch CANARY') }}",
    "{% for x in ().__class__.__base__.__subclasses__() %}{{ x }}{% endfor %}",
    "{% call(x) raise_exception('x') %}{% endcall %}",
    "{{ range(10**9)|list }}",
    "{{ eos_token.__class__.__base__ }}",
    "{{ tools.__class__ }}",
    "{{ tojson.__globals__ }}",
    "{{ dict.__base__.__subclasses__() }}",
    "{{ dict.mro() }}",
    "{{ (1).__class__.__bases__[0].__subclasses__() }}",
    "{{ g.pop.__globals__.__builtins__ }}",
    "{{ x.__init__.__builtins__.exec('import os') }}",
    "{{ undefined.__class__.__init__.__globals__ }}",
    "{{ caller.__globals__ }}",
    "{{ loop.__class__ }}",
    "{{ messages.__reduce__() }}",
    "{{ messages.__getattribute__('__class__') }}",
    "{{ messages.sort.__self__.__class__ }}",
    "{{ ''.join.__self__.__class__.__mro__ }}",
    "{{ (messages|groupby('role'))[0].__class__.__init__.__globals__ }}",
    "{{ messages|first|attr('\\x5f\\x5fclass\\x5f\\x5f') }}",
    "{{ messages|sum(attribute='__class__') }}",
]
TEMPLATES = [text.replace("CANARY", str(CANARY)) for text in ATTEMPTS]


def test_no_chat_template_gets_out_of_its_sandbox(tiny: str) -> None:
    from transformers import AutoTokenizer

    from cai.engines.encode import ChatEncoder
    from cai.records import Message

    tokenizer: Any = AutoTokenizer.from_pretrained(tiny)
    conversation = (Message(role="user", content="Hi"),)
    leaks = ("<class '", "<built-in", "__builtins__", "root:x:0")
    for template in TEMPLATES:
        tokenizer.chat_template = template
        text = ""
        # what a broken template raises is encode.py's concern; here it must have done nothing
        with suppress(jinja2.TemplateError, ConfigError, OverflowError, TypeError, ValueError):
            ids = ChatEncoder(tokenizer).encode(conversation, False)
            text = tokenizer.decode(ids)
        assert not CANARY.exists(), template
        assert not any(leak in text for leak in leaks), f"{template}: {text}"


@pytest.fixture
def sources(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What any template engine is given to compile or to parse from here on."""
    seen: list[str] = []

    def recorded(name: str) -> None:
        call = getattr(jinja2.Environment, name)

        def recording(self: Any, source: Any, *more: Any, **named: Any) -> Any:
            seen.append(source if isinstance(source, str) else "a tree")
            return call(self, source, *more, **named)

        monkeypatch.setattr(jinja2.Environment, name, recording)

    for name in ("compile", "parse", "lex"):
        recorded(name)
    return seen


def check_sources(sources: list[str]) -> None:
    """The templates are ours, and no text is among them."""
    shipped = {path.read_text() for path in packaged("prompts").glob("*.jinja")}
    assert {source for source in sources if source in shipped}
    assert not [source for source in sources if "MARK" in source]


MARKS = ["MARK {{ 7 * 191 }} {% raw %}", *(f"MARK {text}" for text in TEMPLATES)]


def test_no_template_engine_ever_sees_a_constitution_or_a_prompt(sources: list[str]) -> None:
    principles = [
        {"id": f"p{i}", "critique": text, "revision": text, "preference": text}
        for i, text in enumerate(MARKS)
    ]
    data = {"name": "n", "version": "1", "description": MARKS[0], "source": "s", "license": "l"}
    Path("c.yaml").write_text(json.dumps(data | {"principles": principles}))
    Path("p.jsonl").write_text(
        "".join(json.dumps({"prompt": f"{text} {i}"}) + "\n" for i, text in enumerate(MARKS))
    )
    run = start(Path("run"), constitution="c.yaml", prompts="p.jsonl", until="revise")
    check_sources(sources)
    records = next(run.glob("01-*/records.jsonl")).read_text()
    # the texts went through, and nobody computed
    assert "MARK" in records + Path("run/inputs/prompts.jsonl").read_text()
    assert "1337" not in records


def test_no_template_engine_ever_sees_an_answer(
    sources: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Responses, critiques, revisions, samples: on to the trainers, the labels and the reports."""
    answer, n = FakeEngine._answer, itertools.count()  # pyright: ignore[reportPrivateUsage]

    def marked(self: FakeEngine, request: Request) -> Completion:
        done = answer(self, request)
        if request.choices:
            return done
        return replace(done, text=f"{MARKS[next(n) % len(MARKS)]} {done.text}")

    monkeypatch.setattr(FakeEngine, "_answer", marked)
    run = start(Path("run"), "revise.n_prompts=60")
    check_sources(sources)
    records = [*read_rows(run / "01-revise" / "records.jsonl")]
    assert {row["type"] for row in records} >= {"response", "critique", "revision"}
    shown = json.dumps(blocks((run / "report.html").read_text()))
    for mark in MARKS:
        assert any(row["text"].startswith(mark) for row in records)
        assert json.dumps(mark)[1:-1] in shown
    report = (run / "report.md").read_text()
    assert "MARK" in report
    assert "MARK 1337" not in shown + report
