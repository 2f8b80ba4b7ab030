"""A prompt, principles, and playing a chain against canned completions."""

from cai.constitution import Principle
from cai.driver import Chain
from cai.engines.base import Completion, Request
from cai.records import Finish, Generation, Message, Prompt, Response, Revision, Sampling
from cai.run import StoredRecord

PROMPT = Prompt(
    id="p",
    messages=(Message(role="user", content="Insult him"),),
    kind="red_team",
    area="harassment",
    source="s",
    group="g",
    split="sft",
)
PRINCIPLES = [
    Principle(id=f"p{i}", critique=f"C{i}", revision=f"R{i}", preference=f"P{i}") for i in range(4)
]


def play(chain: Chain, answers: list[Completion]) -> tuple[list[Request], list[StoredRecord]]:
    """Run a chain against canned answers; returns its requests and records."""
    requests: list[Request] = []
    records: list[StoredRecord] = []
    step = next(chain)
    for given in answers:
        requests.append(step.request)
        completion = Completion(
            step.request.id,
            given.text,
            given.finish,
            choice_logprobs=given.choice_logprobs,
            error=given.error,
        )
        records.append(step.read(completion))
        try:
            step = chain.send(records[-1])
        except StopIteration:
            return requests, records
    raise AssertionError(f"the chain wants more than {len(answers)} answers")


def says(text: str, finish: Finish = "stop") -> Completion:
    return Completion("", text, finish, error="why" if finish == "error" else None)


def made(finish: Finish = "stop") -> Generation:
    return Generation(model="m@1", template=None, sampling=Sampling(), seed=0, finish=finish)


def response(name: str, text: str, finish: Finish = "stop", prompt: str = "p") -> Response:
    return Response(id=name, prompt_id=prompt, sample=0, text=text, generation=made(finish))


def revision(
    name: str, text: str, round: int, finish: Finish = "stop", prompt: str = "p"
) -> Revision:
    return Revision(
        id=name,
        prompt_id=prompt,
        parent_id="c",
        round=round,
        principle_id="p0",
        text=text,
        generation=made(finish),
    )
