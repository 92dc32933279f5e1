"""Explains where generations of a model would go, for `orchestra status --explain`."""

from __future__ import annotations

import logging
import os
import platform
import time

from actors.bus.bus import Bus, Message, Subscription
from actors.bus.subjects import ExplainAddress
from actors.placement.placer import Placer
from orchestration.placement import Needs, explain

log = logging.getLogger(__name__)


class Explainer:
    """Answers `orchestra status --explain` for one dispatcher."""

    def __init__(self, bus: Bus, placer: Placer) -> None:
        self.bus = bus
        self.placer = placer
        self.name = f"{platform.node()}-{os.getpid()}"
        self._subscription: Subscription | None = None

    async def start(self) -> None:
        self._subscription = await self.bus.subscribe(ExplainAddress.SUBJECTS, self._explain)

    async def stop(self) -> None:
        if self._subscription is not None:
            await self._subscription.unsubscribe()

    def _explain(self, message: Message) -> None:
        try:
            model = ExplainAddress.parse(message.subject).model
            needs = Needs.decode(model, message.data.decode())
        except ValueError as error:
            log.debug("cannot read a request to explain placement: %s", error)
            return
        explanation = explain(self.placer.chooser.index, needs, time.monotonic(), dispatcher=self.name)
        self.bus.answer(message, explanation.model_dump_json().encode())
