"""Several gateways hold to the limits of a caller, and of all together, as one does."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import aiohttp

from actors.bus.bus import Bus, BusSettings
from actors.bus.key_value import Bucket
from actors.gateway.admission_settings import CallerLimits, CallerSettings, LimitsSettings
from actors.gateway.gateway import Gateway
from actors.gateway.process import run_gateway
from actors.gateway.settings import GatewaySettings
from actors.runtime.system import ActorSystem
from tests.fixtures.estimates import without_template
from tests.fixtures.eventually import eventually
from tests.fixtures.local_cluster import LocalCluster, local_cluster
from tests.fixtures.nats import RunningNats

PERMITS, TOKENS = 8, 6_000
SETTINGS = GatewaySettings(
    http="127.0.0.1:0",
    callers={
        "alice": CallerSettings(key="key-of-alice", requests_in_flight=PERMITS),
        "bob": CallerSettings(key="key-of-bob", requests_in_flight=1),
        "saver": CallerSettings(key="key-of-saver", tokens_per_minute=TOKENS),
    },
)
FOR_ALL = GatewaySettings(
    http="127.0.0.1:0",
    limits=LimitsSettings(requests_in_flight=3, per_caller=CallerLimits(requests_in_flight=2)),
    callers={name: CallerSettings(key=f"key-of-{name}") for name in ("alice", "bob")},
)


@dataclass(slots=True)
class GatewayClient:
    """A gateway on a connection of its own, and a client of it; `stack` ends both."""

    gateway: Gateway
    http: aiohttp.ClientSession
    bus: Bus
    stack: AsyncExitStack
    model: str
    open: list[aiohttp.ClientResponse] = field(default_factory=list)

    async def begin(self, caller: str, tokens: int = 100_000) -> bool:
        """A stream of many seconds, which `end` leaves; whether it was let in."""
        body: dict[str, Any] = {"model": self.model, "messages": [{"role": "user", "content": "a"}]}
        body |= {"max_tokens": tokens, "stream": True}
        headers = {"Authorization": f"Bearer key-of-{caller}"}
        answer = await self.http.post("/v1/chat/completions", json=body, headers=headers)
        if answer.status == 200:
            self.open.append(answer)
            return True
        answer.release()
        assert (answer.status, int(answer.headers["Retry-After"]) >= 1) == (429, True)
        return False

    async def fill(self, caller: str, count: int) -> None:
        """Come back after refusals, until `count` streams are open."""
        async with asyncio.timeout(30):
            while len(self.open) < count:
                if not await self.begin(caller):
                    await asyncio.sleep(0.05)  # no event says when a caller should come back

    async def end(self, count: int) -> None:
        for _ in range(count):
            self.open.pop().close()
        await eventually(lambda: self.gateway.in_flight == len(self.open))


async def start_gateway(on: LocalCluster, url: str, settings: GatewaySettings = SETTINGS) -> GatewayClient:
    """One more gateway, which sees the node."""
    stack = await on.stack.enter_async_context(AsyncExitStack())
    bus = await Bus.connect(BusSettings(url=url), name="gateway")
    stack.push_async_callback(bus.close)
    running = await stack.enter_async_context(run_gateway(bus, settings, ActorSystem()))
    http = await stack.enter_async_context(aiohttp.ClientSession(running.url))
    await eventually(lambda: running.gateway.registry.serving(on.model))
    without_template(running.gateway, on.model)
    return GatewayClient(running.gateway, http, bus, stack, on.model)


@asynccontextmanager
async def two_gateways(
    nats: RunningNats, settings: GatewaySettings = SETTINGS
) -> AsyncIterator[tuple[LocalCluster, GatewayClient, GatewayClient]]:
    """Two gateways, and a node that says 20 words a second and has room for all."""
    async with local_cluster(nats.url) as on:
        await on.node(slots=64, speed=20)
        await on.dispatcher()
        one, two = [await start_gateway(on, nats.url, settings) for _ in range(2)]
        try:
            yield on, one, two
        finally:
            for each in (one, two):
                await each.end(len(each.open))


async def test_a_burst_at_two_gateways_at_once_gets_one_limit_and_all_of_it(own_nats: RunningNats) -> None:
    async with two_gateways(own_nats) as (_, one, two):
        let_in = await asyncio.gather(*(each.begin("alice") for _ in range(PERMITS) for each in (one, two)))
        assert sum(let_in) == PERMITS


async def test_a_caller_of_one_gateway_has_the_whole_limit_and_the_other_gets_what_becomes_free(
    own_nats: RunningNats,
) -> None:
    async with two_gateways(own_nats) as (_, one, two):
        assert all([await one.begin("alice") for _ in range(PERMITS)])
        assert not await one.begin("alice")
        assert not await two.begin("alice")
        await one.end(3)
        await two.fill("alice", 3)
        assert not await two.begin("alice")
        await one.end(5)
        await two.fill("alice", PERMITS)
        assert not await one.begin("alice")


async def test_a_limit_of_one_goes_to_whichever_gateway_is_asked(own_nats: RunningNats) -> None:
    async with two_gateways(own_nats) as (_, one, two):
        for turn in range(6):
            assert await (one, two)[turn % 2].begin("bob"), turn
            await (one, two)[turn % 2].end(1)
        assert await one.begin("bob")
        assert not await two.begin("bob")


async def test_a_limit_for_all_callers_together_holds_for_all_gateways_together(
    own_nats: RunningNats,
) -> None:
    async with two_gateways(own_nats, FOR_ALL) as (_, one, two):
        let_in = await asyncio.gather(
            *(each.begin(name) for each in (one, two) for name in ("alice", "bob") for _ in range(2))
        )
        assert sum(let_in) <= 3
        await one.end(len(one.open))
        await two.end(len(two.open))
        await two.fill("alice", 2)
        await two.fill("bob", 3)
        assert not await one.begin("bob")


async def test_tokens_are_spent_once_wherever_they_are_spent(own_nats: RunningNats) -> None:
    async with two_gateways(own_nats) as (_, one, two):
        began = asyncio.get_running_loop().time()
        spent = await spend(one, two)
        flowed = (asyncio.get_running_loop().time() - began) * TOKENS / 60
        assert 0.9 * TOKENS <= spent <= TOKENS + flowed


async def test_a_caller_of_one_gateway_has_nearly_all_of_its_tokens_there(own_nats: RunningNats) -> None:
    async with two_gateways(own_nats) as (_, one, two):
        assert await two.begin("saver", 200), "a little more lies here from now on"
        assert await spend(one) >= 0.85 * TOKENS
        assert not await two.begin("saver", TOKENS // 2)


async def spend(*at: GatewayClient) -> int:
    """Begin streams of 200 tokens, here and there, until no gateway lets one in; the tokens of all. None are
    given back meanwhile, for no stream has ended."""
    spent, refused = 0, 0
    for turn in itertools.count():
        if await at[turn % len(at)].begin("saver", 200):
            spent, refused = spent + 200, 0
        else:
            refused += 1
        if refused == 2 * len(at):
            break
    return spent


async def test_the_quota_of_a_gateway_that_failed_or_left_goes_to_the_others(
    own_nats: RunningNats,
) -> None:
    async with two_gateways(own_nats) as (on, one, two):
        assert all([await one.begin("alice") for _ in range(PERMITS)])
        assert not await two.begin("alice")
        await one.bus.close()  # it says nothing more, as one that was killed
        await one.end(PERMITS)
        await two.fill("alice", PERMITS)
        three = await start_gateway(on, own_nats.url)
        assert not await three.begin("alice")
        await two.end(PERMITS)
        await two.stack.aclose()
        await three.fill("alice", PERMITS)
        assert not await three.begin("alice")
        await three.end(PERMITS)


async def test_a_single_gateway_writes_no_ledger_and_enters_its_use_when_another_joins(
    own_nats: RunningNats,
) -> None:
    async with local_cluster(own_nats.url) as on:
        await on.node(slots=64, speed=20)
        await on.dispatcher()
        one = await start_gateway(on, own_nats.url)
        assert all([await one.begin("alice") for _ in range(6)])
        assert await one.begin("saver", 5_000)
        assert (await Bucket(on.bus, "limits").get("caller alice")) is None
        two = await start_gateway(on, own_nats.url)
        assert [await two.begin("alice") for _ in range(3)] == [True, True, False]
        assert not await two.begin("saver", 2_000)
        assert await two.begin("saver", 500)
        for each in (one, two):
            await each.end(len(each.open))
