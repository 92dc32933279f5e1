"""The HTTP client of webhooks."""

from __future__ import annotations

from collections.abc import Mapping

from aiohttp import ClientError, ClientSession, ClientTimeout, DummyCookieJar, TCPConnector

from actors.jobs.settings import WebhookSettings
from actors.net.public_addresses import PrivateAddress, check_url
from actors.net.public_resolver import PublicResolver
from orchestration.errors import BackendFailed, InvalidRequest


class WebhookClient:
    """Calls webhooks over HTTP, at most `concurrency` of them at once. Call `close` at the end."""

    def __init__(self, settings: WebhookSettings) -> None:
        self.settings = settings
        resolver = None if settings.private_addresses else PublicResolver()
        self._session = ClientSession(
            connector=TCPConnector(limit=settings.concurrency, resolver=resolver, force_close=True),
            headers={"Content-Type": "application/json", "User-Agent": "orchestra"},
            cookie_jar=DummyCookieJar(),
            timeout=ClientTimeout(total=settings.timeout_s),
            auto_decompress=False,
            trust_env=False,
        )

    async def close(self) -> None:
        await self._session.close()

    async def post(self, webhook: str, body: bytes, headers: Mapping[str, str]) -> int:
        """Return the status of the answer. Raises `InvalidRequest` where no later call can succeed, and
        `BackendFailed`."""
        url = check_url(webhook, private=self.settings.private_addresses)
        try:
            async with self._session.post(url, data=body, headers=headers, allow_redirects=False) as answer:
                return answer.status
        except (ClientError, OSError, TimeoutError) as error:
            if isinstance(getattr(error, "os_error", error), PrivateAddress):
                raise InvalidRequest(f"the webhook leads to a private address: {error}") from error
            raise BackendFailed(f"the webhook cannot be reached: {type(error).__name__}") from error
