"""Which models a run will train, and whether they are trained on what the earlier run's were."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from cai.earlier import Earlier
from cai.forecast import Call
from cai.models import Model
from cai.preferences import Reading
from cai.sections import ModelReward, reward_role
from cai.stages.context import RunContext


class Trained(NamedTuple):
    """A model as a stage will leave it."""

    model: Model
    same: bool
    """It is trained on what the earlier run's was; then its weights are taken to be the same."""
    done: bool
    """It is there."""


class Retraining:
    """Compares what this run trains on with what the earlier run trained on, if there is one."""

    def __init__(self, context: RunContext, earlier: Earlier | None) -> None:
        self._context, self._earlier = context, earlier

    def sft(self, revised: Sequence[Call], row_ids: Sequence[str]) -> Trained:
        """What the sft stage makes of these rows."""
        same = self._same("base", "sft") and self._all_kept(revised)
        return self._trained("sft", same and self._same_rows("sft", row_ids))

    def policy(self, sft: Trained) -> Trained:
        """Where sampling and RL start."""
        named = self._context.models.get("policy")
        return Trained(named, self._same("policy"), True) if named else sft

    def pairs(
        self, judged: Sequence[Call], revised: Sequence[Call], readings: Sequence[Reading]
    ) -> bool:
        """Whether these labels, the revisions that are in pairs, and what comes from elsewhere make
        the earlier run's pairs, with the same ones held out."""
        same = self._same_settings("label", "preferences", "reward.heldout")
        same = same and self._all_kept(judged) and self._same_records("label", judged)
        if self._context.config.label.revision_pairs != "off":
            same = same and self._all_kept(revised) and self._same_records("revise", revised)
        return same and self._earlier is not None and self._earlier.same_sources(readings)

    def reward(self, same_pairs: bool) -> Trained:
        """What the reward stage makes of the pairs."""
        role = "reward" if "reward" in self._context.models else "base"
        return self._trained("reward", same_pairs and self._same(role, "reward"))

    def rl(
        self, policy: Trained, reward: Trained, same_pairs: bool, row_ids: Sequence[str]
    ) -> Trained:
        """What RL makes of these, before a policy is chosen. DPO learns from the pairs, the others
        from prompts."""
        same = policy.same and self._same("judge", "rl", "sample", "label")
        if self._context.config.rl.method == "dpo":
            same = same and same_pairs and self._same_settings("reward.max_length")
        else:
            same = same and self._same_rewards(reward) and self._same_rows("rl", row_ids)
        return self._trained("rl", same)

    def _same_rewards(self, reward: Trained) -> bool:
        """Whether the reward models of RL, the run's own and others, are the earlier run's."""
        terms = [t for t in self._context.config.rl.rewards if isinstance(t, ModelReward)]
        others = [reward_role(term) for term in terms if term.path]
        return (
            (reward.same or len(others) == len(terms))
            and all(self._same(role) for role in others)
            and (not terms or self._same_settings("reward.max_length"))
        )

    def candidates(self, trained: Trained) -> list[Model]:
        """The policies that the judge will choose among, at most."""
        if self._earlier and trained.same:
            return self._earlier.candidates()
        config = self._context.config.rl
        steps = config.trainer.get("max_steps", -1)
        n = min(config.n_checkpoints, steps) if steps > 0 else config.n_checkpoints
        return [untrained(f"rl-{number}") for number in range(n)]

    def after_choice(self, trained: Trained, chosen: Sequence[Call]) -> Trained:
        """The policy of the rl stage: the same only if it is chosen by the same judgements."""
        return trained if self._all_kept(chosen) else self._trained("rl", False)

    def _trained(self, stage: str, same: bool) -> Trained:
        folder = self._context.folder(stage)
        if (folder / "done.json").is_file():
            model = self._context.checkpoint(stage)
            then = self._earlier.trained(stage) if self._earlier else None
            return Trained(model, bool(then) and then.commit == model.commit, True)
        found = self._earlier.trained(stage) if self._earlier and same else None
        return Trained(found or untrained(stage), bool(found), False)

    def _same(self, role: str, *sections: str) -> bool:
        """Whether there is an earlier run with that model in a role and those settings."""
        model = self._context.models.get(role)
        same = self._earlier is not None and self._earlier.same_model(role, model)
        return same and self._same_settings(*sections)

    def _same_settings(self, *sections: str) -> bool:
        earlier, config = self._earlier, self._context.config
        return earlier is not None and earlier.same_settings(config, *sections)

    def _same_rows(self, stage: str, row_ids: Sequence[str]) -> bool:
        return self._earlier is not None and self._earlier.row_ids(stage) == list(row_ids)

    def _same_records(self, stage: str, calls: Sequence[Call]) -> bool:
        """Whether the earlier run has exactly the records of `calls`."""
        ids = {call.record.id for call in calls}
        return self._earlier is not None and self._earlier.record_ids(stage) == ids

    @staticmethod
    def _all_kept(calls: Sequence[Call]) -> bool:
        return all(call.kept for call in calls)


def untrained(name: str) -> Model:
    """Stands for a model that is not there yet: no record is by it."""
    return Model(name, Path(name), "untrained")
