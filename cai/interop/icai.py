"""ICAI's annotated pairs, format 2.0: each principle is an annotator with its own votes.

As written by rdnfn/icai (`annotated_pairs_format.py`) and read by its viewer,
rdnfn/feedback-forensics (`data/loader.py`): every annotator listed has to have a vote somewhere,
and a comparison's metadata become columns beside the annotators'.
"""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import Any

from cai.interop.tables import (
    Item,
    Pair,
    Row,
    RunData,
    Table,
    Text,
    guarded,
    pair_notes,
    pairs,
    part,
)
from cai.records import Label, Message

DEFAULT_ANNOTATOR = "ba751e7b"
"""The id that the viewer takes as its reference, whatever the file calls the default."""
SPEAKERS = {"user": "Human", "assistant": "Assistant", "system": "System"}
METADATA = ("split", "kind", "area", "origin", "p_chosen", "n_turns")


def annotated_pairs_table(data: RunData) -> Table:
    """One comparison per judged pair."""
    table, labels = Table("annotated_pairs", []), labels_by_pair(data)
    found = [pair for pair in pairs(data) if labels.get(sides(pair))]
    table.left_out["revision assumed to be better: nobody voted"] = len(pairs(data)) - len(found)
    exported = {sides(pair) for pair in found}
    table.left_out["judged pair without a preference"] = len(labels.keys() - exported)
    for pair in found:
        split = part(data, pair.prompt.group)
        row = comparison(pair, labels[sides(pair)], split)
        table.items.append(Item(pair.preference.id, pair.prompt.group, split, row, pair.cut))
    table.notes += pair_notes(found)
    n_empty = sum(not (pair.chosen.text and pair.rejected.text) for pair in found)
    if n_empty:
        table.notes.append(f"The viewer skips {n_empty} comparisons: one response is empty.")
    return guarded(table, data)


def annotated_pairs(data: RunData, comparisons: Sequence[Row]) -> dict[str, Any]:
    """The file's content."""
    return {
        "metadata": {
            "version": "2.0",
            "description": "Pairs judged by a model under the principles of a constitution",
            "dataset_name": f"{data.constitution.get('name', 'cai')}, seed {data.config.seed}",
            "default_annotator": DEFAULT_ANNOTATOR,
            "available_metadata_keys_per_comparison": list(METADATA),
        },
        "annotators": annotators(data, comparisons),
        "comparisons": list(comparisons),
    }


def annotators(data: RunData, comparisons: Sequence[Row]) -> dict[str, dict[str, str]]:
    """Who voted: the mean of all labels, and each principle that was drawn."""
    default = {
        "name": "averaged label",
        "description": "The judge's probability, averaged over both orders and all principles "
        "of the pair",
        # "human" would be wrong and "principle" is one principle's own vote.
        "type": "unknown",
    }
    voted = {id for row in comparisons for id in row["annotations"]}
    principles = data.transcripts[0].principles if data.transcripts else {}
    asked = {
        annotator(id): {"name": id, "description": principle.preference or id, "type": "principle"}
        for id, principle in principles.items()
    }
    unknown = {"description": "not in the run's constitution", "type": "principle"}
    return {DEFAULT_ANNOTATOR: default} | {
        id: asked.get(id, {"name": id} | unknown) for id in sorted(voted - {DEFAULT_ANNOTATOR})
    }


def annotator(principle_id: str) -> str:
    """With a prefix, so that no principle has the name of a metadata column."""
    return f"principle-{principle_id}"


def sides(pair: Pair) -> tuple[str, str]:
    """Ids of response a and response b: digests, so that neither side is the chosen one's."""
    return ordered(pair.chosen.id, pair.rejected.id)


def ordered(one: str, other: str) -> tuple[str, str]:
    return (one, other) if one < other else (other, one)


def labels_by_pair(data: RunData) -> dict[tuple[str, str], list[Label]]:
    """The label stage's labels by the two texts they compare."""
    found: dict[tuple[str, str], list[Label]] = defaultdict(list)
    for transcript in data.transcripts:
        for label in transcript.labels:
            found[ordered(label.first_id, label.second_id)].append(label)
    return dict(found)


def comparison(pair: Pair, labels: Sequence[Label], split: str) -> Row:
    """A pair with the vote of each principle it was judged under, and their mean."""
    a, b = sorted((pair.chosen, pair.rejected), key=lambda text: text.id)
    preference, prompt = pair.preference, pair.prompt
    p_a = preference.p_chosen if a is pair.chosen else 1 - preference.p_chosen
    by_principle: dict[str, list[Label]] = defaultdict(list)
    for label in labels:
        by_principle[label.principle_id].append(label)
    votes = {annotator(id): vote(mean_p(given, a.id)) for id, given in by_principle.items()}
    metadata = (split, prompt.kind, prompt.area, preference.origin, preference.p_chosen)
    n_turns = sum(message.role == "user" for message in prompt.messages)
    return {
        "id": preference.id,
        "prompt": shown(prompt.messages),
        "response_a": response(a),
        "response_b": response(b),
        "annotations": {DEFAULT_ANNOTATOR: vote(p_a)} | dict(sorted(votes.items())),
        "metadata": dict(zip(METADATA, (*metadata, n_turns), strict=True)),
    }


def response(text: Text) -> dict[str, str]:
    return {"text": text.text, "model": public_name(text.generation.model)}


def mean_p(labels: Iterable[Label], a: str) -> float | None:
    """P(a is better), the mean of both orders' means; none if an order has no scored label."""
    orders: dict[bool, list[float]] = {True: [], False: []}
    for label in labels:
        if label.p_first is not None:
            a_first = label.first_id == a
            orders[a_first].append(label.p_first if a_first else 1 - label.p_first)
    means = [sum(given) / len(given) for given in orders.values() if given]
    return sum(means) / 2 if len(means) == 2 else None


def vote(p_a: float | None) -> dict[str, Any]:
    """A hard vote, which is what the format knows, with the probability beside it."""
    if p_a is None:
        return {"pref": None, "no_pref_reason": "invalid"}
    if p_a == 0.5:
        return {"pref": None, "no_pref_reason": "undecided", "p_a": p_a}
    return {"pref": "a" if p_a > 0.5 else "b", "p_a": round(p_a, 6)}


def shown(messages: Sequence[Message]) -> str:
    """The prompt for a reader: the text of one turn, or the dialogue with its speakers."""
    if len(messages) == 1:
        return messages[0].content
    return "\n\n".join(f"{SPEAKERS[message.role]}: {message.content}" for message in messages)


def public_name(label: str) -> str:
    """A model's `name@commit` without the place of a local folder."""
    name, at, commit = label.rpartition("@")
    return f"{without_folders(name)}@{commit}" if at else without_folders(label)


def without_folders(name: str) -> str:
    """A hub id as it is; of a path only its last part."""
    is_path = name.startswith(("/", ".", "~")) or name.count("/") > 1 or "\\" in name
    return name.replace("\\", "/").rstrip("/").rpartition("/")[2] if is_path else name
