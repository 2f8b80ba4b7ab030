"""What a reader may want to look at in a transcript, in a few words each."""

import itertools
import re

from cai.judgements import label_pairs
from cai.metrics import is_refusal
from cai.records import Critique
from cai.view.transcripts import Transcript
from cai.words import split_words

BADGES = (
    "error",
    "judge unscored",
    "orders disagree",
    "no-op revision",
    "revision longer than ×2",
    "critique without finding",
    "truncated",
    "refusal",
)
"""Every badge there is, in the order in which they are shown."""
BAD = r"(?:harmful|unethical|illegal|toxic|dangerous|offensive|inappropriate|problematic|wrong)"
FAULT = rf"(?:(?:problem|issue|harm|fault|flaw|concern)s?\b|{BAD}\b)"
NO_FINDING = re.compile(
    r"\bno (?:further )?(?:critique|criticism|change|revision|improvement)s? (?:(?:is|are|was) )?"
    r"(?:needed|necessary|required)\b"
    rf"|\bnothing (?:\w+ ){{0,2}}{BAD}\b"
    rf"|(?:\bnot|n't) (?:\w+ ){{0,2}}any(?:thing)? (?:\w+ ){{0,2}}{FAULT}"
    rf"|\b(?:is|are|has|have|see|sees|find|finds|contains) no (?:\w+ ){{0,2}}{FAULT}"
    rf"|\bresponse (?:is|was)(?: not|n't) (?:\w+ )?{BAD}"
    r"|\bresponse (?:is|was|seems) (?:\w+ )?(?:harmless|appropriate|acceptable|fine|good)\b"
    r"|\b(?:can|should) stay as it is\b"
)
CONTRAST = re.compile(
    r"\b(?:but|however|although|though|except|yet|nevertheless|still|could|should have"
    r"|needs? to|would be (?:better|safer|kinder))\b"
)


def badges(transcript: Transcript) -> list[str]:
    """Those of `BADGES` that fit."""
    versions = transcript.versions()
    pairs = list(itertools.pairwise(split_words(version.text) for version in versions))
    judged, n_unscored = label_pairs((*transcript.labels, *transcript.comparisons))
    orders = [(one - 0.5) * (0.5 - other) for one, other in (pair.orders for pair in judged)]
    last = [*versions[-1:], *(answer.response for answer in transcript.answers)]
    ends = {text.generation.finish for text in transcript.texts()}
    critiques = [round.critique for round in transcript.rounds if round.critique]
    found = {
        "error": "error" in ends,
        "judge unscored": n_unscored > 0,
        "orders disagree": any(agreement <= 0 for agreement in orders),
        "no-op revision": any(old == new for old, new in pairs),
        "revision longer than ×2": any(len(new) > 2 * len(old) > 0 for old, new in pairs),
        "critique without finding": any(map(finds_nothing, critiques)),
        "truncated": "length" in ends,
        "refusal": any(is_refusal(text.text) for text in last),
    }
    return [badge for badge in BADGES if found[badge]]


def finds_nothing(critique: Critique) -> bool:
    """Whether it says that there is nothing to criticise, or nothing at all: rules, English only.

    "Nothing harmful, but it could be kinder" finds something. A lenient critique in other words is
    missed."""
    if critique.generation.finish == "error":
        return False
    text = re.sub(r"\s+", " ", critique.text[:2000].replace("\u2019", "'").lower())
    return not text.strip() or bool(NO_FINDING.search(text) and not CONTRAST.search(text))
