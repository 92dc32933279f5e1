from __future__ import annotations

import re
import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from actors.bus.subject_templates import subject_template
from actors.bus.subjects import (
    CHAT_SUBJECT,
    AgentAddress,
    ExplainAddress,
    GenerationQueue,
    NodeAddress,
    RunAddress,
    RunQueue,
    StreamAddress,
    decode_token,
    encode_token,
)
from orchestration.messages import Priority

NAMES = st.text(st.characters(exclude_categories=["Cs"]), max_size=60)
TOKENS = st.text(string.ascii_letters + string.digits + "-", min_size=1)


@given(NAMES)
def test_any_name_becomes_one_token_and_comes_back(name: str) -> None:
    token = encode_token(name)
    assert re.fullmatch(r"[A-Za-z0-9_-]+", token)
    assert decode_token(token) == name


@given(NAMES, NAMES)
def test_different_names_have_different_tokens(one: str, other: str) -> None:
    assert (encode_token(one) == encode_token(other)) == (one == other)


@pytest.mark.parametrize("name", ["smollm2-135m", "A", "0", "-"])
def test_a_plain_name_is_its_own_token(name: str) -> None:
    assert encode_token(name) == name


@pytest.mark.parametrize(
    ("name", "token"),
    [("a.b", "a_2eb"), ("_", "_5f"), ("", "_"), ("ü", "_c3_bc"), ("1 ²", "1_20_c2_b2"), ("a\x7f", "a_7f")],
)
def test_other_characters_become_their_bytes(name: str, token: str) -> None:
    assert encode_token(name) == token


@pytest.mark.parametrize("token", ["_zz", "_4", "_ff", "a_"])
def test_what_no_name_became_is_refused(token: str) -> None:
    if token == "a_":
        assert decode_token(token) == "a"
        return
    with pytest.raises(ValueError):  # noqa: PT011 - several kinds, all of them ValueError
        decode_token(token)


@given(st.sampled_from(Priority), NAMES)
def test_a_queue_is_read_back_from_its_subject(priority: Priority, model: str) -> None:
    queue = GenerationQueue(priority, model)
    assert GenerationQueue.parse(queue.subject) == queue
    assert GenerationQueue.of_consumer(queue.consumer) == queue
    assert queue.subject.count(".") == 2
    assert "." not in queue.consumer


@pytest.mark.parametrize("subject", ["runs.batch.m", "generations.urgent.m", "generations.batch", "x"])
def test_another_subject_is_no_queue(subject: str) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 - several kinds, all of them ValueError
        GenerationQueue.parse(subject)


@given(TOKENS, TOKENS)
def test_a_stream_is_read_back_from_its_subjects(streams: str, number: str) -> None:
    address = StreamAddress(f"{streams}.{number}")
    assert StreamAddress.parse(address.subject) == address
    assert StreamAddress.parse(address.cancel) == address


@pytest.mark.parametrize("subject", ["stream.a", "stream.a.b.c", "other.a.b"])
def test_another_subject_is_no_stream(subject: str) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 - several kinds, all of them ValueError
        StreamAddress.parse(subject)


@given(NAMES)
def test_a_node_of_any_name_has_subjects_of_its_own(name: str) -> None:
    assert NodeAddress(name).generate.count(".") == 2
    assert NodeAddress(name).generate != NodeAddress(name).drain


@pytest.mark.parametrize(
    ("subject", "template"),
    [
        (GenerationQueue(Priority.BATCH, "a.b/c").subject, "generations.{priority}.{model}"),
        (RunQueue(Priority.BATCH, "debate").subject, "runs.{priority}.{pattern}"),
        (RunQueue(Priority.BATCH, "debate", "alice").subject, "runs.{priority}.{pattern}.{caller}"),
        (StreamAddress("c.1").subject, "stream.{client}.{number}"),
        (StreamAddress("c.1").cancel, "cancel.{client}.{number}"),
        (RunAddress("c.1").events, "events.run.{client}.{number}"),
        (NodeAddress("gpu-1").generate, "node.{node}.generate"),
        (NodeAddress("gpu-1").ping, "node.{node}.ping"),
        (AgentAddress("home", "critic").step, "agents.step.orchestra.{cluster}.{agent}"),
        (ExplainAddress("m").subject, "placement.explain.{model}"),
        (CHAT_SUBJECT, "orchestra.chat"),
        ("orchestra.jobs.submit", "orchestra.{group}.{operation}"),
        ("_INBOX.abc.1", "_INBOX.{inbox}"),
        ("node.gpu-1.what-a-client-says", "node.{node}.{request}"),
        ("nobody.knows.this", "other"),
        ("", "other"),
    ],
)
def test_a_subject_has_a_template_without_ids(subject: str, template: str) -> None:
    assert subject_template(subject) == template
