"""Several answers to one request, and prompts in all of OpenAI's forms."""

from __future__ import annotations

import httpx
import pytest
from openai import OpenAI

from tests.fixtures.cluster import Cluster


def test_each_of_n_answers_has_its_index_and_the_prompt_counts_once(client: OpenAI) -> None:
    answer = client.chat.completions.create(
        model="echo", n=3, seed=7, messages=[{"role": "user", "content": "one two three"}]
    )
    assert [choice.index for choice in answer.choices] == [0, 1, 2]
    assert {choice.message.content for choice in answer.choices} == {"one two three"}
    assert answer.usage is not None
    assert (answer.usage.prompt_tokens, answer.usage.completion_tokens) == (3, 9)


def test_streamed_answers_come_side_by_side_with_one_usage_at_the_end(client: OpenAI) -> None:
    chunks = list(
        client.chat.completions.create(
            model="slow",
            n=2,
            stream=True,
            stream_options={"include_usage": True},
            messages=[{"role": "user", "content": "one two three"}],
        )
    )
    texts = {0: "", 1: ""}
    for chunk in chunks[:-1]:
        texts[chunk.choices[0].index] += chunk.choices[0].delta.content or ""
    assert texts == {0: "one two three", 1: "one two three"}
    ends = [chunk.choices[0].index for chunk in chunks[:-1] if chunk.choices[0].finish_reason]
    assert sorted(ends) == [0, 1]
    roles = [chunk.choices[0].index for chunk in chunks[:-1] if chunk.choices[0].delta.role]
    assert sorted(roles) == [0, 1]
    assert len({chunk.id for chunk in chunks}) == 1
    assert chunks[-1].choices == []
    assert chunks[-1].usage is not None
    assert (chunks[-1].usage.prompt_tokens, chunks[-1].usage.completion_tokens) == (3, 6)


def test_every_prompt_has_its_answers_in_order(client: OpenAI) -> None:
    answer = client.completions.create(model="echo", prompt=["one two", "three"], n=2)
    assert [choice.index for choice in answer.choices] == [0, 1, 2, 3]
    assert [choice.text for choice in answer.choices] == ["one two", "one two", "three", "three"]
    assert answer.usage is not None
    assert answer.usage.prompt_tokens == 3


@pytest.mark.parametrize(
    ("prompt", "texts"),
    [("a b", ["a b"]), (["a b"], ["a b"]), ([5, 6], ["5 6"]), ([[5, 6], [7]], ["5 6", "7"])],
)
def test_a_prompt_has_any_of_four_forms(
    client: OpenAI, prompt: str | list[str] | list[int] | list[list[int]], texts: list[str]
) -> None:
    answer = client.completions.create(model="echo", prompt=prompt)
    assert [choice.text for choice in answer.choices] == texts


@pytest.mark.parametrize("streamed", [False, True])
def test_an_echo_begins_with_the_prompt(client: OpenAI, streamed: bool) -> None:
    prompts = ["one", "two"]
    if streamed:
        texts = ["", ""]
        for chunk in client.completions.create(model="echo", prompt=prompts, echo=True, stream=True):
            for choice in chunk.choices:
                texts[choice.index] += choice.text
    else:
        answer = client.completions.create(model="echo", prompt=prompts, echo=True)
        texts = [choice.text for choice in answer.choices]
    assert texts == ["oneone", "twotwo"]


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"prompt": []}, "prompt"),
        ({"prompt": [[]]}, "prompt"),
        ({"prompt": ["a", 1]}, "prompt"),
        ({"prompt": [-1]}, "prompt"),
        ({"prompt": [True]}, "prompt"),
        ({"prompt": ["a"] * 65}, "prompt"),
        ({"prompt": ["a"] * 33, "n": 2}, "n"),
        ({"prompt": [1], "echo": True}, "echo"),
        ({"prompt": "a", "echo": True, "logprobs": 1}, "echo"),
    ],
)
def test_what_cannot_be_answered_is_refused_with_its_field(
    cluster: Cluster, body: dict[str, object], param: str
) -> None:
    answer = httpx.post(f"{cluster.base_url}/completions", json={"model": "echo", **body}, timeout=30)
    assert answer.status_code == 400
    assert answer.json()["error"]["param"].split(".")[0] == param, answer.text


def test_a_job_has_one_answer(cluster: Cluster) -> None:
    body = {"model": "echo", "n": 2, "messages": [{"role": "user", "content": "hi"}]}
    answer = httpx.post(f"{cluster.base_url}/jobs", json=body, timeout=30)
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, "n")


def test_the_error_of_one_answer_is_that_of_the_request(cluster: Cluster) -> None:
    body = {"model": "echo", "prompt": ["a", "b " * 100_000]}
    answer = httpx.post(f"{cluster.base_url}/completions", json=body, timeout=30)
    assert answer.status_code == 400
    assert "context" in answer.json()["error"]["code"]
