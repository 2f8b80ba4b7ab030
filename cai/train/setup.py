"""What every trainer needs: the model, TRL's arguments, metrics, the saved checkpoint."""

import dataclasses
import difflib
import gc
import logging
import math
import shutil
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from accelerate.utils import wait_for_everyone
from peft import LoraConfig, PeftModel
from transformers import AutoModelForCausalLM, TrainerCallback
from transformers.utils import logging as transformers_logging

from cai.errors import ConfigError, TrainError
from cai.run import sync, sync_tree
from cai.sections import Lora
from cai.space import ALL_CHECKPOINTS, KEPT_CHECKPOINTS
from cai.train import folder as files
from cai.train.jobs import FIXED, DpoJob, RatingJob, RewardJob, RlJob, SftJob
from cai.train.launch import SECTION

TrainerJob = SftJob | RewardJob | RatingJob | RlJob | DpoJob

PATIENCE = 5
"""Steps in a row at which a loss may be exactly 0."""

transformers_logging.disable_progress_bar()


def on_gpu() -> bool:
    """Whether this process trains on a GPU."""
    return torch.cuda.is_available()


def load_policy(path: str, lora: Lora | None) -> Any:
    """The language model of a local folder: float32, or bfloat16 under LoRA on a GPU."""
    # weights that are trained themselves lose small updates in bfloat16
    dtype = torch.bfloat16 if on_gpu() and lora is not None else torch.float32
    model: Any = AutoModelForCausalLM.from_pretrained(
        path, dtype=dtype, trust_remote_code=False, local_files_only=True, use_safetensors=True
    )
    generation = model.generation_config
    if not generation.do_sample and (generation.temperature or generation.top_p):
        # save_pretrained refuses sampling values beside do_sample=False, which some models ship
        generation.do_sample = True
    return model


def training_arguments(
    job: TrainerJob, folder: Path, cls: type, fixed: dict[str, Any], usual: dict[str, Any]
) -> Any:
    """TRL's arguments: the user's `trainer` fields over the `usual` ones, under the `fixed` ones.

    Raises ConfigError for a field that `cls` lacks, that cai sets itself, or with a refused value.
    """
    fixed = shared_fixed(job, folder) | fixed
    # these were refused when the config was read, before hours of other stages
    assert set(fixed) == set(FIXED[job.kind]), job.kind
    stage, given = SECTION[job.kind], job.trainer
    known = [field.name for field in dataclasses.fields(cls)]
    for name in given:
        if name in fixed:
            raise ConfigError(f"{stage}.trainer.{name}: cai sets this itself; remove it")
        if name not in known:
            near = difflib.get_close_matches(name, known, 1)
            hint = f"did you mean {near[0]}?" if near else "see TRL's documentation"
            raise ConfigError(f"{stage}.trainer.{name}: {cls.__name__} has no such field; {hint}")
    try:
        return cls(**(shared_usual(job) | usual | given | fixed))
    except (TypeError, ValueError) as error:
        raise ConfigError(f"{stage}.trainer: {cls.__name__} refuses it: {error}") from error


def shared_fixed(job: TrainerJob, folder: Path) -> dict[str, Any]:
    """Fields that the run folder, resume and the NaN guard rely on."""
    return {
        "output_dir": str(folder / files.TRAINER),
        "seed": job.seed,
        "use_cpu": not on_gpu(),
        "disable_tqdm": True,
        "logging_strategy": "steps",
        "logging_steps": 1,
        # transformers would replace a NaN loss by the mean of the others
        "logging_nan_inf_filter": False,
        "save_only_model": False,
    }


def shared_usual(job: TrainerJob) -> dict[str, Any]:
    """Fields that the user may set otherwise."""
    return {
        "report_to": "none",
        "bf16": on_gpu() and not job.trainer.get("fp16"),
        # recomputing activations costs time and saves memory, of which a CPU has enough
        "gradient_checkpointing": on_gpu(),
        "save_strategy": "steps",
        "save_steps": 1 / ALL_CHECKPOINTS,
        "save_total_limit": KEPT_CHECKPOINTS,
    }


def lora_config(lora: Lora | None, task: str) -> LoraConfig | None:
    """peft's config for `task` (CAUSAL_LM, or SEQ_CLS, which trains the score head as a whole)."""
    if lora is None:
        return None
    return LoraConfig(
        r=lora.r,
        lora_alpha=lora.alpha,
        lora_dropout=lora.dropout,
        target_modules="all-linear",
        task_type=task,
    )


class MetricsCallback(TrainerCallback):
    """Appends what the trainer logs to `metrics.jsonl`; stops it where numbers are not finite.

    Seals the checkpoints, so it comes before callbacks that use them.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.limit: int | None = None
        self.last: dict[str, Any] = (files.read_metrics(folder) or [{}])[-1]
        self.start = time.monotonic() - self.last.get("time_s", 0.0)
        self.earlier_tokens = 0

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Find out which tokens of earlier attempts the trainer's count lacks."""
        # the Trainer would drop the old checkpoint before the new one is sealed
        self.limit, args.save_total_limit = args.save_total_limit, None
        # RLOO and GRPO keep their count in the state, which a checkpoint restores; SFT does not
        self.earlier_tokens = self.last.get("num_tokens", 0) - state.num_input_tokens_seen

    def on_log(self, args: Any, state: Any, control: Any, **given: Any) -> None:
        """Write one line: the logged numbers and `step`, `max_steps`, `num_tokens`, `time_s`."""
        logs = given["logs"]
        if "loss" not in logs:
            return
        guarded = ("loss",) if args.fp16 else ("loss", "grad_norm")
        for name in guarded:
            if not math.isfinite(logs.get(name, 0.0)):
                raise TrainError(
                    f"step {state.global_step}: {name} is {logs[name]}; lower "
                    "trainer.learning_rate, or trainer.max_grad_norm"
                )
        if state.is_world_process_zero:
            place = {"step": state.global_step, "max_steps": state.max_steps}
            place["num_tokens"] = int(logs.get("num_tokens", 0)) + self.earlier_tokens
            time_s = round(time.monotonic() - self.start, 3)
            files.append_metrics(self.folder, finite(logs) | place | {"time_s": time_s})

    def on_save(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Seal the new checkpoint and its metrics; then drop the oldest ones."""
        # each process has written its own random state
        wait_for_everyone()
        if state.is_world_process_zero:
            sync(self.folder / files.METRICS)
            files.seal(self.folder / files.TRAINER / f"checkpoint-{state.global_step}")
            if self.limit is not None and self.limit > 0:
                for checkpoint in files.checkpoints(self.folder)[self.limit :]:
                    shutil.rmtree(checkpoint)


class MovesCallback(TrainerCallback):
    """Stops a training in which the metric `name` was exactly 0 at `PATIENCE` steps in a row."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.n_still = 0

    def on_log(self, args: Any, state: Any, control: Any, **given: Any) -> None:
        """Count the steps."""
        if "loss" not in given["logs"]:
            return
        self.n_still = self.n_still + 1 if given["logs"].get(self.name) == 0.0 else 0
        if self.n_still == PATIENCE:
            raise TrainError(
                f"step {state.global_step}: {self.name} was exactly 0 at {PATIENCE} steps in a "
                "row: these rows teach nothing more; give others, fewer epochs "
                "(trainer.num_train_epochs), or a lower trainer.learning_rate"
            )


def finite(logs: Mapping[str, Any]) -> dict[str, Any]:
    """The numbers of `logs`, none in place of those that JSON cannot say."""
    numbers = {name: value for name, value in logs.items() if isinstance(value, int | float)}
    return {name: value if math.isfinite(value) else None for name, value in numbers.items()}


def fit(trainer: Any, folder: Path, moves: str) -> list[dict[str, Any]]:
    """Train, from the newest complete checkpoint if there is one; returns all metrics.

    Raises TrainError if no step was taken, or if the metric `moves` was exactly 0 at each of them
    or at `PATIENCE` in a row.
    """
    trainer.add_callback(MovesCallback(moves))
    metrics = advance(trainer, folder)
    if trainer.accelerator.is_main_process:
        check_moved(metrics, moves)
    return metrics


def advance(trainer: Any, folder: Path) -> list[dict[str, Any]]:
    """The training of `fit`. Raises TrainError if no step was taken."""
    newest = files.newest_checkpoint(folder)
    logging.info("training from %s", newest.name if newest else "the start")
    if newest and files.is_finished(newest):
        # the Trainer would take one step too many before it looks at max_steps
        trainer._load_from_checkpoint(str(newest))
    else:
        trainer.train(resume_from_checkpoint=str(newest) if newest else None)
    # the main process writes the metrics that all of them read
    trainer.accelerator.wait_for_everyone()
    metrics = files.read_metrics(folder)
    if trainer.accelerator.is_main_process and not metrics:
        raise TrainError("no step was taken: the rows do not fill one batch")
    logging.info("trained")
    return metrics


def check_moved(metrics: list[dict[str, Any]], moves: str) -> None:
    """Raise TrainError if the metric `moves` was exactly 0 at each step."""
    if all(line.get(moves) == 0.0 for line in metrics):
        raise TrainError(f"{moves} was 0 at each of {len(metrics)} steps: nothing was learnt")


def progress(metrics: list[dict[str, Any]]) -> dict[str, Any]:
    """How the training went, for `result.json`."""
    return {
        "n_steps": metrics[-1]["step"],
        "loss_first": metrics[0]["loss"],
        "loss_last": metrics[-1]["loss"],
        "train_seconds": metrics[-1]["time_s"],
    }


def save_checkpoint(trainer: Any, tokenizer: Any, folder: Path) -> None:
    """Leave what was trained as `checkpoint/`."""
    model = trainer.accelerator.unwrap_model(trainer.model)
    save_model(model, tokenizer, folder / files.CHECKPOINT)


def save_model(model: Any, tokenizer: Any, path: Path) -> None:
    """Leave a plain Hugging Face folder at `path`, LoRA merged, there only when complete."""
    if isinstance(model, PeftModel):
        # safe_merge: refuses weights that are not finite
        model = model.merge_and_unload(safe_merge=True)  # pyright: ignore[reportCallIssue]
    elif on_gpu() and model.can_generate():
        # float32 was for the updates; engines read policies in bfloat16
        model = model.to(torch.bfloat16)
    temporary = path.with_name(f"{path.name}.tmp")
    shutil.rmtree(temporary, ignore_errors=True)
    model.save_pretrained(temporary)
    tokenizer.save_pretrained(temporary)
    sync_tree(temporary)
    files.publish(temporary, path)
    logging.info("saved %s", path)


def free_memory() -> None:
    """Give back what models that are gone have held."""
    gc.collect()
    if on_gpu():
        torch.cuda.empty_cache()
