"""Reads from the server and the dispatchers what waits: see `queue_depth.py` for what the numbers mean."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import groupby
from typing import Any

from actors.bus.bus import Bus
from actors.bus.held_generations import HeldQueue, held_generations
from actors.bus.provision import CONSUMER_NOT_FOUND, JetStreamError, call_api
from actors.bus.queue_age import TOGETHER, PartBacklog, stored_times, unix_time
from actors.bus.queue_depth import DEAD, QUEUES, ClusterDepth, ConsumerDepth, QueueDepth, StreamDepth
from actors.bus.subjects import GenerationQueue
from orchestration.priority import Priority

MAX_AGES = 64
"""Maximum number of models for which the age of the oldest generation is read, per priority. The age of a
whole priority is exact in any case."""
MAX_SUBJECTS = 5_000
"""Number of subjects of a stream beyond which they are not read one by one: then models that nobody serves
are not counted."""


async def read_depth(bus: Bus, *, max_ages: int = MAX_AGES) -> ClusterDepth:
    """Ask the server and the dispatchers now.

    This takes one call for all streams, two for each queue with messages and up to 256 consumers, and one for
    each of up to `max_ages` models that wait, per priority. Raises `BusUnavailable`, `DeadlineExceeded` or
    `JetStreamError`.
    """
    held_task = asyncio.ensure_future(held_generations(bus))
    held_task.add_done_callback(
        lambda task: task.cancelled() or task.exception()
    )  # the first error is raised
    try:
        streams = await _pages(bus, "STREAM.LIST", "streams")
        infos = {each["config"]["name"]: each for each in streams}
        present = [infos[name] for name in QUEUES if name in infos]
        subjects = dict(
            zip(infos, await asyncio.gather(*(_subjects(bus, each) for each in streams)), strict=True)
        )
        listed = await asyncio.gather(
            *(_consumers(bus, each, subjects[each["config"]["name"]]) for each in present)
        )
        held = await held_task
    finally:
        held_task.cancel()
    parts: list[QueueDepth] = []
    for info, consumers in zip(present, listed, strict=True):
        parts += await _parts(bus, info, consumers, subjects[info["config"]["name"]], held, max_ages)
    return ClusterDepth(
        at=time.time(),
        parts=tuple(parts),
        streams=tuple(_stream(info, subjects[name]) for name, info in sorted(infos.items())),
        consumers=tuple(_consumer(each) for consumers in listed for each in consumers),
    )


async def _pages(bus: Bus, verb: str, field: str) -> list[dict[str, Any]]:
    """All entries of a listing of JetStream's API, which comes in pages."""
    found: list[dict[str, Any]] = []
    total = 1
    while len(found) < total:
        page = await call_api(bus, verb, {"offset": len(found)})
        entries = page.get(field) or []
        found += entries
        total = int(page.get("total", 0)) if entries else 0
    return found


async def _subjects(bus: Bus, info: dict[str, Any]) -> dict[str, int]:
    """The number of messages on each subject of a queue that limits it."""
    name, state = info["config"]["name"], info["state"]
    limited = name in QUEUES and info["config"].get("max_msgs_per_subject", -1) > 0
    if not limited or not state["messages"] or state.get("num_subjects", 0) > MAX_SUBJECTS:
        return {}
    answer = await call_api(bus, f"STREAM.INFO.{name}", {"subjects_filter": ">"})
    return answer["state"].get("subjects") or {}


async def _consumers(bus: Bus, info: dict[str, Any], subjects: dict[str, int]) -> list[dict[str, Any]]:
    """The durable consumers of a stream that can have messages: none of an empty stream."""
    name, state = info["config"]["name"], info["state"]
    if not state["messages"] or not state["consumer_count"]:
        return []
    if name == GenerationQueue.STREAM and 0 < len(subjects) <= TOGETHER:  # not all of up to 1500
        queues = [queue for subject in subjects if (queue := _generations(subject)) is not None]
        infos = await asyncio.gather(*(_consumer_info(bus, name, queue.consumer) for queue in queues))
        return [each for each in infos if each is not None]
    listed = await _pages(bus, f"CONSUMER.LIST.{name}", "consumers")
    return [each for each in listed if each["config"].get("durable_name")]


async def _consumer_info(bus: Bus, stream: str, consumer: str) -> dict[str, Any] | None:
    try:
        return await call_api(bus, f"CONSUMER.INFO.{stream}.{consumer}")
    except JetStreamError as error:
        if error.err_code == CONSUMER_NOT_FOUND:
            return None
        raise


def _generations(subject: str) -> GenerationQueue | None:
    """The queue of a subject; None for one that is not a queue's."""
    try:
        return GenerationQueue.parse(subject)
    except ValueError:
        return None


async def _parts(
    bus: Bus,
    info: dict[str, Any],
    consumers: Sequence[dict[str, Any]],
    subjects: dict[str, int],
    held: dict[GenerationQueue, HeldQueue],
    max_ages: int,
) -> list[QueueDepth]:
    name, state = info["config"]["name"], info["state"]
    if name == DEAD:
        letters = QueueDepth(queue=name, waiting=state["messages"], oldest_at=_first_at(state))
        return [letters] if letters.waiting else []
    backlogs = [_of_consumer(name, each) for each in consumers if _is_used(info, each)]
    served = {backlog.filter for backlog in backlogs}
    if name == GenerationQueue.STREAM:  # a model that nobody serves has no consumer
        alone = [(subject, count) for subject, count in subjects.items() if subject not in served]
        backlogs += [_of_subject(name, subject, count, state["first_seq"]) for subject, count in alone]
    parts: list[QueueDepth] = []
    for group in _by_priority(backlogs):
        found = await stored_times(bus, name, group, max_ages)
        parts += [replace(each.part, oldest_at=found.get(each.filter)) for each in group]
    if name == GenerationQueue.STREAM:
        parts = [_with_held(part, held) for part in parts]
    return [part for part in parts if part.waiting or part.in_progress]


def _is_used(stream: dict[str, Any], consumer: dict[str, Any]) -> bool:
    """Whether anyone has ever pulled: without MongoDB no event of LOGS waits to be shipped."""
    pulled = consumer["delivered"]["consumer_seq"] or consumer["num_waiting"]
    return bool(pulled) or stream["config"]["retention"] == "workqueue"


def _of_consumer(queue: str, info: dict[str, Any]) -> PartBacklog:
    subject, pending = info["config"].get("filter_subject", ">"), info["num_pending"]
    priority, model = _place_of(subject)
    part = QueueDepth(
        queue=queue, priority=priority, model=model, waiting=pending, in_progress=info["num_ack_pending"]
    )
    return PartBacklog(part, pending, subject, info["delivered"]["stream_seq"] + 1)


def _of_subject(queue: str, subject: str, count: int, first: int) -> PartBacklog:
    priority, model = _place_of(subject)
    return PartBacklog(
        QueueDepth(queue=queue, priority=priority, model=model, waiting=count), count, subject, first
    )


def _place_of(subject: str) -> tuple[str, str]:
    """The priority and the model of a filter such as `runs.batch.>` or `generations.batch.m`."""
    queue = _generations(subject)
    if queue is not None:
        return queue.priority, queue.model
    priority = subject.split(".")[1] if subject.startswith("runs.") else ""
    return (priority if priority in set(Priority) else ""), ""


def _by_priority(backlogs: Iterable[PartBacklog]) -> Iterator[list[PartBacklog]]:
    """Those of each priority, the ones whose oldest message may be oldest first."""
    ordered = sorted(backlogs, key=lambda each: (each.part.priority, each.from_sequence))
    for _, group in groupby(ordered, key=lambda each: each.part.priority):
        yield list(group)


def _with_held(part: QueueDepth, held: dict[GenerationQueue, HeldQueue]) -> QueueDepth:
    found = held.get(GenerationQueue(Priority(part.priority), part.model)) if part.priority else None
    if found is None or not part.in_progress:
        return part
    count = min(found.count, part.in_progress)  # some may have been acknowledged meanwhile
    oldest = found.oldest_at if part.oldest_at is None else min(found.oldest_at, part.oldest_at)
    return replace(part, waiting=part.waiting + count, in_progress=part.in_progress - count, oldest_at=oldest)


def _stream(info: dict[str, Any], subjects: dict[str, int]) -> StreamDepth:
    config, state = info["config"], info["state"]
    return StreamDepth(
        name=config["name"],
        messages=state["messages"],
        bytes=state["bytes"],
        max_messages=max(0, config.get("max_msgs", 0)),
        max_bytes=max(0, config.get("max_bytes", 0)),
        fullest_subject=max(subjects.values(), default=0),
        max_per_subject=max(0, config.get("max_msgs_per_subject", 0)),
        refuses=config.get("discard") == "new",
        first_at=_first_at(state),
        replicas_missing=sum(
            bool(each.get("offline")) or not each.get("current")
            for each in (info.get("cluster") or {}).get("replicas") or ()
        ),
    )


def _consumer(info: dict[str, Any]) -> ConsumerDepth:
    priority, model = _place_of(info["config"].get("filter_subject", ">"))
    return ConsumerDepth(
        name=info["name"],
        queue=info["stream_name"],
        priority=priority,
        model=model,
        ack_pending=info["num_ack_pending"],
        max_ack_pending=max(0, info["config"].get("max_ack_pending", 0)),
        redelivered=info["num_redelivered"],
    )


def _first_at(state: dict[str, Any]) -> float | None:
    return unix_time(state["first_ts"]) if state["messages"] else None
