"""Keeps the settings of a process as the cluster's: by a watch, and by reading again after a reconnect."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from pydantic import ValidationError

from actors.bus.bus import Bus, Message, Subscription
from actors.bus.key_value import Bucket
from actors.config.cluster_settings import BUCKET, KEY, ClusterSettings
from actors.config.followers import FOLLOWERS, AskFollowers, FollowerState
from actors.config.hot_settings import HotSettings
from actors.telemetry.identity import ProcessIdentity
from orchestration.errors import InvalidRequest, OrchestraError

log = logging.getLogger(__name__)

CATCH_UP_PAUSE_S = 0.2
"""Pause between two tries to read the settings while NATS is back but its bucket is not."""
REREAD_S = 60.0
"""Time between two readings without a cause. They find a write that NATS did not pass on, as between two
servers that had lost each other."""
MAX_WAITING = 64
"""Maximum questions that wait for a revision which is on its way."""


class SettingsFollower:
    """Call `start` before the roles of the process, and `stop` after them."""

    def __init__(self, bus: Bus, hot: HotSettings[Any], identity: ProcessIdentity) -> None:
        self.bus = bus
        self.hot = hot
        self.identity = identity
        self.bucket = Bucket(bus, BUCKET)
        self.subscriptions: list[Subscription] = []
        """That of writes, and that of questions."""
        self._waiting: list[tuple[str, int]] = []
        self._catching_up: asyncio.Task[None] | None = None
        self._timer: asyncio.TimerHandle | None = None

    async def start(self) -> None:
        """Raises `BusUnavailable` when the bucket is not there."""
        started = False
        newest: ClusterSettings | None = None

        def changed(value: bytes | None, _: str) -> None:
            nonlocal newest
            document = self._read(value)
            if started and document is not None:
                self._take(document)
                if document.revision < self.hot.revision:
                    self._catch_up()  # the bucket was deleted, or restored from a backup
            elif document is not None:
                newest = document

        self.bus.on_reconnect.append(self._catch_up)
        self.subscriptions.append(await self.bucket.watch(changed))
        started = True
        if newest is not None:
            self.hot.begin(newest)
        self._schedule()
        self.subscriptions.append(await self.bus.subscribe(FOLLOWERS, self._asked))

    async def stop(self) -> None:
        if self._catch_up in self.bus.on_reconnect:
            self.bus.on_reconnect.remove(self._catch_up)
        if self._timer is not None:
            self._timer.cancel()
        if self._catching_up is not None:
            self._catching_up.cancel()
        for subscription in self.subscriptions:
            await subscription.unsubscribe()

    def _read(self, value: bytes | None) -> ClusterSettings | None:
        try:
            return ClusterSettings.read(value)
        except InvalidRequest as error:
            self.hot.refuse("the cluster's settings are not used here", error)
            return None

    def _take(self, document: ClusterSettings, *, sure: bool = False) -> None:
        self.hot.take(document, sure=sure)
        waiting, self._waiting = self._waiting, []
        for reply, revision in waiting:
            self._answer(reply, revision)

    def _schedule(self) -> None:
        """Read the settings again after `REREAD_S`, and so on."""

        def reread() -> None:
            self._catch_up()
            self._schedule()

        self._timer = asyncio.get_running_loop().call_later(REREAD_S, reread)

    def _catch_up(self) -> None:
        """Read the settings, as a write may have been missed."""
        if self._catching_up is None or self._catching_up.done():
            self._catching_up = asyncio.get_running_loop().create_task(self._read_again())

    async def _read_again(self) -> None:
        while self.bus.connected:
            before = self.hot.revision
            try:
                entry = await self.bucket.latest(KEY, sure=True)
            except OrchestraError as error:
                log.debug("the cluster's settings cannot be read yet: %s", error)
                await asyncio.sleep(CATCH_UP_PAUSE_S)
                continue
            if self.hot.revision != before:
                continue  # what was read may be older
            document = self._read(entry.value)
            if document is not None:
                self._take(document, sure=True)
            return

    def _asked(self, message: Message) -> None:
        try:
            asked = AskFollowers.model_validate_json(message.data or b"{}")
        except ValidationError as error:
            log.debug("a message on %s cannot be read: %s", message.subject, error)
            return
        if message.reply:
            self._answer(message.reply, asked.revision)
        if asked.revision > self.hot.revision and not self.hot.refused:
            self._catch_up()

    def _answer(self, reply: str, revision: int) -> None:
        hot, identity = self.hot, self.identity
        state = FollowerState(
            process=identity.id, role=identity.role, revision=hot.revision, refused=hot.refused
        )
        try:
            self.bus.post(reply, state.model_dump_json().encode())
        except OrchestraError as error:
            log.debug("cannot answer on %s: %s", reply, error)
        if hot.revision < revision and not hot.refused:
            self._waiting = [*self._waiting[-MAX_WAITING + 1 :], (reply, revision)]


@asynccontextmanager
async def followed(
    bus: Bus, hot: HotSettings[Any], identity: ProcessIdentity
) -> AsyncIterator[SettingsFollower]:
    """Keep `hot` as the cluster's settings until the block ends."""
    follower = SettingsFollower(bus, hot, identity)
    await follower.start()
    try:
        yield follower
    finally:
        await follower.stop()
