"""What a newcomer asks first is answered rightly, by a lead that no processor's rounding takes away."""

from __future__ import annotations

import pytest

from actors.engine.onnx_backend import OnnxBackend
from orchestration.roles import built_in_roles
from tests.actors.engine.onnx.asking import PROMISED, ask, chat

COORDINATOR = built_in_roles()["coordinator"].prompt
ALONE = ""
"""The model itself, whose chat template adds a system prompt of its own."""


@pytest.mark.parametrize(
    ("system", "question", "word"),
    [
        (COORDINATOR, "Which city is the capital of France?", "Paris"),
        (COORDINATOR, "What is the capital of France?", "Paris"),
        (ALONE, "Which city is the capital of France?", "Paris"),
        (ALONE, "What is the capital of France?", "Paris"),
        (ALONE, "What do bees make? Answer in one sentence.", "honey"),
    ],
)
async def test_the_first_answers_are_right_and_sure(
    backend: OnnxBackend, system: str, question: str, word: str
) -> None:
    answer = await ask(backend, chat(question, system=system, max_tokens=60, logprobs=True, top_logprobs=2))
    assert word in answer.text
    assert answer.finish.reason == "stop"
    assert min(answer.leads) > 2 * PROMISED
