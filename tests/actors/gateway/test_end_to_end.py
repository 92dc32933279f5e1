"""`orchestra up` as a process with the real model, asked over HTTP and from JavaScript, then ended."""

from __future__ import annotations

import json
import re
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from openai import OpenAI
from openai.types.chat import ChatCompletionMessageParam, ChatCompletionUserMessageParam

from tests.fixtures.models import smollm2_folder
from tests.fixtures.node_client import ask
from tests.fixtures.process import Process, orchestra

MODEL = "smollm2-135m"
CAPITAL: list[ChatCompletionUserMessageParam] = [
    {"role": "user", "content": "What is the capital of France? Answer in one short sentence."}
]
STORY: list[ChatCompletionUserMessageParam] = [{"role": "user", "content": "Tell a long story about a ship."}]


@pytest.fixture
def up(tmp_path: Path) -> Iterator[tuple[Process, str, str]]:
    """The process, its HTTP URL and its NATS URL."""
    (tmp_path / "models").symlink_to(smollm2_folder().parent)
    with orchestra("up", "--data", str(tmp_path), "--http", "127.0.0.1:0", "--model", MODEL) as process:
        line = process.wait_for("Orchestra is ready")
        found = re.search(r"(http://\S+) · (nats://\S+)", line)
        assert found is not None, line
        yield process, found[1], found[2]


def test_up_answers_over_http_and_nats_and_finishes_its_streams_on_ctrl_c(
    up: tuple[Process, str, str],
) -> None:
    process, http, nats = up
    with OpenAI(base_url=f"{http}/v1", api_key="none", max_retries=0) as client:
        answer = client.chat.completions.create(model=MODEL, messages=CAPITAL, temperature=0)
        assert "Paris" in (answer.choices[0].message.content or "")
        body = {"model": MODEL, "messages": CAPITAL, "temperature": 0}
        messages = ask(nats, "stream", {"body": body | {"stream": True}})["messages"]
        assert messages[-1]["text"] == ""
        chunks = [json.loads(message["text"]) for message in messages[:-1]]
        text = "".join(chunk["choices"][0]["delta"].get("content", "") for chunk in chunks)
        assert text == answer.choices[0].message.content
        begun: list[ChatCompletionMessageParam] = [
            {"role": "user", "content": "Count from one to five."},
            {"role": "assistant", "content": "One, two, three,"},
        ]
        prefill = {"continue_final_message": True, "add_generation_prompt": False}
        more = client.chat.completions.create(
            model=MODEL, messages=begun, temperature=0, max_tokens=6, extra_body=prefill
        )
        assert (more.choices[0].message.content or "").startswith(" four")
        several = client.chat.completions.create(
            model=MODEL, messages=STORY, temperature=1, seed=1, n=3, max_tokens=12
        )
        assert len({choice.message.content for choice in several.choices}) > 1
        stream = client.chat.completions.create(
            model=MODEL, messages=STORY, temperature=0, max_tokens=120, stream=True
        )
        pieces = iter(stream)
        next(pieces)
        process.send(signal.SIGINT)
        rest = list(pieces)
        assert rest[-1].choices[0].finish_reason is not None
    assert process.wait() == 0, process.said
