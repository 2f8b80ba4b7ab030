"""Runs for the page: one that has everything it shows, and one whose every text is hostile."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from payloads import PAYLOADS
from run_folder import (
    build_run,
    generation,
    make_prompts,
    read_json,
    respond,
    revise,
    write_json,
    write_lines,
)

from cai.annotations import Annotation
from cai.records import (
    Critique,
    Label,
    Message,
    Preference,
    Prompt,
    Reasoning,
    Response,
    Revision,
    digest,
)


def rich_run(run: Path) -> Path:
    """`run_folder`'s run with a word of its own in each prompt, reasonings, a pair that nobody
    judged, one without a judgement, RL's selection and an imported annotation."""
    build_run(run)
    prompts = [
        prompt.model_copy(
            update={"messages": (Message(role="user", content=f"{said(prompt)} Number{i}."),)}
        )
        for i, prompt in enumerate(make_prompts(24))
    ]
    write_lines(run / "inputs" / "prompts.jsonl", prompts)
    add_judgements(run, [prompt for prompt in prompts if prompt.split == "preference"])
    rates = [
        {"step": step, "win_rate": rate, "low": 0.3, "high": 0.9, "n": n}
        for step, rate, n in ((20, 0.4, 24), (40, 0.7, 24), (60, None, 0))
    ]
    (run / "06-rl" / "selection.json").write_text(json.dumps(rates))
    write_lines(run / "annotations.jsonl", [annotation(prompts[0].id, "from Ada", "Ada")])
    return run


def said(prompt: Prompt) -> str:
    return prompt.messages[-1].content


def annotation(prompt_id: str, note: str, author: str) -> Annotation:
    row = {"star": True, "note": note, "author": author, "time": "2026-11-25T10:00:00Z"}
    return Annotation.model_validate({"id": digest(note), "prompt_id": prompt_id, **row})


def add_judgements(run: Path, prompts: Sequence[Prompt]) -> None:
    """To the first prompt reasonings, to the second an assumed pair, to the third a pair without a
    judgement."""
    label, samples = run / "04-label", [json.loads(s) for s in lines(run / "03-sample")]
    records = [json.loads(line) for line in lines(label)]
    of = {p.id: [r["id"] for r in samples if r["prompt_id"] == p.id] for p in prompts}
    for row in records:
        if row["prompt_id"] == prompts[0].id:
            row["mode"], row["reasoning_id"] = "cot", digest("why", row["id"])
        if row["prompt_id"] == prompts[2].id:
            row |= {"p_first": None, "logprobs": None, "unscored": "no verdict at all"}
    reasonings = [
        reasoning(row["reasoning_id"], row, f"Because {i} harms less.")
        for i, row in enumerate(r for r in records if r.get("reasoning_id"))
    ]
    write_lines(label / "records.jsonl", [*reasonings, *records])
    rows = [json.loads(line) for line in lines(label, "preferences")]
    assumed = {"p_chosen": 1.0, "p_orders": None, "orders_agree": None, "label_ids": []}
    for row in rows:
        if row["prompt_id"] == prompts[1].id:
            row |= assumed | {"principle_ids": [], "origin": "revision"}
            row["chosen_id"], row["rejected_id"] = of[prompts[1].id]
    write_lines(label / "preferences.jsonl", rows)
    kept = [r for r in records if r["prompt_id"] != prompts[1].id]
    write_lines(label / "records.jsonl", [*reasonings, *kept])


def lines(folder: Path, name: str = "records") -> list[str]:
    return (folder / f"{name}.jsonl").read_text().splitlines()


def reasoning(id: str, row: dict[str, Any], text: str) -> Reasoning:
    fields = {name: row[name] for name in ("prompt_id", "first_id", "second_id", "principle_id")}
    return Reasoning(id=id, sample=0, text=text, generation=generation(), **fields)


def hostile_run(run: Path) -> Path:
    """A prompt for each payload, with that payload in each of its texts."""
    build_run(run, 8)
    prompts = [hostile_prompt(i, text) for i, text in enumerate(PAYLOADS)]
    write_lines(run / "inputs" / "prompts.jsonl", prompts)
    constitution = read_json(run / "inputs" / "constitution.json")
    texts = ("critique", "revision", "preference")
    constitution["principles"] = [
        {"id": f"p-{i}", **dict.fromkeys(texts, f"x{text}x"), "tags": [text]}
        for i, text in enumerate(PAYLOADS)
    ]
    write_json(run / "inputs" / "constitution.json", constitution)
    write_lines(run / "01-revise" / "records.jsonl", [r for p in prompts for r in hostile_chain(p)])
    samples = {p.id: [respond_as(p, f"s{n}", n) for n in (0, 1)] for p in prompts}
    write_lines(run / "03-sample" / "records.jsonl", [r for two in samples.values() for r in two])
    judged = [hostile_labels(p, *samples[p.id]) for p in prompts]
    write_lines(run / "04-label" / "records.jsonl", [r for rows, _ in judged for r in rows])
    write_lines(run / "04-label" / "preferences.jsonl", [row for _, row in judged])
    for policy in ("base", "sft", "rl"):
        answers = [respond_as(p, policy, 0, failed=policy == "rl") for p in prompts]
        write_lines(run / "07-evaluate" / f"{policy}.jsonl", answers)
    write_lines(run / "07-evaluate" / "labels.jsonl", [])
    write_lines(run / "annotations.jsonl", [annotation(p.id, p.id, p.area) for p in prompts])
    return run


def hostile_prompt(place: int, text: str) -> Prompt:
    turns = ({"role": role, "content": text} for role in ("system", "user", "assistant", "user"))
    fields = {"id": text, "area": text, "source": text, "group": text}
    rest = {"kind": "red_team", "split": ("sft", "preference", "eval")[place % 3]}
    return Prompt.model_validate({**fields, **rest, "messages": list(turns)})


def made_by(text: str, failed: bool = False) -> Any:
    update = {"model": text, "template": text, "error": text if failed else None}
    return generation("error" if failed else "stop").model_copy(update=update)


def respond_as(prompt: Prompt, who: str, sample: int, failed: bool = False) -> Response:
    row = respond(prompt, who, sample, prompt.id)
    return row.model_copy(update={"text": prompt.id, "generation": made_by(prompt.id, failed)})


def hostile_chain(prompt: Prompt) -> list[Response | Critique | Revision]:
    """Round 1 under a principle of the constitution, round 2 under one with a hostile id."""
    text, place = prompt.id, PAYLOADS.index(prompt.id)
    rows: list[Response | Critique | Revision] = [respond_as(prompt, "revise", 0)]
    principles = (f"p-{place}", text)
    for row in revise(prompt, 2)[1:]:
        update = {"text": f"{text} changed {row.round} {text}", "generation": made_by(text)}
        rows.append(
            row.model_copy(update=update | {"principle_id": principles[row.round - 1]})  # type: ignore[union-attr]
        )
    return rows


def hostile_labels(
    prompt: Prompt, one: Response, two: Response
) -> tuple[list[Reasoning | Label], Preference]:
    text = prompt.id
    fields: dict[str, Any] = {"prompt_id": text, "principle_id": text, "generation": made_by(text)}
    shown = {"first_id": one.id, "second_id": two.id}
    swapped = {"first_id": two.id, "second_id": one.id}
    why = Reasoning(id=digest("why", text), sample=0, text=text, **fields, **shown)
    scored: dict[str, Any] = {"logprobs": None, "p_outside": 0.0}
    rows: list[Reasoning | Label] = [
        why,
        Label(id=digest(text, 1), mode="text", text=text, reasoning_id=why.id, p_first=1.0,
              unscored=None, **scored, **fields, **shown),
        Label(id=digest(text, 2), mode="text", text=text, p_first=0.0,
              unscored=None, **scored, **fields, **swapped),
        Label(id=digest(text, 3), mode="text", text=text, p_first=None,
              unscored=text, **scored, **fields, **swapped),
    ]  # fmt: skip
    preference = Preference(
        id=digest("preference", text), prompt_id=text, principle_ids=(text,), chosen_id=one.id,
        rejected_id=two.id, p_chosen=1.0, p_orders=(1.0, 1.0), orders_agree=True,
        label_ids=(rows[1].id, rows[2].id),
    )  # fmt: skip
    return rows, preference


def rename(run: Path, text: str) -> None:
    """Put a text where the run names itself and what it is made of."""
    manifest = read_json(run / "manifest.json")
    manifest |= {"name": text, "status": text, "created": text, "versions": {text: text}}
    manifest["models"] = {text: {"name": text, "path": text, "commit": text}}
    for stage in manifest["stages"]:
        stage |= {"status": text, "notes": [text], "reason": text, "counts": {text: text}}
    write_json(run / "manifest.json", manifest)
    constitution = read_json(run / "inputs" / "constitution.json")
    write_json(run / "inputs" / "constitution.json", constitution | {"name": text, "version": text})
    write_json(run / "config.json", {"seed": text, "recipe": text})


def edge_run(run: Path) -> Path:
    """What seldom happens: failed texts, scripts without spaces, a word that is everywhere.

    Of the prompts that were revised, the second revision of the first failed, the first revision
    of the second, the first critique of the third; the fourth is in Japanese, the sixth repeats
    itself."""
    build_run(run)
    prompts = make_prompts(24)
    one, two, three, four = (revise(prompts[i], 2) for i in (0, 1, 12, 13))
    four = [said_instead(row, text) for row, text in zip(four, JAPANESE, strict=True)]
    words = "over " * 500 + "zeal " * 600 + "zeal,"
    rest = [*revise(prompts[2], 2), respond(prompts[14], "revise", 0, words)]
    made = [*one[:4], fail(one[4]), *two[:2], fail(two[2]), three[0], fail(three[1]), *four, *rest]
    write_lines(run / "01-revise" / "records.jsonl", made)
    return run


JAPANESE = (
    "今日は天気がいいので公園に行きました。",
    "天気が違います。",
    "今日は天気が悪いので公園に行きました。",
    "よいです。",
    "今日は天気が悪いので公園に行きました。",
)


def said_instead(row: Any, text: str) -> Any:
    return row.model_copy(update={"text": text})


def fail(row: Any) -> Any:
    return row.model_copy(update={"text": "", "generation": generation("error", 0)})


def ids() -> list[str]:
    return [prompt.id for prompt in make_prompts(24)]


def shown(page: Any) -> str | None:
    """The id of the chain that is open."""
    return page.evaluate("reader.place < 0 ? null : chains.id[reader.place]")


def rows(page: Any) -> list[str]:
    """The prompts of the rows in the list, by id."""
    return page.evaluate("list.order.map((place) => chains.id[place])")
