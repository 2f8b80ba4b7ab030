"""Options of other libraries that no setting of a run can give.

They load code or pickles, name another model than the one that the run records, send something to
the network, or hold a secret.
"""

import re
from collections.abc import Collection, Iterator
from typing import Any

from cai.strict_yaml import Location

ANYWHERE = frozenset(
    {
        "trust_remote_code",
        "custom_generate",
        "model_init_kwargs",
        "weights_only",
        "use_safetensors",
        "load_format",
        "hf_token",
        "hub_token",
    }
)
"""At any depth."""
TRAINER = ANYWHERE | {
    "chat_template_path",
    "resume_from_checkpoint",
    "push_to_hub",
    "hub_model_id",
    "hub_strategy",
    "hub_revision",
    "hub_always_push",
    "log_completions_hub_repo",
}
ENGINE = ANYWHERE | {
    "model",
    "model_weights",
    "tokenizer",
    "revision",
    "code_revision",
    "tokenizer_revision",
    "hf_config_path",
    "hf_overrides",
    "config_format",
    "download_dir",
    "skip_tokenizer_init",
    "model_loader_extra_config",
    "model_class_overrides",
    "allowed_local_media_path",
    "allowed_media_domains",
    "worker_cls",
    "worker_extension_cls",
    "scheduler_cls",
    "logits_processors",
    "reasoning_parser_plugin",
    "io_processor_plugin",
    "logging_config",
    "log_config_file",
    "kv_transfer_config",
    "kv_events_config",
    "ec_transfer_config",
    "weight_transfer_config",
    "otlp_traces_endpoint",
}
CODE = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)+")
"""`package.module.Class`: vLLM imports it wherever an option may be one."""


def find_forbidden(options: Any, names: Collection[str], code: bool = False) -> Location | None:
    """Where the first option is that is one of `names`, or at any depth of ANYWHERE.

    With `code` also one whose value names code to import.
    """
    for path, value in walk(options):
        if path and (path[-1] in ANYWHERE or (len(path) == 1 and path[0] in names)):
            return path
        if code and isinstance(value, str) and CODE.fullmatch(value):
            return path
    return None


def walk(data: Any, path: Location = ()) -> Iterator[tuple[Location, Any]]:
    """Every value in nested mappings and lists, and where it is."""
    yield path, data
    if isinstance(data, dict | list):
        pairs: Any = data.items() if isinstance(data, dict) else enumerate(data)
        for key, value in pairs:
            yield from walk(value, (*path, key))
