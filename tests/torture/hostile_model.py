"""A model folder full of code and pickles, and hostile chat templates, through the real vLLM engine.

    PYTHONPATH=tests python tests/torture/hostile_model.py

The folder is loaded as a run loads it, in a child process; then each template takes the place of
the model's own in one engine. What would be executed leaves a canary in /tmp.
"""

import json
import os
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import jinja2
from test_hostile_folders import CANARY, TEMPLATES, Payload, poison
from tiny_fixtures import make_tiny

from cai.engines.base import Completion, Engine, Request
from cai.engines.encode import ChatEncoder
from cai.engines.process import EngineProcess, EngineSettings, vllm_environment
from cai.errors import CaiError
from cai.records import Message, Sampling

HEAD = 64
"""A size of head that vLLM's attention on a CPU takes."""
REFUSALS = (jinja2.TemplateError, CaiError, OverflowError, TypeError, ValueError)
"""What a broken template raises: here it must have done nothing."""
LEAKS = ("<class '", "<built-in", "__builtins__", "root:x:0")


def ask(engine: Engine, id_: str) -> Completion:
    """One request's completion."""
    conversation = (Message(role="user", content="Hi"),)
    engine.submit(Request(id_, conversation, Sampling(max_tokens=4), seed=0))
    while True:
        for completion in engine.poll():
            return completion


def in_process(folder: Path) -> bool:
    """Whether the folder as it is loads and answers; if not it is refused."""
    settings = EngineSettings(kind="vllm", model=str(folder), max_context=64, capacity=1)
    engine = EngineProcess(settings, folder.parent / "engine.log")
    try:
        return ask(engine, "whole").finish != "error"
    except CaiError:
        return False
    finally:
        engine.close()


def with_templates(folder: Path) -> dict[str, int]:
    """Each template in the place of the model's own: how many ran, were refused, sang or leaked."""
    from cai.engines.vllm import VllmEngine

    settings = EngineSettings(kind="vllm", model=str(folder), max_context=512, capacity=1)
    engine: Any = VllmEngine(settings)
    tokenizer, found = engine._engine.get_tokenizer(), {"answered": 0, "refused": 0, "leaks": 0}
    executions = sung()
    for number, template in enumerate(TEMPLATES):
        tokenizer.chat_template = template
        try:
            engine._encoder = ChatEncoder(tokenizer)
            ids = engine._encoder.encode((Message(role="user", content="Hi"),), False)
            ask(engine, str(number))
        except REFUSALS:
            found["refused"] += 1
        else:
            found["answered"] += 1
            found["leaks"] += any(leak in tokenizer.decode(ids) for leak in LEAKS)
        executions += sung()
    return found | {"executions": executions}


def sung() -> int:
    """Whether something was executed; the next time counts by itself."""
    found = CANARY.exists()
    CANARY.unlink(missing_ok=True)
    return int(found)


def main() -> int:
    """Print one JSON line; 1 if anything was executed."""
    start = time.monotonic()
    os.environ |= vllm_environment() | {"VLLM_LOGGING_LEVEL": "ERROR"}
    Payload().__reduce__()[0](CANARY)
    assert sung(), "the canary is mute"
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) / "model"
        folder.mkdir()
        make_tiny(folder, hidden_size=2 * HEAD)
        poison(folder)
        executions, answered = 0, in_process(folder)
        executions += sung()
        assert answered, "the model's own template is not heard"
        (folder / "chat_template.jinja").write_text(TEMPLATES[0])
        in_process(folder)
        executions += sung()
        found = with_templates(folder)
    result = {"part": "hostile model, vLLM", "templates": len(TEMPLATES), **found}
    result["executions"] += executions
    print(json.dumps(result | {"seconds": round(time.monotonic() - start, 1)}))
    return int(bool(result["executions"] or result["leaks"]))


if __name__ == "__main__":
    sys.exit(main())
