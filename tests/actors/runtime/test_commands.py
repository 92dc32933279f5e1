"""Commands of operators to all processes: what is sent to them, and what comes back."""

from __future__ import annotations

import pytest

from actors.bus.bus import Bus, Message
from actors.bus.subjects import CommandAddress
from actors.runtime.commands import CommandAnswer, CommandResponder, ask_all
from orchestration.messages import Wire


class Double(Wire):
    number: int = 1


@pytest.fixture
async def responder(bus: Bus) -> CommandResponder:
    responder = CommandResponder(bus, "calculator")
    await responder.serve("test.double", Double, lambda request: 2 * request.number)
    await bus.flush()
    return responder


async def test_an_empty_request_is_one_with_the_defaults(bus: Bus, responder: CommandResponder) -> None:
    for request, expected in ((None, 2), ({"number": 4}, 8)):
        answered = await ask_all(bus, "test.double", request)
        assert [(each.part, each.data, each.error) for each in answered.answers] == [
            ("calculator", expected, None)
        ]
    await responder.stop()
    assert not (await ask_all(bus, "test.double", deadline_s=0.5)).answers


@pytest.mark.parametrize(
    "body", [b"null", b"[]", b"{", b"\xff\xfe", b"[" * 5_000, b'{"number": "x"}', b'{"number": 1e999}']
)
async def test_a_request_that_cannot_be_read_is_the_fault_of_its_sender(
    bus: Bus, responder: CommandResponder, caplog: pytest.LogCaptureFixture, body: bytes
) -> None:
    reply: Message = await bus.request(CommandAddress("test.double").subject, body)
    answer = CommandAnswer.model_validate_json(reply.data)
    assert answer.error is not None
    assert (answer.error.code, answer.error.status) == ("invalid_request", 400)
    assert not caplog.records
    await responder.stop()
