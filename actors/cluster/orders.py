"""Standing orders of operators: what is paused, forced or cleared, the same for all processes.

They are one entry of the bucket `orders`, so that a change is one conditional write and all processes follow
it at once. They stay until an operator takes them back, also over restarts.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Literal

from pydantic import Field

from actors.bus.bus import Bus, Subscription
from actors.bus.key_value import Bucket, Entry, read_document
from orchestration.errors import InvalidRequest, OrchestraError
from orchestration.messages import Wire

log = logging.getLogger(__name__)

BUCKET = "orders"
KEY = "orders"
CHECK_S = 10.0
"""Time between two readings of the entry, in case a change was not heard of."""
MAX_ORDERS = 500
"""Maximum orders of each kind: every process reads all of them."""
RUNS = "runs"
"""The queue of runs, as orders name it."""
GENERATIONS = "generations/"
"""What the names of the queues of models begin with."""


class Order(Wire):
    """Who ordered something, when (Unix seconds), and why."""

    by: str
    at: float
    reason: str = ""

    @property
    def text(self) -> str:
        """Who and why, such as `by olga: repair`."""
        return f"by {self.by}: {self.reason}" if self.reason else f"by {self.by}"


class CacheClear(Wire):
    """Responses stored before `at` (Unix seconds) are not used, of all models and namespaces where empty."""

    model: str = ""
    namespace: str = ""
    at: float


class Orders(Wire):
    """All standing orders. `number` grows by 1 with each change."""

    number: int = 0
    paused: dict[str, Order] = Field(default_factory=dict)
    """The paused queues: `runs`, or `generations/<model>`."""
    open_breakers: dict[str, Order] = Field(default_factory=dict)
    """The breakers that operators hold open, as `<model> on <node>`."""
    disabled_patterns: dict[str, Order] = Field(default_factory=dict)
    cleared: tuple[CacheClear, ...] = ()

    @classmethod
    def read(cls, value: bytes | None) -> Orders:
        """Parse the entry's value; None means no orders. Raises `InvalidRequest` for an invalid one."""
        return read_document(cls, value, (BUCKET, KEY), "holds no orders", again="give the orders again")


Edit = Callable[[Orders], Orders]
Kind = Literal["paused", "open_breakers", "disabled_patterns"]


def add_order(kind: Kind, name: str, order: Order) -> Edit:
    """The edit that gives an order, unless there is one of that kind and name: then that stays."""

    def edit(orders: Orders) -> Orders:
        given: dict[str, Order] = getattr(orders, kind)
        return orders if name in given else orders.model_copy(update={kind: given | {name: order}})

    return edit


def remove_orders(kind: Kind, matches: Callable[[str], bool]) -> Edit:
    """The edit that takes back all orders of that kind whose names match."""

    def edit(orders: Orders) -> Orders:
        given: dict[str, Order] = getattr(orders, kind)
        kept = {name: order for name, order in given.items() if not matches(name)}
        return orders.model_copy(update={kind: kept})

    return edit


class OrderBook:
    """Follows the standing orders of a cluster, for the roles of one process.

    Read `current`, `runs_paused` and `paused_models`. Callbacks in `on_change` are called after each change.
    """

    def __init__(self, bus: Bus) -> None:
        self.bus = bus
        self.current = Orders()
        self.runs_paused = False
        self.paused_models: frozenset[str] = frozenset()
        self.on_change: list[Callable[[], None]] = []
        self._bucket = Bucket(bus, BUCKET)
        self._subscription: Subscription | None = None
        self._checking: asyncio.Task[None] | None = None
        self._check_now = asyncio.Event()

    async def start(self) -> None:
        """Returns once the present orders are known."""
        self._subscription = await self._bucket.watch(self._written)
        self.bus.on_reconnect.append(self._check_now.set)
        self._checking = asyncio.get_running_loop().create_task(self._check())

    async def stop(self) -> None:
        if self._check_now.set in self.bus.on_reconnect:
            self.bus.on_reconnect.remove(self._check_now.set)
        if self._checking is not None:
            self._checking.cancel()
        if self._subscription is not None:
            await self._subscription.unsubscribe()

    def cleared_at(self, model: str, namespace: str) -> float:
        """When an operator last cleared cached responses of a model and namespace; 0: never."""
        if not self.current.cleared:
            return 0.0
        return max(
            (
                clear.at
                for clear in self.current.cleared
                if clear.model in ("", model) and clear.namespace in ("", namespace)
            ),
            default=0.0,
        )

    async def change(self, edit: Edit) -> tuple[Orders, Orders]:
        """Write what `edit` makes of the present orders; returns the orders before and after. When `edit`
        returns what it got, nothing is written. Of several writers each gets the orders of the one before.

        Raises what `edit` raises, `InvalidRequest` beyond `MAX_ORDERS`, and `BusUnavailable`.
        """
        before = after = Orders()

        def write(entry: Entry) -> bytes | None:
            nonlocal before, after
            before = after = Orders.read(entry.value)
            edited = edit(before)
            if edited == before:
                return None
            after = edited.model_copy(update={"number": before.number + 1})
            for kind in (after.paused, after.open_breakers, after.disabled_patterns, after.cleared):
                if len(kind) > MAX_ORDERS:
                    raise InvalidRequest(f"limit reached: {MAX_ORDERS} standing orders of a kind; undo some")
            return after.model_dump_json(exclude_defaults=True).encode()

        await self._bucket.update(KEY, write)
        self._take(after)
        return before, after

    def _written(self, value: bytes | None, subject: str) -> None:
        try:
            self._take(Orders.read(value))
        except InvalidRequest as error:
            log.warning("the orders of operators are not followed here: %s", error.message)

    def _take(self, orders: Orders, *, sure: bool = False) -> None:
        """Follow newer orders, and with `sure` also others: the entry was deleted, or restored from a
        backup."""
        if orders.number <= self.current.number and not sure:
            if orders != self.current:
                self._check_now.set()
            return
        if orders == self.current:
            return
        self.current = orders
        self.runs_paused = RUNS in orders.paused
        self.paused_models = frozenset(
            queue.removeprefix(GENERATIONS) for queue in orders.paused if queue.startswith(GENERATIONS)
        )
        for call in list(self.on_change):
            call()

    async def _check(self) -> None:
        while True:
            try:
                async with asyncio.timeout(CHECK_S):
                    await self._check_now.wait()
            except TimeoutError:
                pass
            self._check_now.clear()
            before = self.current
            try:
                orders = Orders.read((await self._bucket.latest(KEY, sure=True)).value)
                if self.current is before:  # else newer ones have come since they were read
                    self._take(orders, sure=True)
            except OrchestraError as error:
                log.debug("cannot read the orders of operators: %s", error)


async def read_orders(bus: Bus) -> Orders:
    """The present standing orders; none where they cannot be read, as in a cluster of an older version."""
    try:
        return Orders.read((await Bucket(bus, BUCKET).latest(KEY)).value)
    except OrchestraError as error:
        log.debug("cannot read the orders of operators: %s", error)
        return Orders()
