"""`report.md` and its plots: how a run was made, what changed, and what the numbers cannot say."""

from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

from cai.judgements import label_pairs
from cai.metrics import REFUSAL_OF, known, same_position_rate, wilson
from cai.run import write_atomic
from cai.view.learning import counts_of, heldout_accuracy, preferences, reinforcement, reward_model
from cai.view.markdown import bullets, fence, grid, inline
from cai.view.plots import curves, draw_before_after, draw_rounds, draw_training, plot
from cai.view.terminal import (
    COLUMNS,
    as_text,
    by_policy,
    evaluation_rows,
    measure,
    read_run,
    stage_rows,
)
from cai.view.transcripts import (
    POLICIES,
    Transcript,
    load_transcripts,
    read_object,
)

FEW_PROMPTS = 100
LIMITS = (
    "Intervals are 95 % and cover the draw of prompts, not that of seeds: training once more with "
    "another seed can differ by more. Turns of one dialogue count as independent prompts.",
    "The reward comes from the reward model that RL maximised, so that it rises is expected and is "
    "no evidence of harmlessness on its own; the win rate is the judge's and shares its biases. It "
    "is over red-team prompts to which the two policies' answers differ.",
    "Refusals are found by rules on the opening of an answer, in English; a refusal of a red-team "
    "prompt is not always right, and an answer without one is not always harmful.",
    "Distinct-n falls with the amount of text, so compare it only between policies of similar "
    "length. KL is estimated on the policies' own answers.",
)


class Facts(NamedTuple):
    """Everything that the report is made from; empty where a stage is missing."""

    run: Path
    manifest: Mapping[str, Any]
    metrics: Mapping[str, Any]
    heldout: Mapping[str, Any] | None
    """The reward model's accuracy on held-out pairs."""
    transcripts: Sequence[Transcript]


def write_report(run: Path) -> Path:
    """Write `report.md` and `plots/`, and return the report's path.

    A missing stage is named and leaves out what depends on it. Raises ConfigError where a file of
    the run is broken, DiskFull where it cannot be written."""
    manifest, transcripts = read_run(run), load_transcripts(run)
    heldout = heldout_accuracy(counts_of(manifest, "reward"))
    facts = Facts(run, manifest, manifest["evaluation"] or {}, heldout, transcripts)
    blocks = [
        *how_made(facts),
        *results(facts),
        *judge(facts),
        *preferences(facts.manifest),
        *reward_model(facts.manifest, heldout),
        *reinforcement(facts.manifest),
        *rounds(facts),
        *training(facts),
        *warned(facts),
        *limits(facts),
        *examples(facts),
    ]
    write_atomic(run / "report.md", "\n\n".join(blocks) + "\n")
    return run / "report.md"


def how_made(facts: Facts) -> Iterator[str]:
    manifest, seed = facts.manifest, read_object(facts.run / "config.json").get("seed")
    yield f"# Run {inline(manifest.get('name', facts.run.resolve().name))}"
    missing = ", ".join(manifest["missing_stages"])
    yield f"Status: **{inline(manifest.get('status', 'no manifest yet'))}**." + (
        f" Not there: {missing}; what depends on it is left out below." if missing else ""
    )
    yield "## How it was made"
    models = manifest.get("models", {}).items()
    versions = manifest.get("versions", {}) | manifest.get("hardware", {})
    said = {
        "constitution": manifest["constitution"],
        **{f"{role} model": f"{model['name']} @ {model['commit']}" for role, model in models},
        "seed": seed and str(seed),
        "created": manifest.get("created"),
        "cai": manifest.get("cai"),
        "with": ", ".join(f"{name} {version or '–'}" for name, version in versions.items()),
    }
    yield bullets(f"{inline(name)}: {inline(as_text(value))}" for name, value in said.items())
    yield grid([name.rstrip(">") for name in COLUMNS], stage_rows(manifest))


def results(facts: Facts) -> Iterator[str]:
    yield "## Before and after"
    if not facts.metrics:
        yield "The run has no evaluation, so nothing is known about what training changed."
        return
    first = next((policy for policy in by_policy(facts.metrics) if policy), {})
    kinds = [f"{first[name]['n']:,} {REFUSAL_OF[name]}" for name in REFUSAL_OF if first.get(name)]
    shown = f" ({inline(', '.join(kinds))})" if kinds else ""
    yield (
        f"{facts.metrics['n_prompts']:,} held-out prompts{shown}, the same "
        "for each policy, with 95 % intervals. A dash: nothing was measured."
    )
    yield grid(("", "Base", "SFT", "RL"), evaluation_rows(facts.metrics))
    yield plot(facts.run, "before_after", draw_before_after, by_policy(facts.metrics))


def judged(facts: Facts) -> list[tuple[str, int, int, dict[str, Any] | None]]:
    """Per stage that compares: pairs in both orders, unscored pairs, same-position rate."""
    label = [row for transcript in facts.transcripts for row in transcript.labels]
    compared = [row for transcript in facts.transcripts for row in transcript.comparisons]
    rows: list[tuple[str, int, int, dict[str, Any] | None]] = []
    for stage, labels in (("label", label), ("evaluate", compared)):
        pairs, n_unscored = label_pairs(labels)
        rate = known(same_position_rate, [pair.orders for pair in pairs])
        rows.append((stage, len(pairs), n_unscored, rate))
    return [row for row in rows if row[1] or row[2]]


def judge(facts: Facts) -> Iterator[str]:
    if found := judged(facts):
        yield "## The judge"
        rows = [(*row[:3], measure(row[3], 100, 0)) for row in found]
        yield grid(("Stage", "Pairs", "Unscored pairs", "Same slot preferred in both orders"), rows)


def rounds(facts: Facts) -> Iterator[str]:
    yield "## Reward by revision round"
    found = facts.metrics.get("reward_by_round") or []
    if not found:
        yield "No rewards of revisions were measured."
        return
    yield f"The same {found[0]['n']:,} prompts in each round; round 0 is the response."
    cells = [(row["round"], measure(row), measure(row.get("gain"))) for row in found]
    yield grid(("Round", "Mean reward", "Gain over round 0, paired"), cells)
    yield plot(facts.run, "reward_by_round", draw_rounds, found)


def training(facts: Facts) -> Iterator[str]:
    yield "## Training"
    if found := list(curves(facts.run)):
        yield plot(facts.run, "training", draw_training, found)
    else:
        yield "No training was logged."


def warned(facts: Facts) -> Iterator[str]:
    yield "## Warnings"
    found = [*map(inline, broken_bounds(facts)), *doubts(facts)]
    yield bullets(found) if found else "None of the checks found anything."


def broken_bounds(facts: Facts) -> Iterator[str]:
    """The bounds that the run breaks: `cai.guards`."""
    for stage in facts.manifest.get("stages", []):
        yield from (f"{text}." for text in stage.get("warnings", []))


def doubts(facts: Facts) -> Iterator[str]:
    """What no bound can say, of the reward model, the number of prompts and the answers."""
    heldout = facts.heldout
    if heldout and (heldout["low"] or 0) <= 0.5 <= (heldout["high"] or 1):
        yield (
            f"The reward model's accuracy, {measure(heldout, 100, 0)}, cannot be told from "
            "guessing: rewards, and what RL made of them, mean little."
        )
    n_prompts = facts.metrics.get("n_prompts") or FEW_PROMPTS
    if n_prompts < FEW_PROMPTS:
        even = measure(wilson(0.5, n_prompts)._asdict(), 100, 0)
        yield f"Only {n_prompts} held-out prompts: even over all of them, a half is {even}."
    yield from policy_warnings(facts.metrics)


def policy_warnings(metrics: Mapping[str, Any]) -> Iterator[str]:
    """About each policy's answers."""
    for name, policy in zip(POLICIES, by_policy(metrics), strict=True):
        if policy.get("n_error"):
            yield f"{name}: {policy['n_error']:,} of {policy['n']:,} answers failed; not counted."
        gain, wins = policy.get("reward_gain"), policy.get("win_rate")
        if gain and (gain["low"] or 0) > 0 and wins and wins["high"] < 0.5:
            yield (
                f"{name}: reward rose while the judge prefers base: the reward model is being "
                "exploited."
            )


def limits(facts: Facts) -> Iterator[str]:
    yield "## What these numbers can and cannot say"
    models = facts.manifest.get("models", {})
    same = models.get("judge") and models.get("judge") == models.get("base")
    own = (
        "The judge is the very model that is trained: its labels measure agreement with itself.",
    )
    yield bullets((*(own if same else ()), *LIMITS))


def examples(facts: Facts) -> Iterator[str]:
    """The first two revised prompts and the first evaluated one."""
    revised = islice((row for row in facts.transcripts if row.rounds), 2)
    evaluated = islice((row for row in facts.transcripts if row.answers), 1)
    if chosen := [*revised, *evaluated]:
        yield "## Examples"
        yield "The first of the run, not picked by quality. They can be offensive."
    for transcript in chosen:
        prompt, rewards = transcript.prompt, transcript.rewards
        yield f"### {inline(prompt.kind)}, {inline(prompt.area)} ({inline(prompt.id)})"
        yield from ("Prompt:", fence(prompt.messages[-1].content))
        texts = [("Response", transcript.response)] if transcript.response else []
        for round in transcript.rounds[:1] + transcript.rounds[1:][-1:]:
            name = f"round {round.number}, {round.principle_id}"
            texts += [(f"Critique, {name}", round.critique), (f"Revision, {name}", round.revision)]
        texts += [(f"Answer of {answer.policy}", answer.response) for answer in transcript.answers]
        for name, text in texts:
            if text:
                reward = f", reward {rewards[text.id]:+.2f}" if text.id in rewards else ""
                yield from (f"{inline(name)}{reward}:", fence(text.text))
