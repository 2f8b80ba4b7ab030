"""The run's configuration; `cai.resolve` loads it.

A file is sparse YAML; the resolved config, every default in it, is written as JSON. Precedence:
`--set` and typed options, then the config file or recipe, then the defaults below. Trainer options
are passed through under TRL's own names and never declared again here.
"""

from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator

from cai.records import Record, digest
from cai.sections import (
    DatasetSource,
    Evaluate,
    ExemplarFiles,
    Label,
    Preferences,
    Revise,
    Reward,
    Rl,
    Sample,
    Sft,
)


class Models(Record):
    """Who plays which role: an embedded name, a Hugging Face id, a local folder, a checkpoint."""

    base: str = "smollm2-135m"
    """Responds, and is trained."""
    critic: str | None = None
    """Criticises and revises; none: the base model."""
    judge: str | None = None
    """Labels pairs; none: the base model."""
    policy: str | None = None
    """Samples the pairs and starts RL; none: the checkpoint of this run's sft stage."""
    reward: str | None = None
    """What the reward model is trained from; none: the base model, as in the paper."""


class Shares(Record):
    """Which share of the prompts each purpose gets; a prompt's part is a hash of its dialogue."""

    sft: float = Field(default=0.4, ge=0)
    preference: float = Field(default=0.3, ge=0)
    rl: float = Field(default=0.15, ge=0)
    eval: float = Field(default=0.15, ge=0)

    @model_validator(mode="after")
    def add_up(self) -> "Shares":
        if abs(self.sft + self.preference + self.rl + self.eval - 1) > 1e-6:
            raise ValueError("the four shares must add up to 1")
        return self


Source = str | DatasetSource


class Prompts(Record):
    """Where prompts come from. A string is a JSONL(.gz) file, a folder of them, or a dataset."""

    red_team: tuple[Source, ...] = ("red_team",)
    helpful: tuple[Source, ...] = ("helpful",)
    look_alike: tuple[Source, ...] = ("look_alike",)
    """Benign prompts that look harmful: only for measuring over-refusal."""
    turns: Literal["auto", "all", "first", "last"] = "auto"
    """Which human turns of a dialogue start a prompt. auto: each one, as in the paper, where
    the dialogue ends in a response; the last one where it ends in a human turn."""
    shares: Shares = Shares()
    skip_bad: bool = False
    """Leave broken lines out and count them, instead of stopping."""


class Engine(Record):
    """What generates."""

    kind: Literal["vllm", "transformers", "fake"] = "vllm"
    max_context: int | None = Field(default=None, ge=64)
    """Tokens of prompt and completion together; none: the model's own limit, at most 4096."""
    capacity: int = Field(default=64, ge=1)
    """Requests worked on at once."""
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    """auto: bfloat16 on a GPU, float32 on a CPU."""
    options: dict[str, Any] = {}
    """Passed to vLLM's `EngineArgs` under its own names."""
    stall_s: float = Field(default=600, gt=0)
    """Seconds without a step of the engine after which it counts as hanging; to load its model it
    may take three times as long."""
    restarts: int = Field(default=20, ge=0)
    """How often the engine is started again after it died or hung, before as many requests as it
    works on at once have been completed in between; then the run stops (exit code 75)."""

    @property
    def key(self) -> str:
        """Stands for the settings that change what the engine says."""
        return digest("engine", self.kind, self.max_context, self.dtype, self.options)


Share = Annotated[float, Field(ge=0, le=1)]


class Guards(Record):
    """Bounds on what a run measures of itself after each stage. None: not checked.

    A broken bound warns, or stops the run (exit code 4) where `stop` names it.
    """

    max_same_slot: Share | None = 0.5
    """Share of pairs of which the judge preferred the same slot in both orders."""
    max_identical_bias: Annotated[float, Field(ge=0, le=0.5)] | None = 0.05
    """How far from 0.5 the mean P(first) of a response beside itself may be.

    Each is judged in one order, and there are only `N_IDENTICAL` of 8: where they spread by 0.05
    the mean has a standard error of 0.018, so that 0.01 would warn by chance. `judge-test`, which
    averages both orders, holds a judge to 0.01 (`EVEN`): there the slot cancels out.
    """
    max_unscored: Share | None = 0.2
    """Share of pairs without a judgement."""
    max_length_correlation: Share | None = 0.4
    """Spearman's ρ, whatever its sign: of a policy's rewards with the length of its answers, and of
    the judge's P with the difference in length of a pair."""
    max_refusal_rise: Share | None = 0.05
    """By how much more of the look-alike or helpful prompts may be refused than by the base model.
    Counts where the 95 % intervals lie apart."""
    max_length_change: Annotated[float, Field(ge=1)] | None = 1.5
    """Mean length of a policy's answers over base's, or base's over it."""
    max_distinct_drop: Share | None = 0.3
    """By which share of base's the distinct-2 of a policy's answers may be lower."""
    max_truncated: Share | None = 0.2
    """Share of texts cut at their limit of tokens."""
    max_cut_rows: Share | None = 0.01
    """Share of a trainer's rows that are cut, left out or carry no loss. Where it stops a run, it
    does so before the model is loaded."""
    stop: tuple[str, ...] = ("max_cut_rows",)
    """The bounds that stop the run."""

    @field_validator("stop")
    @classmethod
    def are_bounds(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        bounds = [name for name in cls.model_fields if name != "stop"]
        if unknown := [name for name in value if name not in bounds]:
            raise ValueError(f"{', '.join(unknown)}: no such bound; there are {', '.join(bounds)}")
        return value

    @property
    def allowed_cut(self) -> float:
        """The share of cut rows with which a trainer still begins."""
        stops = self.max_cut_rows is not None and "max_cut_rows" in self.stop
        return self.max_cut_rows or 0.0 if stops else 1.0


class RunConfig(Record):
    """Everything that decides what a run does."""

    constitution: str
    recipe: str | None = Field(default=None, pattern=r"^\w[\w .-]{0,63}$")
    """The recipe's name, for the run's name only."""
    seed: int = Field(default=0, ge=0)
    models: Models = Models()
    prompts: Prompts = Prompts()
    engine: Engine = Engine()
    exemplars: ExemplarFiles = ExemplarFiles()
    revise: Revise = Revise()
    sft: Sft = Sft()
    sample: Sample = Sample()
    label: Label = Label()
    preferences: Preferences = Preferences()
    reward: Reward = Reward()
    rl: Rl = Rl()
    evaluate: Evaluate = Evaluate()
    guards: Guards = Guards()
    max_error_rate: float = Field(default=0.2, ge=0, le=1)
    """Share of failed requests in a stage above which the run stops (exit code 3)."""

    @model_validator(mode="after")
    def has_preferences(self) -> "RunConfig":
        needed = self.reward.method == "pairwise" or self.rl.method == "dpo"
        if needed and not (self.preferences.ai or self.preferences.sources):
            raise ValueError("preferences.ai is off and preferences.sources is empty: no pairs")
        return self

    def deciding(self) -> dict[str, Any]:
        """The settings that decide what a run makes, as JSON values.

        The others say how it is worked at, and may change while it goes on.
        """
        values = self.model_dump(mode="json", exclude={"max_error_rate", "guards"})
        for key in ("capacity", "stall_s", "restarts"):
            del values["engine"][key]
        return values
