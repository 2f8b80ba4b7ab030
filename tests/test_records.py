"""Ids and seeds must be the same in every process, or resume would lose its records."""

import subprocess
import sys

import pytest
from pydantic import ValidationError

from cai.records import Message, Prompt, conversation, derive_seed, digest


def test_digest_is_the_same_in_another_process() -> None:
    code = "from cai.records import digest; print(digest('a', {'y': 1, 'x': [2, None]}))"
    other = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert other.stdout.strip() == digest("a", {"x": [2, None], "y": 1})


def test_digest_depends_on_every_part_and_its_place() -> None:
    digests = {digest(*parts) for parts in (("a", "b"), ("b", "a"), ("ab",), (["a", "b"],), ("a",))}
    assert len(digests) == 5


def test_seed_fits_31_bits_and_spreads() -> None:
    seeds = [derive_seed("x", i) for i in range(1000)]
    assert all(0 <= seed < 2**31 for seed in seeds)
    assert len(set(seeds)) == 1000


def test_records_are_frozen_and_strict() -> None:
    message = Message(role="user", content="hello")
    with pytest.raises(ValidationError):
        message.content = "other"  # type: ignore[misc]
    with pytest.raises(ValidationError):
        Prompt.model_validate({"id": "x", "surprise": 1})


def test_conversation_alternates_from_the_assistant() -> None:
    start = (Message(role="user", content="q"),)
    roles = [message.role for message in conversation(start, "a", "b", "c")]
    assert roles == ["user", "assistant", "user", "assistant"]
