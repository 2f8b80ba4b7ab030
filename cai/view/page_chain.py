"""One prompt's transcript as the page shows it, as JSON values."""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from cai.judgements import label_pairs
from cai.records import Critique, Label, Preference, Reasoning, Response, Revision
from cai.view.principle_page import Drawn
from cai.view.reader import response_names
from cai.view.transcripts import Transcript

Row = dict[str, Any]


def chain_row(transcript: Transcript, rounds: Sequence[Drawn]) -> Row:
    """Everything that was made of the prompt, in reading order; `rounds` are its `drawn`."""
    prompt, rewards = transcript.prompt, transcript.rewards
    return {
        "messages": [[message.role, message.content] for message in prompt.messages],
        "source": prompt.source,
        "response": text_row(transcript.response, rewards),
        "rounds": [
            {
                "round": round.number,
                "principle": round.principle_id,
                "critique": text_row(round.critique, rewards),
                "revision": text_row(round.revision, rewards),
                "change": rounded(drawn.change),
            }
            for round, drawn in zip(transcript.rounds, rounds, strict=True)
        ],
        "samples": [text_row(sample, rewards) for sample in transcript.samples],
        "answers": [
            {"policy": answer.policy, **(text_row(answer.response, rewards) or {})}
            for answer in transcript.answers
        ],
        "pairs": list(pair_rows(transcript)),
        "annotations": [one.model_dump(mode="json") for one in transcript.annotations],
    }


def text_row(
    record: Response | Critique | Revision | Reasoning | None, rewards: Mapping[str, float]
) -> Row | None:
    """A generated text with what made it; what is as usual is left out."""
    if record is None:
        return None
    made = record.generation
    row: Row = {"id": record.id, "text": record.text, "model": made.model, "tokens": made.n_tokens}
    row |= {"seed": made.seed, "temperature": made.sampling.temperature}
    told = {
        "finish": made.finish if made.finish != "stop" else None,
        "error": made.error,
        "template": made.template,
        "reward": rounded(rewards.get(record.id)),
    }
    return row | {name: value for name, value in told.items() if value is not None}


def rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 4)


def pair_rows(transcript: Transcript) -> Iterator[Row]:
    """Each pair that was judged, or whose revision is assumed to be better."""
    names, preferences = (
        response_names(transcript),
        {frozenset((p.chosen_id, p.rejected_id)): p for p in transcript.preferences},
    )
    for stage, labels in (("label", transcript.labels), ("evaluate", transcript.comparisons)):
        groups: dict[frozenset[str], list[Label]] = defaultdict(list)
        for label in labels:
            groups[frozenset((label.first_id, label.second_id))].append(label)
        for key, group in groups.items():
            preference = preferences.pop(key, None) if stage == "label" else None
            yield {"stage": stage} | judged_row(group, transcript, names, preference)
    for preference in preferences.values():
        yield {"stage": "label", "labels": []} | preference_row(preference, names)


def judged_row(
    labels: Sequence[Label],
    transcript: Transcript,
    names: Mapping[str, str],
    preference: Preference | None,
) -> Row:
    """A pair's labels, and what both orders say together: none where there is no judgement."""
    judged = label_pairs(labels)[0]
    reasonings = {reasoning.id: reasoning for reasoning in transcript.reasonings}
    # The text that the reader saw first is the first one, whichever the judge was shown first.
    order = list(names)
    ids = sorted(
        {labels[0].first_id, labels[0].second_id},
        key=lambda id: (order.index(id) if id in names else len(order), id),
    )
    row: Row = {
        "first": names.get(ids[0], ids[0]),
        "second": names.get(ids[-1], ids[-1]),
        "labels": [label_row(label, names, reasonings) for label in labels],
    }
    for pair in judged:
        there, back = pair.orders
        orders = (there, 1 - back) if pair.first_id == ids[0] else (back, 1 - there)
        row["orders"] = [rounded(p) for p in orders]
        row["p"] = rounded(pair.p_first if pair.first_id == ids[0] else 1 - pair.p_first)
    return row | (preference_row(preference, names) if preference else {})


def preference_row(preference: Preference, names: Mapping[str, str]) -> Row:
    """What the run learns from the pair; the pair itself where nobody judged it."""
    chosen, rejected = preference.chosen_id, preference.rejected_id
    names_of = {"chosen": names.get(chosen, chosen), "rejected": names.get(rejected, rejected)}
    return {"preference": {**names_of, "p": rounded(preference.p_chosen)}}


def label_row(label: Label, names: Mapping[str, str], reasonings: Mapping[str, Reasoning]) -> Row:
    """One judgement, with what the judge wrote before it."""
    first, second = label.first_id, label.second_id
    return {
        "first": names.get(first, first),
        "second": names.get(second, second),
        "principle": label.principle_id,
        "p": rounded(label.p_first),
        "logprobs": [rounded(value) for value in label.logprobs or ()],
        "outside": rounded(label.p_outside),
        "verdict": label.text if label.mode == "text" else None,
        "unscored": label.unscored,
        "reasoning": text_row(reasonings.get(label.reasoning_id or ""), {}),
    }
