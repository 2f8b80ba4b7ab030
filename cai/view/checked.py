"""What `cai check` and the beginning of `cai run` say about the inputs."""

from collections import Counter
from collections.abc import Iterator

from cai.preferences import in_words
from cai.prepare import Prepared


def checked_lines(prepared: Prepared) -> Iterator[str]:
    """One line for each thing that was checked, with counts."""
    constitution, config = prepared.constitution, prepared.config
    n_revision = sum(bool(p.critique and p.revision) for p in constitution.principles)
    n_preference = sum(bool(p.preference) for p in constitution.principles)
    yield (
        f"constitution {constitution.name} {constitution.version} ({prepared.constitution_path}): "
        f"{len(constitution.principles)} principles, {n_revision} for "
        f"revision, {n_preference} for preference"
    )
    yield f"templates: {', '.join(str(path) for path in prepared.templates.paths.values())}"
    for count in prepared.counts:
        yield (
            f"{count.kind} prompts from {count.source}: {count.n_rows} rows, {count.n_bad} broken, "
            f"{count.n_human_turns} turns → {count.n_prompts} prompts, "
            f"{count.n_duplicates} duplicates"
            + (f", {count.n_moved} moved to eval beside a look-alike" if count.n_moved else "")
        )
    for reading in prepared.readings:
        yield f"learnt from too: {reading.source}: {in_words(reading.summary())}"
    splits = Counter(prompt.split for prompt in prepared.prompts)
    yield "splits: " + ", ".join(f"{n} {split}" for split, n in splits.items())
    yield (
        f"config {config.recipe or 'custom'}: base model {config.models.base}, engine "
        f"{config.engine.kind}, {config.revise.rounds} rounds, {config.rl.method}, "
        f"seed {config.seed}"
    )
