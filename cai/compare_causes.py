"""Why a record of one run is not the record of the other: what entered its id, part by part.

Each part is read where it is recorded: model, sampling and template in the record, the principle's
text and the seed in the run's inputs. What enters which id stands in `cai.chains`.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Literal, NamedTuple

from cai.chains.revision import Voice, respond
from cai.compare_inputs import Run, models, spoken
from cai.constitution import Principle
from cai.opening import differences
from cai.prompts import QUESTIONS, opening
from cai.records import Critique, Generation, Label, Response, Revision

Kind = Literal[
    "seed",
    "model",
    "policy",
    "sampling",
    "engine",
    "template",
    "opening",
    "principle edited",
    "principle renamed",
    "drawn differently",
    "labelling",
    "failed",
    "not made",
    "same request",
    "unexplained",
]


class Cause(NamedTuple):
    """One thing that differs and enters a record."""

    kind: Kind
    summary: str
    """The same for all records that it made differ."""
    detail: str = ""
    """What is special to this record."""

    @property
    def said(self) -> str:
        return self.detail or self.summary


class Pair(NamedTuple):
    """Two runs, and what differs between them once for all records."""

    a: Run
    b: Run
    seed: Cause | None
    engine: Cause | None
    opening: Cause | None
    """What stands before the prompt in the revise stage: system prompt, worked examples."""
    trained: Mapping[str, str]
    """Of the models that a run makes itself, by name: why the other run's is another."""

    @property
    def runs(self) -> tuple[Run, Run]:
        return self.a, self.b


def make_pair(a: Run, b: Run) -> Pair:
    causes = seed_cause(a, b), engine_cause(a, b), opening_cause(a, b)
    return Pair(a, b, *causes, why_trained(a, b))


def seed_cause(a: Run, b: Run) -> Cause | None:
    one, two = a.config.seed, b.config.seed
    return None if one == two else Cause("seed", f"another seed ({one} → {two})")


def engine_cause(a: Run, b: Run) -> Cause | None:
    """The settings that stand for the engine in an id; see `Engine.key`."""
    if a.config.engine.key == b.config.engine.key:
        return None
    found = differences(a.config.deciding()["engine"], b.config.deciding()["engine"])
    said = ", ".join(f"engine.{key} {arrow(*values)}" for key, values in found.items())
    return Cause("engine", f"another engine ({said})")


def arrow(one: object, two: object) -> str:
    return f"{one} → {two}"


def opening_cause(a: Run, b: Run) -> Cause | None:
    parts: list[str] = []
    if a.constitution.system_prompt != b.constitution.system_prompt:
        parts.append("system prompt")
    shown = [has_exemplars(run) for run in (a, b)]
    name = "exemplars_revision.yaml"
    if shown[0] != shown[1] or (all(shown) and a.files.get(name) != b.files.get(name)):
        parts.append("worked examples")
    said = " and ".join(parts)
    return Cause("opening", f"the conversation opens otherwise ({said})") if parts else None


def has_exemplars(run: Run) -> bool:
    """Whether the revise stage showed worked examples: the response's id is another without."""
    response = next((t.response for t in run.transcripts.values() if t.response), None)
    if response is None:
        return run.config.revise.exemplars == "on"
    prompt, made = run.transcripts[response.prompt_id].prompt, response.generation
    voice = Voice("base", made.model, made.sampling, run.config.engine.key)
    plain = respond(prompt, 0, opening(run.constitution), voice, run.config.seed)
    return plain.request.id != response.id


def why_trained(a: Run, b: Run) -> dict[str, str]:
    """What differs in what each policy was trained from, on and with."""
    runs = (a, b)
    base, sft = ([policies(run).get(name) for run in runs] for name in ("base", "sft"))
    revised = [{v.id for t in run.transcripts.values() for v in t.versions()} for run in runs]
    judged = [{p.id for t in run.transcripts.values() for p in t.preferences} for run in runs]
    sft_reasons = [
        *(["from another base model"] if base[0] != base[1] else []),
        *(["on other revisions"] if revised[0] != revised[1] else []),
        *settings(a, b, ("sft", "seed")),
    ]
    rl_reasons = [
        *(["from another sft policy"] if sft[0] != sft[1] else []),
        *(["on other preferences"] if judged[0] != judged[1] else []),
        *settings(a, b, ("rl", "reward", "preferences", "seed")),
    ]
    found = {"sft": sft_reasons, "rl": rl_reasons}
    return {name: ", ".join(said) or "nothing recorded differs" for name, said in found.items()}


def policies(run: Run) -> dict[str, str]:
    """`name@commit` of each policy that generated something, and of the base model."""
    texts = [text for t in run.transcripts.values() for text in t.texts()]
    found = {text.generation.model.rpartition("@")[0]: text.generation.model for text in texts}
    return found | {"base": models(run).get("base", "")}


def settings(a: Run, b: Run, sections: Sequence[str]) -> list[str]:
    found = differences(a.config.deciding(), b.config.deciding())
    return [f"with {k} {arrow(*v)}" for k, v in found.items() if k.split(".")[0] in sections]


def generation_causes(
    pair: Pair, one: Generation, two: Generation, template: str
) -> Iterator[Cause]:
    """What every generated record depends on."""
    if one.model != two.model:
        yield model_cause(pair, one.model, two.model)
    if one.sampling != two.sampling:
        found = differences(one.sampling.model_dump(), two.sampling.model_dump())
        said = ", ".join(f"{key} {arrow(*values)}" for key, values in found.items())
        yield Cause("sampling", f"drawn with other sampling ({said})")
    if one.template != two.template:
        yield Cause("template", f"the template {template} was edited")
    if pair.engine:
        yield pair.engine


def model_cause(pair: Pair, one: str, two: str) -> Cause:
    name, other = (label.rpartition("@")[0] for label in (one, two))
    if name == other and name in pair.trained:
        return Cause("policy", f"another {name} policy ({pair.trained[name]})")
    return Cause("model", f"another model ({arrow(one, two)})")


def response_causes(pair: Pair, one: Response, two: Response, opens: bool) -> Iterator[Cause]:
    """`opens`: whether the conversation begins with system prompt and worked examples."""
    yield from generation_causes(pair, one.generation, two.generation, "")
    if opens and pair.opening:
        yield pair.opening
    if pair.seed:
        yield pair.seed


def turn_causes(pair: Pair, one: Critique | Revision, two: Critique | Revision) -> Iterator[Cause]:
    """Of a critique or a revision; its parent apart."""
    name: Literal["critique", "revision"] = one.type
    file = "critique.jinja" if name == "critique" else "revise.jinja"
    yield from generation_causes(pair, one.generation, two.generation, file)
    yield from principle_causes(pair, one.principle_id, two.principle_id, name)


def principle_causes(
    pair: Pair, one: str, two: str, text: Literal["critique", "revision", "preference"]
) -> Iterator[Cause]:
    """Another principle, or the same one with another `text`."""
    old, new = pair.a.principles.get(one), pair.b.principles.get(two)
    if old is None or new is None:
        missing = one if old is None else two
        yield Cause("unexplained", f"principle {missing} is not in its run's constitution")
    elif one == two:
        if getattr(old, text) != getattr(new, text):
            yield Cause("principle edited", f"principle {one}: its {text} text was edited")
    elif text == "revision":
        return  # The critique has said it.
    elif spoken(old) == spoken(new) and two not in pair.a.principles:
        yield Cause("principle renamed", f"principle {one} is now called {two}")
    else:
        because = redrawn(pair, text)
        yield Cause(
            "drawn differently",
            f"another principle was drawn ({because})",
            f"principle {two} was drawn instead of {one} ({because})",
        )


def redrawn(pair: Pair, text: Literal["critique", "preference"]) -> str:
    """What another draw comes from: the seed, or the list that is drawn from."""
    lists = [
        c.for_preference() if text == "preference" else c.for_revision()
        for c in (run.constitution for run in pair.runs)
    ]
    reasons = [pair.seed.summary] if pair.seed else []
    reasons += list_changes(*lists)
    return "; ".join(reasons) or "for a reason that is not recorded"


def list_changes(old: Sequence[Principle], new: Sequence[Principle]) -> Iterator[str]:
    """How the list that principles are drawn from differs."""
    ours, theirs = ({p.id: p.weight for p in principles} for principles in (old, new))
    if added := [id for id in theirs if id not in ours]:
        yield f"added: {', '.join(added)}"
    if removed := [id for id in ours if id not in theirs]:
        yield f"removed: {', '.join(removed)}"
    both = [id for id in ours if id in theirs]
    if weighed := [id for id in both if ours[id] != theirs[id]]:
        yield f"other weight: {', '.join(weighed)}"
    if both != [id for id in theirs if id in ours]:
        yield "another order of the principles"


def label_causes(pair: Pair, one: Sequence[Label], two: Sequence[Label]) -> list[Cause]:
    """Of the judgements of one pair of texts that both runs judged."""
    modes = {run.config.label.mode for run in pair.runs}
    keys = {"mode", "ensemble", "n_cot", "clamp"} | ({"reasoning"} if modes == {"cot"} else set())
    settings = [run.config.label.model_dump(mode="json", include=keys) for run in pair.runs]
    changed = differences(settings[0], settings[1]).items()
    found = [Cause("labelling", f"label.{key} {arrow(*ends)}") for key, ends in changed]
    ours, theirs = (list(dict.fromkeys(x.principle_id for x in labels)) for labels in (one, two))
    for id, other in zip(ours, theirs, strict=False):
        found += principle_causes(pair, id, other, "preference")
    if one and two:
        file = f"{QUESTIONS[one[0].mode]}.jinja"
        causes = generation_causes(pair, one[0].generation, two[0].generation, file)
        # Another mode has another template and sampling of its own.
        found += [c for c in causes if len(modes) == 1 or c.kind in ("model", "engine")]
    if not found and shots(pair.a) != shots(pair.b):
        found.append(Cause("opening", "the worked comparisons before the question differ"))
    return found


def shots(run: Run) -> object:
    """What decides the worked comparisons that a judge is shown; no record says what they were."""
    if run.config.label.exemplars == "off":
        return None
    principles = [(p.id, p.weight, p.preference) for p in run.constitution.principles]
    files = [run.files.get(f"exemplars_{role}.yaml") for role in ("preference", "cot")]
    return run.config.label.exemplars, run.config.seed, files, principles
