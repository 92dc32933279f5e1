"""Documents from the web: bounded in time and size, and never from an address that is not public."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from pathlib import PurePosixPath

from aiohttp import ClientError, ClientResponse, ClientSession, ClientTimeout, DummyCookieJar, TCPConnector
from yarl import URL

from actors.knowledge.errors import DocumentTooLarge, FetchFailed, NotAllowed
from actors.knowledge.settings import KnowledgeSettings
from actors.net.public_addresses import PrivateAddress, is_private
from actors.net.public_resolver import PublicResolver

MB = 1_000_000
REDIRECTS = 5
_MOVED = (301, 302, 303, 307, 308)
_ACCEPTED = "text/html, text/plain, text/markdown, application/pdf, application/xhtml+xml"


@dataclass(frozen=True, slots=True)
class WebPage:
    """A fetched document. `content_type` has no parameters."""

    data: bytes
    name: str
    content_type: str


def is_url(source: str) -> bool:
    """Whether it is a web address, not a file."""
    return source.lower().startswith(("http://", "https://"))


class Fetcher:
    """Fetches documents; checks each redirect like the first URL."""

    def __init__(self, settings: KnowledgeSettings) -> None:
        self.settings = settings

    async def fetch(self, source: str) -> WebPage:
        """Raises `NotAllowed`, `DocumentTooLarge`, and `FetchFailed` with the reason."""
        if not self.settings.allow_urls:
            raise NotAllowed("web pages are not allowed: set knowledge.allow_urls")
        resolver = None if self.settings.private_addresses else PublicResolver()
        try:
            async with (
                asyncio.timeout(self.settings.fetch_timeout_s),
                ClientSession(
                    connector=TCPConnector(resolver=resolver, force_close=True),
                    headers={"User-Agent": "orchestra", "Accept": _ACCEPTED, "Accept-Encoding": "identity"},
                    cookie_jar=DummyCookieJar(),
                    timeout=ClientTimeout(total=None),
                    auto_decompress=False,
                    trust_env=False,
                ) as session,
            ):
                return await self._followed(session, source)
        except TimeoutError as error:
            limit = self.settings.fetch_timeout_s
            raise FetchFailed(f"not fetched within {limit:g} s (knowledge.fetch_timeout_s)") from error
        except (ClientError, OSError, ValueError) as error:
            if isinstance(error.__cause__ or error, PrivateAddress):
                raise NotAllowed(self._not_public(str(error.__cause__ or error))) from error
            raise FetchFailed(f"cannot fetch it: {error}") from error

    async def _followed(self, session: ClientSession, source: str) -> WebPage:
        url = self._checked(URL(source))
        for _ in range(REDIRECTS + 1):
            async with session.get(url, allow_redirects=False) as answer:
                location = answer.headers.get("Location")
                if answer.status in _MOVED and location:
                    url = self._checked(url.join(URL(location)))
                    continue
                if answer.status != 200:
                    raise FetchFailed(f"the server answered {answer.status} {answer.reason or ''}".rstrip())
                if answer.headers.get("Content-Encoding", "identity") != "identity":
                    raise FetchFailed(
                        "the server sent compressed content although uncompressed was requested"
                    )
                return WebPage(await self._body(answer), PurePosixPath(url.path).name, answer.content_type)
        raise FetchFailed(f"more than {REDIRECTS} redirects")

    async def _body(self, answer: ClientResponse) -> bytes:
        limit = self.settings.max_document_mb * MB
        data = bytearray()
        async for part in answer.content.iter_any():
            data += part
            if len(data) > limit:
                raise DocumentTooLarge(
                    f"it exceeds {self.settings.max_document_mb:g} MB (knowledge.max_document_mb)"
                )
        return bytes(data)

    def _checked(self, url: URL) -> URL:
        """The URL if it may be fetched. `PublicResolver` checks the addresses of a host name again when it
        resolves it for the connection."""
        if url.scheme not in ("http", "https") or not url.host:
            raise NotAllowed(
                f"cannot fetch documents by the scheme {url.scheme or ''!r}: write http or https"
            )
        if url.user or url.password:
            raise NotAllowed("leave out user and password: the URL is stored in the knowledge base")
        private = is_private(url.host) or url.host.lower().rstrip(".") == "localhost"
        if private and not self.settings.private_addresses:
            raise NotAllowed(self._not_public(f"it leads to {url.host}, which is not public"))
        return url

    @staticmethod
    def _not_public(what: str) -> str:
        return f"{what} (knowledge.private_addresses is false)"
