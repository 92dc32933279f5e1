"""Standing orders: two operators at once, followers, and a connection that was cut."""

from __future__ import annotations

import asyncio
from uuid import uuid4

import pytest

from actors.bus.bus import Bus, BusSettings
from actors.bus.declarations import shipped_declaration
from actors.bus.key_value import Bucket
from actors.bus.provision import apply
from actors.cluster import orders as module
from actors.cluster.orders import BUCKET, KEY, MAX_ORDERS, CacheClear, Edit, Order, OrderBook, Orders
from orchestration.errors import InvalidRequest
from tests.fixtures.eventually import eventually
from tests.fixtures.nats import RunningNats
from tests.fixtures.proxy import proxy_to


@pytest.fixture
async def server(own_nats: RunningNats) -> RunningNats:
    bus = await Bus.connect(BusSettings(url=own_nats.url), name="setup")
    await apply(bus, shipped_declaration())
    await bus.close()
    return own_nats


async def book_at(url: str) -> OrderBook:
    bus = await Bus.connect(BusSettings(url=url, reconnect_wait_s=0.05), name=f"book-{uuid4().hex[:4]}")
    book = OrderBook(bus)
    await book.start()
    return book


async def close(*books: OrderBook) -> None:
    for book in books:
        await book.stop()
        await book.bus.close()


def paused(queue: str) -> Edit:
    order = Order(by="me", at=1.0, reason="a test")
    return lambda orders: orders.model_copy(update={"paused": orders.paused | {queue: order}})


async def test_of_two_operators_at_once_neither_overwrites_the_other(server: RunningNats) -> None:
    one, other = await book_at(server.url), await book_at(server.url)
    changes = [
        book.change(paused(f"generations/{name}-{number}"))
        for number in range(10)
        for name, book in (("one", one), ("other", other))
    ]
    results = await asyncio.gather(*changes)
    assert sorted(after.number for _, after in results) == list(range(1, 21))
    assert all(after.number == before.number + 1 for before, after in results)
    await eventually(lambda: one.current == other.current)
    assert len(one.current.paused) == len(one.paused_models) == 20
    late = await book_at(server.url)
    assert late.current == one.current
    await close(one, other, late)


async def test_a_change_that_changes_nothing_is_not_written(server: RunningNats) -> None:
    book = await book_at(server.url)
    await book.change(paused("runs"))
    before, after = await book.change(lambda orders: orders)
    assert before == after == book.current
    assert (book.runs_paused, book.current.number) == (True, 1)
    await close(book)


async def test_orders_are_limited(server: RunningNats) -> None:
    book = await book_at(server.url)
    many = {f"generations/{number}": Order(by="me", at=1.0) for number in range(MAX_ORDERS + 1)}
    with pytest.raises(InvalidRequest, match="limit reached: 500 standing orders"):
        await book.change(lambda orders: orders.model_copy(update={"paused": many}))
    assert book.current == Orders()
    await close(book)


async def test_a_follower_whose_connection_was_cut_catches_up(server: RunningNats) -> None:
    operator = await book_at(server.url)
    async with proxy_to(server.port) as proxy:
        follower = await book_at(proxy.url)
        calls: list[int] = []
        follower.on_change.append(lambda: calls.append(follower.current.number))
        proxy.frozen = True
        await operator.change(paused("runs"))
        proxy.cut()
        proxy.frozen = False
        await eventually(lambda: follower.runs_paused)
        assert calls == [1]
        await close(follower)
    await close(operator)


async def test_a_change_that_was_not_heard_of_is_found_by_reading(
    server: RunningNats, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "CHECK_S", 0.05)
    operator, follower = await book_at(server.url), await book_at(server.url)
    assert follower._subscription is not None
    await follower._subscription.unsubscribe()
    await operator.change(paused("generations/m"))
    await eventually(lambda: follower.paused_models == {"m"})
    await close(operator, follower)


async def test_orders_that_were_deleted_or_restored_are_followed(server: RunningNats) -> None:
    operator, follower = await book_at(server.url), await book_at(server.url)
    bucket = Bucket(operator.bus, BUCKET)
    for number in range(3):
        await operator.change(paused(f"generations/{number}"))
    await eventually(lambda: follower.current == operator.current)
    await bucket.delete(KEY)
    await eventually(lambda: follower.current == operator.current == Orders())
    _, after = await operator.change(paused("runs"))
    await eventually(lambda: follower.runs_paused)
    assert after.number == 1
    assert operator.runs_paused
    await close(operator, follower)


async def test_an_entry_that_holds_no_orders_is_named_with_the_way_out(server: RunningNats) -> None:
    book = await book_at(server.url)
    await book.change(paused("runs"))
    await Bucket(book.bus, BUCKET).put(KEY, b"[]")
    with pytest.raises(InvalidRequest, match=r"holds no orders .*: delete the key"):
        await book.change(paused("generations/m"))
    assert book.runs_paused
    await close(book)


def test_a_clear_covers_its_model_and_namespace() -> None:
    book = OrderBook.__new__(OrderBook)
    book.current = Orders()
    assert book.cleared_at("m", "n") == 0
    book.current = Orders(cleared=(CacheClear(model="m", at=1), CacheClear(namespace="n", at=2)))
    assert [book.cleared_at(*each) for each in (("m", "x"), ("x", "n"), ("m", "n"), ("x", "x"))] == [
        1,
        2,
        2,
        0,
    ]
