"""How long training takes, found out from its first steps."""

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from fake_run import SETTINGS

from cai.opening import make_context
from cai.planning import PlanOptions, plan_run
from cai.prepare import prepare, resolve_models
from cai.resolve import Options
from cai.run import write_json
from cai.training_pace import measure_training

pytest_plugins = ["tiny_fixtures"]


def test_training_is_timed_by_steps_after_the_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A job of the real size is stopped early; one that ends before takes what it took."""
    asked: dict[str, int] = {}
    n_steps = {"sft": 100, "reward": 2, "rl": 50}

    def run(job: Any, folder: Path, rows: Any, on_metrics: Any) -> None:
        asked[folder.name] = len(list(rows))
        for step in range(1, n_steps[job.kind] + 1):
            on_metrics({"step": step, "max_steps": n_steps[job.kind], "time_s": 7.0 + 2 * step})
        write_json(tmp_path / "config.json", {})
        shutil.copytree(tmp_path, folder / "checkpoint", dirs_exist_ok=True)

    monkeypatch.setattr("cai.training_pace.run_job", run)
    found = plan_run(Options("harmless", "quickstart", settings=SETTINGS), PlanOptions()).forecast
    chosen = prepare(Options("harmless", "quickstart", settings=SETTINGS))
    config = chosen.config.model_copy(
        update={"engine": chosen.config.engine.model_copy(update={"kind": "transformers"})}
    )
    context = make_context(chosen, tmp_path / "run", resolve_models(chosen.config), None)
    measured = measure_training(replace(context, config=config), found.stages, lambda _: None)
    rows = {stage.name: stage.n_rows for stage in found.stages if stage.n_rows}
    assert asked == {"05-reward": 8, **{f"measure-{name}": n for name, n in rows.items()}}
    seconds = {name: training.seconds for name, training in measured.items()}
    assert seconds["sft"] == pytest.approx(2 * 99, abs=1)
    assert seconds["reward"] < 1
    assert seconds["rl"] == pytest.approx(2 * 49, abs=1)


RLOO = "{per_device_train_batch_size: 2, num_generations: 2, max_completion_length: 4}"


@pytest.mark.slow
@pytest.mark.filterwarnings("default")
@pytest.mark.parametrize(
    ("method", "trainer", "names"),
    [("rloo", RLOO, ("sft", "reward", "rl")), ("dpo", "{}", ("rl",))],
)
def test_real_trainers_are_timed(
    tiny: str, tmp_path: Path, method: str, trainer: str, names: tuple[str, ...]
) -> None:
    """On stand-in rows, as the stages start them: each takes what it is given."""
    lengths = ("reward.max_length=480", "sample.sampling.max_tokens=8", "rl.max_prompt_length=480")
    settings = (*SETTINGS, *lengths, f"rl.method={method}", f"rl.trainer={trainer}")
    options = Options("harmless", "quickstart", model=tiny, settings=settings)
    found = plan_run(options, PlanOptions()).forecast
    chosen = prepare(options)
    real = {"engine": chosen.config.engine.model_copy(update={"kind": "transformers"})}
    context = make_context(chosen, tmp_path / "run", resolve_models(chosen.config), None)
    context = replace(context, config=chosen.config.model_copy(update=real))
    stages = [stage for stage in found.stages if stage.name in names]
    said: list[str] = []
    measured = measure_training(context, stages, said.append)
    assert tuple(measured) == names
    assert said == [f"measuring: the first steps of {name}" for name in names]
    assert all(training.seconds > 0 for training in measured.values())
