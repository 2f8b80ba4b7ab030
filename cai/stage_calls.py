"""The calls that each stage will make: its chains, played against what is on disk.

Each method begins as the stage of its name does. A text that is not there yet is a stand-in.
"""

from collections.abc import Iterable, Mapping, Sequence

from cai.chains.labelling import identical_chains, label_chain
from cai.chains.pairing import Candidates, pair_up, revision_pairs
from cai.chains.revision import Voice, response_chain, revision_chain
from cai.driver import Chain
from cai.earlier import Earlier, Shelf
from cai.forecast import Call, Lengths, Play
from cai.models import Model
from cai.records import Prompt, Response, Revision, Sampling
from cai.stages import label, revise, rl
from cai.stages.context import RunContext
from cai.stages.evaluate import COMPARISONS, pairs_between
from cai.stages.label import make_setup
from cai.stages.selection import START, whole_pairs


class StageCalls:
    """Plays the stages of one run. Nothing is asked and nothing is written."""

    def __init__(self, context: RunContext, earlier: Earlier | None, lengths: Lengths) -> None:
        self._context, self._config = context, context.config
        self._earlier, self._lengths = earlier, lengths

    def _play(self, stage: str, chains: Iterable[Chain], file: str = "records") -> list[Call]:
        shelf = Shelf(stage, file, self._context.run, self._earlier)
        return Play(stage, shelf.find, self._lengths).all(chains)

    def _respond(
        self, model: Model, prompts: Sequence[Prompt], sampling: Sampling, k: int = 1
    ) -> list[Chain]:
        """Chains of a policy's `k` responses to each prompt."""
        voice = Voice("policy", model.label, sampling, self._config.engine.key)
        return [
            response_chain(prompt, sample, (), voice, self._config.seed)
            for prompt in prompts
            for sample in range(k)
        ]

    def _judge(self, stage: str, pairs: Iterable[Candidates], file: str) -> list[Call]:
        setup = make_setup(self._context)
        return self._play(stage, [label_chain(pair, setup) for pair in pairs], file)

    def revise(self) -> list[Call]:
        config, setup = self._config.revise, revise.make_setup(self._context)
        prompts = self._context.select("red_team", "sft", config.n_prompts)
        helpful = self._context.select("helpful", "sft", config.n_helpful)
        chains = [revision_chain(prompt, setup) for prompt in prompts]
        return self._play("revise", chains + [revise.answer(prompt, setup) for prompt in helpful])

    def sample(self, policy: Model) -> list[Call]:
        config = self._config.sample
        n = config.n_prompts if self._config.preferences.ai else 0
        prompts = self._context.select("red_team", "preference", n)
        return self._play("sample", self._respond(policy, prompts, config.sampling, config.k))

    def pairs(
        self, sampled: Sequence[Call], revised: Sequence[Call]
    ) -> tuple[list[Candidates], int]:
        """The pairs that the label stage judges, and how many more it takes without asking."""
        config = self._config.label
        if not self._config.preferences.ai:
            return [], 0
        prompts = {prompt.id: prompt for prompt in self._context.prompts}
        pairs, _ = pair_up(prompts, responses(sampled), config.pairing, self._config.seed)
        if config.revision_pairs == "off":
            return pairs, 0
        texts = [c.record for c in revised if isinstance(c.record, Response | Revision)]
        more, _ = revision_pairs(prompts, texts)
        return (pairs, len(more)) if config.revision_pairs == "assumed" else (pairs + more, 0)

    def label(self, pairs: Iterable[Candidates]) -> list[Call]:
        return self._judge("label", pairs, "records")

    def identical(self, pairs: Sequence[Candidates]) -> list[Call]:
        """Responses that the label stage has judged beside themselves."""
        chains = identical_chains(pairs, make_setup(self._context))
        return self._play("label", chains, label.IDENTICAL)

    def select(self, start: Model, candidates: Sequence[Model]) -> list[Call]:
        """How the rl stage chooses among the policies that it has kept."""
        _, prompts = rl.split_prompts(self._context)
        if len(candidates) < 2 or not prompts:
            return []
        policies = {START: start}
        policies |= {model.name.replace("rl-", "step-"): model for model in candidates}
        sampling, calls = self._config.sample.sampling, list[Call]()
        answers: dict[str, dict[str, Response]] = {}
        for name, policy in policies.items():
            found = self._play("rl", self._respond(policy, prompts, sampling), f"select-{name}")
            answers[name] = {response.prompt_id: response for response in responses(found)}
            calls += found
        by_id = {prompt.id: prompt for prompt in prompts}
        pairs = [
            Candidates(by_id[id], response, answers[START][id])
            for name in answers
            if name != START
            for id, response in whole_pairs(answers, name)
        ]
        return calls + self._judge("rl", distinct(pairs), "select-labels")

    def evaluate(self, policies: Mapping[str, Model]) -> list[Call]:
        """`policies`: base, sft, rl."""
        config = self._config.evaluate
        prompts = [
            *self._context.select("red_team", "eval", config.n_prompts),
            *self._context.select("look_alike", "eval", config.n_look_alike),
            *self._context.select("helpful", "eval", config.n_helpful),
        ]
        answers: dict[str, list[tuple[Prompt, Response]]] = {}
        calls: list[Call] = []
        for name, policy in policies.items():
            found = self._play("evaluate", self._respond(policy, prompts, config.sampling), name)
            answers[name] = list(zip(prompts, responses(found), strict=True))
            calls += found
        pairs = [pair for key in COMPARISONS for pair in pairs_between(answers, key)]
        return calls + self._judge("evaluate", distinct(pairs), "labels")


def responses(calls: Iterable[Call]) -> list[Response]:
    """The responses among the records of calls."""
    return [call.record for call in calls if isinstance(call.record, Response)]


def distinct(pairs: Iterable[Candidates]) -> list[Candidates]:
    """Equal texts are not compared."""
    return [pair for pair in pairs if pair.one.text != pair.two.text]
