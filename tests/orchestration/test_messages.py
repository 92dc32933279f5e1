from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from orchestration import errors
from orchestration.errors import InternalError, OrchestraError, Overloaded, from_body
from orchestration.messages import (
    ChatGeneration,
    ChatMessage,
    CompletionGeneration,
    EmbeddingGeneration,
    End,
    ErrorBody,
    EventFrame,
    Finish,
    Generation,
    GenerationEnd,
    Hardware,
    NodeInfo,
    RunEnd,
    Sampling,
    Step,
    StreamEvent,
    TextDelta,
    TokenLogprob,
    Usage,
    Vectors,
    decode_event,
    decode_generation,
    encode_event,
)

SAMPLINGS = st.builds(
    Sampling,
    temperature=st.none() | st.floats(0, 2),
    top_p=st.none() | st.floats(0.01, 1),
    top_k=st.none() | st.integers(0, 100),
    seed=st.none() | st.integers(-(2**63), 2**63 - 1),
    max_tokens=st.none() | st.integers(1, 10_000),
    stop=st.lists(st.text(max_size=5), max_size=3).map(tuple),
)


def kinds(root: type[OrchestraError] = OrchestraError) -> list[type[OrchestraError]]:
    own = [kind for kind in root.__subclasses__() if kind.__module__ == errors.__name__]
    return own + [each for kind in own for each in kinds(kind)]


@given(SAMPLINGS, SAMPLINGS)
def test_what_was_said_wins_over_the_defaults_and_nothing_else_does(
    said: Sampling, defaults: Sampling
) -> None:
    merged = said.over(defaults)
    for name in ("temperature", "top_p", "top_k", "seed", "max_tokens"):
        wanted = getattr(said, name)
        assert getattr(merged, name) == (getattr(defaults, name) if wanted is None else wanted)
    assert Sampling().over(defaults) == defaults


@pytest.mark.parametrize(
    "generation",
    [
        ChatGeneration(id="a.1", model="m", prefill="So"),
        CompletionGeneration(id="a.1", model="m", prompt="Once"),
        EmbeddingGeneration(id="a.1", model="m", inputs=("a", "b")),
    ],
    ids=["chat", "completion", "embedding"],
)
def test_a_generation_is_decoded_by_its_kind(generation: Generation) -> None:
    assert decode_generation(generation.model_dump_json(exclude_defaults=True).encode()) == generation


def test_a_generation_without_a_kind_cannot_be_decoded() -> None:
    with pytest.raises(ValidationError, match="discriminator"):
        decode_generation(b'{"id": "a.1", "model": "m", "messages": []}')


@given(SAMPLINGS)
def test_a_generation_survives_the_wire_without_its_defaults(sampling: Sampling) -> None:
    generation = ChatGeneration(
        id="a.1", model="m", messages=(ChatMessage(role="user", content="hi"),), sampling=sampling
    )
    assert decode_generation(generation.model_dump_json(exclude_defaults=True).encode()) == generation


@pytest.mark.parametrize("kind", kinds(), ids=lambda kind: kind.__name__)
def test_every_error_crosses_the_bus_as_itself(kind: type[OrchestraError]) -> None:
    error = kind("what happened", param="field", retry_after_s=1.5)
    back = from_body(ErrorBody.model_validate_json(error.body().model_dump_json()))
    assert type(back) is kind
    assert (back.message, back.param, back.retry_after_s) == ("what happened", "field", 1.5)


def test_the_codes_of_errors_are_their_own() -> None:
    codes = [kind.code for kind in kinds()]
    assert len(codes) == len(set(codes))


@pytest.mark.parametrize("kind", kinds(), ids=lambda kind: kind.__name__)
def test_every_error_is_in_the_drawn_tree_with_its_status_and_code(kind: type[OrchestraError]) -> None:
    (line,) = [line for line in (errors.__doc__ or "").splitlines() if f" {kind.__name__} " in line]
    _, status, code, retryable, *_ = line.replace("│", " ").replace("├──", "").replace("└──", "").split()
    assert (int(status), code, retryable.rstrip(",") == "yes") == (kind.status, kind.code, kind.retryable)


def test_an_unknown_code_is_a_defect() -> None:
    assert type(from_body(ErrorBody(code="from-the-future", message="x"))) is InternalError
    assert type(from_body(ErrorBody(code="from-the-future", message="x", status=429))) is Overloaded
    assert type(from_body(ErrorBody(code="from-the-future", message="x", status=418))) is InternalError


STREAM_EVENTS: tuple[StreamEvent, ...] = (
    TextDelta(text="é", tokens=2, logprobs=(TokenLogprob(token="é", logprob=-0.5),), replaces=1),
    Vectors(index=3, vectors=("AAAA",)),
    GenerationEnd(finish=Finish(reason="length", usage=Usage(completion_tokens=2)), events=7),
    RunEnd(finish=Finish(reason="stop"), steps=(Step(name="s", agent="a"),), report={"kind": "fact"}),
)


@pytest.mark.parametrize("event", STREAM_EVENTS, ids=lambda event: event.type)
def test_an_event_of_a_stream_survives_the_wire_with_its_number(event: StreamEvent) -> None:
    assert decode_event(encode_event(5, event)) == EventFrame(5, event)


def test_the_tag_of_an_end_is_written_without_its_defaults_too() -> None:
    end = RunEnd(finish=Finish(reason="stop"))
    written = end.model_dump_json(exclude_defaults=True).encode()
    assert written == b'{"finish":{"reason":"stop"},"type":"run_end"}'
    assert TypeAdapter(End).validate_json(written) == end


def test_an_event_is_decoded_by_its_type_and_unknown_types_are_refused() -> None:
    assert decode_event(b'{"seq":0,"event":{"type":"text_delta","text":"a"}}').event == TextDelta(text="a")
    with pytest.raises(ValidationError):
        decode_event(b'{"seq":0,"event":{"type":"other","text":"a"}}')


@given(st.builds(Usage), st.builds(Usage))
def test_usage_adds_up(one: Usage, other: Usage) -> None:
    both = one + other
    assert both.completion_tokens == one.completion_tokens + other.completion_tokens
    assert both.estimated == (one.estimated or other.estimated)


@given(st.integers(1, 50), st.integers(0, 100), st.booleans())
def test_free_slots_are_never_negative_nor_of_a_draining_node(
    slots: int, running: int, draining: bool
) -> None:
    node = NodeInfo(
        id="n",
        backend="echo",
        models=(),
        hardware=Hardware(cores=1, memory_bytes=1, provider="x"),
        slots=slots,
        running=running,
        draining=draining,
    )
    assert node.free_slots == (0 if draining else max(0, slots - running))
