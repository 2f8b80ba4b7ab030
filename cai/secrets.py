"""Secrets: refused in what a run's folder keeps, and kept from children that do not need them."""

import re
from typing import NamedTuple

from cai.errors import ConfigError

BY_NAME = "export it in the shell, under the name that its library reads"
PATTERNS = {
    "a Hugging Face token": (r"hf_(?<!\whf_)[A-Za-z0-9]{20,}", "type export HF_TOKEN=…"),
    "an API key": (r"sk-(?<!\wsk-)(?=[\w-]{0,99}[A-Z])(?=[\w-]{0,99}[0-9])[\w-]{20,}", BY_NAME),
    "a Google key": (r"AIza(?<!\wAIza)[\w-]{35}", BY_NAME),
    "a GitHub token": (r"g(?<!\wg)(?:h[pousr]_[A-Za-z0-9]{20,}|ithub_pat_\w{20,})", BY_NAME),
    "a GitLab token": (r"glpat-(?<!\wglpat-)[\w-]{20,}", BY_NAME),
    "an AWS key": (r"A[KS]IA(?<!\wA[KS]IA)[A-Z0-9]{16}\b", BY_NAME),
    "a Slack token": (r"xox(?<!\wxox)[abeoprs]-[\w-]{10,}", BY_NAME),
    "a private key": (r"-----BEGIN [A-Z ]{0,30}PRIVATE KEY", "keep it in a file outside the run"),
    "an address with a password": (
        r"://[^/\s:@]{0,99}:[^/\s@]{1,299}@",
        "download what it names and give the file",
    ),
}
"""What it is, how it is recognised (no run of one character is read twice; a letter comes first,
for that is found fast, and what stands before it is looked at afterwards), what to do instead."""
KEY = re.compile(
    r"(?:^|_)(?:(?:hf|hub|access|auth|api|bearer)_?(?:token|key)|private_key|secret|password|passwd"
    r"|passphrase|credentials?)(?:_|$)",
    re.IGNORECASE,
)
"""A key of a config whose value is a secret; `eos_token` is none."""
VARIABLE = re.compile(
    r"(?:^|_)(?:TOKEN|PAT|(?:API|ACCESS|SECRET|PRIVATE|SIGNING|ENCRYPTION)_?KEY(?:_ID)?|KEY|SECRET"
    r"|PASSWORD|PASSWD|PASSPHRASE|CREDENTIALS?|AUTH|AUTH_SOCK)$",
    re.IGNORECASE,
)
"""A name of the environment whose value is a secret."""


class Secret(NamedTuple):
    """Something that looks like a secret."""

    what: str
    instead: str
    """What to do instead of writing it there."""
    start: int
    """Where in the text it begins."""


def find_secret(text: str) -> Secret | None:
    """What in a text looks like a secret, the first by PATTERNS."""
    for what, (pattern, instead) in PATTERNS.items():
        if found := re.search(pattern, text):
            return Secret(what, instead, found.start())
    return None


def refuse_secrets(text: str, place: str, is_file: bool = False) -> None:
    """Raise ConfigError if `text` holds a secret; of a file, the line and column follow `place`."""
    if secret := find_secret(text):
        before = text[: secret.start]
        if is_file:
            column = secret.start - (before.rfind("\n") + 1) + 1
            place = f"{place}:{before.count(chr(10)) + 1}:{column}"
        raise secret_at(place, secret.what, secret.instead)


def secret_at(place: str, what: str, instead: str = BY_NAME) -> ConfigError:
    """The complaint about a secret; it does not repeat it."""
    return ConfigError(
        f"{place}: looks like {what}; a run's folder keeps its settings: remove it, and {instead}"
    )


def is_secret(name: str, value: str) -> bool:
    """Whether a variable of the environment holds a secret."""
    return bool(VARIABLE.search(name) or find_secret(value))
