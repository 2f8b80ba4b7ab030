"""What is measured of a prompt in each of two runs, one number at a time; pure."""

from collections.abc import Callable, Mapping
from itertools import pairwise
from statistics import fmean
from typing import Literal, NamedTuple

from cai.compare_chains import Part
from cai.judgements import label_pairs
from cai.metrics import REFUSAL_OF, Score, is_refusal
from cai.records import Response, Revision
from cai.view.terminal import EVALUATION
from cai.view.transcripts import Transcript
from cai.words import split_words, word_change

Value = float | bool | None
"""None: nothing to measure. A share's values are bools."""
Scores = Mapping[str, Score]
Of = Callable[[Transcript, Scores, Part], Value]
Form = Literal["mean", "share", "probability"]
Yardstick = Literal["", "reward model", "judge"]
"""What of the run itself measures: if it differs between runs, so does what the number means."""


class Measure(NamedTuple):
    """One number about a prompt, of each of `parts`."""

    name: str
    scale: float
    digits: int
    of: Of
    parts: tuple[Part, ...]
    form: Form = "mean"
    yardstick: Yardstick = ""


def measured(transcript: Transcript, part: Part) -> Response | Revision | None:
    """The text that a part comes to: a chain's last revision, a policy's answer; none if failed."""
    if part == "chain":
        found = [round.revision for round in transcript.rounds if round.revision][-1:]
    else:
        found = [answer.response for answer in transcript.answers if answer.policy == part]
    return next((text for text in found if text.generation.finish != "error"), None)


def origin(transcript: Transcript, part: Part) -> Response | Revision | None:
    """What it is held against: the chain's first response, the base model's answer."""
    return transcript.response if part == "chain" else measured(transcript, "base")


def score_of(text: Response | Revision | None, scores: Scores) -> Score:
    return scores.get(text.id, Score(None)) if text else Score(None)


def reward(transcript: Transcript, scores: Scores, part: Part) -> Value:
    return score_of(measured(transcript, part), scores).reward


def reward_gain(transcript: Transcript, scores: Scores, part: Part) -> Value:
    now, before = reward(transcript, scores, part), score_of(origin(transcript, part), scores)
    return None if now is None or before.reward is None else now - before.reward


def win_rate(transcript: Transcript, _: Scores, part: Part) -> Value:
    """P(the policy's answer is better than base's), both orders averaged."""
    ours, theirs = measured(transcript, part), origin(transcript, part)
    if ours and theirs:
        for judged in label_pairs(transcript.comparisons)[0]:
            if {judged.first_id, judged.second_id} == {ours.id, theirs.id}:
                return judged.p_first if judged.first_id == ours.id else 1 - judged.p_first
    return None


def refusal(kind: str) -> Of:
    def of(transcript: Transcript, _: Scores, part: Part) -> Value:
        text = measured(transcript, part) if transcript.prompt.kind == kind else None
        return is_refusal(text.text) if text else None

    return of


def kl(transcript: Transcript, scores: Scores, part: Part) -> Value:
    return score_of(measured(transcript, part), scores).kl


def length(transcript: Transcript, _: Scores, part: Part) -> Value:
    text = measured(transcript, part)
    return text.generation.n_tokens if text else None


def cut_off(transcript: Transcript, _: Scores, part: Part) -> Value:
    text = measured(transcript, part)
    return text.generation.finish == "length" if text else None


def rewritten(transcript: Transcript, _: Scores, part: Part) -> Value:
    """The share of words that differ between the response and the last revision."""
    first, end = transcript.response, measured(transcript, part)
    return word_change(first.text, end.text) if first and end else None


def idle(transcript: Transcript, _: Scores, part: Part) -> Value:
    """The share of a chain's rounds that changed no word."""
    texts = [split_words(version.text) for version in transcript.versions()]
    return fmean(old == new for old, new in pairwise(texts)) if len(texts) > 1 else None


def p_chosen(transcript: Transcript, _: Scores, part: Part) -> Value:
    judged = [row.p_chosen for row in transcript.preferences if row.p_orders]
    return fmean(judged) if judged else None


def agreement(transcript: Transcript, _: Scores, part: Part) -> Value:
    judged = [bool(row.orders_agree) for row in transcript.preferences if row.p_orders]
    return fmean(judged) if judged else None


NAMED = {key: (name, scale, digits) for name, key, scale, digits in EVALUATION}
TRAINED: tuple[Part, ...] = ("sft", "rl")
POLICIES: tuple[Part, ...] = ("base", *TRAINED)
TEXTS: tuple[Part, ...] = ("chain", *POLICIES)
MEASURES = (
    Measure("words changed by the revisions", 100, 0, rewritten, ("chain",)),
    Measure("rounds that changed no word", 100, 0, idle, ("chain",)),
    Measure(*NAMED["reward"], reward, TEXTS, yardstick="reward model"),
    Measure("reward gain over the response", 1, 2, reward_gain, ("chain",), "mean", "reward model"),
    Measure(*NAMED["reward_gain"], reward_gain, TRAINED, yardstick="reward model"),
    Measure(*NAMED["win_rate"], win_rate, TRAINED, "probability", "judge"),
    *(
        Measure(*NAMED[key], refusal(kind), TEXTS if kind == "red_team" else POLICIES, "share")
        for key, kind in REFUSAL_OF.items()
    ),
    Measure(*NAMED["kl"], kl, TRAINED),
    Measure(*NAMED["length_tokens"], length, TEXTS),
    Measure("cut off at the limit", 100, 0, cut_off, TEXTS, "share"),
    Measure("P(chosen)", 1, 2, p_chosen, ("labels",), "probability", "judge"),
    Measure("both orders agree", 100, 0, agreement, ("labels",), "probability", "judge"),
)
"""In the order in which they are shown."""
