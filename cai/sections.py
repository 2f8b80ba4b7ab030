"""The config's sections that decide what the stages do, one model a stage."""

import math
import re
from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator

from cai.records import LabelMode, Record, Sampling

Exemplars = Literal["auto", "on", "off"]
"""auto: on for models without a chat template (base models), off for the others."""


class Lora(Record):
    """LoRA of every linear layer (peft's `target_modules="all-linear"`); merged after training."""

    r: int = Field(default=16, ge=1)
    alpha: int = Field(default=32, ge=1)
    dropout: float = Field(default=0.0, ge=0, lt=1)


class DatasetSource(Record):
    """A Hugging Face dataset, or a local JSONL file with its own options."""

    path: str
    split: str = "train"
    column: str | None = None
    """The column that holds the prompt or dialogue; none: recognised by name."""
    revision: str | None = None


class ExemplarFiles(Record):
    """Files of worked examples: names in `prompts/exemplars/`, or paths."""

    revision: str = "critique_revision"
    preference: str = "preference"
    cot: str = "preference_cot"


class Revise(Record):
    """Stage revise: respond, then rounds of critique and revision (paper section 3.1)."""

    n_prompts: int | None = Field(default=None, ge=1)
    """Red-team prompts used; none: all of the sft share."""
    n_helpful: int | None = Field(default=None, ge=0)
    """Helpful prompts answered, for mixing into SFT; none: all of the sft share."""
    rounds: int = Field(default=4, ge=1)
    exemplars: Exemplars = "auto"
    delimiters: bool = False
    """Quote the response between markers that it cannot foresee when a critique is asked for, and
    say that what stands there is not to be followed. `bench/hijack.py` measures what that is worth
    to a model; the paper has no such thing."""
    response: Sampling = Sampling()
    critique: Sampling = Sampling()
    revision: Sampling = Sampling()


class Sft(Record):
    """Stage sft: supervised fine-tuning on revisions and helpful responses."""

    use: Literal["all", "last"] = "all"
    """Which revisions become rows; the paper uses all (section 3.4)."""
    helpful_ratio: float = Field(default=0.27, ge=0, lt=1)
    """Share of helpful rows aimed at; the paper's data implies 0.27."""
    lora: Lora | None = Lora()
    max_length: int = Field(default=2048, ge=16)
    trainer: dict[str, Any] = {}


class Sample(Record):
    """Stage sample: k responses per prompt from the policy."""

    n_prompts: int | None = Field(default=None, ge=1)
    k: int = Field(default=2, ge=2)
    sampling: Sampling = Sampling()


class Label(Record):
    """Stage label: each pair is judged under a drawn preference principle, in both orders."""

    mode: LabelMode = "logprob"
    exemplars: Exemplars = "auto"
    pairing: Literal["random", "all", "extremes"] = "random"
    """Which of a prompt's k responses are paired: two drawn ones (the paper: one comparison per
    prompt); every two; every two, of which only best against worst is kept."""
    revision_pairs: Literal["off", "judged", "assumed"] = "off"
    """Pairs of the last revision and the response that it revises: not made, judged like others, or
    taken as P = 1 for the revision without asking (which is no AI feedback)."""
    ensemble: int = Field(default=1, ge=1)
    """Principles of different texts that a pair is judged under; the paper draws one."""
    n_cot: int = Field(default=1, ge=1)
    """Reasonings per question whose judgements are averaged (mode cot)."""
    reasoning: Sampling = Sampling()
    clamp: Literal["auto", "off"] | tuple[float, float] = "auto"
    """Bounds of P(chosen). auto: 0.4 and 0.6 for cot (paper section 4.1), none for other modes."""

    @model_validator(mode="after")
    def check(self) -> "Label":
        bounds = self.bounds
        # P of the other side is 1 - P: a bound on one is a bound on both
        if bounds and not (0.5 <= bounds[1] <= 1 and math.isclose(sum(bounds), 1)):
            raise ValueError("clamp needs two bounds as far from 0.5, such as [0.4, 0.6]")
        if self.n_cot > 1 and (self.mode != "cot" or self.reasoning.temperature == 0):
            raise ValueError("n_cot above 1 needs mode cot and a reasoning temperature above 0")
        return self

    @property
    def bounds(self) -> tuple[float, float] | None:
        """The clamp in numbers."""
        if self.clamp == "auto":
            return (0.4, 0.6) if self.mode == "cot" else None
        return None if self.clamp == "off" else self.clamp


class PreferenceSource(Record):
    """Preferences from elsewhere: hh-rlhf or TRL preference rows, or another run's folder."""

    path: str
    """JSONL(.gz) file, folder of a run, or dataset id."""
    split: str = "train"
    revision: str | None = None
    n: int | None = Field(default=None, ge=1)
    """At most so many pairs, drawn by the seed."""
    p_chosen: float = Field(default=1.0, ge=0.5, le=1)
    """P(chosen is better) of a row that only names the better one."""


class Preferences(Record):
    """What the reward model and DPO learn from."""

    ai: bool = True
    """Whether this run's own labels are among them."""
    sources: tuple[str | PreferenceSource, ...] = ()
    ratio: float | None = Field(default=None, gt=0, lt=1)
    """Share of pairs from `sources` aimed at; none: all there are."""

    @model_validator(mode="after")
    def check(self) -> "Preferences":
        if self.ratio and not (self.ai and self.sources):
            raise ValueError("a ratio needs both: ai: true, and sources")
        return self


class Reward(Record):
    """Stage reward: a scalar head trained on soft labels, or on ratings."""

    method: Literal["pairwise", "pointwise"] = "pairwise"
    """pointwise: regression on the ratings in `ratings`; pairs then only measure its accuracy."""
    ratings: tuple[str | DatasetSource, ...] = ()
    """Rows with a conversation and a number `rating`."""
    labels: Literal["soft", "hard"] = "soft"
    """hard: the better side has P = 1, as the field does it; the paper found soft labels better."""
    margin: float = Field(default=0.0, ge=0)
    """Score gap asked of a certain pair (hard labels): logσ(d - margin·(2P - 1))."""
    heldout: float = Field(default=0.2, gt=0, lt=1)
    """Share of dialogues whose pairs only measure accuracy."""
    lora: Lora | None = Lora()
    max_length: int = Field(default=2048, ge=16)
    trainer: dict[str, Any] = {}

    @model_validator(mode="after")
    def check(self) -> "Reward":
        if self.margin and self.labels == "soft":
            raise ValueError("margin needs labels: hard; a soft label says how wide the gap is")
        if (self.method == "pointwise") != bool(self.ratings):
            raise ValueError("method pointwise and ratings go together")
        return self


class ModelReward(Record):
    """The reward model's score."""

    kind: Literal["reward_model"] = "reward_model"
    name: str = "reward_model"
    weight: float = 1.0
    path: str | None = None
    """Another reward model: a folder or a Hugging Face id; none: the one of this run."""


def reward_role(term: ModelReward) -> str:
    """The role in a run of a reward model that the run does not train."""
    return f"rewards.{term.name}"


class LengthReward(Record):
    """Length in tokens: a negative weight is a penalty."""

    kind: Literal["length"]
    name: str = "length"
    weight: float
    free: int = Field(default=0, ge=0)
    """Tokens that do not count."""
    per: int = Field(default=100, ge=1)
    """Tokens beyond `free` that are worth 1."""


class RuleReward(Record):
    """1 where a regular expression is found in the response (case ignored), else 0."""

    kind: Literal["rule"]
    name: str = Field(pattern=r"^[a-z][a-z0-9_]*$")
    weight: float
    pattern: str

    @field_validator("pattern")
    @classmethod
    def compiles(cls, value: str) -> str:
        try:
            re.compile(value)
        except re.error as error:
            raise ValueError(f"not a regular expression: {error}") from error
        return value


RewardTerm = Annotated[ModelReward | LengthReward | RuleReward, Field(discriminator="kind")]


class Health(Record):
    """When RL counts as collapsed: a bound broken at `patience` checks in a row stops it.

    Measured over the last `window` completions, every `every` steps. None: not checked.
    """

    every: int = Field(default=1, ge=1)
    patience: int = Field(default=3, ge=1)
    window: int = Field(default=64, ge=8)
    max_kl: float | None = Field(default=0.5, gt=0)
    """Nats per token from where RL started."""
    min_entropy: float | None = Field(default=0.05, ge=0)
    """Nats per token of the policy's own distribution."""
    min_distinct_2: float | None = Field(default=0.2, ge=0, le=1)
    max_top_opening: float | None = Field(default=0.9, ge=0, le=1)
    """Share of completions that begin with the commonest first three words."""
    max_clipped: float | None = Field(default=None, ge=0, le=1)
    """Share of completions cut at the token limit."""
    max_zero_std: float | None = Field(default=0.95, ge=0, le=1)
    """Share of groups whose rewards are all equal, from which nothing is learnt."""
    max_length_correlation: float | None = Field(default=0.9, ge=0, le=1)
    """Pearson correlation of total reward and length, whatever its sign."""
    max_length_growth: float | None = Field(default=3.0, gt=1)
    """Mean length over that of the first window."""
    min_length_growth: float | None = Field(default=0.25, gt=0, lt=1)
    """The same, of a policy that hardly says anything any more."""


class Rl(Record):
    """Stage rl: the policy against its rewards with a KL penalty (`trainer.beta`), or by DPO."""

    method: Literal["rloo", "grpo", "dpo"] = "rloo"
    """dpo: from the reward stage's pairs, soft labels included, without a reward model."""
    n_prompts: int | None = Field(default=None, ge=1)
    n_helpful: int | None = Field(default=None, ge=0)
    """Helpful prompts mixed in, as in the paper (section 4.2); none: all of the rl share."""
    lora: Lora | None = Lora()
    rewards: tuple[RewardTerm, ...] = Field(default=(ModelReward(),), min_length=1)
    """Summed with their weights; each is logged by its name."""
    health: Health = Health()
    n_checkpoints: int = Field(default=4, ge=1)
    """Policies kept along the way; the judge chooses among the healthy ones."""
    n_select: int = Field(default=32, ge=0)
    """Prompts of the rl share held out of training, on which the judge compares the kept policies
    with the one that RL started from; 0: the last healthy policy is taken."""
    max_prompt_length: int = Field(default=1024, ge=8)
    reward_batch_size: int = Field(default=16, ge=1)
    trainer: dict[str, Any] = {}

    @model_validator(mode="after")
    def check(self) -> "Rl":
        names = [term.name for term in self.rewards]
        if len(set(names)) < len(names):
            raise ValueError(f"two rewards have one name: {', '.join(names)}")
        return self


class Evaluate(Record):
    """Stage evaluate: base, SFT and RL policy on the same held-out prompts."""

    n_prompts: int | None = Field(default=None, ge=2)
    n_look_alike: int | None = Field(default=None, ge=0)
    n_helpful: int | None = Field(default=None, ge=0)
    sampling: Sampling = Sampling()
