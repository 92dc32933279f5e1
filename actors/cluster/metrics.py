"""Metrics of the nodes that this process knows."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from prometheus_client import REGISTRY
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from actors.telemetry.labels import MODELS, OTHER

if TYPE_CHECKING:
    from actors.cluster.registry import Registry

GONE_MODEL_S = 3600.0
"""How long a model without nodes is reported with 0 nodes, in seconds."""


class RegisteredNodes(Collector):
    """Nodes and models as the registries of this process see them at a scrape."""

    def __init__(self) -> None:
        self.registries: list[Registry] = []
        """Those that run; all of a process see the same nodes."""

    def collect(self) -> Iterable[Metric]:
        nodes = GaugeMetricFamily(
            "orchestra_cluster_nodes",
            "Nodes that are alive: live (they take work) or draining",
            labels=["state"],
        )
        models = GaugeMetricFamily(
            "orchestra_cluster_model_nodes",
            "Nodes that take work for a model; 0 for an hour after the last one left",
            labels=["model"],
        )
        if self.registries:
            nodes.add_metric(["live"], max(len(each.nodes) for each in self.registries))
            nodes.add_metric(["draining"], max(len(each.draining) for each in self.registries))
        counts: dict[str, int] = {}
        for registry in self.registries:
            for model in registry.known:
                if registry.served_within(GONE_MODEL_S, model):
                    label = MODELS.known(model)
                    counts[label] = max(counts.get(label, 0), len(registry.serving(model)))
        counts.pop(OTHER, None)
        for label, count in counts.items():
            models.add_metric([label], count)
        yield nodes
        yield models


registered_nodes = RegisteredNodes()
REGISTRY.register(registered_nodes)
