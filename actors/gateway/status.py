"""Operations that only read the state of this gateway: models, patterns, health, metrics, and an index."""

from __future__ import annotations

import time
from typing import Any

from pydantic_core import to_json

from actors.gateway.errors import NotFound
from actors.gateway.gateway import Gateway
from actors.gateway.operation import CallContext, NoFields, Reply
from actors.runtime.processes import ProcessInfo, list_processes, metrics_of
from actors.telemetry.exposition import CONTENT_TYPE_LATEST, exposition
from orchestration.errors import NoResponders, UnknownModel
from orchestration.messages import ModelCard, Wire
from orchestration.virtual_models import pattern_name

TEXT = (b"content-type", b"text/plain; charset=utf-8")
LISTED_S = 60.0
"""How long a process that does not answer stays listed, in seconds. One that is busy stays the same target,
and one that was killed is seen not to answer."""
METRICS = (b"content-type", CONTENT_TYPE_LATEST.encode())
_INDEX = """Orchestra

{routes}

Request headers: Authorization: Bearer KEY (where callers are configured), X-Request-Timeout (seconds),
traceparent. Every response has an X-Request-Id, the client's own if it sent one, and names its run in
X-Orchestra-Run. Deterministic responses (temperature 0, a seed, embeddings) are cached: X-Orchestra-Cache is
hit, shared or miss, and the body may have "cache": {{"ttl": SECONDS, "force": true}} or {{"no_store": true}}.
The same chats over NATS: request orchestra.chat with the body of /v1/chat/completions.
"""


class ModelId(Wire):
    """The name of a model."""

    model: str
    """Name of a model or of a virtual model; it may have slashes."""


class ProcessId(Wire):
    """The id of a process."""

    id: str
    """Id of the process."""


class StatusRoutes:
    """The handlers; only those for the metrics of other processes wait for the bus. `routes` is the index's
    list of HTTP routes."""

    def __init__(self, gateway: Gateway, routes: str) -> None:
        self.gateway = gateway
        self._index = _INDEX.format(routes=routes).encode()
        self._seen: dict[str, tuple[ProcessInfo, float]] = {}
        """The processes that answered lately, by id, and when they did."""
        self._patterns = to_json(gateway.resolver.catalogue.to_json())

    async def models(self, request: NoFields, call: CallContext) -> Reply:
        cards = self.gateway.resolver.cards
        entries = [self._real(card) for _, card in sorted(cards.items())]
        if cards:
            entries += [self._virtual(name) for name in self.gateway.resolver.catalogue.virtual_models]
        return Reply(body=to_json({"object": "list", "data": entries}))

    async def model(self, request: ModelId, call: CallContext) -> Reply:
        name = request.model
        resolver = self.gateway.resolver
        card = resolver.cards.get(name)
        if card is not None:
            return Reply(body=to_json(self._real(card)))
        if name in resolver.catalogue.virtual_models:
            return Reply(body=to_json(self._virtual(name)))
        raise UnknownModel.of(name, resolver.known())

    async def patterns(self, request: NoFields, call: CallContext) -> Reply:
        return Reply(body=self._patterns)

    async def healthz(self, request: NoFields, call: CallContext) -> Reply:
        return Reply(body=b'{"status":"ok"}')

    async def readyz(self, request: NoFields, call: CallContext) -> Reply:
        missing = self.gateway.missing()
        if not missing:
            return Reply(body=b'{"status":"ready"}')
        body = to_json({"status": "not ready", "missing": missing})
        return Reply(body=body, status=503, headers=((b"retry-after", b"1"),))

    async def metrics(self, request: NoFields, call: CallContext) -> Reply:
        return Reply(body=await exposition(), content_type=METRICS)

    async def process_metrics(self, request: ProcessId, call: CallContext) -> Reply:
        try:
            return Reply(body=await metrics_of(self.gateway.bus, request.id), content_type=METRICS)
        except NoResponders as error:
            raise NotFound(f"no such process: {request.id[:200]!r}; /metrics/targets lists them") from error

    async def targets(self, request: NoFields, call: CallContext) -> Reply:
        """The processes as Prometheus' HTTP service discovery takes them, all to be scraped through this
        gateway, at the address that the request came to."""
        host = call.header("host")
        now = time.monotonic()
        self._seen |= {each.id: (each, now) for each in await list_processes(self.gateway.bus)}
        self._seen = {id: seen for id, seen in self._seen.items() if now - seen[1] < LISTED_S}
        processes = [self._seen[id][0] for id in sorted(self._seen)]
        return Reply(
            body=to_json(
                [
                    {
                        "targets": [host],
                        "labels": {
                            "__metrics_path__": f"/metrics/processes/{each.id}",
                            "instance": each.id,
                            "role": each.role,
                            "host": each.host,
                        },
                    }
                    for each in processes
                ]
            )
        )

    async def index(self, request: NoFields, call: CallContext) -> Reply:
        return Reply(body=self._index, content_type=TEXT)

    def _real(self, card: ModelCard) -> dict[str, Any]:
        nodes = self.gateway.registry.serving(card.name)
        return {
            "id": card.name,
            "object": "model",
            "created": int(min((node.started_at for node in nodes), default=0)),
            "owned_by": "orchestra",
            "orchestra": {
                "kind": card.kind,
                "context_tokens": card.context_tokens,
                "parameters": card.parameters,
                "nodes": sorted(node.id for node in nodes),
            },
        }

    def _virtual(self, name: str) -> dict[str, Any]:
        return {
            "id": name,
            "object": "model",
            "created": 0,
            "owned_by": "orchestra",
            "orchestra": {"kind": "pattern", "pattern": pattern_name(name)},
        }
