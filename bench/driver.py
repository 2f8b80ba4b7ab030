"""The revise stage of 64 prompts x 2 rounds on the embedded model, four ways, as ratios.

    (a) chains through the driver              (c) raw `LLM.chat` on the same final requests
    (b) the same, stage by stage with barriers (d) transformers, batched generate

All in one run, each on a fresh engine with the same settings; loading is not counted. (c) is the
ceiling: every request is known from the start. (d) answers a share of the requests, since it is
slow; rates are generated tokens per second.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from cai.chains.revision import RevisionSetup, Voice, revision_chain
from cai.config import Prompts
from cai.constitution import find_constitution, load_constitution
from cai.driver import Chain, Step, run_chains
from cai.engines.base import Completion, Request
from cai.engines.process import EngineProcess, EngineSettings, vllm_environment
from cai.environment import child_environment
from cai.models import EMBEDDED, resolve_model
from cai.prompts import Templates
from cai.records import Message, Sampling
from cai.run import RecordFile
from cai.sources import load_prompts
from cai.splits import select


class Recorded:
    """An engine that notes what passes through it."""

    def __init__(self, engine: EngineProcess) -> None:
        self.engine = engine
        self.model, self.capacity = engine.model, engine.capacity
        self.requests: list[Request] = []
        self.completions: list[Completion] = []

    def submit(self, request: Request) -> None:
        self.requests.append(request)
        self.engine.submit(request)

    def poll(self) -> list[Completion]:
        done = self.engine.poll()
        self.completions += done
        return done

    def close(self) -> None:
        self.engine.close()

    def warm_up(self) -> None:
        """A batch of short requests: the first steps of an engine compile kernels on a GPU."""
        hello, left = (Message(role="user", content="Hello"),), self.capacity
        for seed in range(left):
            self.engine.submit(Request(f"warm-{seed}", hello, Sampling(max_tokens=32), seed))
        while left:
            left -= len(self.engine.poll())


def settings(kind: str, model: Path, arguments: argparse.Namespace) -> EngineSettings:
    return EngineSettings(
        kind=kind, model=str(model), max_context=arguments.context, capacity=arguments.batch
    )


def make_chains(arguments: argparse.Namespace) -> list[Chain]:
    principles = load_constitution(find_constitution("harmless.yaml")).for_revision()
    voice = Voice("base", EMBEDDED, Sampling(max_tokens=arguments.max_tokens))
    setup = RevisionSetup((), principles, Templates(), arguments.rounds, 0, voice, voice, voice)
    prompts, _ = load_prompts(Prompts(), 0)
    chosen = select(prompts, "red_team", "sft", arguments.prompts, 0)
    return [revision_chain(prompt, setup) for prompt in chosen]


def through_driver(engine: Recorded, chains: list[Chain], folder: Path) -> float:
    started = time.perf_counter()
    with RecordFile(folder / "driver.jsonl") as records:
        run_chains(chains, {"base": engine}, records)
    return time.perf_counter() - started


def with_barriers(engine: Recorded, chains: list[Chain], folder: Path) -> float:
    """Every chain's first step, then every chain's second step…"""
    started = time.perf_counter()
    steps: list[tuple[Chain, Step]] = [(chain, next(chain)) for chain in chains]
    with RecordFile(folder / "barriers.jsonl") as records:
        while steps:
            by_id = {step.request.id: (chain, step) for chain, step in steps}
            for _, step in steps:
                engine.submit(step.request)
            steps = []
            following: dict[str, Any] = {}
            while len(following) < len(by_id):
                done = engine.poll()
                batch = {c.id: by_id[c.id][1].read(c) for c in done}
                records.append(list(batch.values()))
                following |= batch
            for request_id, (chain, _) in by_id.items():
                steps += list(advance(chain, following[request_id]))
    return time.perf_counter() - started


def advance(chain: Chain, record: Any) -> Iterator[tuple[Chain, Step]]:
    try:
        yield chain, chain.send(record)
    except StopIteration:
        return


RAW_CHAT = """
import json, sys, time
from pathlib import Path
from vllm import LLM, SamplingParams
from dataclasses import asdict
from cai.engines.process import EngineSettings
from cai.engines.vllm import engine_args
settings = EngineSettings.model_validate_json(sys.argv[1])
rows = json.loads(Path(sys.argv[2]).read_text())
args = engine_args(settings, settings.max_context)
names = ("model max_model_len max_num_seqs enable_prefix_caching disable_log_stats dtype "
         "enforce_eager block_size enable_chunked_prefill max_num_batched_tokens").split()
llm = LLM(**{name: getattr(args, name) for name in names})
params = [SamplingParams(temperature=1.0, max_tokens=r["max_tokens"], seed=r["seed"]) for r in rows]
hello = [{"role": "user", "content": "Hello"}]
llm.chat([hello] * settings.capacity, SamplingParams(max_tokens=32), use_tqdm=False)
started = time.perf_counter()
outputs = llm.chat([r["messages"] for r in rows], params, use_tqdm=False)
seconds = time.perf_counter() - started
tokens = sum(len(o.outputs[0].token_ids) for o in outputs)
texts = sum(o.outputs[0].text.strip() == r["text"] for o, r in zip(outputs, rows))
print(json.dumps({"seconds": seconds, "tokens": tokens, "same_texts": texts}))
"""


def raw_chat(wanted: EngineSettings, done: Recorded, folder: Path) -> dict[str, Any]:
    """vLLM's own `LLM.chat` over the requests that (a) made."""
    texts = {completion.id: completion.text.strip() for completion in done.completions}
    rows = [
        {
            "messages": [message.model_dump() for message in request.messages],
            "max_tokens": request.sampling.max_tokens,
            "seed": request.seed,
            "text": texts[request.id],
        }
        for request in done.requests
    ]
    path = folder / "requests.json"
    path.write_text(json.dumps(rows))
    environment = child_environment(**vllm_environment())
    command = [sys.executable, "-c", RAW_CHAT, wanted.model_dump_json(), str(path)]
    done_process = subprocess.run(
        command, env=environment, capture_output=True, text=True, check=False
    )
    if done_process.returncode:
        raise SystemExit(done_process.stderr[-2000:])
    return json.loads(done_process.stdout.splitlines()[-1])


def transformers_rate(engine: Recorded, requests: list[Request]) -> float:
    started = time.perf_counter()
    for request in requests:
        engine.submit(request)
    while len(engine.completions) < len(requests):
        engine.poll()
    return sum(c.n_tokens for c in engine.completions) / (time.perf_counter() - started)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--prompts", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--max-tokens", type=int, default=128)
    parser.add_argument("--context", type=int, default=2048)
    return parser.parse_args()


def main() -> None:
    arguments = parse()
    model = resolve_model(EMBEDDED).path
    wanted = settings("vllm", model, arguments)
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        measured: dict[str, tuple[float, int]] = {}
        engines: dict[str, Recorded] = {}
        for name, way in (("a", through_driver), ("b", with_barriers)):
            engine = engines[name] = Recorded(EngineProcess(wanted, folder / f"{name}.log"))
            engine.warm_up()
            seconds = way(engine, make_chains(arguments), folder)
            engine.close()
            measured[name] = (seconds, sum(c.n_tokens for c in engine.completions))
            report(name, *measured[name], engine)
        raw = raw_chat(wanted, engines["a"], folder)
        measured["c"] = (raw["seconds"], raw["tokens"])
        report("c", *measured["c"], None)
        slow = Recorded(EngineProcess(settings("transformers", model, arguments), folder / "d.log"))
        slow.warm_up()
        rate_d = transformers_rate(slow, engines["a"].requests[::20][: arguments.batch])
        slow.close()
        print(f"(d) {rate_d:.0f} tokens/s over {len(slow.completions)} requests, one batch")
    rates = {name: tokens / seconds for name, (seconds, tokens) in measured.items()}
    print(f"texts that (a) and (c) share: {raw['same_texts']} of {len(engines['a'].requests)}")
    print(f"(a)/(b) {rates['a'] / rates['b']:.2f}   aim 1.15")
    print(f"(a)/(c) {rates['a'] / rates['c']:.2f}   aim 0.95")
    print(f"(a)/(d) {rates['a'] / rate_d:.2f}   aim 2.5")


def report(name: str, seconds: float, tokens: int, engine: Recorded | None) -> None:
    line = f"({name}) {tokens} tokens in {seconds:.1f} s: {tokens / seconds:.0f} tokens/s"
    if engine:
        prompt = sum(c.n_prompt_tokens for c in engine.completions)
        cached = sum(c.n_cached_tokens for c in engine.completions)
        line += f", {len(engine.completions)} requests, prefix-cache hit rate {cached / prompt:.2f}"
    print(line, flush=True)


if __name__ == "__main__":
    main()
