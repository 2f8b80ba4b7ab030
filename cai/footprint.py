"""What a run takes of disk and memory. Estimates in simple formulas, each said where it stands."""

import json
import shutil
from pathlib import Path
from typing import Any, NamedTuple

from cai.config import RunConfig
from cai.engines.open import DEFAULT_CONTEXT
from cai.engines.process import context_limit, vllm_environment
from cai.environment import n_gpus
from cai.forecast import Forecast, StageForecast
from cai.sections import Lora, Reward, Rl, Sft
from cai.space import DTYPE_BYTES, n_parameters, run_bytes
from cai.stages.context import RunContext

STATE_BYTES = 16
"""Of a trained weight: itself, its gradient and Adam's two moments, in float32."""
ACTIVATION_BYTES = 34
"""Kept for the backward pass, of each hidden value of a layer, in 16 bits (Korthikanti et al. 2022,
arXiv 2205.05198, table 2, without the attention matrix, which is never whole)."""
LOGIT_COPIES = 3
"""Logits, their log-softmax and its gradient."""
BATCH = 8
"""Rows a device takes at once, where the trainer's options say nothing (transformers' default)."""


class Need(NamedTuple):
    """Memory of one thing that runs alone."""

    what: str
    parts: dict[str, int]
    """Bytes by what they hold."""

    @property
    def n_bytes(self) -> int:
        return sum(self.parts.values())


class Footprint(NamedTuple):
    checkpoint_bytes: int
    """Models and trainers' checkpoints that the run takes, at most."""
    record_bytes: int
    free_bytes: int
    """On the disk of the run's folder."""
    memory: tuple[Need, ...]
    """The engine's and the largest trainer's; nothing where the model is not known."""


class Shape(NamedTuple):
    """Sizes of a decoder, from its config.json."""

    n_parameters: int
    layers: int
    hidden: int
    inner: int
    kv: int
    """Values of one token's key in one layer."""
    vocabulary: int


def footprint(context: RunContext, forecast: Forecast) -> Footprint:
    """What the run takes beside what is on disk already."""
    base = context.models["base"].path
    parent = next(path for path in context.run.absolute().parents if path.is_dir())
    shape = read_shape(base)
    needs: list[Need] = []
    to_train = {stage.name for stage in forecast.stages if stage.n_rows and not stage.done}
    if shape and context.config.engine.kind != "fake":
        needs.append(engine_need(context.config, shape, context_of(context.config, base)))
        trainers = [need for need in training_needs(context.config, shape) if need.what in to_train]
        needs += sorted(trainers, key=lambda need: need.n_bytes)[-1:]
    return Footprint(
        run_bytes(context.config, base, to_train),
        sum(record_bytes(context, stage) for stage in forecast.stages if not stage.done),
        shutil.disk_usage(parent).free,
        tuple(needs),
    )


def record_bytes(context: RunContext, stage: StageForecast) -> int:
    """Size of a stage's records beyond those that the run has. Those of the base are copied."""
    there = sum(path.stat().st_size for path in context.folder(stage.name).glob("*.jsonl"))
    return max(0, stage.n_bytes - there)


def read_shape(path: Path) -> Shape | None:
    """The sizes of a model; none if its config does not say them."""
    if not (path / "config.json").is_file():
        return None
    whole: dict[str, Any] = json.loads((path / "config.json").read_text())
    config: dict[str, Any] = whole.get("text_config", whole)
    try:
        heads = config["num_attention_heads"]
        width = config.get("head_dim") or config["hidden_size"] // heads
        return Shape(
            n_parameters=n_parameters(path),
            layers=config["num_hidden_layers"],
            hidden=config["hidden_size"],
            inner=config["intermediate_size"],
            kv=width * (config.get("num_key_value_heads") or heads),
            vocabulary=config["vocab_size"],
        )
    except KeyError:
        return None


def context_of(config: RunConfig, path: Path) -> int:
    """Tokens that the engine's context holds."""
    return context_limit(path, config.engine.max_context or DEFAULT_CONTEXT)


def engine_need(config: RunConfig, shape: Shape, context: int) -> Need:
    """Weights, and keys and values of `capacity` whole contexts; on a CPU vLLM takes a fixed cache.

    On a GPU vLLM takes 0.9 of the memory, whatever it needs.
    """
    auto = 2 if n_gpus() else 4
    size = DTYPE_BYTES.get(config.engine.dtype, auto)
    cache = 2 * shape.layers * shape.kv * size * context * config.engine.capacity
    if config.engine.kind == "vllm" and not n_gpus():
        cache = int(float(vllm_environment()["VLLM_CPU_KVCACHE_SPACE"]) * 2**30)
    return Need("engine", {"weights": size * shape.n_parameters, "KV cache": cache})


def training_needs(config: RunConfig, shape: Shape) -> list[Need]:
    """The trainers', were every row of a batch as long as its limit."""
    length = config.reward.max_length
    rollout = config.rl.max_prompt_length + config.rl.trainer.get("max_completion_length", 512)
    sft = trainer_need("sft", config.sft, shape, config.sft.max_length)
    # A score head in place of the vocabulary.
    reward = trainer_need("reward", config.reward, shape._replace(vocabulary=1), 2 * length)
    dpo = config.rl.method == "dpo"
    rl = trainer_need("rl", config.rl, shape, 2 * length if dpo else rollout)
    frozen = (2 if n_gpus() else 4) * shape.n_parameters
    # The reward model, and the policy that RL began with: under LoRA that is the frozen weights.
    n_others = (not dpo) + (config.rl.lora is None)
    return [sft, reward, rl._replace(parts=rl.parts | {"other models": frozen * n_others})]


def trainer_need(what: str, section: Sft | Reward | Rl, shape: Shape, n_tokens: int) -> Need:
    """A trainer whose batch has rows of `n_tokens`.

    On a GPU activations are recomputed, so that only what goes into each layer is kept.
    """
    weights = STATE_BYTES * shape.n_parameters
    if section.lora:
        frozen = (2 if n_gpus() else 4) * shape.n_parameters
        weights = frozen + STATE_BYTES * adapter_parameters(section.lora, shape)
    n_tokens *= section.trainer.get("per_device_train_batch_size", BATCH)
    kept = 2 if n_gpus() else 2 * ACTIVATION_BYTES
    parts = {
        "weights": weights,
        "activations": n_tokens * shape.layers * shape.hidden * kept,
        "logits": n_tokens * shape.vocabulary * 4 * LOGIT_COPIES,
    }
    return Need(what, parts)


def adapter_parameters(lora: Lora, shape: Shape) -> int:
    """r (in + out) of each linear layer: query, key, value, output, and three of the MLP."""
    widths = 9 * shape.hidden + 2 * shape.kv + 3 * shape.inner
    return lora.r * widths * shape.layers
