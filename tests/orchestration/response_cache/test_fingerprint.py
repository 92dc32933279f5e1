"""What is the same request, and what is not."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestration.messages import (
    ChatGeneration,
    ChatMessage,
    CompletionGeneration,
    EmbeddingGeneration,
    GuidedDecoding,
    Priority,
    Run,
    Sampling,
    Work,
)
from orchestration.response_cache import fingerprint, is_deterministic

HELLO = (ChatMessage(role="user", content="hello"),)
WORK = ChatGeneration(id="a.1", model="m", messages=HELLO, sampling=Sampling(temperature=0))
OTHER_KINDS: list[Work] = [
    CompletionGeneration(id="a.1", model="m", prompt="hello", sampling=WORK.sampling),
    EmbeddingGeneration(id="a.1", model="m", inputs=("hello",), sampling=WORK.sampling),
    EmbeddingGeneration(id="a.1", model="m", inputs=("hel", "lo"), sampling=WORK.sampling),
]
OTHERS: list[dict[str, Any]] = [
    {"model": "n"},
    {"messages": (ChatMessage(role="system", content="hello"),)},
    {"messages": (ChatMessage(role="user", content="hello "),)},
    {"messages": (ChatMessage(role="user", content="hello", name="x"),)},
    {"messages": (*HELLO, *HELLO)},
    {"guide": GuidedDecoding(json_schema={"type": "object"})},
    {"guide": GuidedDecoding(json_schema={"type": "array"})},
    {"guide": GuidedDecoding(regex="a")},
    *(
        {"sampling": Sampling.model_validate({"temperature": 0} | more)}
        for more in (
            {"temperature": 0.5},
            {"top_p": 0.5},
            {"top_k": 4},
            {"seed": 0},
            {"seed": 1},
            {"max_tokens": 5},
            {"stop": ("a", "b")},
            {"stop": ("ab",)},
            {"repetition_penalty": 1.1},
            {"frequency_penalty": 1},
            {"presence_penalty": 1},
            {"logprobs": True},
            {"logprobs": True, "top_logprobs": 2},
        )
    ),
]


def test_everything_that_changes_the_answer_changes_the_fingerprint() -> None:
    changed = [WORK, *OTHER_KINDS, *(WORK.model_copy(update=update) for update in OTHERS)]
    run = Run(id="a.1", pattern="m", messages=HELLO, sampling=WORK.sampling)
    prints = [fingerprint(work, "n") for work in changed]
    prints += [fingerprint(WORK, "other"), fingerprint(run, "n")]
    prints.append(fingerprint(run.model_copy(update={"pattern": "other"}), "n"))
    assert len(set(prints)) == len(prints)


def test_who_carries_it_and_how_urgent_it_is_change_nothing() -> None:
    again = WORK.model_copy(update={"id": "b.2", "priority": Priority.BATCH})
    assert fingerprint(again, "n") == fingerprint(WORK, "n")


@given(st.text(), st.text(), st.text(), st.text())
def test_texts_do_not_run_into_each_other(model: str, content: str, namespace: str, prompt: str) -> None:
    one = ChatGeneration(id="a.1", model=model, messages=(ChatMessage(role="user", content=content),))
    other = ChatGeneration(id="a.1", model=namespace, messages=(ChatMessage(role="user", content=prompt),))
    same = (model, content, namespace) == (namespace, prompt, model)
    assert (fingerprint(one, namespace) == fingerprint(other, model)) == same


@pytest.mark.parametrize(
    ("work", "expected"),
    [
        (WORK, True),
        (WORK.model_copy(update={"sampling": Sampling()}), False),
        (WORK.model_copy(update={"sampling": Sampling(temperature=0.7)}), False),
        (WORK.model_copy(update={"sampling": Sampling(temperature=0.7, seed=0)}), True),
        (EmbeddingGeneration(id="a.1", model="e", inputs=("a",)), True),
        (Run(id="a.1", pattern="maestro", messages=HELLO, sampling=Sampling(temperature=0)), False),
    ],
)
def test_only_what_would_be_answered_the_same_again_is_deterministic(work: Work, expected: bool) -> None:
    assert is_deterministic(work) is expected
