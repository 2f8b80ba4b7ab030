"""What `cai reproduce` found: in the terminal, and as Markdown (docs/reproduce.md)."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from rich.console import Console
from rich.text import Text

from cai.judge_metrics import is_chance
from cai.reproduce.options import PARTS
from cai.view.judged import rows as judge_rows
from cai.view.markdown import bullets, grid, inline
from cai.view.terminal import as_text, duration, heading, make_table, measure, one_line

Found = Mapping[str, Any]


class Section(NamedTuple):
    """A part's result, ready to be shown. Columns that end in `>` are aligned to the right."""

    title: str
    columns: tuple[str, ...]
    rows: list[Sequence[object]]
    verdict: str
    """The one sentence that the part was made for."""
    notes: list[str]


def show_reproduced(results: Found, console: Console) -> None:
    """Print a table and a verdict for each part that is done."""
    for part, section in sections(results):
        seconds = duration(results["spent_s"].get(part))
        console.print(heading(section.title, seconds))
        console.print(make_table(section.columns, section.rows))
        console.print(Text(one_line(section.verdict), "bold"), soft_wrap=True)
        for note in section.notes:
            console.print(Text(one_line(note), "dim"), soft_wrap=True)
        console.print()


def markdown(results: Found) -> str:
    """The measured numbers as a page; a part that is not done is named as missing."""
    blocks = ["# What `cai reproduce` measured", how_measured(results)]
    for part, section in sections(results):
        title = f"## {inline(section.title)} ({duration(results['spent_s'].get(part))})"
        table = grid([inline(name.rstrip(">")) for name in section.columns], section.rows)
        blocks += [title, f"**{inline(section.verdict)}**", table]
        if section.notes:
            blocks.append(bullets(map(inline, section.notes)))
    missing = [part for part in PARTS if part not in results["parts"]]
    if missing:
        blocks.append(f"Not measured: {', '.join(missing)}.")
    return "\n\n".join(blocks) + "\n"


def how_measured(results: Found) -> str:
    """On what, with what, how long."""
    parts: Found = results["parts"]
    lines = [f"in all {duration(sum(results['spent_s'].values()))}"]
    for name in ("hardware", "versions"):
        for found in distinct([part[name] for part in parts.values()]):
            lines.append(f"{name}: {', '.join(f'{k} {as_text(v)}' for k, v in found.items())}")
    for part, entry in parts.items():
        settings = ", ".join(f"{key} = {as_setting(v)}" for key, v in entry["settings"].items())
        lines.append(f"{part} ({entry['finished']}): {settings}")
    return bullets(map(inline, lines))


def distinct(found: Sequence[Found]) -> list[Found]:
    """The same without what is there already."""
    return [one for i, one in enumerate(found) if one not in found[:i]]


def as_setting(value: object) -> str:
    """A setting in a line: whole, since it is there to be typed again."""
    return one_line(value)


def sections(results: Found) -> Iterator[tuple[str, Section]]:
    """Each part that is done, in order."""
    for part in PARTS:
        if part in results["parts"]:
            yield part, SECTIONS[part](results["parts"][part]["result"])


def labels_section(found: Found) -> Section:
    variants: Found = found["variants"]
    rows: list[Sequence[object]] = [
        [f"{p:g}", *(f"{one['fitted'][i]:.3f}" for one in variants.values())]
        for i, p in enumerate(found["levels"])
    ]
    largest = (f"{one['largest_deviation']:.3f}" for one in variants.values())
    soft = variants["soft"]["largest_deviation"]
    kept = "within" if found["held"] else "NOT within"
    return Section(
        "Soft, hard and clamped labels on pairs of known P",
        ("true P(chosen)>", *(f"{name}: fitted>" for name in variants)),
        [*rows, ["largest deviation", *largest]],
        f"Soft labels are fitted {kept} {found['within']:g} of P: largest deviation {soft:.3f}.",
        [
            f"{found['n_train']} pairs to train on, {found['n_unseen']} on prompts that were not "
            "among them; the fit is the mean of σ(score gap) on the latter",
            "hard: the better side has P = 1, pairs of P = 0.5 are left out; clamped: P at most "
            "0.6",
        ],
    )


BARELY = 0.51
"""The lower end of an accuracy's interval below which it is nearly chance."""


def human_section(found: Found) -> Section:
    final, data = found["growth"][-1], found["data"]
    verdict = "does NOT beat chance"
    if found["beats_chance"]:
        # 50.0 where it is shown: another seed may as well end on the other side
        verdict = f"{'barely ' if final['accuracy']['low'] < BARELY else ''}beats chance"
    shown = measure(final["accuracy"], 100, 1)
    return Section(
        "A reward model from human pairs",
        ("pairs trained on>", "steps>", "accuracy>", "on training pairs>", "log loss>",
         "gap and length: r>", "time>"),
        [
            [
                one["n_train"], one["n_steps"], measure(one["accuracy"], 100, 1),
                measure(one["accuracy_train"], 100, 1), measure(one["loss"], 1, 3),
                measure(one["length_correlation"], 1, 2), duration(one["seconds"]),
            ]
            for one in found["growth"]
        ],
        f"On {final['accuracy']['n']} pairs of dialogues it has not seen it {verdict}: {shown}.",
        [
            f"the rule 'the shorter answer is better' gets {measure(found['shorter'], 100, 1)}; "
            "r is the correlation of score gap and difference in characters",
            f"dialogues: {data['n_test']} pairs test, {data['n_tuning']} tuning (neither trained "
            f"nor tested on), {data['n_training']} training; {data['n_long']} left out as too "
            f"long, {data['n_bad']} broken, {as_text(data['left_out'] or 0)} otherwise left out; "
            f"{final['n_too_long']} more exceed the tokens; {final['n_not_finite']} scores of the "
            "last model are not finite, which counts as wrong",
            "log loss of a coin: 0.693; the intervals allow for dialogues with several pairs, not "
            "for another seed of the training",
        ],
    )  # fmt: skip


POLICY = (
    ("reward", "reward", 1, 3),
    ("paired difference", "reward_gain", 1, 3),
    ("KL from the model, nats a response", "kl", 1, 2),
    ("length, tokens", "length_tokens", 1, 1),
    ("cut at the token limit", "n_truncated", 1, 0),
    ("distinct-1", "distinct_1", 1, 3),
    ("distinct-2", "distinct_2", 1, 3),
    ("commonest opening", "top_opening_share", 100, 0),
    ("refusals", "refusal", 100, 0),
)
TRAINING = (
    ("reward", 3),
    ("kl", 4),
    ("entropy", 2),
    ("length_tokens", 1),
    ("distinct_2", 3),
)
"""What is shown of a training, and with how many digits."""


def rl_section(found: Found) -> Section:
    policies = (found["before"], found["after"])
    gain = measure(found["after"]["reward_gain"], 1, 3)
    rises = "rises" if found["rises"] else "does NOT rise beyond chance"
    return Section(
        "RL against that reward model",
        ("", "before>", "after>"),
        [[name, *(measure(one[key], *form) for one in policies)] for name, key, *form in POLICY],
        f"The reward of {found['n_unseen']} unseen prompts {rises}: paired difference {gain}; "
        f"KL {measure(found['after']['kl'], 1, 2)} nats a response.",
        [
            f"{found['n_training']} prompts to train on and {found['n_unseen']} that measure, of "
            "dialogues that neither trained nor tested the reward model and share none; "
            f"{found['n_long']} longer ones left out",
            "it is the reward that RL maximised: that it rises is no evidence of harmlessness",
            trained("RL", found["training"]),
            trained("planted reward (length), all bounds", found["planted"]),
            trained("the same without the bound on reward and length", found["planted_blind"]),
        ],
    )


def trained(name: str, training: Found) -> str:
    """How a training went and what ended it."""
    ended = f"{training['n_steps']} of {training['max_steps']} steps"
    if stopped := training["stopped"]:
        ended = f"caught at step {stopped['step']}: {'; '.join(stopped['why'])}"
    values = (
        f"{key} {measure(training['first'][key], 1, digits)} → "
        f"{measure(training['last'][key], 1, digits)}"
        for key, digits in TRAINING
    )
    return f"{name}: {ended}. First and last steps: {', '.join(values)}"


def judge_section(found: Found) -> Section:
    at = "at chance" if is_chance(found) else "better than chance"
    return Section(
        "The judge as it is",
        ("", "", "ideal"),
        list(judge_rows(found)),
        f"{found['judge']} is {at}: right on {measure(found['accuracy'], 100, 1)} of "
        f"{found['n_pairs']} human pairs.",
        [f"constitution {found['constitution']}, mode {found['label']['mode']}"],
    )


SECTIONS: dict[str, Callable[[Found], Section]] = {
    "labels": labels_section,
    "human": human_section,
    "rl": rl_section,
    "judge": judge_section,
}
