"""The HTTP client of one upstream, with a bounded pool of connections."""

from __future__ import annotations

import asyncio
from io import BytesIO

from aiohttp import (
    ClientConnectionError,
    ClientConnectorError,
    ClientError,
    ClientSession,
    ClientTimeout,
    ConnectionTimeoutError,
    DummyCookieJar,
    TCPConnector,
)
from yarl import URL

from actors.backends.openai.answer import UpstreamResponse
from actors.backends.openai.errors import Upstream
from actors.backends.openai.settings import OpenAISettings
from orchestration.errors import BackendFailed, NoOutput, Unavailable
from orchestration.messages import Generation

_KEEPALIVE_S = 15.0
_BLOCKING_BYTES = 1 << 18
"""Larger bodies are sent in chunks: aiohttp writes bytes at once, and warns from 1 MiB on."""


class UpstreamClient:
    """Sends requests to one upstream over at most `slots` persistent connections."""

    def __init__(self, settings: OpenAISettings, upstream: Upstream) -> None:
        self.upstream = upstream
        self._settings = settings
        headers = {
            "Content-Type": "application/json",
            "Accept-Encoding": "identity",
            "User-Agent": "orchestra",
        }
        if upstream.api_key is not None:
            headers["Authorization"] = f"Bearer {upstream.api_key}"
        self._session = ClientSession(
            connector=TCPConnector(limit=settings.slots, keepalive_timeout=_KEEPALIVE_S, ttl_dns_cache=60),
            headers=headers,
            cookie_jar=DummyCookieJar(),
            # No total: an answer may take as long as its chunks keep coming. `UpstreamResponse` times the
            # rest.
            timeout=ClientTimeout(total=None, connect=settings.connect_timeout_s),
            # Proxies may compress regardless of Accept-Encoding. Limits apply to the unpacked data.
            auto_decompress=True,
        )

    async def close(self) -> None:
        await self._session.close()

    async def get_or_none(self, url: URL) -> bytes | None:
        """The body at `url`, or None if it does not exist. Raises as `post` does."""
        answer = await self._send("GET", url, None)
        try:
            if answer.status in (404, 405, 501):
                return None
            await answer.check(None)
            return await answer.whole()
        finally:
            answer.close()

    async def post(self, url: URL, body: bytes, generation: Generation) -> UpstreamResponse:
        """The answer to `body`, its status checked; the caller closes it.

        Raises the `response_error` of an error status, `Unavailable` if no connection is made in time, and
        `BackendFailed` if the upstream closes the connection or sends nothing.
        """
        answer = await self._send("POST", url, body)
        try:
            await answer.check(generation)
        except BaseException:
            answer.close()
            raise
        return answer

    async def _send(self, method: str, url: URL, body: bytes | None) -> UpstreamResponse:
        settings = self._settings
        deadline = asyncio.get_running_loop().time() + settings.first_byte_timeout_s
        retried = False
        while True:
            try:
                async with asyncio.timeout_at(deadline):
                    data = BytesIO(body) if body and len(body) > _BLOCKING_BYTES else body
                    response = await self._session.request(method, url, data=data, allow_redirects=False)
                return UpstreamResponse(response, settings, self.upstream, deadline)
            except ConnectionTimeoutError as error:
                limit = settings.connect_timeout_s
                raise Unavailable(f"no connection to {url} within {limit:g} s (connect_timeout_s)") from error
            except TimeoutError as error:
                limit = settings.first_byte_timeout_s
                raise NoOutput(
                    f"{settings.host} sent nothing within {limit:g} s (first_byte_timeout_s)"
                ) from error
            except ClientConnectorError as error:
                raise Unavailable(f"cannot reach {url}: {error.strerror or error}") from error
            except ClientConnectionError as error:
                # A server may close an idle connection just when a request is sent: try once more.
                if retried:
                    raise BackendFailed(f"{settings.host} closed the connection without an answer") from error
                retried = True
            except ClientError as error:
                said = self.upstream.shorten(getattr(error, "message", "") or type(error).__name__)
                raise BackendFailed(f"{settings.host} sent an invalid HTTP response: {said}") from error
