"""Web pages as documents: only where it is allowed, from public addresses, and bounded."""

from __future__ import annotations

import gzip
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest
from aiohttp import web

from actors.knowledge.errors import DocumentTooLarge, FetchFailed, NotAllowed
from actors.knowledge.fetch import Fetcher
from actors.knowledge.settings import KnowledgeSettings
from actors.knowledge.sources import read_source

OPEN = KnowledgeSettings(allow_urls=True, private_addresses=True, fetch_timeout_s=20)
PUBLIC = KnowledgeSettings(allow_urls=True)


def moved(place: str) -> Callable[[web.Request], Awaitable[web.Response]]:
    async def answer(request: web.Request) -> web.Response:
        return web.Response(status=302, headers={"Location": place})

    return answer


async def page(request: web.Request) -> web.Response:
    return web.Response(text="<html><body><p>Hello</p></body></html>", content_type="text/html")


async def endless(request: web.Request) -> web.StreamResponse:
    response = web.StreamResponse()
    await response.prepare(request)
    while True:
        await response.write(b"x" * 65_536)


async def packed(request: web.Request) -> web.Response:
    return web.Response(body=gzip.compress(b"0" * 10_000_000), headers={"Content-Encoding": "gzip"})


@pytest.fixture
async def site() -> AsyncIterator[str]:
    app = web.Application()
    app.router.add_get("/page", page)
    app.router.add_get("/endless", endless)
    app.router.add_get("/packed", packed)
    app.router.add_get("/moved", moved("/page"))
    app.router.add_get("/loop", moved("/loop"))
    app.router.add_get("/file", moved("file:///etc/passwd"))
    app.router.add_get("/password", moved("http://user:word@127.0.0.1/page"))
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    socket = web.TCPSite(runner, "127.0.0.1", 0)
    await socket.start()
    yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    await runner.cleanup()


async def test_a_page_is_fetched_where_the_settings_allow_it_also_when_it_was_moved(site: str) -> None:
    for path in ("/page", "/moved"):
        found = await read_source(site + path, OPEN)
        assert found.kind == "html"
        assert b"Hello" in found.data


async def test_nothing_is_fetched_unless_the_settings_allow_it(site: str) -> None:
    with pytest.raises(NotAllowed, match=r"set knowledge\.allow_urls"):
        await Fetcher(KnowledgeSettings()).fetch(site + "/page")


@pytest.mark.parametrize(
    "host",
    [
        *("127.0.0.1", "localhost", "localhost.", "127.1", "2130706433", "0x7f000001", "[::1]", "10.0.0.1"),
        *("169.254.169.254", "192.168.1.1", "[::ffff:127.0.0.1]", "[fe80::1]", "0.0.0.0"),
    ],
)
async def test_an_address_that_is_not_public_is_refused_however_it_is_written(host: str) -> None:
    with pytest.raises(NotAllowed, match="not public"):
        await Fetcher(PUBLIC).fetch(f"http://{host}:9/page")


async def test_a_name_that_leads_to_an_address_which_is_not_public_is_refused_when_it_is_looked_up(
    site: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def resolve(self: object, host: str, port: int, family: object) -> list[dict[str, object]]:
        return [{"hostname": host, "host": "127.0.0.1", "port": port, "family": 2, "proto": 0, "flags": 0}]

    monkeypatch.setattr("aiohttp.resolver.ThreadedResolver.resolve", resolve)
    with pytest.raises(NotAllowed, match=r"innocent\.example resolves to 127\.0\.0\.1"):
        await Fetcher(PUBLIC).fetch(site.replace("127.0.0.1", "innocent.example") + "/page")


@pytest.mark.parametrize(
    ("path", "error", "said"),
    [
        ("/file", NotAllowed, "by the scheme 'file'"),
        ("/password", NotAllowed, "password"),
        ("/loop", FetchFailed, "more than 5 redirects"),
        ("/nothing", FetchFailed, "answered 404"),
        ("/packed", FetchFailed, "compressed content"),
    ],
)
async def test_each_hop_of_a_redirect_is_looked_at_and_a_bad_answer_is_told(
    site: str, path: str, error: type[Exception], said: str
) -> None:
    with pytest.raises(error, match=said):
        await Fetcher(OPEN).fetch(site + path)


async def test_a_page_without_an_end_is_left_at_the_limit_of_its_size_or_of_its_time(site: str) -> None:
    small = OPEN.model_copy(update={"max_document_mb": 1.0})
    with pytest.raises(DocumentTooLarge, match=r"exceeds 1 MB \(knowledge\.max_document_mb\)"):
        await Fetcher(small).fetch(site + "/endless")
    short = OPEN.model_copy(update={"max_document_mb": 1_000.0, "fetch_timeout_s": 0.05})
    with pytest.raises(FetchFailed, match=r"0\.05 s \(knowledge\.fetch_timeout_s\)"):
        await Fetcher(short).fetch(site + "/endless")


async def test_a_server_that_is_not_there_is_told(site: str) -> None:
    with pytest.raises(FetchFailed, match="cannot fetch it"):
        await Fetcher(OPEN).fetch("http://127.0.0.1:1/page")
