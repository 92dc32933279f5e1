"""What a caller says that Orchestra does not use: an upstream gets it as it came."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Iterator
from typing import Any

import httpx
import pytest

from actors.gateway.bodies import MAX_EXTRA_BYTES
from orchestration.patterns import BUILT_IN
from orchestration.schema_instance import schema_instance
from tests.actors.jobs.client import JobsClient, chat
from tests.fixtures.scripted import DONE, WHOLE, Before, cluster_before, stream
from tests.fixtures.upstream import MODEL, USAGE, Request, delta, event

FOREIGN: dict[str, Any] = {
    "reasoning_effort": "low",
    "chat_template_kwargs": {"enable_thinking": False},
    "min_p": 0.05,
    "user": "u-1",
    "metadata": {"a": "b"},
    "service_tier": "flex",
    "store": False,
    "made_up": [1, None, {"deep": 1.5}],
}
OURS: dict[str, Any] = {"orchestra": {"priority": "batch"}, "cache": {"no_store": True}, "n": 1}
SCHEMA: dict[str, Any] = {"type": "object", "properties": {"age": {"type": "integer"}}, "required": ["age"]}


@pytest.fixture(scope="module")
def before() -> Iterator[Before]:
    with cluster_before(stream(*WHOLE, DONE), agents=True) as running:
        yield running


def ask(before: Before, path: str = "chat/completions", **fields: Any) -> httpx.Response:
    before.answers(*WHOLE, DONE)
    body = {"model": MODEL, "messages": [{"role": "user", "content": "Hi"}]} | fields
    return httpx.post(f"{before.cluster.base_url}/{path}", json=body, timeout=30)


def test_fields_that_the_gateway_does_not_use_reach_the_upstream_as_they_came(before: Before) -> None:
    answer = ask(before, **FOREIGN, **OURS)
    assert answer.status_code == 200, answer.text
    assert {name: before.body.get(name) for name in FOREIGN} == FOREIGN
    assert not OURS.keys() & before.body.keys()
    answer = ask(before, "completions", prompt="Hi", min_p=0.05)
    assert answer.status_code == 200, answer.text
    assert before.body["min_p"] == 0.05


def test_a_patterns_steps_and_jobs_carry_them_too(before: Before) -> None:
    answer = ask(before, model="orchestra/single", reasoning_effort="low")
    assert answer.status_code == 200, answer.text
    assert before.body["reasoning_effort"] == "low"
    before.upstream.requests.clear()
    client = JobsClient(before.cluster.url)
    client.ended(client.submit(chat("Hi", model=MODEL, reasoning_effort="high")).body["id"])
    assert before.body["reasoning_effort"] == "high"


async def in_its_form(request: Request) -> AsyncIterator[bytes]:
    """A small value of the schema, where there is one."""
    form = request.body.get("response_format")
    text = (
        json.dumps(schema_instance(form["json_schema"]["schema"]))
        if form
        else "It is 42, since 6 times 7 is 42."
    )
    async for part in stream(event(delta(text)), event(delta(None, "stop")), event(USAGE), DONE)(request):
        yield part


@pytest.mark.parametrize("pattern", sorted(BUILT_IN))
def test_a_pattern_sends_an_upstream_of_unknown_size_no_bound_and_no_wish_of_its_own(
    before: Before, pattern: str
) -> None:
    before.upstream.requests.clear()
    before.upstream.script = in_its_form
    body = {"model": f"orchestra/{pattern}", "messages": [{"role": "user", "content": "What is 6 times 7?"}]}
    answer = httpx.post(f"{before.cluster.base_url}/chat/completions", json=body, timeout=30)
    assert answer.status_code == 200, answer.text
    sent = [request.body for request in before.upstream.requests]
    assert sent or pattern == "research"  # there are no documents
    for each in sent:
        assert not each.keys() & {"repetition_penalty", "presence_penalty", "frequency_penalty", "top_p"}
        said = " ".join(message["content"] for message in each["messages"]).lower()
        assert "brief" not in said
        assert "short" not in said
        if "response_format" not in each:
            assert "max_tokens" not in each, each
    answers = [each for each in sent if "response_format" not in each]
    if pattern in ("single", "auto", "code", "reasoning"):
        assert all("temperature" not in each for each in answers)
    before.upstream.requests.clear()
    httpx.post(
        f"{before.cluster.base_url}/chat/completions",
        json=body | {"max_tokens": 70, "temperature": 0.5},
        timeout=30,
    )
    if sent:
        last = before.body
        assert last["max_tokens"] == 70


def test_a_schema_keeps_its_name_and_its_strictness(before: Before) -> None:
    given = {"name": "person", "strict": False, "schema": SCHEMA}
    ask(before, response_format={"type": "json_schema", "json_schema": given})
    assert before.body["response_format"] == {"type": "json_schema", "json_schema": given}


def test_fields_beyond_the_limit_are_refused_by_name(before: Before) -> None:
    answer = ask(before, prediction={"content": "x" * MAX_EXTRA_BYTES})
    assert answer.status_code == 400
    assert "prediction" in answer.text
    assert str(MAX_EXTRA_BYTES) in answer.text


def test_a_field_that_is_nested_deeply_breaks_nothing(before: Before) -> None:
    nested = json.loads("[" * 150 + "]" * 150)
    assert ask(before, made_up=nested).status_code == 200
    assert before.body["made_up"] == nested
    answer = ask(before, made_up=json.loads("[" * 199 + "]" * 199))  # the deepest that JSON is read
    assert (answer.status_code, "made_up" in answer.text) == (400, True)


@pytest.mark.parametrize(
    "said",
    [
        {"guided_choice": ["yes", "no"]},
        {"guided_grammar": 'root ::= "a"'},
        {"grammar": 'root ::= "a"'},
        {"guided_regex": "[ab]"},
        {"structured_outputs": {"choice": ["yes", "no"]}},
        {"structured_outputs": {"json": SCHEMA, "structural_tag": "{}"}},
    ],
)
def test_a_guide_of_another_servers_name_reaches_the_upstream_as_it_came(
    before: Before, said: dict[str, Any]
) -> None:
    answer = ask(before, **said)
    assert answer.status_code == 200, answer.text
    assert {name: before.body.get(name) for name in said} == said


def test_a_schema_reaches_the_upstream_in_openais_form(before: Before) -> None:
    for said in ({"guided_json": SCHEMA}, {"json_schema": SCHEMA}, {"structured_outputs": {"json": SCHEMA}}):
        assert ask(before, **said).status_code == 200
        form = {"type": "json_schema", "json_schema": {"name": "answer", "schema": SCHEMA}}
        assert before.body["response_format"] == form
        assert not said.keys() & before.body.keys()
