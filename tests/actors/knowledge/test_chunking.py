"""Passages: whole for the embedding model, and nothing lost."""

from __future__ import annotations

from functools import cache
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from actors.knowledge.chunking import MAX_TOKENS, passages
from actors.knowledge.document import WORD_CHARACTERS, ParsedDocument, Section
from actors.models.tokenizer import Tokenizer
from orchestration.sentences import sentences
from tests.fixtures.models import minilm_folder


@cache
def tokenizer() -> Tokenizer:
    return Tokenizer.load(minilm_folder())


def count(text: str) -> int:
    return len(tokenizer().encode_sentence(text)) - 2


words = st.text("abcdeé.!?\n日。 ", max_size=40) | st.sampled_from(["word", "x" * 700, "日本" * 200, "a.b.c"])
texts = st.lists(words, max_size=60).map(" ".join)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.text(max_size=300), texts), max_size=3))
def test_every_word_is_in_a_passage_and_no_passage_is_longer_than_the_model_reads(
    sections: list[tuple[str, str]],
) -> None:
    cut = passages(ParsedDocument("", tuple(Section(*each) for each in sections)), count)
    for passage in cut:
        assert count(passage.embedded) <= MAX_TOKENS
        assert passage.text.strip()
    kept = "".join("".join(passage.text.split()) for passage in cut)
    for _, text in sections:
        for word in text.split():
            assert word in kept or len(word) > 60  # what is longer may be cut in two


@pytest.mark.parametrize(
    "text",
    [
        "The genome begins here: " + "ACGTTGCA" * 25_000,
        "".join(f"{number:x}Zq/" for number in range(20_000)),
        ",".join(f"field{number}" for number in range(10_000)),
        "function(a){return b};" * 5_000,
        "漢字" * 20_000,
        "สวัสดี" * 10_000,
    ],
    ids=["a sequence", "base64", "one line of CSV", "minified code", "Chinese", "Thai"],
)
def test_a_long_text_without_spaces_is_cut_into_passages_that_the_model_reads_whole(text: str) -> None:
    cut = passages(ParsedDocument("", (Section("", text),)), count)
    assert "".join("".join(passage.text.split()) for passage in cut) == "".join(text.split())
    for passage in cut:
        assert count(passage.embedded) <= MAX_TOKENS
        assert len(passage.text) < 2_000
        assert max(map(len, passage.embedded.split())) <= WORD_CHARACTERS


def test_a_passage_begins_with_the_end_of_the_one_before_in_whole_sentences() -> None:
    text = " ".join(f"Sentence number {number} says something about rivers." for number in range(60))
    cut = passages(ParsedDocument("", (Section("Rivers", text),)), count)
    assert len(cut) > 2
    for one, next_ in pairwise(cut):
        repeated = sentences(next_.text)[0]
        assert repeated in sentences(one.text)
        assert one.text != next_.text


def test_a_short_section_is_one_passage_under_its_heading() -> None:
    cut = passages(ParsedDocument("", (Section("  A \n heading", "One. Two."), Section("", "Three."))), count)
    assert [(passage.heading, passage.text) for passage in cut] == [
        ("A heading", "One. Two."),
        ("", "Three."),
    ]


def test_sentences_end_where_readers_see_their_end() -> None:
    text = (
        'He said "Go." Then Dr. Lee, e.g. in 3.14 s, left! J. R. Moss wrote it.\n\nNew\nlines 東京。大きい！'
    )
    assert sentences(text) == [
        'He said "Go."',
        "Then Dr. Lee, e.g. in 3.14 s, left!",
        "J. R. Moss wrote it.",
        "New\nlines 東京。",
        "大きい！",
    ]


@pytest.mark.parametrize("space", ["\t", "\u3000", "\xa0", "\r"], ids=["tabs", "wide", "no-break", "returns"])
def test_words_with_other_spaces_between_them_stay_words(space: str) -> None:
    words = [f"name{number}" for number in range(4_000)]
    cut = passages(ParsedDocument("", (Section("", space.join(words)),)), count)
    assert all(count(passage.embedded) <= MAX_TOKENS for passage in cut)
    kept = {word for passage in cut for word in passage.text.split()}
    assert kept == set(words)
