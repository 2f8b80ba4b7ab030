"""The transcript page of 10,000 prompts with 4 rounds each: size, first paint, search, diffs.

Needs playwright and a Chromium (`CHROMIUM`, by default Debian's /usr/bin/chromium). A third of the
prompts is also sampled and judged, and a tenth answered by three policies. `--keep FOLDER` leaves
the run and its page there.
"""

import argparse
import json
import os
import random
import re
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from playwright.sync_api import Page, sync_playwright

from cai.records import Critique, Message, Prompt, Response, Revision, digest
from cai.resources import PROMPTS, packaged
from cai.view.page import write_page

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))
import run_folder

CHROMIUM = os.environ.get("CHROMIUM", "/usr/bin/chromium")
N_PROMPTS, N_ROUNDS = 10_000, 4
AREAS = ("fraud", "violence", "drugs", "hate", "privacy", "self_harm", "weapons", "harassment")
QUERIES = (
    "passport",
    "the",
    "zebra crossing",
    '"you should never"',
    "xylophone",
    "i",
    "help money",
)
TIME_SEARCH = """async (query) => {
  const box = document.getElementById("query"), count = document.getElementById("count");
  const started = performance.now();
  let first = 0;
  const seen = new MutationObserver(() => (first ||= performance.now() - started));
  seen.observe(count, {childList: true, characterData: true, subtree: true});
  await search(query);
  await new Promise(requestAnimationFrame);
  seen.disconnect();
  return [first, performance.now() - started, count.textContent];
}"""
TIME_CHAINS = """async (n) => {
  const times = [];
  for (let i = 0; i < n; i++) {
    const started = performance.now();
    await openChain((i * 131) % chains.id.length);
    document.getElementById("reader").offsetHeight;
    times.push(performance.now() - started);
  }
  return times;
}"""
TIME_DIFF = """([one, other]) => {
  const times = [];
  for (let i = 0; i < 5; i++) {
    const started = performance.now();
    wordDiff(one, other);
    times.push(performance.now() - started);
  }
  return times;
}"""


class Writer:
    """Text with the word frequencies of the shipped prompts."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        files = sorted((packaged(PROMPTS) / "red_team").glob("*.jsonl"))
        said = r'"(?:prompt|content)": "((?:[^"\\]|\\.)*)"'
        texts = [text for file in files for text in re.findall(said, file.read_text())]
        self.words = re.findall(r"\w[\w'.,?!-]*", " ".join(texts))

    def text(self, low: int, high: int) -> str:
        return " ".join(self.random.choices(self.words, k=self.random.randint(low, high)))

    def revised(self, text: str) -> str:
        """About a fifth of the words replaced; sometimes none."""
        share = self.random.choice((0, 0.1, 0.2, 0.3))
        words = (self.text(1, 1) if self.random.random() < share else w for w in text.split())
        return " ".join(words)


def chain(prompt: Prompt, writer: Writer) -> Iterator[Response | Critique | Revision]:
    response = run_folder.respond(prompt, "revise", 0, writer.text(60, 120))
    yield response
    parent, text = response.id, response.text
    for number in range(1, N_ROUNDS + 1):
        shared: dict[str, Any] = {
            "prompt_id": prompt.id,
            "round": number,
            "principle_id": writer.random.choice(run_folder.PRINCIPLES),
            "generation": run_folder.generation(writer.random.choice(("stop", "stop", "length"))),
        }
        critique = digest("critique", parent, number)
        yield Critique(id=critique, parent_id=parent, text=writer.text(30, 70), **shared)
        text, parent = writer.revised(text), digest("revision", critique)
        yield Revision(id=parent, parent_id=critique, text=text, **shared)


def build(run: Path, n_prompts: int) -> None:
    """A whole run: everything that `run_folder` writes, with these prompts and texts instead."""
    writer = Writer(0)
    run_folder.build_run(run, 12)
    prompts = [
        Prompt(
            id=digest("bench", i),
            messages=(Message(role="user", content=writer.text(10, 40)),),
            kind="red_team",
            area=writer.random.choice(AREAS),
            source=f"bench.jsonl:{i + 1}",
            group=f"g{i}",
            split=("sft", "preference", "eval")[i % 3],
        )
        for i in range(n_prompts)
    ]
    run_folder.write_lines(run / "inputs" / "prompts.jsonl", prompts)
    rows = [row for prompt in prompts for row in chain(prompt, writer)]
    run_folder.write_lines(run / "01-revise" / "records.jsonl", rows)
    run_folder.write_labels(run, prompts[1::3])
    run_folder.write_evaluation(run, prompts[2::10], rows)


def measure(page: Page, path: Path) -> None:
    page.goto(f"file://{path}", wait_until="commit")
    page.wait_for_selector("html[data-ready=all]", timeout=120_000)
    paint = page.evaluate("performance.getEntriesByType('paint').map(e => [e.name, e.startTime])")
    marks = page.evaluate("performance.getEntriesByType('mark').map(e => [e.name, e.startTime])")
    for name, at in (*paint, *marks):
        print(f"{name}: {at:.0f} ms")
    for query in QUERIES:
        runs = [page.evaluate(TIME_SEARCH, query) for _ in range(3)]
        first, whole = (statistics.median(run[i] for run in runs) for i in (0, 1))
        print(f"search {query!r}: first result {first:.0f} ms, all {whole:.0f} ms ({runs[0][2]})")
    page.evaluate("search('')")
    times = page.evaluate(TIME_CHAINS, 100)
    late = statistics.quantiles(times, n=20)[-1]
    print(f"open a chain: median {statistics.median(times):.1f} ms, 95 of 100 under {late:.1f} ms")
    for name, pair in repeated(2_000).items():
        times = page.evaluate(TIME_DIFF, pair)
        middle, worst = statistics.median(times), max(times)
        print(f"diff of {name}: median of five {middle:.1f} ms, worst {worst:.1f} ms")
    used = page.evaluate("performance.memory ? performance.memory.usedJSHeapSize : 0")
    print(f"memory of the page's script: {used / 2**20:.0f} MiB")


def repeated(n: int) -> dict[str, Sequence[str]]:
    """Texts on which difflib takes minutes."""
    return {
        f"{n:,} repeated words": ("the a " * (n // 2), "a the x " * (n // 3)),
        f"{n:,} equal words": ("no " * n, "no " * (n - 100)),
        "250,000 words (over the cap)": ("the a " * 125_000, "a the " * 125_000),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--prompts", type=int, default=N_PROMPTS)
    parser.add_argument("--keep", type=Path)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch, sync_playwright() as playwright:
        run = (options.keep or Path(scratch)) / "synthetic-run"
        build(run, options.prompts)
        records = sum(file.stat().st_size for file in run.glob("*/*.jsonl"))
        started = time.perf_counter()
        path = write_page(run).resolve()
        print(f"write_page: {time.perf_counter() - started:.1f} s")
        size = path.stat().st_size
        print(f"file: {size / 2**20:.1f} MiB of {records / 2**20:.1f} MiB of records")
        browser = playwright.chromium.launch(
            executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"]
        )
        measure(browser.new_page(viewport={"width": 1440, "height": 900}), path)
        browser.close()
    print(json.dumps({"prompts": options.prompts, "rounds": N_ROUNDS}))


if __name__ == "__main__":
    main()
