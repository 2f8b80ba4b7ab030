"""Stage sft: the model learns its own revisions, mixed with helpful responses."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from cai.records import Prompt, Response, Revision, derive_seed
from cai.run import StoredRecord
from cai.stages.context import Outcome, RunContext, train
from cai.train.jobs import SftJob
from cai.view.progress import StageProgress


def run(context: RunContext, progress: StageProgress) -> Outcome:
    """Train on rows made from the revise stage's records."""
    config = context.config.sft
    prompts = {prompt.id: prompt for prompt in context.prompts}
    with context.records("revise") as file:
        records = list(file)
    last = context.config.revise.rounds if config.use == "last" else None
    revised, skipped = revision_rows(prompts, records, last)
    helpful = helpful_rows(prompts, records, context.config.seed)
    mixed = helpful[: wanted_helpful(len(revised), config.helpful_ratio)]
    rows = revised + mixed
    progress.doing(f"training on {len(rows)} rows")
    result = train(context, "sft", make_job(context), rows, progress)
    used = {row["id"] for row in rows}
    counts = {
        "revision_rows": len(revised),
        "helpful_rows": len(mixed),
        "helpful_rows_at_hand": len(helpful),
        "helpful_ratio": round(len(mixed) / len(rows), 4) if rows else None,
        "helpful_ratio_aimed_at": config.helpful_ratio,
        "left_out": dict(skipped),
        "cut_at_limit": sum(r.id in used and r.generation.finish == "length" for r in records),
        **result,
    }
    n_in = len(revised) + len(mixed) + sum(skipped.values())
    return Outcome(n_in, len(rows), counts, {"trained": result.get("n_tokens", 0)})


def make_job(context: RunContext) -> SftJob:
    """The trainer's job."""
    config = context.config.sft
    return SftJob(
        model=str(context.models["base"].path),
        lora=config.lora,
        max_length=config.max_length,
        trainer=config.trainer,
        seed=context.config.seed,
        max_cut=context.config.guards.allowed_cut,
    )


def revision_rows(
    prompts: Mapping[str, Prompt], records: Sequence[StoredRecord], only_round: int | None
) -> tuple[list[dict[str, Any]], Counter[str]]:
    """Prompt-completion rows of the revisions (of one round, or all), and those left out."""
    rows: list[dict[str, Any]] = []
    skipped: Counter[str] = Counter()
    for record in records:
        if not isinstance(record, Revision) or only_round not in (None, record.round):
            continue
        if record.generation.finish == "error":
            skipped["failed"] += 1
        elif not record.text:
            skipped["empty"] += 1
        else:
            rows.append(row(prompts[record.prompt_id], record))
    return sorted(rows, key=lambda r: r["id"]), skipped


def helpful_rows(
    prompts: Mapping[str, Prompt], records: Sequence[StoredRecord], seed: int
) -> list[dict[str, Any]]:
    """Rows of the responses to helpful prompts, in an order drawn by `seed`."""
    rows = [
        row(prompts[record.prompt_id], record)
        for record in records
        if isinstance(record, Response)
        and prompts[record.prompt_id].kind == "helpful"
        and record.generation.finish != "error"
        and record.text
    ]
    return sorted(rows, key=lambda r: (derive_seed("helpful", seed, r["id"]), r["id"]))


def row(prompt: Prompt, record: Response | Revision) -> dict[str, Any]:
    """One row in TRL's conversational prompt-completion format."""
    return {
        "id": record.id,
        "prompt": [message.model_dump() for message in prompt.messages],
        "completion": [{"role": "assistant", "content": record.text}],
    }


def wanted_helpful(n_revised: int, ratio: float) -> int:
    """Helpful rows that make up `ratio` of the whole."""
    return round(n_revised * ratio / (1 - ratio))
