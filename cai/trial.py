"""`cai try`: one chain of response, critiques and revisions, shown while it is generated.

With `--watch` it runs again whenever the constitution is saved: the models stay loaded, and what
the edit leaves as it was is not asked again.
"""

import time
from collections.abc import Generator, Iterator, Mapping
from contextlib import ExitStack, closing, contextmanager, nullcontext, suppress
from dataclasses import replace
from difflib import get_close_matches
from pathlib import Path
from typing import NamedTuple

from cai.chains.revision import revision_chain
from cai.config import RunConfig
from cai.constitution import Constitution, find_constitution, load_constitution
from cai.driver import Chain, Step
from cai.engines.base import Engine
from cai.engines.open import LazyEngine
from cai.errors import ConfigError, TooManyErrors
from cai.forecast import sketch
from cai.models import Model, cache_folder
from cai.pipeline import FOLDERS, plan
from cai.prepare import check_installed, resolve_models
from cai.prompts import Templates
from cai.records import Prompt, digest
from cai.resolve import Options, resolve_config
from cai.run import StoredRecord
from cai.sources import one_dialogue
from cai.stages.context import RunContext
from cai.stages.revise import make_setup
from cai.view.streamed import Streamed

WATCH_S = 0.3
"""Seconds between two looks at the file."""


class TrialOptions(NamedTuple):
    """What is tried."""

    options: Options
    prompt: str
    principles: tuple[str, ...] = ()
    """Ids of those that are drawn from; empty: all."""
    watch: bool = False


def run_trial(options: TrialOptions, show: Streamed) -> None:
    """Show the prompt's chain; watching, once for each version of the constitution, until Ctrl-C.

    Raises TooManyErrors if a generation fails and nobody watches.
    """
    config = resolve_config(options.options)
    path = find_constitution(config.constitution)
    prompt, templates = make_prompt(options.prompt), Templates(config.exemplars)
    if not options.watch:
        load_version(path, options.principles)
    check_installed(config, plan("revise"))
    models = resolve_models(config)
    # Ctrl-C is how watching ends.
    ending = suppress(KeyboardInterrupt) if options.watch else nullcontext()
    with open_engines(config, models, show) as engines, ending:
        trial = Trial(engines, show)
        for constitution in versions(path, options, show):
            context = RunContext(
                run=Path(),
                config=config,
                constitution=constitution,
                templates=templates,
                models=models,
                prompts=[prompt],
                folders=FOLDERS,
            )
            show.open(prompt)
            last = trial.play(revision_chain(prompt, make_setup(context)), constitution)
            if last.generation.finish == "error" and not options.watch:
                raise TooManyErrors(f"the {last.type} failed: {last.generation.error}")


def make_prompt(text: str) -> Prompt:
    """The prompt as a run would read it: the same id, so that it draws the same principles."""
    if text.lstrip().startswith("Human:"):
        text = f"\n\n{text.lstrip()}"
    messages = one_dialogue(text, "--prompt")
    if messages[-1].role != "user":
        raise ConfigError("--prompt: ends in an assistant's turn; end it in a human's")
    id = digest("prompt", [[message.role, message.content] for message in messages])
    return Prompt(
        id=id, messages=messages, kind="red_team", area="", source="try", group=id, split="sft"
    )


def load_version(path: Path, ids: tuple[str, ...]) -> Constitution:
    """The constitution, cut down to the principles `ids`. Raises ConfigError."""
    constitution = load_constitution(path)
    known = {principle.id: principle for principle in constitution.principles}
    for id in ids:
        if id not in known:
            near = get_close_matches(id, known, 1)
            hint = f"did you mean {near[0]}?" if near else f"it has: {', '.join(known)}"
            raise ConfigError(f"--principle {id}: none of {constitution.name}'s; {hint}")
    if ids:
        chosen = [known[id] for id in dict.fromkeys(ids)]
        constitution = constitution.model_copy(update={"principles": chosen})
    constitution.for_revision()
    return constitution


def versions(path: Path, options: TrialOptions, show: Streamed) -> Iterator[Constitution]:
    """The constitution; watching, again after each save. A broken version is complained about."""
    if not options.watch:
        yield load_version(path, options.principles)
        return
    seen = None
    while True:
        if (now := stamp(path)) in (None, seen):
            time.sleep(WATCH_S)
            continue
        seen = now
        try:
            yield load_version(path, options.principles)
        except ConfigError as error:
            show.complain(str(error))
        show.say(f"watching {path}: save it to run again, Ctrl-C ends")


def stamp(path: Path) -> tuple[int, int, int] | None:
    """Changes when the file is saved; none while an editor replaces it."""
    try:
        found = path.stat()
    except FileNotFoundError:
        return None
    return found.st_mtime_ns, found.st_size, found.st_ino


@contextmanager
def open_engines(
    config: RunConfig, models: Mapping[str, Model], show: Streamed
) -> Generator[dict[str, Engine]]:
    """By role; each model is loaded when its first request comes."""
    folder = cache_folder() / "try"
    folder.mkdir(parents=True, exist_ok=True)
    used = {str(models[role].path): models[role] for role in ("base", "critic")}
    with ExitStack() as stack:
        engines: dict[str, Engine] = {}
        for number, (path, model) in enumerate(used.items()):
            log = folder / f"engine-{number}.log"
            log.unlink(missing_ok=True)
            engine = LazyEngine(config.engine, model, log, 1 / len(used))
            engines[path] = stack.enter_context(closing(engine))
            show.say(f"{config.engine.kind} loads {model.name} (log: {log})")
        yield {role: engines[str(models[role].path)] for role in ("base", "critic")}


class Trial:
    """Plays chains step by step; remembers what was said."""

    def __init__(self, engines: Mapping[str, Engine], show: Streamed) -> None:
        self._engines, self._show = engines, show
        self._known: dict[str, StoredRecord] = {}

    def play(self, chain: Chain, constitution: Constitution) -> StoredRecord:
        """Show a chain while it is generated; returns its last record."""
        principles = {principle.id: principle for principle in constitution.principles}
        record: StoredRecord | None = None
        while True:
            try:
                step = chain.send(record)
            except StopIteration:
                assert record is not None
                return record
            coming = sketch(step)
            self._show.begin(coming, principles.get(getattr(coming, "principle_id", "")))
            record = self._known.get(step.request.id) or self._ask(step)
            self._show.end(record)

    def _ask(self, step: Step) -> StoredRecord:
        engine = self._engines[step.request.role]
        engine.submit(replace(step.request, on_text=self._show.text))
        while not (done := engine.poll()):
            pass
        record = step.read(done[0])
        if record.generation.finish != "error":
            self._known[record.id] = record
        return record
