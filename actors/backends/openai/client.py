"""The HTTP client of one upstream, with a bounded pool of connections, and its responses."""

from __future__ import annotations

import asyncio
import time
from io import BytesIO

from aiohttp import (
    ClientConnectionError,
    ClientConnectorError,
    ClientError,
    ClientResponse,
    ClientSession,
    ClientTimeout,
    ConnectionTimeoutError,
    DummyCookieJar,
    TCPConnector,
)
from yarl import URL

from actors.backends.openai.backoff import retry_after_s
from actors.backends.openai.errors import Upstream, response_error
from actors.backends.openai.settings import OpenAISettings
from actors.runtime.envelope import TRACE, current_envelope
from orchestration.errors import BackendFailed, NoOutput, Unavailable
from orchestration.messages import Generation

_KEEPALIVE_S = 15.0
_BLOCKING_BYTES = 1 << 18
"""Larger bodies are sent in chunks: aiohttp writes bytes at once, and warns from 1 MiB on."""
_ERROR_BYTES = 64 << 10
"""Maximum bytes read of an error's body."""
_ERROR_TIMEOUT_S = 5.0
_PAGES = ("text/html", "application/xhtml")
_DRAIN_TIMEOUT_S = 0.25


class UpstreamResponse:
    """Status, then blocks. `close` returns the connection to the pool, or cuts it if unread data is left.

    The first byte must arrive before `deadline` (event loop time), further ones within `first_byte_timeout_s`
    until text flows, and within `chunk_timeout_s` then. Time spent by the consumer does not count.
    """

    __slots__ = ("_deadline", "_response", "_settings", "_upstream", "flows")

    def __init__(
        self, response: ClientResponse, settings: OpenAISettings, upstream: Upstream, deadline: float
    ) -> None:
        self._response = response
        self._settings = settings
        self._upstream = upstream
        self._deadline: float | None = deadline
        self.flows = False
        """Whether text has arrived; set by the consumer."""

    @property
    def status(self) -> int:
        return self._response.status

    @property
    def streamed(self) -> bool:
        """False for a single JSON object; without a content type a stream is assumed."""
        return not self._response.headers.get("Content-Type", "").lower().startswith("application/json")

    async def check(self, generation: Generation | None) -> None:
        """Raises the `response_error` of an error status, and `BackendFailed` for a web page."""
        status, headers = self._response.status, self._response.headers
        if 200 <= status < 300:
            if headers.get("Content-Type", "").lower().startswith(_PAGES):
                page = (await self._beginning()).decode("utf-8", "replace")
                raise self._elsewhere(f"with a web page: {self._upstream.shorten(page)}")
            return
        if 300 <= status < 400:
            where = self._upstream.shorten(headers.get("Location", "elsewhere"))
            raise self._elsewhere(f"{status} and points to {where}")
        wait_s = retry_after_s(headers, time.time())
        body = await self._beginning()
        raise response_error(self._upstream, status, body, generation=generation, retry_after_s=wait_s)

    def _elsewhere(self, what: str) -> BackendFailed:
        return BackendFailed(
            f"{self._upstream.host} answered {what}; check base_url {self._settings.base_url}"
        )

    async def _beginning(self) -> bytes:
        """The beginning of an error's body; empty if it does not arrive in time."""
        body = b""
        try:
            async with asyncio.timeout(_ERROR_TIMEOUT_S):
                while len(body) < _ERROR_BYTES and (block := await self._response.content.readany()):
                    body += block
        except (TimeoutError, ClientError):
            pass  # the status says enough
        return body[:_ERROR_BYTES]

    async def whole(self) -> bytes:
        """The whole body. Raises `BackendFailed` if it is too long, late or cut off."""
        blocks: list[bytes] = []
        size = 0
        while block := await self.block():
            blocks.append(block)
            size += len(block)
            if size > self._settings.max_answer_bytes:
                limit = self._settings.max_answer_bytes
                raise BackendFailed(
                    f"an answer of {self._upstream.host} exceeds {limit} bytes (max_answer_bytes)"
                )
        return b"".join(blocks)

    async def block(self, *, ended: bool = False) -> bytes:
        """The next bytes, `b""` at the end. Raises `BackendFailed` if they are late or the stream is cut off.

        With `ended` the answer is already complete, and silence or a cut is its end.
        """
        content = self._response.content
        deadline, self._deadline = self._deadline, None
        try:
            if data := content.read_nowait():
                return data
        except ClientError:
            pass  # raised below
        limit = self._settings.tail_timeout_s if ended else self._limit_s
        if deadline is None and limit is not None:
            deadline = asyncio.get_running_loop().time() + limit
        try:
            async with asyncio.timeout_at(deadline):
                return await content.readany()
        except TimeoutError as error:
            if ended:
                return b""
            raise self._late() from error
        except ClientError as error:
            if ended:
                return b""
            raise BackendFailed(f"{self._upstream.host} cut the answer before its end") from error

    @property
    def _limit_s(self) -> float | None:
        return self._settings.chunk_timeout_s if self.flows else self._settings.first_byte_timeout_s

    async def drain(self) -> None:
        """Read what follows the end marker, so that the connection can be reused."""
        content = self._response.content
        if content.at_eof():
            return
        try:
            async with asyncio.timeout(_DRAIN_TIMEOUT_S):
                while await content.readany():
                    pass
        except (TimeoutError, ClientError):
            pass  # `close` cuts the connection then

    def close(self) -> None:
        self._response.close()

    def _late(self) -> BackendFailed:
        name = "chunk_timeout_s" if self.flows else "first_byte_timeout_s"
        return NoOutput(f"{self._upstream.host} stalled: no data within {self._limit_s:g} s ({name})")


def _trace() -> dict[str, str] | None:
    """The header that makes spans of the upstream children of ours."""
    trace = current_envelope.get().trace
    return {TRACE: trace} if trace else None


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
                    response = await self._session.request(
                        method, url, data=data, headers=_trace(), allow_redirects=False
                    )
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
                detail = self.upstream.shorten(getattr(error, "message", "") or type(error).__name__)
                raise BackendFailed(f"{settings.host} sent an invalid HTTP response: {detail}") from error
