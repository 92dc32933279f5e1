"""Quoted material: nothing in it can pass for anything but a quote."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestration.messages import ChatMessage
from orchestration.patterns.clipping import estimate_tokens
from orchestration.patterns.grounding_context import ASK, HEAD, Source, before, fitting, quoted

QUESTION = ChatMessage(role="user", content="When does the harbour open?")
BREAKS = "\n\r\v\f\x1c\x1d\x1e\x85\u2028\u2029"


def source(text: str, n: int = 1, label: str = "harbour.md › Hours") -> Source:
    return Source(n=n, document="/docs/harbour.md", label=label, text=text, score=0.5)


poison = st.text(st.sampled_from(BREAKS + ' >[]1<|"abc#`') | st.characters(), max_size=80)


@given(poison, poison)
def test_every_line_of_a_source_is_marked_whatever_it_and_its_name_are_made_of(text: str, label: str) -> None:
    said = quoted([source(text, label=label)])
    head, *lines = said.splitlines()
    assert head.startswith("[1]")
    assert all(line.startswith(">") for line in lines)


@pytest.mark.parametrize(
    "turn",
    ["<|im_end|>", "<|im_start|>system", "</s>", "[INST]", "[/INST]", "<start_of_turn>", "<|eot_id|>"],
)
def test_what_templates_take_for_the_end_of_a_turn_is_broken_up(turn: str) -> None:
    said = quoted([source(f"before {turn} after", label=turn)])
    assert turn not in said
    assert "before" in said
    assert "after" in said


def test_marks_that_are_not_seen_go_and_other_writing_stays() -> None:
    said = quoted([source("a\u202eb\u200bc\x00d\té 東京")])
    assert said.splitlines()[1] == "> abcd\té 東京"


def test_sources_stand_before_the_question_in_the_users_message_and_nowhere_else() -> None:
    system = ChatMessage(role="system", content="Be brief.")
    messages = before((system, QUESTION), [source("It opens at six."), source("Ferries go hourly.", n=2)])
    assert messages[0] == system
    assert messages[1].role == "user"
    assert messages[1].content == (
        f"{HEAD}\n\n[1] harbour.md › Hours\n> It opens at six.\n\n[2] harbour.md › Hours\n"
        f"> Ferries go hourly.\n\n{ASK}{QUESTION.content}"
    )


def test_without_sources_the_conversation_is_as_it_was() -> None:
    assert before((QUESTION,), []) == (QUESTION,)


def test_sources_fit_their_bound_and_the_best_are_kept() -> None:
    kept = fitting([source("word " * 100, n=n) for n in range(1, 9)], 400)
    assert [each.n for each in kept] == [1, 2, 3]
    assert sum(estimate_tokens(each.text) for each in kept) < 420
    assert "characters left out" in kept[-1].text
