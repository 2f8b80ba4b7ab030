"""Whether a run can be trusted, by its own measures: position, length, refusals, collapse, cuts."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from cai.config import Guards
from cai.errors import QualityGate
from cai.metrics import REFUSAL_OF

Json = Mapping[str, Any]


class Measure(NamedTuple):
    """One number of a run that a bound limits."""

    bound: str
    """The field of `Guards`."""
    value: float
    text: str
    """What was found, in a sentence without its end."""


def broken(stage: str, found: Json, guards: Guards) -> list[Measure]:
    """The measures beyond their bounds, each with a whole sentence about it.

    `found`: the counts of a stage that is done; those of evaluate with its `metrics.json`.
    """
    over: list[Measure] = []
    for measure in measures(found):
        limit = getattr(guards, measure.bound)
        if limit is not None and measure.value > limit:
            text = f"{stage}: {measure.text} (guards.{measure.bound} is {limit:g})"
            over.append(measure._replace(text=text))
    return over


def lost(found: Json) -> Iterator[str]:
    """A warning without a bound: the best of RL's policies is worse than the one it began with."""
    rate = found.get("win_rate_over_start")
    if rate and rate["high"] < 0.5:
        yield (
            f"rl: the judge likes the policy of step {found['chosen_step']}, the best that was "
            f"kept, less than the one that RL started from: it wins {rate['win_rate']:.0%} "
            f"[{rate['low']:.0%}, {rate['high']:.0%}] of {rate['n']} prompts (look at rl.health "
            "and models.judge, and at what `cai eval` says of both policies)"
        )


def refuse(stage: str, over: list[Measure], guards: Guards) -> None:
    """Raise QualityGate if a broken bound is one that stops the run."""
    stopping = [measure for measure in over if measure.bound in guards.stop]
    if stopping:
        said = "; ".join(measure.text for measure in stopping)
        bounds = dict.fromkeys(measure.bound for measure in stopping)
        allow = " ".join(f"--set guards.{bound}=null" for bound in bounds)
        raise QualityGate(
            f"{said}. Stage {stage} is done and kept. Change what causes this, or go on with the "
            f"same command and a higher bound, or none: {allow}"
        )


def check_cuts(rows: Path, cut: tuple[int, int], allowed: float, why: str) -> float:
    """The share of a trainer's rows that is lost. Raises QualityGate if that is more than allowed.

    `cut`: how many of how many rows. `why`: what is wrong with them and what to change.
    """
    n_cut, n_rows = cut
    if n_cut > allowed * n_rows:
        raise QualityGate(
            f"{rows}: {n_cut} of {n_rows} rows {why}, or allow it: --set guards.max_cut_rows=null "
            f"(now {allowed:g})"
        )
    return n_cut / n_rows if n_rows else 0.0


def measures(found: Json) -> Iterator[Measure]:
    """Everything in a stage's counts that has a bound; nothing where there is no number."""
    yield from judge(found)
    yield from texts(found)
    if cut := found.get("share_cut"):
        text = f"{cut:.1%} of the rows were cut, left out or carried no loss"
        yield Measure("max_cut_rows", cut, text)
    policies: Json = found.get("policies", {})
    for name, policy in policies.items():
        yield from answers(name, policy)
        if name != "base" and "base" in policies:
            yield from changes(name, policy, policies["base"])


def judge(found: Json) -> Iterator[Measure]:
    """What the judge looked at beside the responses."""
    if slot := found.get("same_slot"):
        n = found["pairs"] - found["unscored_pairs"]
        text = (
            f"in {slot:.0%} of {n:,} pairs the judge preferred the same slot in both orders, so "
            "position decided more than the responses did"
        )
        yield Measure("max_same_slot", slot, text)
    if (p := found.get("identical_p_first")) is not None:
        text = f"beside itself a response that is shown first is the better one with P {p:.2f}"
        yield Measure("max_identical_bias", abs(p - 0.5), text)
    if n := found.get("unscored_pairs"):
        text = f"{n:,} of {found['pairs']:,} pairs have no judgement"
        yield Measure("max_unscored", n / found["pairs"], text)
    if rho := found.get("length_correlation"):
        text = f"the judge's P goes with the length of a response (Spearman's ρ {rho:.2f})"
        yield Measure("max_length_correlation", abs(rho), text)


def texts(found: Json) -> Iterator[Measure]:
    """How many of the texts of a stage that only generates are cut."""
    n = found.get("generated", 0) + found.get("from_disk", 0)
    if n and "policies" not in found:
        share = found["cut_at_limit"] / n
        yield Measure("max_truncated", share, f"{share:.0%} of {n:,} texts are cut at their limit")


def answers(name: str, policy: Json) -> Iterator[Measure]:
    """About one policy's answers alone."""
    share = policy["n_truncated"] / max(1, policy["n"])
    text = f"{share:.0%} of the answers of {name} are cut off at the token limit"
    yield Measure("max_truncated", share, text)
    if rho := policy.get("length_correlation"):
        text = f"the reward of answers of {name} goes with their length (Spearman's ρ {rho:.2f})"
        yield Measure("max_length_correlation", abs(rho), text)


def changes(name: str, policy: Json, base: Json) -> Iterator[Measure]:
    """What got worse than in the base model."""
    for metric in ("over_refusal", "helpful_refusal"):
        now, before = policy[metric], base[metric]
        if now and before and now["low"] > before["high"]:
            kind = REFUSAL_OF[metric].replace("_", "-")
            rates = f"{before['value']:.0%} → {now['value']:.0%}"
            text = f"{name} refuses {kind} prompts more often than base ({rates})"
            yield Measure("max_refusal_rise", now["value"] - before["value"], text)
    now, before = policy["length_tokens"], base["length_tokens"]
    if now and before and now["value"] and before["value"]:
        ratio = now["value"] / before["value"]
        text = f"answers of {name} are {ratio:.1f} times as long as base's"
        yield Measure("max_length_change", max(ratio, 1 / ratio), text)
    now, before = policy["distinct_2"], base["distinct_2"]
    if now is not None and before:
        text = f"answers of {name} are more alike than base's (distinct-2 {before:.2f} → {now:.2f})"
        yield Measure("max_distinct_drop", 1 - now / before, text)
