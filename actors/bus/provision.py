"""Applies the declaration to a server, over JetStream's JSON API. Safe to repeat, and to run concurrently."""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import groupby
from typing import Any, Protocol

from actors.bus.declarations import Config, ConsumerDeclaration, Declaration, shipped_declaration
from actors.bus.drift import Drift, Remedy, ServerState, diff, stream_configs
from orchestration.errors import BusUnavailable, DeadlineExceeded, NoResponders, Unavailable

log = logging.getLogger(__name__)

_TIMEOUT_S = 10.0
"""Creating a stream makes folders and, in a cluster, elects a leader."""
_PAUSE_S = 0.5
_TEMPORARILY_UNAVAILABLE = 10008
_STREAM_NOT_FOUND = 10059
CONSUMER_NOT_FOUND = 10014


class ApiReply(Protocol):
    @property
    def data(self) -> bytes: ...


class Requester(Protocol):
    """The part of `Bus` that this module uses."""

    async def request(self, subject: str, data: bytes = b"", *, timeout: float | None = None) -> ApiReply: ...


class JetStreamError(Unavailable):
    """JetStream answered with an error; `err_code` is its own number for it."""

    retryable = False

    def __init__(self, message: str, err_code: int = 0) -> None:
        super().__init__(message)
        self.err_code = err_code


async def apply(
    bus: Requester, declaration: Declaration, *, replicas: int = 1, dry_run: bool = False
) -> list[Drift]:
    """Change the server to match the declaration; returns the differences, `applied` set on the removed ones.

    An empty list means that nothing differed. Nothing is ever deleted. With `dry_run` nothing is changed. A
    difference that the server refuses to remove has the server's error in `refusal`; the others are still
    applied. Raises `BusUnavailable` when the server has no JetStream.
    """
    drifts = diff(declaration, await read_server_state(bus, declaration), replicas=replicas)
    if dry_run or not drifts:
        return drifts
    configs = stream_configs(declaration, replicas=replicas)
    results: list[Drift] = []
    # One after another, streams first: a consumer needs its stream.
    for (kind, stream, name), group in groupby(drifts, key=lambda each: (each.kind, each.stream, each.name)):
        config = configs[name] if kind == "stream" else _consumer_config(declaration, stream, name)
        results += await _apply_drifts(bus, list(group), config)
    for drift in results:
        removed = drift.applied or drift.remedy is Remedy.UNDECLARED
        log.log(logging.INFO if removed else logging.WARNING, "%s", drift)
    return results


async def ensure_consumer(
    bus: Requester, stream: str, name: str, subject: str, *, declaration: Declaration | None = None
) -> None:
    """Create the declared consumer called `name`, from its template; harmless when it exists.

    `subject` is what the caller expects it to serve; `declaration` is the shipped one unless given.
    Raises `KeyError` when no such consumer is declared, `JetStreamError`, or `BusUnavailable`.
    """
    consumer = (declaration or shipped_declaration()).stream(stream).consumer(name)
    if consumer is None or consumer.filter != subject:
        raise KeyError(f"no consumer {name!r} of {subject!r} is declared on stream {stream!r}")
    await _put_consumer(bus, stream, consumer.config())


async def replicate(bus: Requester, streams: Sequence[str], replicas: int) -> bool:
    """Give each stream `replicas` replicas; returns whether all have them. Safe to repeat.

    Streams with as many or more, and streams that do not exist, stay as they are. A cluster with too few
    servers refuses; call this again later. Raises `BusUnavailable`, `JetStreamError`, or
    `DeadlineExceeded` while the cluster has no leader.
    """
    for name in streams:
        present = await _stream_info(bus, name)
        if present is None or present["num_replicas"] >= replicas:
            continue
        try:
            await call_api(bus, f"STREAM.UPDATE.{name}", present | {"num_replicas": replicas})
        except JetStreamError as error:
            log.debug("%s stays with %d replicas: %s", name, present["num_replicas"], error)
            return False
        log.info("stream %s is kept %d times now", name, replicas)
    return True


async def apply_when_ready(
    bus: Requester, declaration: Declaration, *, within_s: float = 60.0
) -> list[Drift]:
    """`apply`, repeated while a cluster elects a leader. Raises like `apply` after `within_s` seconds, and at
    once for errors that waiting does not cure."""
    until = time.monotonic() + within_s
    while True:
        try:
            return await apply(bus, declaration)
        except (DeadlineExceeded, JetStreamError) as error:
            leaderless = isinstance(error, DeadlineExceeded) or error.err_code == _TEMPORARILY_UNAVAILABLE
            if not leaderless or time.monotonic() > until:
                raise
            log.warning("JetStream is not ready yet, retrying: %s", error)
            await asyncio.sleep(_PAUSE_S)


async def read_server_state(bus: Requester, declaration: Declaration) -> ServerState:
    """Read the configurations of the declared streams, buckets and consumers from the server."""
    names = list(stream_configs(declaration, replicas=1))
    infos = await asyncio.gather(*(_stream_info(bus, name) for name in names))
    streams = {name: info for name, info in zip(names, infos, strict=True) if info is not None}
    queues = [stream.name for stream in declaration.streams if stream.name in streams]
    consumers = await asyncio.gather(*(_consumer_list(bus, name) for name in queues))
    return ServerState(streams, dict(zip(queues, consumers, strict=True)))


async def _apply_drifts(bus: Requester, drifts: Sequence[Drift], declared: Config | None) -> list[Drift]:
    """Create or update one stream or consumer; returns its drifts with the outcome."""
    doable = [drift for drift in drifts if drift.remedy in (Remedy.CREATE, Remedy.UPDATE)]
    if not doable or declared is None:
        return list(drifts)
    # Fixed fields are sent with their present values, or the server would refuse the whole update.
    stays = {drift.field: drift.actual for drift in drifts if drift.remedy is Remedy.RECREATE}
    refusal = ""
    try:
        if doable[0].kind == "consumer":
            await _put_consumer(bus, doable[0].stream, declared | stays)
        elif doable[0].remedy is Remedy.CREATE:
            await call_api(bus, f"STREAM.CREATE.{doable[0].name}", declared)
        else:
            await _update_stream(bus, doable[0].name, declared | stays)
    except JetStreamError as error:
        refusal = error.message
    return [
        replace(drift, applied=not refusal, refusal=refusal) if drift in doable else drift for drift in drifts
    ]


async def _update_stream(bus: Requester, name: str, changes: Config) -> None:
    # Merged into the present configuration, so that undeclared fields keep their values.
    present = await _stream_info(bus, name) or {}
    await call_api(bus, f"STREAM.UPDATE.{name}", present | changes)


async def _put_consumer(bus: Requester, stream: str, config: Config) -> None:
    body = {"stream_name": stream, "config": config}
    await call_api(bus, f"CONSUMER.CREATE.{stream}.{config['name']}", body)


async def _stream_info(bus: Requester, name: str) -> Config | None:
    try:
        info = await call_api(bus, f"STREAM.INFO.{name}")
    except JetStreamError as error:
        if error.err_code == _STREAM_NOT_FOUND:
            return None
        raise
    config: Config = info["config"]
    return config


async def _consumer_list(bus: Requester, stream: str) -> dict[str, Config]:
    found: dict[str, Config] = {}
    offset, total = 0, 1
    while offset < total:
        page = await call_api(bus, f"CONSUMER.LIST.{stream}", {"offset": offset})
        consumers = page.get("consumers") or []
        found |= {each["name"]: each["config"] for each in consumers if each["config"].get("durable_name")}
        offset += len(consumers)
        total = page.get("total", 0) if consumers else 0
    return found


async def call_api(bus: Requester, verb: str, body: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """One call of JetStream's API. Raises `JetStreamError` with its error, or `BusUnavailable`."""
    payload = b"" if body is None else json.dumps(body).encode()
    try:
        message = await bus.request(f"$JS.API.{verb}", payload, timeout=_TIMEOUT_S)
    except NoResponders as error:
        raise BusUnavailable("this NATS server has no JetStream: start it with a jetstream block") from error
    answer: dict[str, Any] = json.loads(message.data)
    if problem := answer.get("error"):
        code = int(problem.get("err_code", 0))
        words = problem.get("description", "unknown error")
        raise JetStreamError(f"{words} (JetStream error {code} on {verb})", code)
    return answer


def _consumer_config(declaration: Declaration, stream: str, name: str) -> Config | None:
    consumer: ConsumerDeclaration | None = declaration.stream(stream).consumer(name)
    return consumer.config() if consumer else None
