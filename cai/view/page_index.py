"""What the page's list knows of each chain: columns, so that ten thousand rows stay small."""

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from cai.records import Response, Revision
from cai.view.badges import BADGES, badges
from cai.view.principle_page import Drawn, chain_change
from cai.view.transcripts import Transcript

HEAD = 160
"""Characters of a prompt that the list shows."""
STAGES = ("revise", "sample", "label", "evaluate")
"""Stages that leave texts to read."""


class Line(NamedTuple):
    """One chain; what a search, a filter or a sort asks of it."""

    id: str
    head: str
    """How its last turn begins."""
    kind: str
    area: str
    split: str
    stages: list[str]
    badges: list[int]
    """Places in `BADGES`."""
    drawn: list[int]
    """The principle of each round, as a place in the list of principles."""
    changes: list[float | None]
    """Share of words that each round changed."""
    judged: list[int]
    """The principles that its pairs were judged under."""
    change: float | None
    """Share of words that differ between the response and the last revision that did not fail."""
    reward: float | None
    """Of the last text, as is `length`, in tokens."""
    length: int | None
    annotations: int


class Index:
    """Grows by one chain after the other; `columns` is the whole as JSON values."""

    def __init__(self, principle_ids: Iterable[str]) -> None:
        self._principles = {id: place for place, id in enumerate(principle_ids)}
        self._lines: list[Line] = []

    def add(self, transcript: Transcript, rounds: Sequence[Drawn]) -> None:
        """The next chain; `rounds` are its `drawn`."""
        prompt, last = transcript.prompt, last_text(transcript)
        labels = (*transcript.labels, *transcript.comparisons)
        self._lines.append(
            Line(
                id=prompt.id,
                head=" ".join(prompt.messages[-1].content[: 4 * HEAD].split())[:HEAD],
                kind=prompt.kind,
                area=prompt.area,
                split=prompt.split,
                stages=[stage for stage, there in stages(transcript).items() if there],
                badges=[BADGES.index(badge) for badge in badges(transcript)],
                drawn=[self._place(one.principle_id) for one in rounds],
                changes=[shorten(one.change) for one in rounds],
                judged=sorted({self._place(label.principle_id) for label in labels}),
                change=shorten(chain_change(transcript)),
                reward=shorten(transcript.rewards.get(last.id)) if last else None,
                length=last.generation.n_tokens if last else None,
                annotations=len(transcript.annotations),
            )
        )

    def _place(self, principle_id: str) -> int:
        return self._principles.setdefault(principle_id, len(self._principles))

    @property
    def principle_ids(self) -> list[str]:
        """Those it was given, then those that only the chains name."""
        return list(self._principles)

    @property
    def columns(self) -> dict[str, list[Any]]:
        return {name: [line[i] for line in self._lines] for i, name in enumerate(Line._fields)}


def stages(transcript: Transcript) -> dict[str, bool]:
    """Which of `STAGES` made something of the prompt."""
    made = (transcript.response, transcript.samples, transcript.labels, transcript.answers)
    return dict(zip(STAGES, map(bool, made), strict=True))


def last_text(transcript: Transcript) -> Response | Revision | None:
    """What the run ended with: the last policy's answer, or the last revision; none that failed."""
    answers = [answer.response for answer in transcript.answers]
    texts = [*transcript.versions(), *transcript.samples[:1], *answers]
    texts = [text for text in texts if text.generation.finish != "error"]
    return texts[-1] if texts else None


def shorten(value: float | None) -> float | None:
    return None if value is None else round(value, 3)
