"""A generation that is alone tries the tokens that its text has had before; its answer stays the same."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from actors.engine.backend import EngineBackend
from orchestration.messages import GuidedDecoding
from tests.actors.engine.onnx.asking import DEADLINE_S, Answer, ask, chat
from tests.fixtures.eventually import eventually

PEOPLE = (
    "Name: Maria Schneider, age 34, city Hamburg, email maria.schneider@example.org, role project manager.\n"
    "Name: John O'Connor, age 52, city Dublin, email john.oconnor@example.com, role accountant.\n"
)
CODE = (
    "class Stack:\n    def __init__(self):\n        self.values = []\n\n"
    "    def push(self, value):\n        self.values.append(value)\n\n"
    "    def pop(self):\n        return self.values.pop()\n"
)
TASKS = {
    "json": f"Extract the people as JSON with the keys name, age, city, email and role.\n\n{PEOPLE}",
    "code": f"Add a method `peek` to this class. Give me the whole class:\n\n```python\n{CODE}```",
    "free": "Write a short story about a lighthouse keeper.",
}
PERSON: dict[str, Any] = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "maxLength": 30},
        "email": {"type": "string", "maxLength": 40},
        "city": {"type": "string", "maxLength": 20},
    },
    "required": ["name", "email", "city"],
    "additionalProperties": False,
}


async def counted(backend: EngineBackend, text: str, **sampling: Any) -> tuple[Answer, int]:
    """An answer, and the calls of the model that it took."""
    before = backend.stats[0].steps
    answer = await ask(backend, chat(text, max_tokens=80, logprobs=True, top_logprobs=2, **sampling))
    return answer, backend.stats[0].steps - before


@pytest.mark.parametrize("task", TASKS)
async def test_a_greedy_answer_is_the_same_with_lookahead(
    backend: EngineBackend, stepwise: EngineBackend, task: str
) -> None:
    answer, calls = await counted(backend, TASKS[task])
    expected, tokens = await counted(stepwise, TASKS[task])
    assert answer.text.encode().startswith(expected.sure)
    if expected.sure == expected.text.encode():
        assert answer.finish.reason == expected.finish.reason
        assert [each.token for each in answer.logprobs] == [each.token for each in expected.logprobs]
        assert answer.finish.usage.completion_tokens == expected.finish.usage.completion_tokens
    for ours, theirs in zip(answer.logprobs, expected.logprobs, strict=False):
        if ours.token != theirs.token:
            break
        assert ours.logprob == pytest.approx(theirs.logprob, abs=0.05)
    assert calls < tokens or task == "free"


@pytest.mark.parametrize(
    "sampling",
    [
        {"temperature": 0.7, "seed": 5},
        {"temperature": 0.3, "top_p": 0.9, "seed": 6, "frequency_penalty": 0.1},
        {"repetition_penalty": 1.05},
        {"stop": ("def pop",)},
        {"guide": GuidedDecoding(json_schema=PERSON)},
    ],
    ids=["seed", "top_p", "repetition", "stop", "guide"],
)
async def test_sampling_and_rules_see_each_token_in_its_turn(
    backend: EngineBackend, stepwise: EngineBackend, sampling: dict[str, Any]
) -> None:
    text = TASKS["json" if "guide" in sampling else "code"]
    answer, calls = await counted(backend, text, **sampling)
    expected, tokens = await counted(stepwise, text, **sampling)
    assert answer.text == expected.text
    assert answer.finish.reason == expected.finish.reason
    assert calls <= tokens


async def test_the_last_tokens_before_the_limit_come_one_by_one(backend: EngineBackend) -> None:
    for limit in range(1, 12):
        answer = await ask(backend, chat("Repeat: one two one two one two one two", max_tokens=limit))
        assert answer.finish.usage.completion_tokens <= limit


async def test_a_generation_that_looked_ahead_goes_on_in_company(
    backend: EngineBackend, stepwise: EngineBackend
) -> None:
    before = backend.stats[0].steps

    async def late() -> Answer:
        await eventually(lambda: backend.stats[0].steps >= before + 12, within_s=DEADLINE_S)
        return (await counted(backend, TASKS["free"]))[0]

    (code, _), free = await asyncio.gather(counted(backend, TASKS["code"]), late())
    alone, _ = await counted(stepwise, TASKS["code"])
    other, _ = await counted(stepwise, TASKS["free"])
    assert code.text.encode().startswith(alone.sure)
    assert free.text.encode().startswith(other.sure)
