"""Asks which revision of the cluster's settings each process uses."""

from __future__ import annotations

import asyncio
from contextlib import suppress

from pydantic import ValidationError

from actors.bus.bus import Bus, Message
from orchestration.wire import Wire

FOLLOWERS = "settings.followers"
"""The subject on which every process says which revision it uses."""
FOLLOW_S = 1.0
"""Within this time all processes follow a change."""
QUIET_S = 0.1
"""After this silence every process that listens has answered."""
MAX_FOLLOWERS = 10_000


class AskFollowers(Wire):
    """Asks each process for the revision that it uses. One that is behind `revision` answers again once it
    uses it."""

    revision: int = 0


class FollowerState(Wire):
    """The answer of one process."""

    process: str
    role: str
    revision: int
    """The revision of the cluster's settings that it uses."""
    refused: str = ""
    """Why it does not use the newest."""


async def ask_followers(bus: Bus, revision: int, *, within_s: float = FOLLOW_S) -> list[FollowerState]:
    """The state of each process, by its id: waits until all that answer use `revision` or refuse it, for
    `within_s` seconds at most. Raises `BusUnavailable`."""
    states: dict[str, FollowerState] = {}
    heard = asyncio.Event()

    def on_reply(message: Message) -> None:
        with suppress(ValidationError):  # of another version
            state = FollowerState.model_validate_json(message.data)
            if len(states) < MAX_FOLLOWERS or state.process in states:
                states[state.process] = state
            heard.set()

    loop = asyncio.get_running_loop()
    end = loop.time() + within_s
    reply = bus.expect(on_reply)
    try:
        await bus.publish(FOLLOWERS, AskFollowers(revision=revision).model_dump_json().encode(), reply=reply)
        while (left_s := end - loop.time()) > 0:
            behind = not states or any(
                each.revision < revision and not each.refused for each in states.values()
            )
            heard.clear()
            try:
                async with asyncio.timeout(left_s if behind else min(left_s, QUIET_S)):
                    await heard.wait()
            except TimeoutError:
                break
    finally:
        bus.forget(reply)
    return sorted(states.values(), key=lambda each: each.process)
