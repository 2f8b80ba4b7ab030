"""Policies kept along the way: `candidates/step-N/`, and `checkpoint/`, the last healthy of them.

The Trainer's own checkpoints rotate, so the weights of the wanted ones get a second name in
`kept/step-N/` as soon as they are saved; after training each becomes a plain Hugging Face folder.
"""

import shutil
from pathlib import Path
from typing import Any

from peft import PeftModel
from transformers import TrainerCallback

from cai.run import sync_tree
from cai.train import folder as files
from cai.train.health import Watch
from cai.train.jobs import DpoJob, RlJob
from cai.train.setup import load_policy, save_model

WEIGHTS = (
    "*.safetensors",
    "*.safetensors.index.json",
    "config.json",
    "generation_config.json",
    "adapter_config.json",
)


class KeepCallback(TrainerCallback):
    """Has the Trainer save at `n` evenly spaced steps, beside its own, and keeps the weights.

    Under a `watch` the Trainer's own checkpoints are kept too, from the newest that is surely
    healthy on: where RL collapses early, there is a policy from before.
    """

    def __init__(self, folder: Path, n: int, watch: Watch | None = None) -> None:
        self.folder = folder
        self.n = n
        self.watch = watch

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Keep what was saved just before the process that saved it was killed."""
        if state.is_world_process_zero:
            self.keep(state.max_steps)

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Ask for a checkpoint where one is wanted."""
        if state.global_step in wanted(state.max_steps, self.n):
            control.should_save = True

    def on_save(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Keep the weights of a wanted step."""
        if state.is_world_process_zero:
            self.keep(state.max_steps)

    def keep(self, max_steps: int) -> None:
        """Keep the weights of what is there, drop those that are not needed any more."""
        steps = wanted(max_steps, self.n)
        catch_up(self.folder, steps if self.watch is None else None)
        if self.watch is not None:
            prune(self.folder, steps, self.watch.floor)


def wanted(max_steps: int, n: int) -> set[int]:
    """`n` evenly spaced steps, the last one included; fewer if there are fewer steps."""
    return {-(-max_steps * i // n) for i in range(1, n + 1)}


def catch_up(folder: Path, steps: set[int] | None) -> None:
    """Keep the weights of those of `steps` (none: all) that have a checkpoint, not kept yet."""
    for checkpoint in files.checkpoints(folder):
        name = f"step-{files.step_of(checkpoint)}"
        known = (folder / files.KEPT / name).exists() or (folder / files.CANDIDATES / name).exists()
        asked = steps is None or files.step_of(checkpoint) in steps
        # the last question reads all of its files
        if asked and not known and files.is_complete(checkpoint):
            keep_weights(checkpoint, folder / files.KEPT / name)


def prune(folder: Path, steps: set[int], floor: int) -> None:
    """Drop what is kept beside `steps`, but for the newest up to step `floor` and what follows."""
    kept = files.steps(folder / files.KEPT, "step")
    newest = max((files.step_of(path) for path in kept if files.step_of(path) <= floor), default=0)
    for path in kept:
        if files.step_of(path) < newest and files.step_of(path) not in steps:
            shutil.rmtree(path)


def keep_weights(checkpoint: Path, target: Path) -> None:
    """Link the weights and their config, there only when complete."""
    temporary = target.with_name(f"{target.name}.tmp")
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    for path in (path for pattern in WEIGHTS for path in checkpoint.glob(pattern)):
        files.link(path, temporary / path.name)
    sync_tree(temporary)
    files.publish(temporary, target)


def export(job: RlJob | DpoJob, folder: Path, tokenizer: Any, last_healthy: int) -> dict[str, Any]:
    """Turn what was kept, up to step `last_healthy`, into `candidates/`: the evenly spaced ones and
    the newest, which becomes `checkpoint/`.

    Without one `checkpoint/` is the policy that the job started from. Returns the steps, and
    `checkpoint_step`, the one that `checkpoint/` is of: 0 for the policy started from.
    """
    candidates = folder / files.CANDIDATES
    candidates.mkdir(exist_ok=True)
    last = files.read_metrics(folder)[-1]
    # a process that was killed after its last step may not have kept it
    steps = wanted(last["max_steps"], job.n_checkpoints)
    catch_up(folder, steps)
    there = [*files.steps(folder / files.KEPT, "step"), *files.steps(candidates, "step")]
    healthy = {step for step in map(files.step_of, there) if step <= last_healthy}
    steps = healthy & steps | {max(healthy, default=0)}
    for path in files.steps(folder / files.KEPT, "step"):
        if files.step_of(path) in steps:
            save_model(load_kept(job, path), tokenizer, candidates / path.name)
            shutil.rmtree(path)
    for path in files.steps(candidates, "step"):
        if files.step_of(path) not in steps:
            shutil.rmtree(path)
    shutil.rmtree(folder / files.KEPT, ignore_errors=True)
    found = files.steps(candidates, "step")
    if found:
        files.choose(found[-1], folder / files.CHECKPOINT)
    else:
        save_model(load_policy(job.model, job.lora), tokenizer, folder / files.CHECKPOINT)
    return {
        "last_healthy_step": last_healthy,
        "candidates": [files.step_of(path) for path in found],
        "checkpoint_step": files.step_of(found[-1]) if found else 0,
    }


def load_kept(job: RlJob | DpoJob, path: Path) -> Any:
    """The policy whose weights are in `path`; under LoRA on top of the one the job started from."""
    if job.lora is None:
        return load_policy(str(path), None)
    # a GPU may still be full of what has trained there
    return PeftModel.from_pretrained(
        load_policy(job.model, job.lora), str(path), torch_device="cpu"
    )
