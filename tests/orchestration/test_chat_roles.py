"""Conversations in the form that a model takes."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestration.chat_roles import ChatRoles
from orchestration.messages import ChatMessage, ToolCall

NO_SYSTEM = ChatRoles(system=False)
NO_REPEATS = ChatRoles(repeats=False)
NEITHER = ChatRoles(system=False, repeats=False)
NAMES = {"s": "system", "u": "user", "a": "assistant", "t": "tool"}


def talk(said: str) -> tuple[ChatMessage, ...]:
    """`s1 u2`: a system message "1", a user's "2"."""
    return tuple(
        ChatMessage.model_validate({"role": NAMES[each[0]], "content": each[1:]}) for each in said.split()
    )


def told(messages: tuple[ChatMessage, ...]) -> str:
    return " ".join(each.role[0] + each.content.replace("\n\n", "+") for each in messages)


@pytest.mark.parametrize(
    ("roles", "said", "fits"),
    [
        (ChatRoles(), "s1 u2 u3 s4", "s1 u2 u3 s4"),
        (NO_SYSTEM, "u1 a2 u3", "u1 a2 u3"),
        (NO_SYSTEM, "s1 u2 a3 u4", "u1+2 a3 u4"),
        (NO_SYSTEM, "s1 s2 u3", "u1+2+3"),
        (NO_SYSTEM, "s1", "u1"),
        (NO_SYSTEM, "s1 a2 u3", "u1 a2 u3"),
        (NO_SYSTEM, "u1 s2 u3", "u1 u2 u3"),
        (NO_REPEATS, "s1 s2 u3 u4 a5 a6 u7", "s1+2 u3+4 a5+6 u7"),
        (NO_REPEATS, "s1 u2 s3 a4 u5", "s1 u2+3 a4 u5"),
        (NO_REPEATS, "a1 u2", "uBegin. a1 u2"),
        (NEITHER, "s1 u2 u3 a4 s5 u6", "u1+2+3 a4 u5+6"),
        (NEITHER, "s1 a2 u3", "u1 a2 u3"),
    ],
)
def test_a_conversation_fits_with_every_word(roles: ChatRoles, said: str, fits: str) -> None:
    assert told(roles.fit(talk(said))) == fits


def test_calls_and_their_results_stay_apart() -> None:
    call = ToolCall(id="c", name="f", arguments="{}")
    calling = ChatMessage(role="assistant", content="", tool_calls=(call,))
    messages = (*talk("u1"), calling, *talk("t2 t3 a4 a5"))
    assert NO_REPEATS.fit(messages) == (
        *talk("u1"),
        calling,
        *talk("t2 t3"),
        *NO_REPEATS.fit(talk("u0 a4 a5"))[1:],
    )


@given(st.lists(st.sampled_from("sua"), min_size=1, max_size=8), st.sampled_from([NO_REPEATS, NEITHER]))
def test_roles_alternate_from_the_user_on_and_nothing_is_lost(kinds: list[str], roles: ChatRoles) -> None:
    messages = talk(" ".join(f"{kind}<{number}>" for number, kind in enumerate(kinds)))
    fitting = roles.fit(messages)
    turns = [each.role for each in fitting]
    if turns[0] == "system" and roles.system:
        turns = turns[1:]
    assert turns == [("user", "assistant")[at % 2] for at in range(len(turns))]
    text = told(fitting)
    assert all(text.count(f"<{number}>") == 1 for number in range(len(kinds)))
    assert roles.fit(fitting) == fitting


@pytest.mark.parametrize(
    ("repeats", "said", "less"),
    [
        (False, "s1 u2", NO_SYSTEM),
        (False, "u1 a2 u3", None),
        (True, "u1 u2", NO_REPEATS),
        (True, "s1 u2", NEITHER),  # the system message is what keeps the roles from alternating
        (True, "u1", None),
    ],
)
def test_the_alternative_form_is_the_smallest_change(
    repeats: bool, said: str, less: ChatRoles | None
) -> None:
    assert ChatRoles().alternative(repeats=repeats, messages=talk(said)) == less
    assert NEITHER.alternative(repeats=repeats, messages=talk(said)) is None
