"""Secrets: refused in settings, kept from children, found in no artefact."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from fake_run import start
from tiny_model import pairs, prompts, reward_job, rl_job, sft_job, sft_rows

from cai.environment import child_environment
from cai.errors import ConfigError
from cai.resolve import Options, resolve_config
from cai.secrets import find_secret, is_secret
from cai.train.launch import run_job

pytest_plugins = ["tiny_fixtures"]

# Put together here, so that no scanner of repositories takes them for real.
HF = "hf_" + "AbCd" * 8
KEY = "sk-" + "proj-A1b2C3d4E5f6G7h8I9j0"
SECRETS = [
    HF,
    KEY,
    "AIza" + "x" * 35,
    "ghp_" + "a1B2" * 9,
    "github_" + "pat_" + "a1B2_" * 9,
    "glpat-" + "x1" * 10,
    "AKIA" + "ABCDEFGH12345678",
    "xoxb-" + "1234567890-ab",
    "-----BEGIN RSA " + "PRIVATE KEY-----",
    "https://user:" + "hunter2@example.com/data.jsonl",
]


@pytest.mark.parametrize("secret", SECRETS, ids=[secret[:6] for secret in SECRETS])
def test_a_secret_in_a_config_is_refused_with_its_place_and_not_repeated(
    tmp_path: Path, secret: str
) -> None:
    file = tmp_path / "c.yaml"
    for text, place in (
        (f"constitution: harmless.yaml\nmodels: {{base: '{secret}'}}\n", "2:17"),
        (f"constitution: harmless.yaml\n# mine is {secret}\n", "2:11"),
    ):
        file.write_text(text)
        with pytest.raises(ConfigError) as caught:
            resolve_config(Options(config=str(file)))
        found = re.match(r"(.*?:\d+:\d+): looks like (.+?); .*: remove it, and ", str(caught.value))
        assert found is not None
        line, column = map(int, found[1].removeprefix(f"{file}:").split(":"))
        wanted = tuple(map(int, place.split(":")))
        # of an address the password's part is found, which begins later
        assert (line, column) == wanted or (line == wanted[0] and "://" in secret)
        assert secret not in str(caught.value)


@pytest.mark.parametrize("secret", SECRETS, ids=[secret[:6] for secret in SECRETS])
@pytest.mark.parametrize(
    ("options", "place"),
    [
        ({"settings": ["prompts.helpful=['{}']"]}, "--set prompts.helpful"),
        ({"settings": ["sft.trainer.run_name='{}'"]}, "--set sft.trainer.run_name"),
        ({"prompts": "{}"}, "the command line"),
        ({"model": "{}"}, "the command line"),
    ],
)
def test_a_secret_on_the_command_line_is_refused(
    secret: str, options: dict[str, object], place: str
) -> None:
    given = {
        key: [text.format(secret) for text in value] if isinstance(value, list) else secret
        for key, value in options.items()
    }
    with pytest.raises(ConfigError) as caught:
        resolve_config(Options(constitution="c", **given))
    assert str(caught.value).startswith(f"{place}: looks like ")
    assert secret not in str(caught.value)


@pytest.mark.parametrize(
    ("setting", "says"),
    [
        ("sft.trainer.hub_token=abc", "the secret hub_token"),
        ("engine.options.hf_token=abc", "the secret hf_token"),
        ("engine.options={x: {api_key: abc}}", "the secret api_key"),
        ("engine.options={password: abc}", "the secret password"),
    ],
)
def test_a_key_says_that_its_value_is_a_secret(setting: str, says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        resolve_config(Options(constitution="c", settings=[setting]))


def test_what_only_sounds_like_a_secret_is_none() -> None:
    settings = [
        'sft.trainer.eos_token="<|im_end|>"',
        "sft.trainer.average_tokens_across_devices=true",
        "models.base=acme/task-learn-something-very-long-2B",
        "models.critic=org/sk-learn-something-very-long",
        "prompts.red_team=[https://example.com:8080/a@b.jsonl]",
    ]
    assert resolve_config(Options(constitution="c", settings=settings)).models.critic


def test_a_text_of_many_beginnings_takes_no_time() -> None:
    import time

    start = time.process_time()
    for piece in ("hf_", "sk-", "sk-A", "://a:", "-----BEGIN ", "eyJ.", "xoxb", "AKIA", "A"):
        find_secret(piece * ((1 << 20) // len(piece)))
    assert time.process_time() - start < 9 * 0.5


ENVIRONMENT = {
    "HF_TOKEN": "x",
    "HUGGING_FACE_HUB_TOKEN": "x",
    "GITHUB_TOKEN": "x",
    "OPENAI_API_KEY": "x",
    "AWS_SECRET_ACCESS_KEY": "x",
    "AWS_ACCESS_KEY_ID": "x",
    "AWS_SESSION_TOKEN": "x",
    "VLLM_API_KEY": "x",
    "DB_PASSWORD": "x",
    "GOOGLE_APPLICATION_CREDENTIALS": "x",
    "SSH_AUTH_SOCK": "x",
    "WANDB_API_KEY": "x",
    "NOTES": HF,
    "PIP_INDEX_URL": SECRETS[-1],
}
KEPT = ["PATH", "HOME", "PWD", "TOKENIZERS_PARALLELISM", "VLLM_MAX_TOKENS_PER_EXPERT_FP4_MOE"]


def test_children_get_no_secrets(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in ENVIRONMENT.items():
        monkeypatch.setenv(name, value)
    for name in KEPT:
        monkeypatch.setenv(name, os.environ.get(name, "1"))
    found = child_environment(CAI_PARENT_PID="7")
    assert not found.keys() & ENVIRONMENT
    assert found.keys() >= set(KEPT)
    assert found["CAI_PARENT_PID"] == "7"
    # a trainer that reports has the key of its reporter and no other
    assert child_environment(["wandb"]).keys() & ENVIRONMENT == {"WANDB_API_KEY"}
    assert child_environment(["all"]).keys() >= set(ENVIRONMENT)


def test_nothing_phones_home(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("DO_NOT_TRACK", "HF_HUB_OFFLINE", "VLLM_NO_USAGE_STATS"):
        monkeypatch.setenv(name, "0")
    monkeypatch.setenv("VLLM_HOST_IP", "10.0.0.1")
    found = child_environment()
    off = {
        "DO_NOT_TRACK": "1",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "HF_HUB_OFFLINE": "1",
        "HF_HUB_DISABLE_IMPLICIT_TOKEN": "1",
        "VLLM_NO_USAGE_STATS": "1",
        "RAY_USAGE_STATS_ENABLED": "0",
    }
    assert found.items() >= off.items()
    # a cluster's own address wins
    assert found["VLLM_HOST_IP"] == "10.0.0.1"
    monkeypatch.delenv("VLLM_HOST_IP")
    assert child_environment()["VLLM_HOST_IP"] == "127.0.0.1"


def test_names_of_settings_are_no_names_of_secrets() -> None:
    assert not any(is_secret(name, "1") for name in KEPT)


@pytest.fixture
def planted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder to work in: secrets are in the environment, its git remote, and the user's home."""
    for name in ENVIRONMENT:
        monkeypatch.setenv(name, f"{HF}{name}")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    (tmp_path / ".netrc").write_text(f"machine example.com login user password {KEY}\n")
    (tmp_path / ".cache" / "huggingface").mkdir(parents=True)
    (tmp_path / ".cache" / "huggingface" / "token").write_text(HF)
    remote = f"https://user:{KEY}@example.com/r.git"
    if subprocess.run(["git", "init", "-q"], check=False).returncode == 0:
        subprocess.run(["git", "remote", "add", "origin", remote], check=True)
    return tmp_path


def leaks(folder: Path, at_least: int) -> list[Path]:
    """The files of a folder, so many of them at least, that hold a planted secret."""
    files = [path for path in folder.rglob("*") if path.is_file()]
    assert len(files) >= at_least
    return [
        path for path in files if any(x.encode() in path.read_bytes() for x in (HF, KEY, "hunter2"))
    ]


def test_planted_secrets_are_in_no_artefact(
    planted: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert leaks(planted, 2), "nothing is planted"
    run = start(planted / "run")
    assert not leaks(run, 20)
    assert not [said for said in capfd.readouterr() if HF in said or KEY in said]


@pytest.mark.slow
@pytest.mark.usefixtures("quiet")
@pytest.mark.parametrize("kind", ["sft", "reward", "rl"])
def test_planted_secrets_are_in_nothing_that_a_trainer_leaves(
    tiny: str, reward_path: str, planted: Path, kind: str
) -> None:
    """In a process of its own, as a run starts it, with the Trainer's own checkpoints."""
    options = {"max_steps": 1, "save_strategy": "steps", "save_steps": 1}
    job, rows = {
        "sft": (sft_job(tiny, **options), sft_rows(4)),
        "reward": (reward_job(tiny, **options), pairs(0.9, 4)),
        "rl": (rl_job(tiny, reward_path, **options), prompts(4)),
    }[kind]
    run_job(job, planted / kind, rows, lambda _: None)
    assert list((planted / kind).rglob("training_args.bin"))
    assert not leaks(planted / kind, 12)


def test_a_child_process_sees_none_of_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", HF)
    code = "import os; print(sorted(os.environ.items()))"
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=child_environment(),
        capture_output=True,
        text=True,
        check=True,
    )
    assert HF not in done.stdout


@pytest.mark.torture
def test_a_run_opens_no_socket_beyond_this_machine() -> None:
    script = Path(__file__).parent / "torture" / "offline.py"
    command = [sys.executable, str(script), "fake"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    found = json.loads(done.stdout)
    assert (found["code"], found["beyond_loopback"]) == (0, 0), found
