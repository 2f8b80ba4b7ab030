"""What a run will do, stage by stage, from its inputs and from what is on disk."""

from collections.abc import Iterator, Sequence
from itertools import islice

from cai.chains.pairing import Candidates
from cai.earlier import Earlier
from cai.forecast import Call, Forecast, Lengths, StageForecast, count
from cai.pace import Pace
from cai.pipeline import Stage
from cai.preferences import read_foreign
from cai.retraining import Retraining, Trained
from cai.stage_calls import StageCalls
from cai.stages import rl, sft
from cai.stages.context import RunContext

AT_MOST = "at most: equal responses are not compared"


def forecast(context: RunContext, stages: Sequence[Stage], pace: Pace | None = None) -> Forecast:
    """What `stages`, the first of the run, will keep and ask for, and how long they take.

    Without a `pace` that of the base run counts.
    """
    earlier = Earlier(context.base_run) if context.base_run else None
    lengths, n_lengths = earlier.lengths() if earlier else (Lengths(), 0)
    pace = pace or (earlier.pace(context.config, context.models) if earlier else None)
    found = islice(Forecaster(context, earlier, lengths).stages(), len(stages))
    base = str(context.base_run) if context.base_run else None
    untimed = Forecast(tuple(found), base, n_lengths, None)
    return timed(untimed, pace) if pace else untimed


def timed(found: Forecast, pace: Pace) -> Forecast:
    """The forecast with the times that a pace tells."""
    stages = tuple(stage._replace(seconds=pace.seconds(stage)) for stage in found.stages)
    return found._replace(stages=stages, pace=pace.origin, lacks=pace.lacks)


class Forecaster:
    """Goes through the stages as a run would."""

    def __init__(self, context: RunContext, earlier: Earlier | None, lengths: Lengths) -> None:
        self._context, self._earlier = context, earlier
        self._calls = StageCalls(context, earlier, lengths)
        self._retraining = Retraining(context, earlier)

    def stages(self) -> Iterator[StageForecast]:
        """The stages in their order."""
        revised = self._calls.revise()
        yield self._stage("revise", revised)
        rows = self._sft_rows(revised)
        sl = self._retraining.sft(revised, rows)
        yield self._training("sft", len(rows), sl)
        policy = self._retraining.policy(sl)
        sampled = self._calls.sample(policy.model)
        yield self._stage("sample", sampled, self._because(sft=policy))
        pairs, n_assumed = self._calls.pairs(sampled, revised)
        judged = self._calls.label(pairs)
        asked = judged + self._calls.identical(pairs)
        yield self._stage("label", asked, "" if all_kept(sampled) else AT_MOST)
        foreign = read_foreign(self._context.config)
        readings = [*foreign.pair_readings, *foreign.rating_readings]
        same_pairs = self._retraining.pairs(judged, revised, readings)
        reward = self._retraining.reward(same_pairs)
        n_pairs = self._n_kept_of(pairs) + n_assumed + len(foreign.pairs)
        pointwise = self._context.config.reward.method == "pointwise"
        yield self._training("reward", len(foreign.ratings) if pointwise else n_pairs, reward)
        row_ids = self._rl_rows()
        tuned = self._retraining.rl(policy, reward, same_pairs, row_ids)
        n_rows = n_pairs if self._context.config.rl.method == "dpo" else len(row_ids)
        yield from self._rl_and_evaluate(sl, tuned, n_rows)

    def _rl_and_evaluate(
        self, sl: Trained, trained: Trained, n_rows: int
    ) -> Iterator[StageForecast]:
        policy = self._retraining.policy(sl)
        chosen: list[Call] = []
        if not trained.done:
            chosen = self._calls.select(policy.model, self._retraining.candidates(trained))
            trained = self._retraining.after_choice(trained, chosen)
        yield self._training("rl", n_rows, trained, chosen)
        models = {"sft": sl.model, "rl": trained.model, "base": self._context.models["base"]}
        answered = self._calls.evaluate(models)
        note = self._because(sft=sl, rl=trained)
        yield self._stage("evaluate", answered, note, "" if all_kept(answered) else AT_MOST)

    def _stage(self, name: str, calls: Sequence[Call], *notes: str) -> StageForecast:
        done = (self._context.folder(name) / "done.json").is_file()
        return count(name, calls, *notes)._replace(done=done)

    def _training(
        self, name: str, n_rows: int, trained: Trained, calls: Sequence[Call] = ()
    ) -> StageForecast:
        """A stage that trains; the calls of RL choose a policy."""
        note = "trained again on the same" if trained.same else "what it learns from has changed"
        note = "" if trained.done or self._earlier is None else note
        return self._stage(name, calls, note)._replace(n_rows=n_rows)

    def _because(self, **policies: Trained) -> str:
        """Why the responses of these policies are kept or new."""
        open_ = [name for name, one in policies.items() if not one.done]
        new = [name for name in open_ if not policies[name].same]
        if self._earlier is None or not open_:
            return ""
        if len(new) == 1:
            return f"{new[0]} changes, so its responses are new"
        if new:
            return f"{' and '.join(new)} change, so their responses are new"
        return f"kept if training {' and '.join(open_)} again gives the same weights; else new"

    def _sft_rows(self, revised: Sequence[Call]) -> list[str]:
        """The ids of the rows of the sft stage."""
        config, records = self._context.config, [call.record for call in revised]
        prompts = {prompt.id: prompt for prompt in self._context.prompts}
        last = config.revise.rounds if config.sft.use == "last" else None
        rows, _ = sft.revision_rows(prompts, records, last)
        helpful = sft.helpful_rows(prompts, records, config.seed)
        rows += helpful[: sft.wanted_helpful(len(rows), config.sft.helpful_ratio)]
        return [row["id"] for row in rows]

    def _rl_rows(self) -> list[str]:
        """The ids of the prompts that RL trains on."""
        prompts, _ = rl.split_prompts(self._context)
        helpful = self._context.select("helpful", "rl", self._context.config.rl.n_helpful)
        return [prompt.id for prompt in (*prompts, *helpful)]

    def _n_kept_of(self, pairs: Sequence[Candidates]) -> int:
        """Pairs that become preferences, if all are scored."""
        if self._context.config.label.pairing != "extremes":
            return len(pairs)
        return len({(pair.prompt.id, pair.origin) for pair in pairs})


def all_kept(calls: Sequence[Call]) -> bool:
    return all(call.kept for call in calls)
