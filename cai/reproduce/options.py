"""What `cai reproduce` is asked, and how large its parts are."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from pydantic import Field

from cai.complaints import validated
from cai.config import Engine
from cai.errors import ConfigError
from cai.models import EMBEDDED, Model
from cai.records import Record
from cai.resolve import apply_setting
from cai.sections import Lora
from cai.strict_yaml import Document
from cai.view.progress import StageProgress

PARTS = ("labels", "human", "rl", "judge")
"""In order; on the command line they are 1 to 4."""


class LabelSizes(Record):
    """Part 1: reward models on pairs of known P."""

    n_train: int = Field(default=60, ge=1)
    """Pairs of each level."""
    n_unseen: int = Field(default=8, ge=1)
    steps: int = Field(default=100, ge=1)
    batch_size: int = Field(default=6, ge=1)
    learning_rate: float = 8e-4
    lora: Lora = Lora(r=8, alpha=16)


class HumanSizes(Record):
    """Part 2: reward models on human pairs."""

    shares: tuple[float, ...] = (0.25, 0.5, 1.0)
    """Of the training dialogues, each a part of the next."""
    test: float = Field(default=0.3, gt=0, lt=1)
    """Share of dialogues whose pairs measure accuracy and serve nothing else."""
    tuning: float = Field(default=0.15, gt=0, lt=1)
    """Share of dialogues kept for choosing settings, and for the prompts of part 3; the rest is
    trained on. Epochs and learning rate are chosen without the test dialogues: with these, a model
    trained on 300 pairs of at most 450 characters was right on 66.7 % [58.9, 73.6] of 153 others;
    one epoch at 2e-4 had not beaten chance."""
    max_chars: int = Field(default=600, ge=1)
    """A pair with a longer side is left out and counted."""
    epochs: float = 2.0
    batch_size: int = Field(default=8, ge=1)
    learning_rate: float = 1e-3
    lora: Lora = Lora(r=16, alpha=32)


class RlSizes(Record):
    """Part 3: RL against the reward model of part 2, and against a planted reward."""

    steps: int = Field(default=40, ge=1)
    planted_steps: int = Field(default=40, ge=1)
    n_unseen: int = Field(default=96, ge=2)
    """Prompts that measure the policy before and after."""
    max_chars: int = Field(default=240, ge=1)
    """A longer prompt is left out and counted."""
    max_tokens: int = Field(default=64, ge=2)
    """Of a response."""
    batch_size: int = Field(default=8, ge=2)
    """Responses a step, `n_generations` to a prompt."""
    n_generations: int = Field(default=4, ge=2)
    learning_rate: float = 3e-4
    beta: float = 0.05
    lora: Lora = Lora(r=16, alpha=32)


class JudgeSizes(Record):
    """Part 4: the judge test."""

    n_pairs: int = Field(default=100, ge=2)


class Sizes(Record):
    """How large each part is."""

    labels: LabelSizes = LabelSizes()
    human: HumanSizes = HumanSizes()
    rl: RlSizes = RlSizes()
    judge: JudgeSizes = JudgeSizes()


SCALED = ("labels.steps", "rl.steps", "rl.planted_steps", "rl.n_unseen", "judge.n_pairs")
"""What `--scale` multiplies; of the human pairs a scale below 1 takes a part, above 1 all."""


def make_sizes(scale: float = 1.0, settings: Sequence[str] = ()) -> Sizes:
    """The defaults times `scale`, then `key=value` texts such as `rl.steps=80`.

    Raises ConfigError naming a setting that is none.
    """
    data = Sizes().model_dump(mode="json")
    for key in SCALED:
        part, name = key.split(".")
        data[part][name] = max(2, round(data[part][name] * scale))
    data["human"]["shares"] = [share * min(1.0, scale) for share in data["human"]["shares"]]
    document = Document("the command line", data, {}, {})
    for setting in settings:
        apply_setting(document, setting)
    return validated(document, Sizes)


class ReproduceOptions(NamedTuple):
    """What is reproduced, on what."""

    data: str
    """Human preference pairs: hh-rlhf's harmless-base.jsonl.gz."""
    model: str = EMBEDDED
    out: Path = Path("runs") / "reproduce"
    parts: tuple[str, ...] = PARTS
    sizes: Sizes = Sizes()
    engine: Engine = Engine(kind="transformers", capacity=32)
    seed: int = 0
    skip_bad: bool = False


def make_options(
    parts: str, scale: float, settings: Sequence[str], given: Mapping[str, Any]
) -> ReproduceOptions:
    """What the command line says; `given` are fields of `ReproduceOptions`, none where not given.

    Raises ConfigError for a part or a setting that is none.
    """
    numbers = {str(number): name for number, name in enumerate(PARTS, 1)}
    chosen = [part.strip() for part in parts.split(",")]
    if unknown := [part for part in chosen if part not in numbers]:
        raise ConfigError(f"--parts {unknown[0]}: expected some of {', '.join(numbers)}")
    known = {name: value for name, value in given.items() if value is not None}
    if kind := known.pop("engine", None):
        known["engine"] = Engine(kind=kind, capacity=32)
    return ReproduceOptions(
        **known,
        parts=tuple(numbers[part] for part in chosen),
        sizes=make_sizes(scale, settings),
    )


class Work(NamedTuple):
    """What a part is given."""

    options: ReproduceOptions
    model: Model
    progress: StageProgress

    def folder(self, *names: str) -> Path:
        """A folder of the part's own."""
        return self.options.out.joinpath(*names)


Result = dict[str, Any]
"""What a part measured, as JSON."""
