"""`/v1/jobs` over HTTP."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from urllib.parse import parse_qs

from pydantic_core import to_json

from actors.gateway.http_context import HttpContext
from actors.gateway.job_submission import JobsApi
from actors.runtime.envelope import Envelope
from orchestration.errors import InvalidRequest

Handler = Callable[[HttpContext], Awaitable[None]]
PATH = "/v1/jobs"
DEFAULT_LIMIT = 20
REPLAYED = (b"idempotent-replayed", b"true")


class JobsRoutes:
    """`table` has the path of all jobs; `found` knows those of single ones."""

    def __init__(self, api: JobsApi) -> None:
        self.api = api
        self.table: dict[str, dict[str, Handler]] = {
            PATH: {"POST": self.submit, "GET": self.list, "HEAD": self.list}
        }
        self._one: dict[str, Handler] = {"GET": self.get, "HEAD": self.get, "DELETE": self.cancel}

    def found(self, path: str) -> tuple[str, dict[str, Handler]] | None:
        """The route of `/v1/jobs/<id>` and its methods."""
        if path.startswith(PATH + "/") and len(path) > len(PATH) + 1:
            return PATH + "/{id}", self._one
        return None

    async def submit(self, context: HttpContext) -> None:
        """202 for a new job, 200 for one that its Idempotency-Key names."""
        settings = self.api.gateway.settings
        raw = await context.body(settings.max_body_bytes, settings.body_timeout_s)
        envelope = Envelope(trace=context.trace, caller=context.caller)
        key = context.header(b"idempotency-key")
        job, fresh = await self.api.submit(raw, key, envelope)
        where = (b"location", f"{PATH}/{job['id']}".encode())
        run = (b"x-orchestra-run", job["id"].encode())
        if fresh:
            await context.answer(202, to_json(job), where, run)
        else:
            await context.answer(200, to_json(job), where, run, REPLAYED)

    async def get(self, context: HttpContext) -> None:
        job = await self.api.service.get(_id_of(context), self.api.viewer(context.caller))
        await context.answer(200, to_json(job))

    async def cancel(self, context: HttpContext) -> None:
        job = await self.api.service.cancel(_id_of(context), self.api.viewer(context.caller))
        await context.answer(200, to_json(job))

    async def list(self, context: HttpContext) -> None:
        """`?limit=` jobs, the latest changed first; `?before=` is `next` of the page before."""
        query = parse_qs(context.scope.get("query_string", b"").decode("latin-1"))
        limit = _number(query, "limit", DEFAULT_LIMIT, 1)
        before = _number(query, "before", 0, 0)
        viewer = self.api.viewer(context.caller)
        page = await self.api.service.list(limit=limit, before=before, viewer=viewer)
        await context.answer(200, to_json(page))


def _id_of(context: HttpContext) -> str:
    return context.path.removeprefix(PATH + "/")


def _number(query: dict[str, list[str]], name: str, default: int, least: int) -> int:
    said = query.get(name, [""])[-1]
    if not said:
        return default
    if not (said.isascii() and said.isdecimal() and len(said) < 16 and int(said) >= least):
        raise InvalidRequest(f"{name} {said[:40]!r} is not a number from {least} on", param=name)
    return int(said)
