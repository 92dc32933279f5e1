"""Echo that writes the plans a test gives it, and whose tasks take as long as their words say."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncGenerator, Sequence

from actors.backends.base import Output
from actors.backends.echo import EchoBackend, EchoSettings
from orchestration.errors import BackendFailed
from orchestration.messages import Finish, Generation, TextDelta, Usage

_TASK = re.compile(r"Your task: (\w+)(?: ([\d.]+) s)?")


class Graphed(EchoBackend):
    """`plans` come one after another, the last one for ever. A task `take 0.2 s …` takes so long, `meet …`
    waits until all of `together` have come, on any node, and `break …` fails."""

    def __init__(
        self, plans: Sequence[str], together: asyncio.Barrier | None = None, **settings: object
    ) -> None:
        super().__init__(EchoSettings.model_validate({"repeat": False} | settings))
        self.plans = list(plans)
        self.together = together

    async def generate(self, generation: Generation) -> AsyncGenerator[Output, None]:
        guide = generation.guide.json_schema if generation.guide is not None else None
        if guide is not None and "tasks" in guide.get("properties", {}):
            yield TextDelta(text=self.plans.pop(0) if len(self.plans) > 1 else self.plans[0])
            yield Finish(reason="stop", usage=Usage(prompt_tokens=1, completion_tokens=1))
            return
        asked = _TASK.search(generation.texts[-1])
        if asked is None:
            async for output in super().generate(generation):
                yield output
            return
        what, seconds = asked.groups()
        if what == "break":
            raise BackendFailed("it broke")
        if what == "meet" and self.together is not None:
            async with asyncio.timeout(30):
                await self.together.wait()
        if seconds is not None:
            await asyncio.sleep(float(seconds))
        yield TextDelta(text=f"{what}: done")
        yield Finish(reason="stop", usage=Usage(prompt_tokens=1, completion_tokens=1))
