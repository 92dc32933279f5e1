"""The analyser on 301 labelled queries that it was not trained on, in ten languages."""

from __future__ import annotations

import re
from collections import Counter
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from actors.models.tokenizer import Tokenizer
from orchestration.query_analysis.analysis import MAX_TOKENS, MIN_TOKENS, analyse, default_weights
from orchestration.query_analysis.features import KINDS
from orchestration.query_analysis.word_pieces import word_pieces
from tests.fixtures.models import minilm_folder
from tests.orchestration.query_analysis.keywords import keyword_kind
from tests.orchestration.query_analysis.train import minilm, queries, train

QUERIES = queries("queries.jsonl")


def share(right: list[bool]) -> float:
    return sum(right) / len(right)


def words_of(text: str) -> frozenset[str]:
    return frozenset(re.findall(r"\w+", text.lower()))


def test_the_labelled_set_is_large_diverse_and_apart_from_the_training_queries() -> None:
    assert len(QUERIES) >= 300
    assert min(Counter(query["kind"] for query in QUERIES).values()) >= 50
    others = sum(query["language"] != "en" for query in QUERIES)
    assert others >= 75
    assert len({query["language"] for query in QUERIES}) == 10
    trained = [words_of(query["text"]) for query in queries("training.jsonl")]
    for query in QUERIES:
        words = words_of(query["text"])
        if len(words) < 4:  # greetings are few
            continue
        nearest = max(trained, key=lambda each: len(words & each) / len(words | each))
        assert len(words & nearest) / len(words | nearest) < 0.72, (query["text"], sorted(nearest))


def test_the_kind_is_told_better_than_by_keywords() -> None:
    ours = share([analyse(query["text"]).kind == query["kind"] for query in QUERIES])
    keywords = share([keyword_kind(query["text"]) == query["kind"] for query in QUERIES])
    print(f"kind: analysis {ours:.3f}, keywords {keywords:.3f} of {len(QUERIES)}")
    assert ours > 0.93
    assert ours > keywords + 0.1
    for kind in KINDS:
        of_kind = [query for query in QUERIES if query["kind"] == kind]
        assert share([analyse(query["text"]).kind == kind for query in of_kind]) > 0.85, kind


def test_other_languages_than_english_are_told_better_than_by_keywords_too() -> None:
    others = [query for query in QUERIES if query["language"] != "en"]
    ours = share([analyse(query["text"]).kind == query["kind"] for query in others])
    assert ours > 0.9
    assert ours > share([keyword_kind(query["text"]) == query["kind"] for query in others])


def test_a_confident_answer_is_right_more_often_than_a_doubtful_one() -> None:
    found = [(analyse(query["text"]), query) for query in QUERIES]
    sure = share([each.kind == query["kind"] for each, query in found if each.confidence >= 0.8])
    unsure = share([each.kind == query["kind"] for each, query in found if each.confidence < 0.8])
    assert sure > 0.96
    assert sure > unsure + 0.05


def test_difficulty_and_length_are_told_better_than_by_one_guess_for_all() -> None:
    names = {0.0: "easy", 0.5: "medium", 1.0: "hard"}
    found = [(analyse(query["text"]), query) for query in QUERIES]
    level = share([each.level == names[query["difficulty"]] for each, query in found])
    commonest = Counter(query["difficulty"] for query in QUERIES).most_common(1)[0][1] / len(QUERIES)
    assert level > commonest + 0.2
    far = [abs(each.difficulty - query["difficulty"]) > 0.7 for each, query in found]
    assert share(far) < 0.02

    def within_two(tokens: list[int]) -> float:
        return share(
            [0.5 <= each / query["tokens"] <= 2 for each, query in zip(tokens, QUERIES, strict=True)]
        )

    ours = within_two([each.tokens for each, _ in found])
    assert ours > max(within_two([guess] * len(QUERIES)) for guess in range(20, 800, 20)) + 0.1


@given(text=st.text(max_size=400))
def test_any_text_can_be_looked_at(text: str) -> None:
    found = analyse(text)
    assert found.kind in KINDS
    assert 0 <= found.difficulty <= 1
    assert 0 < found.confidence <= 1
    assert MIN_TOKENS <= found.tokens <= MAX_TOKENS


@pytest.mark.parametrize("text", ["x" * 500_000, "why? " * 100_000, "{" * 100_000, "漢" * 100_000])
def test_a_long_text_is_looked_at_at_its_ends_only(text: str) -> None:
    question = "\nWrite a Python function that merges two sorted lists."
    assert analyse(text + question) == analyse(text[:2000] + question)


def test_texts_are_cut_into_the_pieces_that_minilm_reads() -> None:
    tokenizer = Tokenizer.load(minilm_folder())
    vocabulary = default_weights().vocabulary
    same = [
        word_pieces(query["text"], vocabulary)
        == [t for t in tokenizer.encode(query["text"], specials=False) if t != 100]
        for query in QUERIES
    ]
    assert share(same) > 0.97


def test_the_weights_are_those_that_training_makes() -> None:
    made: Any = train(queries("training.jsonl"), *minilm())
    ours = default_weights()
    assert made.vocabulary == ours.vocabulary
    assert np.allclose(made.surface, ours.surface, atol=1e-3)
    assert np.allclose(made.bias, ours.bias, atol=1e-3)
    assert np.abs(made.table.astype(int) - ours.table).max() <= 1
