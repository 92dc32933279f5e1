"""Priors: the expected share of right answers of a model without a record."""

from __future__ import annotations

import math
import tomllib
from importlib import resources

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from orchestration.query_analysis.features import KINDS, Kind
from orchestration.trust.families import parse_name
from orchestration.trust.priors import MAX_PRIOR, MIN_PRIOR, UNKNOWN_PRIOR, Quality, default_accuracy

KIND = st.sampled_from(KINDS)
SIZES = st.floats(0.05, 1_500).map(lambda size: float(f"{size:.2g}"))
GENERATIONS = """
llama-2 llama-3.1 llama-3.3 llama-4 llama-6 qwen2.5 qwen2.5-coder qwen3 qwen9 gemma-2 gemma-3
mistral mistral-small mistral-large mixtral phi-3-mini yi-1.5 deepseek-r1 deepseek-v3 falcon-3
olmo-2 granite-3.1 smollm2 internlm2.5 gpt-oss gpt-3 foo foo-mini my-gpt-4-killer claude
"""
SIZED = st.sampled_from(GENERATIONS.split())


@pytest.mark.parametrize(
    "weakest_first",
    [
        "text-curie-001 text-davinci-003 gpt-3.5-turbo gpt-4 gpt-4-turbo gpt-4o gpt-4.1 gpt-5",
        "gpt3-6b-finetuning gpt3-6b-verification gpt3-175b-verification gpt-3.5-turbo",
        "gpt-5-nano gpt-5-mini gpt-5",
        "claude-instant-1.2 claude-2.1 claude-3-sonnet claude-3-opus claude-3-5-sonnet claude-4-opus",
        "gemini-pro gemini-1.5-flash gemini-1.5-pro gemini-2.0-flash gemini-2.5-pro",
        "llama-2-7b-chat llama3:8b llama3.1:8b llama3:70b llama3.1:70b llama-3.1-405b",
        "mistral-7b-instruct-v0.1 mixtral-8x7b-instruct-v0.1 mistral-nemo-instruct-2407 mistral-large-2407",
        "yi-6b-chat qwen1.5-7b-chat c4ai-command-r-v01 jamba-1.5-large qwen2.5-72b-instruct deepseek-v3",
        "smollm2-135m smollm2-360m smollm2-1.7b phi-3-mini-4k-instruct phi-4",
        "qwen2.5:0.5b deepseek-r1:1.5b deepseek-r1:14b deepseek-r1",
        "foo-135m foo-1.5B foo-8x7b foo-70b",
    ],
)
def test_models_are_in_the_order_that_is_known_of_them(weakest_first: str) -> None:
    shares = [default_accuracy(model, "reasoning") for model in weakest_first.split()]
    assert shares == sorted(set(shares))


@pytest.mark.parametrize(
    ("unknown", "known"),
    [
        ("gpt-6", "gpt-5"),
        ("gpt-6-mini", "gpt-5-mini"),
        ("o5", "o3"),
        ("claude-5-opus", "claude-4.5-opus"),
        ("claude-haiku-6", "claude-haiku-4.5"),
        ("gemini-4-pro", "gemini-3-pro"),
        ("grok-5", "grok-4"),
        ("llama-5-70b", "llama-3.3-70b"),
        ("qwen4-8b", "qwen3-8b"),
        ("deepseek-v4", "deepseek-v3.2"),
        ("deepseek-r2", "deepseek-r1"),
        ("phi-6", "phi-4"),
    ],
)
@pytest.mark.parametrize("kind", KINDS)
def test_an_unknown_generation_is_at_least_its_newest_known_one(unknown: str, known: str, kind: Kind) -> None:
    assert default_accuracy(unknown, kind) >= default_accuracy(known, kind)


@pytest.mark.parametrize("family", ["gpt-6", "gemini-4", "claude-7", "grok-6", "llama-7"])
def test_the_words_of_a_maker_order_unknown_siblings(family: str) -> None:
    shares = [
        default_accuracy(f"{family}-{word}", "factual") for word in ("nano", "mini", "medium", "pro", "ultra")
    ]
    assert shares == sorted(shares)
    assert shares[0] < shares[-1]


def test_a_deployments_own_word_leaves_the_model_what_it_is() -> None:
    assert default_accuracy("gpt-4o-prod", "code") == default_accuracy("gpt-4o", "code")
    assert default_accuracy("ft:gpt-4o-mini-2024-07-18:org::id", "code") == default_accuracy(
        "gpt-4o-mini", "code"
    )


def test_a_likeness_of_a_great_name_gets_what_its_size_says() -> None:
    assert default_accuracy("my-gpt-4-killer-1b", "reasoning") == default_accuracy("foo-1b", "reasoning")
    assert default_accuracy("claude-7b", "reasoning") == default_accuracy("foo-7b", "reasoning")
    assert default_accuracy("opus-codec", "reasoning") == UNKNOWN_PRIOR
    assert default_accuracy("mistral-large-0.1b", "reasoning") < default_accuracy("mistral-7b", "reasoning")


def test_the_card_tells_the_size_that_a_name_does_not() -> None:
    assert default_accuracy("foo", "reasoning", parameters=70_000_000_000) == default_accuracy(
        "foo-70b", "reasoning"
    )
    assert default_accuracy("llama3.1", "code", parameters=70_000_000_000) == default_accuracy(
        "llama3.1:70b", "code"
    )
    assert default_accuracy("foo-7b", "reasoning", parameters=70_000_000_000) == default_accuracy(
        "foo-7b", "reasoning"
    )
    assert default_accuracy("foo", "reasoning", parameters=0) == UNKNOWN_PRIOR


@given(SIZED, SIZES, SIZES, KIND)
def test_a_bigger_one_of_a_generation_is_never_expected_to_be_worse(
    generation: str, one: float, other: float, kind: Kind
) -> None:
    small, big = sorted((one, other))
    assert (
        default_accuracy(f"{generation}-{small}b", kind)
        <= default_accuracy(f"{generation}-{big}b", kind) + 1e-9
    )


@pytest.mark.simulation
@given(st.text(max_size=60), KIND, st.integers(-10, 10**16))
@example("", "code", 0)
@example("0b", "code", 0)
@example("llama-0b", "reasoning", 0)
@example("foo-999999999999b", "factual", 0)
def test_every_prior_lies_in_its_bounds(model: str, kind: Kind, parameters: int) -> None:
    assert MIN_PRIOR <= default_accuracy(model, kind, parameters=parameters) <= MAX_PRIOR


def test_the_published_table_names_every_model_once_and_grows_with_size() -> None:
    text = resources.files("orchestration.trust").joinpath("published.toml").read_text("utf-8")
    rows = [
        (parse_name(model), shares)
        for table in tomllib.loads(text).values()
        for model, shares in table.items()
    ]
    assert len({name.base for name, _ in rows}) == len(rows)
    groups: dict[object, list[list[float]]] = {}
    for name, shares in sorted(rows, key=lambda row: row[0].size):
        assert all(0 < share < 100 for share in shares)
        if name.size:
            groups.setdefault((name.line or name.family, name.version, name.marks), []).append(shares)
    for group in groups.values():
        for column in zip(*group, strict=True):
            assert list(column) == sorted(column), group


def test_settings_go_before_what_is_published() -> None:
    quality: Quality = {
        "gpt-4o": 0.7,
        "gpt-4*": 0.8,
        "GPT-*": {"code": 0.6},
        "foo-?b": 0.9,
        "zero": 0.001,
    }
    assert default_accuracy("gpt-4o", "code", quality) == 0.7
    assert default_accuracy("gpt-4o@node-1", "code", quality) == 0.7
    assert default_accuracy("gpt-4o-mini", "code", quality) == 0.8
    assert default_accuracy("gpt-5", "code", quality) == 0.6
    assert default_accuracy("gpt-5", "reasoning", quality) == default_accuracy("gpt-5", "reasoning")
    assert default_accuracy("foo-7b", "creative", quality) == 0.9
    assert default_accuracy("foo-70b", "creative", quality) == default_accuracy("foo-70b", "creative")
    assert default_accuracy("zero", "creative", quality) == MIN_PRIOR


def test_the_order_in_which_settings_are_written_says_nothing() -> None:
    patterns: Quality = {"*": 0.5, "llama*": 0.6, "llama3*": 0.7}
    backwards: Quality = dict(reversed(list(patterns.items())))
    assert (
        default_accuracy("llama3.1:8b", "code", patterns)
        == default_accuracy("llama3.1:8b", "code", backwards)
        == 0.7
    )


def test_a_bracket_in_a_pattern_is_a_bracket() -> None:
    assert default_accuracy("foo[a]", "code", {"foo[a]*": 0.8}) == 0.8
    assert math.isclose(default_accuracy("fooa", "code", {"foo[a]": 0.8}), UNKNOWN_PRIOR)
