"""A trainer's folder: which checkpoint training goes on from after a crash, whatever was damaged."""

import json
import random
import shutil

import pytest
from tiny_model import (
    classifier,
    distance,
    pairs,
    policy,
    prompts,
    reward_job,
    rl_job,
    sft_job,
    sft_rows,
    train,
)

from cai.run import write_rows
from cai.train import folder as files
from cai.train import launch

pytest_plugins = ["tiny_fixtures"]
# torch, transformers, peft and trl warn about themselves
pytestmark = [pytest.mark.filterwarnings("default"), pytest.mark.usefixtures("quiet")]

SAVES = {"max_steps": 6, "save_strategy": "steps", "save_steps": 2, "learning_rate": 1e-2}


def flip(raw, place):
    """The bytes with one bit of byte `place` turned."""
    return raw[:place] + bytes([raw[place] ^ 1 << place % 8]) + raw[place + 1 :]


DAMAGE = {
    "gone": lambda raw: None,
    "half": lambda raw: raw[: len(raw) // 2],
    "flip": lambda raw: flip(raw, random.Random(len(raw)).randrange(len(raw))),
    "empty": lambda raw: b"",
}


def damage(path, how):
    raw = DAMAGE[how](path.read_bytes())
    # kept weights are the same file under another name, and have a fate of their own
    path.unlink()
    if raw is not None:
        path.write_bytes(raw)


@pytest.fixture(scope="module", params=["lora", "full"])
def trained(request, tiny, tmp_path_factory):
    """A real job with the checkpoints 6 and 4, and how to run it again."""
    folder = tmp_path_factory.mktemp(request.param)
    lora = {} if request.param == "lora" else {"lora": None}
    job = sft_job(tiny, **lora, **SAVES)
    train(job, folder, sft_rows(8))
    return folder, job


def parts(checkpoint):
    return sorted(path.relative_to(checkpoint) for path in checkpoint.rglob("*") if path.is_file())


def test_whatever_is_damaged_the_checkpoint_before_is_taken(trained, tmp_path):
    """Every file in turn, in four ways: 100 %."""
    folder, _ = trained
    newest, before = files.checkpoints(folder)
    assert (files.step_of(newest), files.step_of(before)) == (6, 4)
    assert files.newest_checkpoint(folder) == newest
    names = {str(name) for name in parts(newest)}
    assert {"optimizer.pt", "rng_state.pth", "trainer_state.json", "tokenizer.json"} < names
    assert {files.SUMS, "adapter_config.json" if "lora" in folder.name else "config.json"} < names
    cases = [(name, how) for name in parts(newest) for how in DAMAGE]
    for name, how in cases:
        shutil.copy2(newest / name, tmp_path / "whole")
        damage(newest / name, how)
        assert files.newest_checkpoint(folder) == before, (name, how)
        shutil.copy2(tmp_path / "whole", newest / name)
    assert files.newest_checkpoint(folder) == newest


def test_every_byte_counts(trained, tmp_path):
    folder, _ = trained
    newest, chance = files.checkpoints(folder)[0], random.Random(0)
    for name in parts(newest):
        raw = (newest / name).read_bytes()
        for place in {0, len(raw) - 1, *(chance.randrange(len(raw)) for _ in range(3))}:
            (newest / name).write_bytes(flip(raw, place))
            assert not files.is_complete(newest), (name, place)
        (newest / name).write_bytes(raw)
    (newest / "more").touch()
    assert not files.is_complete(newest)
    (newest / "more").unlink()
    assert files.is_complete(newest)


@pytest.mark.parametrize(
    ("name", "how"),
    [
        ("{config}", "half"),
        ("{weights}", "flip"),
        ("optimizer.pt", "flip"),
        ("rng_state.pth", "empty"),
        ("trainer_state.json", "half"),
        (files.SUMS, "gone"),
    ],
)
def test_a_damaged_checkpoint_changes_nothing_in_the_end(trained, tmp_path, name, how):
    """Resumed from the one before, the weights are those of an unbroken run."""
    whole, job = trained
    lora = "lora" in whole.name
    config = "adapter_config.json" if lora else "config.json"
    weights = "adapter_model.safetensors" if lora else "model.safetensors"
    folder = tmp_path / "again"
    shutil.copytree(whole, folder)
    shutil.rmtree(folder / "checkpoint")
    damage(folder / "trainer/checkpoint-6" / name.format(config=config, weights=weights), how)
    train(job, folder, sft_rows(8))
    said = (folder / "log.txt").read_text()
    why = "has no sums.json" if how == "gone" else "is damaged"
    assert "checkpoint-6 is not used: it" in said
    assert why in said
    one, other = files.read_metrics(whole), files.read_metrics(folder)
    assert [line["step"] for line in other] == [1, 2, 3, 4, 5, 6]
    assert other[:4] == one[:4]
    assert other[-1]["loss"] == pytest.approx(one[-1]["loss"], abs=1e-6)
    assert other[-1]["num_tokens"] == one[-1]["num_tokens"]
    assert distance(policy(whole / "checkpoint"), policy(folder / "checkpoint")) < 1e-6
    assert all(map(files.is_complete, files.checkpoints(folder)))


@pytest.mark.parametrize("kind", ["reward", "rl"])
def test_other_jobs_go_on_from_the_newest_complete_checkpoint(tiny, reward_path, tmp_path, kind):
    job, rows = {
        "reward": (reward_job(tiny, **SAVES), pairs(0.8, 8)),
        "rl": (rl_job(tiny, reward_path, **SAVES), prompts(8)),
    }[kind]
    train(job, tmp_path, rows)
    checkpoint, lines = tmp_path / "checkpoint", files.read_metrics(tmp_path)
    assert [files.step_of(path) for path in files.checkpoints(tmp_path)] == [6, 4]
    damage(tmp_path / "trainer" / "checkpoint-6" / "adapter_config.json", "half")
    whole = checkpoint.rename(tmp_path / "whole")
    train(job, tmp_path, rows)
    again = files.read_metrics(tmp_path)
    assert [line["step"] for line in again] == [1, 2, 3, 4, 5, 6]
    assert again[:4] == lines[:4]
    assert again[4]["time_s"] > again[3]["time_s"]
    # new rollouts are drawn after a restart; data, optimizer and weights are what they were
    if kind == "reward":
        assert again[-1]["loss"] == pytest.approx(lines[-1]["loss"], abs=1e-6)
        assert again[-1]["num_tokens"] == lines[-1]["num_tokens"]
        assert distance(classifier(whole), classifier(checkpoint)) < 1e-6


def test_the_only_checkpoint_goes_when_the_next_one_is_sealed(tiny, tmp_path, monkeypatch):
    """With save_total_limit 1 the Trainer would drop it before."""
    seen, seal = [], files.seal

    def look(checkpoint):
        seen.append(files.newest_checkpoint(tmp_path))
        seal(checkpoint)

    monkeypatch.setattr(files, "seal", look)
    train(sft_job(tiny, **SAVES, save_total_limit=1), tmp_path, sft_rows(8))
    trainer = tmp_path / "trainer"
    assert seen == [None, trainer / "checkpoint-2", trainer / "checkpoint-4"]
    assert files.checkpoints(tmp_path) == [trainer / "checkpoint-6"]


@pytest.mark.parametrize(("limit", "left"), [(None, [6, 4, 2]), (0, [6, 4, 2]), (2, [6, 4])])
def test_as_many_checkpoints_stay_as_the_user_wants(tiny, tmp_path, limit, left):
    train(sft_job(tiny, **SAVES, save_total_limit=limit), tmp_path, sft_rows(8))
    assert [files.step_of(path) for path in files.checkpoints(tmp_path)] == left


@pytest.mark.slow
def test_the_seal_waits_for_all_processes(tiny, tmp_path, monkeypatch):
    monkeypatch.setenv("CAI_NUM_PROCESSES", "2")
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    job = sft_job(tiny, **SAVES | {"max_steps": 2})
    launch.run_job(job, tmp_path, sft_rows(16), lambda line: None)
    newest = files.newest_checkpoint(tmp_path)
    assert {"rng_state_0.pth", "rng_state_1.pth"} < set(json.loads(files.sums(newest)))


# --- without a trainer


@pytest.fixture
def checkpoints(tmp_path):
    """Two sealed checkpoints and their metrics; nothing that is read looks into the files."""
    for step in (2, 10):
        path = tmp_path / "trainer" / f"checkpoint-{step}"
        (path / "shard").mkdir(parents=True)
        (path / "weights").write_bytes(bytes(range(256)))
        (path / "shard" / "more").write_bytes(b"x" * step)
        files.seal(path)
    write_rows(tmp_path / "metrics.jsonl", [{"step": i} for i in range(1, 11)])
    return tmp_path


def test_the_newest_checkpoint_has_the_largest_step(checkpoints):
    assert files.newest_checkpoint(checkpoints).name == "checkpoint-10"
    assert files.rewind(checkpoints) == 10
    assert not (checkpoints / "log.txt").exists()


@pytest.mark.parametrize("name", ["weights", "shard/more", files.SUMS])
@pytest.mark.parametrize("how", DAMAGE)
def test_what_is_damaged_is_dropped_with_its_metrics(checkpoints, name, how):
    path = checkpoints / "trainer" / "checkpoint-10"
    damage(path / name, how)
    assert files.rewind(checkpoints) == 2
    assert not path.exists()
    assert files.read_metrics(checkpoints) == [{"step": 1}, {"step": 2}]


def test_a_checkpoint_without_sums_does_not_count_and_the_log_says_so(checkpoints):
    for path in files.checkpoints(checkpoints):
        (path / files.SUMS).unlink()
    assert files.rewind(checkpoints) == 0
    assert files.checkpoints(checkpoints) == files.read_metrics(checkpoints) == []
    said = [line.split(" ", 2)[2] for line in (checkpoints / "log.txt").read_text().splitlines()]
    assert said == [f"checkpoint-{n} is not used: it has no sums.json" for n in (10, 2)]


BROKEN = [
    b'{"step": 5, "loss"\n',
    b"\n",
    b"\xff\xfe\n",
    b"5\n",
    b"[]\n",
    b'{"stex": 5}\n',
    b'{"step": null}\n',
    b'{"step": 5}}\n',
]


@pytest.mark.parametrize("line", BROKEN)
def test_a_broken_line_of_metrics_is_left_out(checkpoints, line):
    break_metrics(checkpoints, 5, line)
    assert files.rewind(checkpoints) == 10
    assert [line["step"] for line in files.read_metrics(checkpoints)] == [
        1,
        2,
        3,
        4,
        6,
        7,
        8,
        9,
        10,
    ]
    assert "broken lines are left out: [5]" in (checkpoints / "log.txt").read_text()
    # the parent hands on what is left
    assert (checkpoints / "metrics.jsonl").read_bytes().count(b"\n") == 9


@pytest.mark.parametrize("line", [*BROKEN, b'{"step": 10'])
def test_a_checkpoint_whose_own_metrics_are_broken_does_not_count(checkpoints, line):
    """The counts of tokens and seconds go on from that line."""
    break_metrics(checkpoints, 10, line)
    assert files.rewind(checkpoints) == 2
    assert [line["step"] for line in files.read_metrics(checkpoints)] == [1, 2]
    assert (
        "checkpoint-10 is not used: it, or its line of metrics"
        in (checkpoints / "log.txt").read_text()
    )


def break_metrics(folder, number, line):
    lines = (folder / "metrics.jsonl").read_bytes().splitlines(keepends=True)
    lines[number - 1] = line
    (folder / "metrics.jsonl").write_bytes(b"".join(lines))


def test_a_damaged_job_starts_clean(checkpoints):
    rows, job = sft_rows(1), sft_job("m")
    files.prepare(job, checkpoints, rows)
    (checkpoints / "trainer" / "checkpoint-2").mkdir(parents=True)
    files.prepare(job, checkpoints, rows)
    assert files.checkpoints(checkpoints)
    (checkpoints / "job.json").write_bytes(b"\xff")
    files.prepare(job, checkpoints, rows)
    assert not files.checkpoints(checkpoints)
