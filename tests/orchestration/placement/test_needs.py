from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestration.messages import ChatGeneration, ChatMessage, EmbeddingGeneration, Generation, Sampling
from orchestration.placement import Demand, Needs, needs_of


def asked(words: str, max_tokens: int | None = None, **labels: str) -> Generation:
    return ChatGeneration(
        id="a.1",
        model="m",
        messages=(ChatMessage(role="user", content=words),),
        sampling=Sampling(max_tokens=max_tokens),
        labels=labels,
    )


@given(
    st.integers(0, 10**6),
    st.integers(0, 10**5),
    st.sampled_from(Demand),
    st.dictionaries(st.text(max_size=20), st.text(max_size=20), max_size=5),
)
def test_needs_survive_their_header(prompt: int, output: int, demand: Demand, labels: dict[str, str]) -> None:
    needs = Needs(
        model="m",
        prompt_tokens=prompt,
        output_tokens=output,
        demand=demand,
        labels=frozenset(labels.items()),
        bounded=True,
    )
    text = needs.encode()
    assert text.isascii()
    assert "\n" not in text
    assert Needs.decode("m", text) == needs


@pytest.mark.parametrize(
    "text", ["{}", "[]", "[1,2]", '["a",2,"light"]', '[1,2,"vast"]', '[1,2,"light",[]]', "x"]
)
def test_invalid_needs_are_refused(text: str) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 - json and enum say it in their words
        Needs.decode("m", text)


def test_without_a_header_needs_are_ordinary() -> None:
    assert Needs.decode("m", "") == Needs(model="m")


@pytest.mark.parametrize(
    ("generation", "demand"),
    [
        (asked("What is the capital of France?", 20), Demand.LIGHT),
        (asked("What is the capital of France?"), Demand.ORDINARY),
        (asked("Prove that there are infinitely many primes.", 90), Demand.HEAVY),
        (asked("word " * 2000, 10), Demand.HEAVY),
        (asked("Tell a story.", 2000), Demand.HEAVY),
        (EmbeddingGeneration(id="a.1", model="m", inputs=("a", "b")), Demand.LIGHT),
    ],
)
def test_the_demand_follows_from_length_and_words(generation: Generation, demand: Demand) -> None:
    assert needs_of(generation).demand is demand


@pytest.mark.parametrize(
    "words",
    [
        *("step by step", "Prove", "PROOF", "derive", "reason", "reasoning", "analyse", "Analyze"),
        *("tradeoff", "trade-offs", "refactor", "implement", "debug", "optimise", "optimize", "algorithm"),
        *("design a", "plan for", "compare", "critique", "evaluate"),
    ],
)
def test_each_word_of_hard_work_is_found_as_a_word_alone(words: str) -> None:
    def demand(text: str) -> Demand:
        return needs_of(asked(text, 20)).demand

    assert demand(f"Please {words} it") is Demand.HEAVY
    assert demand(f"Please un{words}ish it") is Demand.LIGHT


def test_labels_and_limits_are_taken_over() -> None:
    needs = needs_of(asked("hello", 7, region="eu"))
    assert needs.labels == {("region", "eu")}
    assert (needs.output_tokens, needs.bounded) == (7, True)
