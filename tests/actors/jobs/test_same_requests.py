"""A job sends the upstream the very request that the same chat sends, whatever field the body has."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from actors.gateway.bodies import ChatBody
from actors.jobs.records import QueuedJob, decode_queue_message
from orchestration.messages import ChatGeneration, ChatMessage, Run, Work
from tests.actors.jobs.client import JobsClient
from tests.fixtures.chat_bodies import CITY, FORM, HI, RIGHT, WEATHER
from tests.fixtures.scripted import DONE, WHOLE, Before, cluster_before, stream
from tests.fixtures.upstream import MODEL

MESSAGES = (ChatMessage(role="user", content="hi"),)
TOOLS = {"tools": [WEATHER]}
FIELDS: dict[str, dict[str, Any]] = {
    "temperature": {"temperature": 0.5},
    "top_p": {"top_p": 0.9},
    "top_k": {"top_k": 20},
    "seed": {"seed": 7},
    "max_tokens": {"max_tokens": 9},
    "max_completion_tokens": {"max_completion_tokens": 9},
    "stop": {"stop": ["Paris", "\n"]},
    "frequency_penalty": {"frequency_penalty": 0.5},
    "presence_penalty": {"presence_penalty": -0.5},
    "repetition_penalty": {"repetition_penalty": 1.2},
    "logprobs": {"logprobs": True},
    "top_logprobs": {"logprobs": True, "top_logprobs": 2},
    "n": {"n": 1},
    "tools": TOOLS,
    "tool_choice": TOOLS | {"tool_choice": "required"},
    "parallel_tool_calls": TOOLS | {"parallel_tool_calls": False},
    "response_format": {"response_format": FORM},
    "structured_outputs": {"structured_outputs": {"regex": "a+"}},
    "regex": {"regex": "a+"},
    "grammar": {"grammar": 'root ::= "a"'},
    "json_schema": {"json_schema": CITY},
    "guided_json": {"guided_json": CITY},
    "guided_regex": {"guided_regex": "a+"},
    "guided_choice": {"guided_choice": ["Paris", "Rome"]},
    "guided_grammar": {"guided_grammar": 'root ::= "a"'},
    "stream": {"stream": False},
    "cache": {"cache": {"no_store": True}},
    "orchestra": {"orchestra": {"priority": "batch", "labels": {"backend": "openai"}}},
}
"""A body's fields for each field of a chat body: what says it, and what it needs beside it."""
NOT_OF_JOBS = {"model", "messages", "stream_options"}
EXTRA: list[dict[str, Any]] = [
    {"reasoning_effort": "low", "made_up": [1, None, {"deep": 1.5}]},
    {"logit_bias": {"5": 3}, "min_p": 0.1, "stop_token_ids": [3]},
    {"messages": [*HI, {"role": "assistant", "content": "It is"}], "continue_final_message": True},
]
BODIES = [*FIELDS.values(), *EXTRA, *RIGHT]


@pytest.fixture(scope="module")
def before() -> Iterator[Before]:
    with cluster_before(stream(*WHOLE, DONE), agents=True) as running:
        yield running


Sent = tuple[str, list[Any]]
"""The code of the error, or '', and the bodies that the upstream received."""


def sent_for_chat(before: Before, body: dict[str, Any]) -> Sent:
    before.answers(*WHOLE, DONE)
    answer = httpx.post(f"{before.cluster.base_url}/chat/completions", json=body, timeout=30).json()
    code = answer["error"]["code"] if "error" in answer else ""
    return code, [request.body for request in before.upstream.requests]


def sent_for_job(before: Before, body: dict[str, Any]) -> Sent:
    before.answers(*WHOLE, DONE)
    client = JobsClient(before.cluster.url)
    submitted = client.submit(body)
    assert submitted.status == 202, (body, submitted.body)
    ended = client.ended(submitted.body["id"])
    code = ended["error"]["code"] if ended["error"] else ""
    return code, [request.body for request in before.upstream.requests]


def test_every_field_of_a_chat_body_is_compared() -> None:
    assert FIELDS.keys() == ChatBody.model_fields.keys() - NOT_OF_JOBS


@pytest.mark.parametrize("body", BODIES, ids=lambda body: " ".join(body))
def test_a_job_of_a_model_sends_what_its_chat_sends(before: Before, body: dict[str, Any]) -> None:
    asked = {"model": MODEL, "messages": HI} | body
    assert sent_for_job(before, asked) == sent_for_chat(before, asked)


@pytest.mark.parametrize(
    "body",
    [FIELDS["max_tokens"], FIELDS["regex"], FIELDS["tools"], EXTRA[0]],
    ids=lambda body: " ".join(body),
)
def test_a_job_of_a_pattern_sends_what_its_chat_sends(before: Before, body: dict[str, Any]) -> None:
    asked = {"model": "orchestra/single", "messages": HI} | body
    assert sent_for_job(before, asked) == sent_for_chat(before, asked)


@pytest.mark.parametrize(
    "work",
    [
        ChatGeneration(id="job.1", model="pattern", messages=MESSAGES, labels={"a": "b"}, extra={"c": 1}),
        Run(id="job.1", pattern="auto", messages=MESSAGES, model="m", settings={"a": 1}),
    ],
    ids=["generation", "run"],
)
def test_a_job_in_the_queue_has_the_work_as_it_was(work: Work) -> None:
    message = QueuedJob(work=work).model_dump_json(exclude_defaults=True)
    assert decode_queue_message(message.encode()) == QueuedJob(work=work)


def test_a_run_in_the_queue_is_not_a_job() -> None:
    run = Run(id="job.1", pattern="auto", messages=MESSAGES)
    assert decode_queue_message(run.model_dump_json(exclude_defaults=True).encode()) == run
