"""Overhead of the driver: 10,000 chains of 5 requests on the fake engine, time and memory."""

import resource
import tempfile
import time
from pathlib import Path

from cai.chains.revision import RevisionSetup, Voice, revision_chain
from cai.constitution import find_constitution, load_constitution
from cai.driver import run_chains
from cai.engines.fake import FakeEngine
from cai.prompts import Templates
from cai.records import Message, Prompt, Sampling
from cai.run import RecordFile


def make_prompt(number: int) -> Prompt:
    return Prompt(
        id=f"prompt-{number}",
        messages=(Message(role="user", content=f"question {number}"),),
        kind="red_team",
        area="bench",
        source="bench",
        group=f"{number}",
        split="sft",
    )


def peak_mib() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def run(n_chains: int, setup: RevisionSetup, folder: Path) -> float:
    engine = FakeEngine(capacity=64)
    chains = (revision_chain(make_prompt(i), setup) for i in range(n_chains))
    started = time.perf_counter()
    with RecordFile(folder / f"{n_chains}.jsonl") as records:
        tally = run_chains(chains, {"base": engine}, records)
    assert tally.n_generated == 5 * n_chains
    return time.perf_counter() - started


def main() -> None:
    principles = load_constitution(find_constitution("harmless.yaml")).for_revision()
    voice = Voice("base", "fake", Sampling())
    setup = RevisionSetup((), principles, Templates(), 2, 0, voice, voice, voice)
    with tempfile.TemporaryDirectory() as scratch:
        run(500, setup, Path(scratch))
        before = peak_mib()
        seconds = run(10_000, setup, Path(scratch))
        print(f"10,000 chains x 5 requests: {seconds:.1f} s ({50_000 / seconds:,.0f} requests/s)")
        print(f"peak memory: {before:.0f} MiB after 500 chains, {peak_mib():.0f} MiB after 10,000")


if __name__ == "__main__":
    main()
