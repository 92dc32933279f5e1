"""The pages that only read: models, health, metrics, and an index."""

from __future__ import annotations

from typing import Any

from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from pydantic_core import to_json

from actors.gateway.gateway import Gateway
from actors.gateway.http_context import HttpContext
from orchestration.errors import UnknownModel
from orchestration.messages import ModelCard
from orchestration.patterns.pattern_json import catalogue_json
from orchestration.virtual_models import pattern_name

TEXT = (b"content-type", b"text/plain; charset=utf-8")
METRICS = (b"content-type", CONTENT_TYPE_LATEST.encode())
INDEX = b"""Orchestra

POST /v1/chat/completions   answers of a model, or of a pattern: model "orchestra/maestro"
POST /v1/completions        plain text, continued
POST /v1/embeddings         vectors
GET  /v1/models             what can be asked for now
GET  /v1/patterns           the patterns, with their settings
POST /v1/jobs               a chat to be answered later: GET /v1/jobs/ID, DELETE to take it back
GET  /healthz               200 while this process runs
GET  /readyz                200 while it can answer, else 503 saying what is missing
GET  /metrics               for Prometheus

Request headers: Authorization: Bearer KEY (where callers are set), X-Request-Timeout (seconds), traceparent.
Every answer has an X-Request-Id, the caller's own where it sent one, and names its run in X-Orchestra-Run.
Where answers are kept (temperature 0, a seed, embeddings), X-Orchestra-Cache says hit, shared or miss; the
body may say "cache": {"ttl": SECONDS, "force": true} or {"no_store": true}.
The same chats over NATS: request orchestra.chat with the body of /v1/chat/completions.
"""


class StatusRoutes:
    """Handlers for exchanges; nothing here waits for the bus."""

    def __init__(self, gateway: Gateway) -> None:
        self.gateway = gateway
        self._patterns = to_json(catalogue_json(gateway.resolver.catalogue))

    async def models(self, context: HttpContext) -> None:
        cards = self.gateway.resolver.cards
        entries = [self._real(card) for _, card in sorted(cards.items())]
        if cards:
            entries += [self._virtual(name) for name in self.gateway.resolver.catalogue.virtual_models]
        await context.answer(200, to_json({"object": "list", "data": entries}))

    async def model(self, context: HttpContext) -> None:
        """`/v1/models/<id>`; the id may hold slashes."""
        name = context.path.removeprefix("/v1/models/")
        resolver = self.gateway.resolver
        card = resolver.cards.get(name)
        if card is not None:
            await context.answer(200, to_json(self._real(card)))
        elif name in resolver.catalogue.virtual_models:
            await context.answer(200, to_json(self._virtual(name)))
        else:
            raise UnknownModel.of(name, resolver.known())

    async def patterns(self, context: HttpContext) -> None:
        await context.answer(200, self._patterns)

    async def healthz(self, context: HttpContext) -> None:
        await context.answer(200, b'{"status":"ok"}')

    async def readyz(self, context: HttpContext) -> None:
        missing = self.gateway.missing()
        if not missing:
            await context.answer(200, b'{"status":"ready"}')
            return
        body = to_json({"status": "not ready", "missing": missing})
        await context.answer(503, body, (b"retry-after", b"1"))

    async def metrics(self, context: HttpContext) -> None:
        await context.answer(200, generate_latest(), kind=METRICS)

    async def index(self, context: HttpContext) -> None:
        await context.answer(200, INDEX, kind=TEXT)

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
