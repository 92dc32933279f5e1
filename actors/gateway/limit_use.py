"""How much of their limits callers use, as metrics. No caller is named: names are theirs, and many."""

from __future__ import annotations

import time
from collections.abc import Iterable
from typing import TYPE_CHECKING

from prometheus_client import REGISTRY
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

if TYPE_CHECKING:
    from actors.gateway.gateway import Gateway


class LimitUse(Collector):
    """The use of the limits of the gateways of this process, at a scrape."""

    def __init__(self) -> None:
        self.gateways: list[Gateway] = []
        """Those that run."""

    def collect(self) -> Iterable[Metric]:
        used = GaugeMetricFamily(
            "orchestra_gateway_token_budget_used_ratio",
            "Used share of tokens_per_minute, 0 to 1: of the caller that has used most of its own (caller), "
            "and of all callers together (all); without a limit there is no series",
            labels=["scope"],
        )
        leases = GaugeMetricFamily(
            "orchestra_gateway_quota_leases",
            "Limits of which this process holds a part, where several gateways divide them",
        )
        now = time.monotonic()
        shares: dict[str, float] = {}
        for gateway in self.gateways:
            for scope, share in gateway.limits.used_shares(now).items():
                shares[scope] = max(shares.get(scope, 0.0), share)
        for scope, share in shares.items():
            used.add_metric([scope], share)
        leases.add_metric([], sum(each.shared_limits.leases for each in self.gateways))
        yield used
        yield leases


limit_use = LimitUse()
REGISTRY.register(limit_use)
