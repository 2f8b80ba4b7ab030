"""Model names become local folders, pinned by commit or checksum.

A name is `smollm2-135m` (embedded: no hub needed), a local folder (an earlier checkpoint, say), or
a Hugging Face id with an optional `@revision`. Weights are safetensors; remote code never runs.
"""

import hashlib
import importlib.util
import json
import os
from pathlib import Path
from typing import Any, NamedTuple, cast

from cai.embedded import EMBEDDED, WHEEL_SHA256, cache_folder, pull_embedded
from cai.errors import ConfigError
from cai.run import disk_errors
from cai.strict_yaml import short

DIGESTED = ("*.safetensors", "*.json", "*.jinja", "*.model", "*.txt")
"""What decides a model's texts: transformers keeps the chat template in `chat_template.jinja`."""
PULLED = [*DIGESTED, "tokenizer*"]
"""What of a hub's model is pulled: weights as safetensors only."""
MAX_WHOLE = 1 << 26
"""Bytes of a tokenizer or template that count as a whole."""


class Model(NamedTuple):
    """A model on disk. `commit` says which: a hub commit, or a digest of the folder's weights."""

    name: str
    path: Path
    commit: str

    @property
    def label(self) -> str:
        """`name@commit`, as records carry it."""
        return f"{self.name}@{self.commit}"


def model_for(name: str, engine: str) -> Model:
    """The model that an engine of that kind is given; the fake one needs no folder."""
    return Model(name, Path(name), "fake") if engine == "fake" else resolve_model(name)


def resolve_model(name: str) -> Model:
    """The local folder of a model. Pulls it if need be. Raises ConfigError if there is none."""
    if name == EMBEDDED:
        return embedded(pull_embedded())
    return at_folder(name) or pull_from_hub(name)


def find_model(name: str) -> Model | None:
    """The same without a pull: none if it needs one, as after one that broke off."""
    if name == EMBEDDED:
        folder = cache_folder() / "models" / EMBEDDED
        return embedded(folder) if (folder / "cai.json").is_file() else None
    return at_folder(name) or find_from_hub(name)


def embedded(folder: Path) -> Model:
    return Model(EMBEDDED, folder, WHEEL_SHA256[:12])


def at_folder(name: str) -> Model | None:
    """The model of a local folder; none for a hub's id. Raises ConfigError for other names."""
    folder = Path(name)
    # Path.is_dir raises for a name that is too long
    if os.path.isdir(folder):
        check_folder(folder)
        return Model(name, folder.resolve(), folder_digest(folder))
    is_path = os.path.lexists(folder) or folder.is_absolute() or name.startswith((".", "~"))
    if is_path or name.count("/") != 1:
        raise ConfigError(
            f"{short(name)}: no such model; expected '{EMBEDDED}', a folder with config.json and "
            "safetensors, or a Hugging Face id such as HuggingFaceTB/SmolLM2-360M-Instruct"
        )
    return None


def check_folder(folder: Path) -> None:
    """Refuse a folder that is no model, has only pickled weights, or needs code of its own."""
    if not (folder / "config.json").is_file():
        raise ConfigError(f"{folder}: no config.json in this folder: not a Hugging Face model")
    if not list(folder.glob("*.safetensors")):
        raise ConfigError(f"{folder}: no *.safetensors: pickled weights are not loaded; convert it")
    if (folder / "adapter_config.json").exists():
        # transformers would load the model that it names, and not this one
        raise ConfigError(f"{folder}: adapter_config.json: an adapter; merge it into its model")
    check_shards(folder)
    check_code(folder)


def check_shards(folder: Path) -> None:
    """Refuse an index that names other files than safetensors of the folder."""
    index = folder / "model.safetensors.index.json"
    if not index.exists():
        return
    shards = read_settings(index).get("weight_map")
    names: set[str] = set(map(str, shards.values())) if isinstance(shards, dict) else {"no files"}
    for name in sorted(names):
        if Path(name).name != name or not name.endswith(".safetensors"):
            raise ConfigError(f"{index}: names {short(name)}; expected safetensors beside it")
        if not (folder / name).is_file():
            raise ConfigError(f"{folder}: {short(name)} is missing; fetch the model again")


def check_code(folder: Path) -> None:
    """Refuse a model that runs only with code of its own, or asks for code from the hub."""
    config = read_settings(folder / "config.json")
    attention = str(config.get("attn_implementation") or "")
    if "/" in attention:
        raise ConfigError(
            f"{folder}: its attn_implementation {short(attention)} is code; remove it"
        )
    if "auto_map" in config and not is_known(str(config.get("model_type"))):
        raise ConfigError(
            f"{folder}: a model that brings its own code (auto_map in config.json), which is never "
            "run; expected an architecture of the installed transformers"
        )


def is_known(model_type: str) -> bool:
    """Whether transformers has code for a type of model, read from its source."""
    spec = importlib.util.find_spec("transformers")
    auto = Path(spec.origin).parent / "models" / "auto" if spec and spec.origin else Path()
    return any(f'("{model_type}", ' in path.read_text() for path in auto.glob("*auto*.py"))


def read_settings(path: Path) -> dict[str, Any]:
    """One of a model's JSON files. Raises ConfigError if it is none, or no object."""
    try:
        data = json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"{path}: not JSON: {error}; fetch the model again") from error
    if not isinstance(data, dict):
        raise ConfigError(f"{path}: expected a JSON object")
    return cast(dict[str, Any], data)


def folder_digest(folder: Path) -> str:
    """12 hex digits over a model folder's weights, settings, tokenizer and chat template.

    Of weights the header and the first and last MiB are read, not gigabytes; the rest as a whole.
    """
    sha = hashlib.sha256()
    paths = [path for glob in DIGESTED for path in sorted(folder.glob(glob))]
    for path in paths:
        size = path.stat().st_size
        sha.update(f"{path.name}\0{size}\0".encode())
        with path.open("rb") as file:
            if path.suffix != ".safetensors" and size <= MAX_WHOLE:
                sha.update(file.read())
                continue
            sha.update(file.read(1 << 20))
            file.seek(max(0, size - (1 << 20)))
            sha.update(file.read())
    return sha.hexdigest()[:12]


def pull_from_hub(name: str) -> Model:
    """Snapshot of a Hugging Face model."""
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    try:
        with disk_errors(Path(name)):
            path = snapshot(name)
    except (HfHubHTTPError, LocalEntryNotFoundError, OSError, ValueError) as error:
        reason = str(error).strip().splitlines()[0]
        raise ConfigError(
            f"{name}: not a folder here and not to be had from the Hugging Face hub ({reason}); "
            f"check the id, or use the embedded model: --model {EMBEDDED}"
        ) from error
    check_folder(path)
    return Model(name, path, path.name[:12])


def find_from_hub(name: str) -> Model | None:
    """The same that is here, if it is whole."""
    if importlib.util.find_spec("huggingface_hub") is None:
        return None
    from huggingface_hub.errors import LocalEntryNotFoundError

    try:
        path = snapshot(name, local_files_only=True)
        check_folder(path)
    except (ConfigError, LocalEntryNotFoundError, ValueError):
        return None
    return Model(name, path, path.name[:12])


def snapshot(name: str, local_files_only: bool = False) -> Path:
    """The folder of a hub's id. Raises what huggingface_hub raises."""
    from huggingface_hub import snapshot_download

    repo, _, revision = name.partition("@")
    return Path(
        snapshot_download(
            repo,
            revision=revision or None,
            allow_patterns=PULLED,
            local_files_only=local_files_only,
        )
    )


def is_reward_model(folder: Path) -> bool:
    """Whether the model has one trained scalar: what a new head says of any other is noise."""
    config = read_settings(folder / "config.json")
    names = str(config.get("architectures"))
    # a config without labels means two of them
    labels = config.get("id2label") or (0, 1)
    return isinstance(labels, dict) and len(labels) == 1 and "ForSequenceClassification" in names


def check_reward_model(model: Model, said: str = "") -> None:
    """Raise ConfigError for a model that is none; `said`: the setting that names it."""
    if not is_reward_model(model.path):
        raise ConfigError(
            f"{said}{': ' if said else ''}{model.name} is not a reward model; expected a "
            "…ForSequenceClassification with one label, such as 05-reward/checkpoint of a run"
        )


def has_chat_template(path: Path) -> bool:
    """Whether the model comes with a chat template: base models do not."""
    if (path / "chat_template.jinja").is_file():
        return True
    config = path / "tokenizer_config.json"
    return config.is_file() and bool(read_settings(config).get("chat_template"))


def model_context(path: Path) -> int | None:
    """Tokens that a model can hold, where its config says so."""
    config = read_settings(path / "config.json")
    text = config.get("text_config")
    limit = (text if isinstance(text, dict) else config).get("max_position_embeddings")
    return limit if isinstance(limit, int) and limit > 0 else None
