"""Advisories of JetStream: counted, and recorded as events, by one process of the cluster each."""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass

from prometheus_client import Counter
from pydantic import Field, ValidationError

from actors.bus.bus import Bus, Message, Subscription
from actors.bus.subjects import GenerationQueue
from actors.telemetry.event_log import event_log
from orchestration.log_events import LogLevel
from orchestration.wire import Wire

log = logging.getLogger(__name__)

GROUP = "orchestra-nats-monitor"
"""The queue group whose members share the advisories."""
MAX_BYTES = 16 * 1024
"""Maximum size of an advisory that is read; a larger one does not come from the server."""

ADVISORIES = Counter(
    "orchestra_nats_advisories",
    "Advisories of JetStream, such as a lost quorum, counted by one process each",
    ["kind"],
)


@dataclass(frozen=True, slots=True)
class AdvisoryKind:
    """One kind of advisory, and what it means."""

    name: str
    """Label of the metric; the event is `nats.<name>`."""
    subject: str
    level: LogLevel
    meaning: str


KINDS = (
    AdvisoryKind(
        "max_deliveries",
        "CONSUMER.MAX_DELIVERIES.>",
        LogLevel.ERROR,
        "a message was delivered as often as its consumer allows, and stays in the stream",
    ),
    AdvisoryKind(
        "msg_naked", "CONSUMER.MSG_NAKED.>", LogLevel.DEBUG, "a message was returned for a later delivery"
    ),
    AdvisoryKind("msg_terminated", "CONSUMER.MSG_TERMINATED.>", LogLevel.WARNING, "a message was given up"),
    AdvisoryKind(
        "stream_quorum_lost",
        "STREAM.QUORUM_LOST.>",
        LogLevel.ERROR,
        "a stream takes no messages: the majority of its servers is away",
    ),
    AdvisoryKind(
        "consumer_quorum_lost",
        "CONSUMER.QUORUM_LOST.>",
        LogLevel.ERROR,
        "a consumer delivers nothing: the majority of its servers is away",
    ),
    AdvisoryKind(
        "stream_leader_elected", "STREAM.LEADER_ELECTED.>", LogLevel.INFO, "a stream has a new leader"
    ),
    AdvisoryKind(
        "consumer_leader_elected", "CONSUMER.LEADER_ELECTED.>", LogLevel.DEBUG, "a consumer has a new leader"
    ),
)


class Advisory(Wire):
    """What is used of an advisory; the server sends more."""

    stream: str = Field(max_length=255)
    consumer: str = Field(default="", max_length=255)
    stream_seq: int = 0
    deliveries: int = 0
    reason: str = Field(default="", max_length=1_000)
    leader: str = Field(default="", max_length=255)

    @property
    def data(self) -> dict[str, str | int]:
        """The facts, without empty ones."""
        names: dict[str, str | int] = {
            "stream": self.stream,
            "consumer": self.consumer,
            "sequence": self.stream_seq,
            "deliveries": self.deliveries,
            "reason": self.reason,
            "leader": self.leader,
        }
        return {name: value for name, value in names.items() if value}

    @property
    def model(self) -> str:
        """The model whose generations are concerned, or ''."""
        try:
            return GenerationQueue.of_consumer(self.consumer).model
        except ValueError:
            return ""


class AdvisoryListener:
    """Counts advisories and records up to `events_per_minute` of each kind."""

    def __init__(self, bus: Bus, *, events_per_minute: int) -> None:
        self.bus = bus
        self.events_per_minute = events_per_minute
        self._subscriptions: list[Subscription] = []
        self._minute = 0
        self._recorded: dict[str, int] = {}
        """Events of each kind in this minute."""

    async def start(self) -> None:
        for kind in KINDS:
            ADVISORIES.labels(kind.name)  # 0 is exported too
            self._subscriptions.append(
                await self.bus.subscribe(
                    f"$JS.EVENT.ADVISORY.{kind.subject}",
                    lambda message, kind=kind: self._received(kind, message),  # type: ignore[misc]
                    queue=GROUP,
                )
            )

    async def stop(self) -> None:
        subscriptions, self._subscriptions = self._subscriptions, []
        for subscription in subscriptions:
            await subscription.unsubscribe()

    def _received(self, kind: AdvisoryKind, message: Message) -> None:
        ADVISORIES.labels(kind.name).inc()
        if not event_log.enabled or not self._may_record(kind.name):
            return
        try:
            advisory = Advisory.model_validate_json(message.data if len(message.data) <= MAX_BYTES else b"")
        except ValidationError as error:
            log.debug("an advisory on %s cannot be read: %s", message.subject, error)
            return
        where = advisory.consumer or advisory.stream
        event_log.record(
            f"nats.{kind.name}",
            level=kind.level,
            model=advisory.model,
            message=f"{where}: {kind.meaning}",
            data=advisory.data,
        )

    def _may_record(self, kind: str) -> bool:
        minute = int(time.monotonic() / 60)
        if minute != self._minute:
            self._minute, self._recorded = minute, {}
        count = self._recorded.get(kind, 0)
        self._recorded[kind] = count + 1
        return count < self.events_per_minute
