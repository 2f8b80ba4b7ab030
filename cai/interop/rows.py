"""A run's records as rows of other projects' formats. Pure: reads no file, loads no library.

Column names: TRL 1.16 (`docs/source/dataset_formats.md`), Anthropic's hh-rlhf, llm-swarm's
`examples/constitutional-ai/generate_dataset.py`, which the alignment-handbook recipes read.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

from cai.errors import ConfigError
from cai.interop.tables import (
    Item,
    Pair,
    Row,
    RunData,
    Table,
    Text,
    answer,
    guarded,
    is_cut,
    is_unicode,
    pair_notes,
    pairs,
    part,
    turns,
)
from cai.records import Message, Prompt, Revision, conversation, derive_seed
from cai.sources import one_dialogue
from cai.stages.sft import helpful_rows, revision_rows, wanted_helpful
from cai.view.transcripts import Round, Transcript

SPEAKERS = {"user": "Human", "assistant": "Assistant"}


def sft_table(data: RunData) -> Table:
    """Prompt-completion rows, chosen and mixed as stage sft does it."""
    config, prompts = data.config, {t.prompt.id: t.prompt for t in data.transcripts}
    records = {text.id: text for t in data.transcripts for text in t.versions()}
    last = config.revise.rounds if config.sft.use == "last" else None
    revised, skipped = revision_rows(prompts, [*records.values()], last)
    helpful = helpful_rows(prompts, [*records.values()], config.seed)
    mixed = helpful[: wanted_helpful(len(revised), config.sft.helpful_ratio)]
    revisions = [text for text in records.values() if isinstance(text, Revision)]
    answers = [t for t in data.transcripts if t.response and t.prompt.kind == "helpful"]
    left_out = Counter(
        {f"{reason} revision": n for reason, n in skipped.items()}
        | {
            "revision of an earlier round (sft.use: last)": sum(
                last not in (None, revision.round) for revision in revisions
            ),
            "failed or empty helpful response": len(answers) - len(helpful),
            "helpful response beyond sft.helpful_ratio": len(helpful) - len(mixed),
        }
    )
    items = [sft_item(row, records[row["id"]], prompts, data) for row in (*revised, *mixed)]
    note = f"{len(revised)} rows end in a revision, {len(mixed)} in a response to a helpful prompt."
    return guarded(Table("sft", items, left_out, [note]), data)


def sft_item(row: Row, text: Text, prompts: Mapping[str, Prompt], data: RunData) -> Item:
    group = prompts[text.prompt_id].group
    kept = {name: row[name] for name in ("prompt", "completion")}
    return Item(text.id, group, part(data, group), kept, is_cut(text))


def preference_table(data: RunData) -> Table:
    """Explicit-prompt preference rows; P(chosen is better) stands beside them."""
    table = Table("preference", [preference_item(pair, data) for pair in pairs(data)])
    table.notes += pair_notes(pairs(data))
    return guarded(table, data)


def preference_item(pair: Pair, data: RunData) -> Item:
    preference, group = pair.preference, pair.prompt.group
    row: Row = {
        "prompt": turns(pair.prompt.messages),
        "chosen": answer(pair.chosen),
        "rejected": answer(pair.rejected),
        "p_chosen": preference.p_chosen,
        "principle_ids": list(preference.principle_ids),
        "origin": preference.origin,
    }
    return Item(preference.id, group, part(data, group), row, pair.cut)


def prompts_table(data: RunData) -> Table:
    """Prompts for RL: train is the run's rl share, test the share of its evaluation."""
    found = {"rl": "train", "eval": "test"}
    items = [
        Item(p.id, p.group, found[p.split], {"prompt": turns(p.messages)})
        for p in (transcript.prompt for transcript in data.transcripts)
        if p.split in found
    ]
    return guarded(Table("prompts", items), data)


def hh_table(data: RunData) -> Table:
    """hh-rlhf's rows: two whole dialogues as text, and only which one is better."""
    table, found = Table("default", []), pairs(data)
    n_trimmed = 0
    for pair in found:
        dialogues = [
            conversation(pair.prompt.messages, text.text) for text in (pair.chosen, pair.rejected)
        ]
        reason = unsayable(dialogues)
        if pair.preference.p_chosen == 0.5:
            reason = "P is exactly 0.5: neither response is better"
        if reason:
            table.left_out[reason] += 1
            continue
        chosen, rejected = map(dialogue_text, dialogues)
        n_trimmed += any(m.content != m.content.strip() for m in (*dialogues[0], *dialogues[1]))
        group, row = pair.prompt.group, {"chosen": chosen, "rejected": rejected}
        table.items.append(Item(pair.preference.id, group, part(data, group), row, pair.cut))
    table.notes += pair_notes(found)
    if n_trimmed:
        table.notes.append(
            f"In {n_trimmed} rows a turn begins or ends with white space, which readers of this "
            "format strip."
        )
    return guarded(table, data)


def dialogue_text(messages: Iterable[Message]) -> str:
    return "".join(f"\n\n{SPEAKERS[message.role]}: {message.content}" for message in messages)


def unsayable(dialogues: Iterable[Sequence[Message]]) -> str | None:
    """Why hh-rlhf's format cannot hold a dialogue so that it reads back as it is."""
    for dialogue in dialogues:
        if any(message.role not in SPEAKERS for message in dialogue):
            return "system turn, which the format does not have"
        if not is_unicode([message.content for message in dialogue]):
            return "half a surrogate pair in a text"
        meant = [(message.role, message.content.strip()) for message in dialogue]
        read = one_dialogue(dialogue_text(dialogue), "export")
        if [(message.role, message.content) for message in read] != meant:
            return "turn marker (Human: or Assistant: after a blank line) inside a text"
    return None


def swarm_table(data: RunData) -> Table:
    """llm-swarm's rows: each dialogue serves either SFT or preferences, either train or test."""
    table = Table("default", [])
    halves = swarm_halves(data)
    for transcript in data.transcripts:
        if not transcript.response:
            continue
        last = last_round(transcript)
        if transcript.prompt.kind == "helpful":
            table.left_out["helpful prompt, which is answered and not revised"] += 1
        elif last is None:
            table.left_out["no whole revision"] += 1
        else:
            add_swarm_item(table, transcript, last, halves[transcript.prompt.group])
    return guarded(table, data)


def last_round(transcript: Transcript) -> Round | None:
    """The last round that left a critique and a revision, neither of them failed."""
    whole = [
        round
        for round in transcript.rounds
        if round.critique
        and round.revision
        and round.revision.generation.finish != "error"
        and round.revision.text
    ]
    return whole[-1] if whole else None


def swarm_halves(data: RunData) -> dict[str, str]:
    """The split of each revised dialogue: a drawn half of train, and of test, serves SFT."""
    groups = {t.prompt.group for t in data.transcripts if t.response and last_round(t)}
    found: dict[str, str] = {}
    for name in ("train", "test"):
        ordered = sorted(
            (group for group in groups if part(data, group) == name),
            key=lambda group: derive_seed("half", data.config.seed, group),
        )
        half = (len(ordered) + 1) // 2
        found |= dict.fromkeys(ordered[:half], f"{name}_sft")
        found |= dict.fromkeys(ordered[half:], f"{name}_prefs")
    return found


def add_swarm_item(table: Table, transcript: Transcript, last: Round, split: str) -> None:
    """Add a prompt's row, unless it is to teach a preference between two equal texts."""
    response, critique, revision = transcript.response, last.critique, last.revision
    assert response is not None
    assert critique is not None
    assert revision is not None
    if last.principle is None:
        raise ConfigError(f"principle {last.principle_id} is not in the run's constitution.json")
    if split.endswith("prefs") and response.text == revision.text:
        table.left_out["revision equals the response (preference splits)"] += 1
        return
    messages, asked = transcript.prompt.messages, transcript.prompt.messages[-1].content
    better = turns(conversation(messages, revision.text))
    row: Row = {
        "init_prompt": asked,
        "init_response": response.text,
        "critic_prompt": last.principle.critique or "",
        "critic_response": critique.text,
        "revision_prompt": last.principle.revision or "",
        "revision_response": revision.text,
        "prompt": asked,
        "messages": better,
        "chosen": better,
        "rejected": turns(conversation(messages, response.text)),
    }
    cut = is_cut(response, revision)
    table.items.append(Item(revision.id, transcript.prompt.group, split, row, cut))
