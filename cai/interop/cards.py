"""The dataset card of an export: a README.md with the header that `load_dataset` reads.

No text of a model or a prompt stands in it, no path of this machine, no setting but those named.
"""

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

import cai
from cai.interop.icai import public_name, without_folders
from cai.interop.tables import RunData, Table
from cai.view.terminal import one_line


class CardFile(NamedTuple):
    """A file of the export."""

    config: str
    split: str
    name: str
    path: str
    """Relative to the card."""
    n_rows: int


TITLES = {
    "trl": "for TRL's trainers",
    "hh-rlhf": "as hh-rlhf dialogues",
    "llm-swarm": "as llm-swarm and the alignment-handbook have them",
    "icai": "as annotated pairs",
}
WHAT = {
    "trl": "What a run of cai trained on, in the conversational forms that TRL's SFTTrainer, "
    "RewardTrainer, DPOTrainer, GRPOTrainer and RLOOTrainer take without a map.",
    "hh-rlhf": "Pairs of responses that a model judged under a constitution, as whole dialogues in "
    "the form of Anthropic's hh-rlhf. The form knows only which side is better, not how surely.",
    "llm-swarm": "Responses, critiques and revisions in the columns and splits that the "
    "constitutional-AI recipes of the alignment-handbook read. **chosen is a revision and rejected "
    "the response that it revises: nobody compared the two, so this is no AI feedback** (RLAIF), "
    "and a model that learns the preference learns the style of revisions as well.",
    "icai": "Pairs of responses with the votes of each principle, in ICAI's annotated-pairs format "
    "2.0, which its viewer (feedback-forensics) opens.",
}
COLUMNS: dict[str, dict[str, str]] = {
    "trl": {
        "prompt": "the conversation up to the human turn that is answered, a list of turns",
        "completion": "(sft) the revision, or the response to a helpful prompt, one turn",
        "chosen": "(preference) the better response, one turn",
        "rejected": "(preference) the other one, one turn",
        "p_chosen": "(preference) P(chosen is better): the judge's, both orders averaged, clamped "
        "where the run says so; TRL's trainers ignore it",
        "principle_ids": "(preference) the principles the pair was judged under",
        "origin": "(preference) sampled: two samples of the policy; revision: a revision and the "
        "response that it revises",
    },
    "hh-rlhf": {
        "chosen": "the dialogue with the better last response: turns that begin with a blank line "
        "and `Human:` or `Assistant:`",
        "rejected": "the same dialogue with the other last response",
    },
    "llm-swarm": {
        "init_prompt": "the last human turn; earlier turns are in `messages` only",
        "init_response": "the first response",
        "critic_prompt": "the principle's critique request, without the template around it",
        "critic_response": "the critique",
        "revision_prompt": "the principle's revision request, without the template around it",
        "revision_response": "the revision",
        "prompt": "the same as `init_prompt`",
        "messages": "all turns of the prompt, then the revision",
        "chosen": "the same as `messages`",
        "rejected": "all turns of the prompt, then the first response",
    },
    "icai": {
        "prompt": "the text of one human turn, or a dialogue with its speakers",
        "response_a, response_b": "`text` and `model`; which is a is decided by their ids, not by "
        "the labels",
        "annotations": "by annotator: `pref` is a, b or null with `no_pref_reason`; `p_a` (not in "
        "ICAI's own files) is P(a is better), both orders averaged",
        "metadata": "split, kind and area of the prompt; origin of the pair, P(chosen is better); "
        "number of human turns",
    },
}
BIASES = (
    "The labels are a language model's, not people's. Such judges favour a position, long answers, "
    "their own style and their own family's texts; averaging both orders removes the effect of "
    "position from the mean, and turns a judge that sees nothing but position into P near 0.5.",
    "What counts as better is what the constitution's principles say, each pair judged under those "
    "that were drawn for it.",
    "P is a model's option probability (or the share of its verdicts), not calibrated against "
    "anyone's judgement.",
)
REVISION_BIASES = (
    "Critiques and revisions are a model's. A small model criticises what is fine, misses what is "
    "not, and may return the response as it was, or worse.",
    "Refusals and disclaimers can be learnt as a tone; compare over-refusal before and after "
    "training on this.",
)
SAME_MODEL = "Judge and policy begin as the same model: it judges texts of its own kind."
NO_PREFERENCES = "Stage label is not done: there is no preference file."
WARNING = (
    "Prompts of kind red_team ask for harm, and responses may contain it: offensive, false or "
    "dangerous text. It is for research on making models safer."
)


def dataset_card(
    form: str, data: RunData, tables: Sequence[Table], files: Sequence[CardFile]
) -> str:
    """The content of README.md."""
    name = one_line(data.constitution.get("name") or "a constitution")
    biases = [*(BIASES if has_labels(form, tables) else ())]
    biases += REVISION_BIASES if form in ("trl", "llm-swarm") else ()
    biases += [SAME_MODEL] if has_labels(form, tables) and same_model(data) else []
    sections = (
        ("Load", loading(form, files)),
        ("Rows", row_lines(files)),
        ("Columns", [f"- `{column}`: {text}" for column, text in COLUMNS[form].items()]),
        ("How it was made", [f"- {line}" for line in origin(form, data, tables)]),
        ("What to know about the rows", [f"- {line}" for line in knowing(form, data, tables)]),
        ("Left out", left_out_lines(tables)),
        ("Biases and limits", [f"- {line}" for line in (*biases, WARNING)]),
        ("Licences", licence_lines(data)),
    )
    body = [f"# Constitutional AI with {name}, {TITLES[form]}", "", WHAT[form], ""]
    for title, lines in sections:
        body += [f"## {title}", "", *lines, ""]
    return "\n".join([*header(form, name, files), *body])


def header(form: str, name: str, files: Sequence[CardFile]) -> list[str]:
    """The YAML that says which file is which split."""
    lines = ["---", f"pretty_name: {json.dumps(f'Constitutional AI, {name}')}"]
    lines += ["tags:", "- constitutional-ai", "- cai-toolkit"]
    if form != "icai":
        lines.append("configs:")
        for config in dict.fromkeys(file.config for file in files):
            lines += [f"- config_name: {config}", "  data_files:"]
            for file in files:
                if file.config == config:
                    lines += [f"  - split: {file.split}", f"    path: {file.path}"]
    return [*lines, "---", ""]


def loading(form: str, files: Sequence[CardFile]) -> list[str]:
    """A line of Python per table."""
    if form == "icai":
        path = files[0].path
        return ["```python", f'pairs = json.load(open("{path}", encoding="utf-8"))', "```"]
    lines = ["```python", "from datasets import load_dataset", ""]
    for file in files if form == "llm-swarm" else {f.config: f for f in reversed(files)}.values():
        config = "" if file.config == "default" else f'"{file.config}", '
        lines.append(f'load_dataset("THIS_FOLDER", {config}split="{file.split}")')
    return [*lines, "```"]


def row_lines(files: Sequence[CardFile]) -> list[str]:
    lines = ["| file | split | rows |", "| --- | --- | --- |"]
    lines += [f"| {file.path} | {file.split} | {file.n_rows} |" for file in files]
    return [*lines, "", "A split that is not listed has no rows and no file."]


def origin(form: str, data: RunData, tables: Iterable[Table]) -> Iterator[str]:
    """Constitution, models, versions, settings."""
    law, config = data.constitution, data.config
    shown = bool(law.get("system_prompt"))
    yield (
        f"Constitution: {one_line(law.get('name'))} {one_line(law.get('version'))}, "
        f"{len(law.get('principles', ()))} principles."
        + (" Its system prompt was shown while generating and is in no row." * shown)
    )
    for role, model in sorted(data.manifest["models"].items()):
        name, commit = without_folders(str(model["name"])), model["commit"]
        yield f"Model, {one_line(role)}: {quoted(name)}, commit {quoted(commit)}."
    yield f"Texts by: {', '.join(map(quoted, writers(data))) or 'nobody'}."
    made = one_line(data.manifest.get("cai"))
    yield f"cai {made} made the run, cai {cai.__version__} exported it. Seed: {config.seed}."
    yield f"Prompts: {', '.join(source_counts(data))}."
    if form in ("trl", "llm-swarm"):
        yield (
            f"Revision: {config.revise.rounds} rounds of critique and revision, temperature "
            f"{config.revise.revision.temperature:g}."
        )
    if has_labels(form, tables):
        label = config.label
        yield (
            f"Labels: mode {label.mode}, {label.ensemble} principle(s) a pair, pairing "
            f"{label.pairing}, clamp {label.bounds or 'none'}, revision pairs "
            f"{label.revision_pairs}."
        )


def writers(data: RunData) -> list[str]:
    """Names of the models that wrote responses, critiques, revisions and samples."""
    answers = {answer.response.id for t in data.transcripts for answer in t.answers}
    texts = (text for transcript in data.transcripts for text in transcript.texts())
    return sorted({public_name(t.generation.model) for t in texts if t.id not in answers})


def source_counts(data: RunData) -> list[str]:
    """How many prompts of the run come from which file or dataset."""
    places = (t.prompt.source.rpartition(":")[0] or t.prompt.source for t in data.transcripts)
    counts = Counter(without_folders(place) for place in places)
    return [f"{quoted(name)} ({n})" for name, n in sorted(counts.items())]


def knowing(form: str, data: RunData, tables: Sequence[Table]) -> Iterator[str]:
    """Splits, cut texts, and what the tables say of themselves."""
    yield (
        "Splits are by dialogue: no dialogue is in a train and in a test split. Prompts of the "
        "run's own evaluation are in no train split."
    )
    if data.as_rewarded and form != "llm-swarm":
        yield "Test pairs are those that the run's own reward model was not trained on."
    if form in ("trl", "llm-swarm"):
        yield "The run's own SFT checkpoint has seen the revisions of the test splits."
    if form == "trl":
        yield (
            "`prompts` is all of the run's rl share (train) and evaluation share (test); the "
            "evaluation's look-alike prompts are harmless."
        )
    if form == "llm-swarm" and data.config.revise.rounds > 1:
        yield (
            "The revision is that of the last round, and critique and principle are that round's: "
            "they are about the version before it, which is in no column."
        )
    if form == "trl" and not has_labels(form, tables):
        yield NO_PREFERENCES
    for table in tables:
        n_cut = sum(item.cut for item in table.items)
        where = "" if table.name == "default" else f"{table.name}: "
        if n_cut:
            yield f"{where}{n_cut} of {len(table.items)} rows hold a text cut at the token limit."
        yield from (f"{where}{note}" for note in table.notes)


def left_out_lines(tables: Iterable[Table]) -> list[str]:
    """What is missing, by reason."""
    lines = [
        f"- {table.name}: {n} × {reason}"
        for table in tables
        for reason, n in sorted(table.left_out.items())
        if n
    ]
    return lines or ["Nothing."]


def has_labels(form: str, tables: Iterable[Table]) -> bool:
    """Whether a judge's labels are in it."""
    names = {table.name for table in tables}
    return form == "hh-rlhf" or bool(names & {"preference", "annotated_pairs"})


def same_model(data: RunData) -> bool:
    """Whether the judge is what the policy was trained from."""
    models: Mapping[str, Mapping[str, str]] = data.manifest["models"]
    base, judge = models.get("base"), models.get("judge")
    return bool(base and judge and base["commit"] == judge["commit"])


def licence_lines(data: RunData) -> list[str]:
    """The constitution's, and what else to look up."""
    law = data.constitution
    return [
        f"Constitution: {quoted(law.get('license') or 'not stated')}. Source: "
        f"{quoted(law.get('source') or 'not stated')}.",
        "",
        "The rows come under the licences of the prompts' sources and of the models that wrote "
        "them, both named above; this export adds none of its own.",
    ]


def quoted(text: object) -> str:
    """As code, so that no name can be markup."""
    return "`" + one_line(text).replace("`", "'") + "`"
