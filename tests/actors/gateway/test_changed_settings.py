"""Settings that are changed while three gateways run: all of them follow, and enforce what is new."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import aiohttp
import pytest

from actors.bus.bus import Bus, BusSettings
from actors.bus.key_value import Bucket
from actors.config.cluster_settings import ClusterSettings, SettingsConflict, UnknownChange
from actors.config.hot_settings import HotSettings
from actors.config.settings_follower import SettingsFollower, followed
from actors.config.settings_writer import ChangeNote, SettingsWriter
from actors.gateway.http import HttpServer
from actors.gateway.process import RunningGateway
from actors.launch.roles import run_gateway_role
from actors.runtime.system import ActorSystem
from actors.settings import Settings
from actors.telemetry.identity import ProcessIdentity
from orchestration.errors import BusUnavailable, InvalidRequest
from orchestration.patterns import BUILT_IN
from tests.fixtures.eventually import eventually
from tests.fixtures.local_cluster import LocalCluster, local_cluster
from tests.fixtures.nats import RunningNats

ALICE, BOB = ChangeNote(by="alice", reason="more room"), ChangeNote(by="bob")
SETTINGS = Settings.model_validate({"gateway": {"http": "127.0.0.1:0"}})


@dataclass(slots=True)
class Gateway:
    """A gateway as in a process of its own: a connection, settings that follow, and a client."""

    running: RunningGateway
    hot: HotSettings[Settings]
    bus: Bus
    http: aiohttp.ClientSession
    writer: SettingsWriter[Settings]
    follower: SettingsFollower
    model: str
    open: list[aiohttp.ClientResponse] = field(default_factory=list)

    async def ask(self, key: str = "", *, stream: bool = False) -> int:
        """The status of a short chat, or of a stream that stays open."""
        body: dict[str, Any] = {"model": self.model, "messages": [{"role": "user", "content": "a"}]}
        body |= {"max_tokens": 100_000 if stream else 1, "stream": stream, "temperature": 1}
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        answer = await self.http.post("/v1/chat/completions", json=body, headers=headers)
        if stream and answer.status == 200:
            self.open.append(answer)
        else:
            answer.release()
        return answer.status

    async def close(self) -> None:
        while self.open:
            self.open.pop().close()
        await eventually(lambda: not self.running.gateway.in_flight)

    async def follows(self, revision: int) -> None:
        await eventually(lambda: self.hot.revision == revision)


@dataclass(slots=True)
class Gateways:
    nats: RunningNats
    cluster: LocalCluster
    every: list[Gateway] = field(default_factory=list)

    @property
    def writer(self) -> SettingsWriter[Settings]:
        return self.every[0].writer

    async def start(self, settings: Settings = SETTINGS, http: HttpServer | None = None) -> Gateway:
        """One more gateway, which sees the node. `http` was bound earlier."""
        stack = await self.cluster.stack.enter_async_context(AsyncExitStack())
        bus = await Bus.connect(BusSettings(url=self.nats.url, reconnect_wait_s=0.05), name="gateway")
        stack.push_async_callback(bus.close)
        hot = HotSettings(settings)
        identity = ProcessIdentity.of_this_process("gateway")
        follower = await stack.enter_async_context(followed(bus, hot, identity))
        running = await stack.enter_async_context(run_gateway_role(bus, hot, ActorSystem(), BUILT_IN, http))
        client = await stack.enter_async_context(aiohttp.ClientSession(running.url))
        await eventually(lambda: running.gateway.registry.serving(self.cluster.model))
        made = Gateway(running, hot, bus, client, SettingsWriter(bus, hot), follower, self.cluster.model)
        self.every.append(made)
        return made

    async def set(self, note: ChangeNote = ALICE, **values: Any) -> int:
        """Change settings, whose names have `__` for the dot; returns the revision that all follow."""
        change = await self.writer.set(
            {name.replace("__", "."): value for name, value in values.items()}, note
        )
        assert change is not None
        for each in self.every:
            await each.follows(change.id)
        return change.id

    async def statuses(self, key: str = "") -> list[int]:
        return [await each.ask(key) for each in self.every]

    async def close(self) -> None:
        for each in self.every:
            await each.close()


@asynccontextmanager
async def gateways(
    nats: RunningNats, count: int = 3, settings: Settings = SETTINGS
) -> AsyncIterator[Gateways]:
    """Gateways, and a node with room for all."""
    async with local_cluster(nats.url) as cluster:
        await cluster.node(slots=64, speed=20)
        await cluster.dispatcher()
        made = Gateways(nats, cluster)
        for _ in range(count):
            await made.start(settings)
        yield made
        await made.close()


async def test_a_limit_that_is_set_holds_at_three_gateways_together(own_nats: RunningNats) -> None:
    async with gateways(own_nats) as on:
        for each in on.every:
            assert await each.ask(stream=True) == 200
        await on.set(gateway__limits__requests_in_flight=4)
        await eventually(
            lambda: all(len(each.running.gateway.shared_limits.peers.peers) == 2 for each in on.every)
        )
        burst = await asyncio.gather(*(each.ask(stream=True) for each in on.every for _ in range(3)))
        assert burst.count(200) <= 1, "three of four were in flight before"
        assert burst.count(429) >= 8
        await on.set(gateway__limits__requests_in_flight=30)
        burst = await asyncio.gather(*(each.ask(stream=True) for each in on.every for _ in range(3)))
        assert burst == [200] * 9


async def test_a_limit_that_is_lowered_ends_nothing_and_refuses_what_is_new(own_nats: RunningNats) -> None:
    async with gateways(own_nats) as on:
        await on.set(gateway__limits__per_caller__requests_in_flight=12)
        for each in on.every:
            for _ in range(3):
                assert await each.ask(stream=True) == 200
        await on.set(gateway__limits__per_caller__requests_in_flight=3)
        assert await on.statuses() == [429] * 3
        assert sum(each.running.gateway.in_flight for each in on.every) == 9
        first = on.every[0]
        await first.close()
        assert await on.statuses() == [429] * 3, "six are in flight elsewhere"
        await on.close()

        async def let_in() -> bool:
            return await first.ask() == 200

        await eventually(let_in)


async def test_tokens_per_minute_are_set_changed_and_unset(own_nats: RunningNats) -> None:
    async with gateways(own_nats) as on:
        await on.set(gateway__limits__per_caller__tokens_per_minute=20, gateway__limits__assumed_tokens=1)
        statuses = [status for _ in range(8) for status in await on.statuses()]
        assert 0 < statuses.count(200) < len(statuses)
        change = await on.writer.unset(["gateway.limits"], ALICE)
        assert change is not None
        for each in on.every:
            await each.follows(change.id)
        assert await on.statuses() == [200] * 3


async def test_a_key_is_added_rotated_and_removed(own_nats: RunningNats) -> None:
    async with gateways(own_nats) as on:
        assert await on.statuses() == [200] * 3
        await on.set(gateway__callers__app__key="first-key-of-app")
        assert await on.statuses() == [401] * 3
        assert await on.statuses("first-key-of-app") == [200] * 3
        assert await on.every[0].ask("first-key-of-app", stream=True) == 200
        await on.set(gateway__callers__app__key="second-key-of-app")
        assert await on.statuses("first-key-of-app") == [401] * 3
        assert await on.statuses("second-key-of-app") == [200] * 3
        assert on.every[0].running.gateway.in_flight == 1, "what was in flight with the old key goes on"
        await on.set(gateway__callers__other__key="key-of-other")
        await on.set(gateway__callers__app=None)
        assert await on.statuses("second-key-of-app") == [401] * 3
        assert await on.statuses("key-of-other") == [200] * 3
        document = await on.writer.document()
        assert "key-of" not in document.model_dump_json(), "keys are stored as hashes only"


async def test_a_value_out_of_range_is_refused_and_changes_nothing(own_nats: RunningNats) -> None:
    async with gateways(own_nats, 1) as on:
        with pytest.raises(InvalidRequest, match=r"gateway\.max_in_flight.*greater than or equal to 1"):
            await on.writer.set({"gateway.limits.queue_depth": 5, "gateway.max_in_flight": 0}, ALICE)
        with pytest.raises(InvalidRequest, match="cannot be changed while processes run"):
            await on.writer.set({"gateway.limits.queue_depth": 5, "gateway.http": "0.0.0.0:80"}, ALICE)
        with pytest.raises(InvalidRequest, match="characters"):
            await on.writer.set({"gateway.callers.app.key": "short"}, ALICE)
        with pytest.raises(InvalidRequest, match=r"gateway\.callers\.app\.key"):
            await on.writer.set({"gateway.callers.app.queue_depth": 3}, ALICE)
        for number in (2**53 + 1, str(10**30)):
            with pytest.raises(InvalidRequest, match="the number is beyond 9007199254740992"):
                await on.writer.set({"gateway.limits.queue_depth": number}, ALICE)
        with pytest.raises(InvalidRequest, match="finite"):
            await on.writer.set({"gateway.request_timeout_s": float("inf")}, ALICE)
        assert (await on.writer.document()).revision == 0
        assert on.every[0].hot.settings == SETTINGS


async def test_the_second_of_two_admins_learns_who_was_first_and_what_is_there(own_nats: RunningNats) -> None:
    async with gateways(own_nats, 2) as on:
        seen = (await on.writer.document()).revision
        await on.set(ChangeNote(by="alice", expected_revision=seen), gateway__max_in_flight=7)
        late = ChangeNote(by="bob", expected_revision=seen)
        with pytest.raises(SettingsConflict, match=r"by alice with change 1.*gateway\.max_in_flight = 7"):
            await on.every[1].writer.set({"gateway.max_in_flight": 9}, late)
        assert await on.every[1].writer.set({"gateway.max_in_flight": 7}, late) is None, (
            "it is as bob wants it"
        )
        assert await on.every[1].writer.set({"gateway.limits.queue_depth": 9}, late) is not None
        with pytest.raises(SettingsConflict, match="revision 50 is expected"):
            await on.writer.unset(["gateway.max_in_flight"], ChangeNote(by="bob", expected_revision=50))


async def test_changes_at_once_are_all_kept(own_nats: RunningNats) -> None:
    async with gateways(own_nats, 2) as on:
        await asyncio.gather(
            *(
                each.writer.set({f"gateway.callers.c{number}-{index}.key": f"key-{number}-{index}-long"}, BOB)
                for number in range(5)
                for index, each in enumerate(on.every)
            )
        )
        document = await on.writer.document()
        assert (document.revision, len(document.values)) == (10, 10)
        for each in on.every:
            await each.follows(10)
            assert len(each.hot.settings.gateway.callers) == 10


async def test_a_change_is_undone_and_done_again(own_nats: RunningNats) -> None:
    async with gateways(own_nats, 2) as on:
        first = await on.set(gateway__max_in_flight=7, gateway__limits__queue_depth=3)
        undone = await on.writer.undo(first, BOB)
        assert undone is not None
        assert undone.undoes == first
        for each in on.every:
            await each.follows(undone.id)
            assert each.hot.settings.gateway == SETTINGS.gateway
        with pytest.raises(
            SettingsConflict, match=f"change {first} is undone already, by bob.*undo {undone.id}"
        ):
            await on.writer.undo(first, ALICE)
        again = await on.writer.undo(undone.id, ALICE)
        assert again is not None
        await on.every[0].follows(again.id)
        assert on.every[0].hot.settings.gateway.max_in_flight == 7
        assert [change.id for change in await on.writer.history()] == [again.id, undone.id, first]
        assert (await on.writer.undo(first, ALICE)) is not None, "it is in force again"


async def test_a_change_that_was_overwritten_is_undone_by_force_only(own_nats: RunningNats) -> None:
    async with gateways(own_nats, 1) as on:
        first = await on.set(gateway__max_in_flight=7)
        second = await on.set(BOB, gateway__max_in_flight=8)
        with pytest.raises(SettingsConflict, match=f"by bob with change {second}"):
            await on.writer.undo(first, ALICE)
        assert await on.writer.undo(first, replace(ALICE, force=True)) is not None
        await on.every[0].follows(3)
        assert on.every[0].hot.settings.gateway.max_in_flight == 1024
        with pytest.raises(UnknownChange, match="1 to 3"):
            await on.writer.undo(99, ALICE)


async def test_a_gateway_that_starts_later_has_the_settings(own_nats: RunningNats) -> None:
    async with gateways(own_nats, 1) as on:
        await on.set(
            gateway__callers__app__key="key-of-app", gateway__max_in_flight=7, gateway__max_connections=9
        )
        late = await on.start(http=HttpServer(SETTINGS.gateway))
        assert late.running.connections.settings.max_connections == 9
        assert late.hot.settings.gateway.max_in_flight == 7
        assert await late.ask() == 401
        assert await late.ask("key-of-app") == 200


async def test_the_writer_says_who_follows(own_nats: RunningNats) -> None:
    async with gateways(own_nats) as on:
        change = await on.writer.set({"gateway.max_in_flight": 7}, ALICE)
        assert change is not None
        states = await on.writer.followers(change.id)
        assert [each.revision for each in states] == [change.id] * 3
        assert {each.role for each in states} == {"gateway"}


async def test_a_change_waits_for_nats_to_come_back_and_all_catch_up(own_nats: RunningNats) -> None:
    async with gateways(own_nats) as on:
        own_nats.kill()
        await eventually(lambda: not any(each.bus.connected for each in on.every))
        changing = asyncio.create_task(on.writer.set({"gateway.max_in_flight": 7}, ALICE))
        own_nats.restart()
        assert await changing is not None
        for each in on.every:
            await each.follows(1)


async def test_a_gateway_that_was_cut_off_during_a_change_catches_up(own_nats: RunningNats) -> None:
    async with gateways(own_nats) as on:
        away = on.every[2]
        away.bus.nats.abort()
        await on.writer.set({"gateway.max_in_flight": 7}, ALICE)
        for each in on.every:
            await each.follows(1)


async def test_without_nats_a_change_ends_with_a_clear_error(
    own_nats: RunningNats, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("actors.config.settings_writer.RETRY_S", 0.3)
    async with gateways(own_nats, 1) as on:
        own_nats.kill()
        with pytest.raises(BusUnavailable, match="orchestra config history"):
            await on.writer.set({"gateway.max_in_flight": 7}, ALICE)
        own_nats.restart()
        await eventually(lambda: on.every[0].bus.connected)


async def test_a_write_that_nats_did_not_pass_on_is_found_later(
    own_nats: RunningNats, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("actors.config.settings_follower.REREAD_S", 0.2)
    async with gateways(own_nats, 2) as on:
        deaf = on.every[1]
        await deaf.follower.subscriptions[0].unsubscribe()
        await on.writer.set({"gateway.max_in_flight": 7}, ALICE)
        for each in on.every:
            await each.follows(1)


async def test_a_process_that_hears_of_a_newer_revision_reads_it(own_nats: RunningNats) -> None:
    async with gateways(own_nats, 2) as on:
        deaf = on.every[1]
        await deaf.follower.subscriptions[0].unsubscribe()
        change = await on.writer.set({"gateway.max_in_flight": 7}, ALICE)
        assert change is not None
        states = await on.writer.followers(change.id)
        assert [state.revision for state in states] == [1, 1]


async def test_a_process_that_cannot_use_a_change_says_why(own_nats: RunningNats) -> None:
    strict = Settings.model_validate(
        {"gateway": {"http": "127.0.0.1:0", "callers": {"app": {"key": "key-of-app"}}}}
    )
    async with gateways(own_nats, 1) as on:
        await on.start(strict)
        change = await on.writer.set({"gateway.callers.other.key": "key-of-app"}, ALICE)
        assert change is not None, "it is valid where it was written"
        states = await on.writer.followers(change.id)
        assert sorted(state.revision for state in states) == [0, 1]
        refused = next(state for state in states if state.refused)
        assert "two callers have the same key" in refused.refused
        assert await on.every[1].ask("key-of-app") == 200, "it goes on with what it had"


async def test_a_bucket_that_was_deleted_or_restored_is_followed(own_nats: RunningNats) -> None:
    async with gateways(own_nats, 2) as on:
        for number in range(5, 9):
            await on.set(gateway__max_in_flight=number)
        await on.writer.bucket.delete("cluster")
        for each in on.every:
            await each.follows(0)
            assert each.hot.settings.gateway.max_in_flight == 1024
        await on.set(gateway__max_in_flight=3)
        older = ClusterSettings().changed((), by="backup", reason="")
        for number in range(7):
            older = older.changed((), by="backup", reason=str(number))
        await on.writer.bucket.put("cluster", older.model_dump_json().encode())
        for each in on.every:
            await each.follows(8)
        await on.writer.bucket.put(
            "cluster", ClusterSettings().changed((), by="", reason="").model_dump_json().encode()
        )
        for each in on.every:
            await each.follows(1)


async def test_what_is_no_document_changes_nothing_and_says_so(own_nats: RunningNats) -> None:
    async with gateways(own_nats, 1) as on:
        await on.set(gateway__max_in_flight=5)
        await on.writer.bucket.put("cluster", b"rubbish")
        await eventually(lambda: on.every[0].hot.refused)
        assert on.every[0].hot.settings.gateway.max_in_flight == 5
        with pytest.raises(InvalidRequest, match="delete the key"):
            await on.writer.set({"gateway.max_in_flight": 6}, ALICE)


async def test_a_change_whose_acknowledgement_is_lost_is_made_and_told_once(
    own_nats: RunningNats, monkeypatch: pytest.MonkeyPatch
) -> None:
    put = Bucket.put
    lost: list[int] = []

    async def lossy(bucket: Bucket, key: str, value: bytes, **options: Any) -> int:
        revision = await put(bucket, key, value, **options)
        if bucket.name == "settings" and not lost:
            lost.append(revision)
            raise BusUnavailable("the connection to NATS was lost before the answer")
        return revision

    async with gateways(own_nats, 1) as on:
        first = await on.set(gateway__max_in_flight=5)
        monkeypatch.setattr(Bucket, "put", lossy)
        undone = await on.writer.undo(first, BOB)
        assert lost
        assert undone is not None
        assert (undone.id, undone.undoes) == (2, first)
        assert (await on.writer.document()).revision == 2
