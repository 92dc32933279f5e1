"""The metrics of this process in Prometheus' text format."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import cast

from prometheus_client import (
    CONTENT_TYPE_LATEST,
    REGISTRY,
    CollectorRegistry,
    disable_created_metrics,
    generate_latest,
)
from prometheus_client.core import Metric

from actors.telemetry.labels import NODES

__all__ = ["CONTENT_TYPE_LATEST", "exposition"]

CHUNK_SAMPLES = 250
"""Samples that are written without a pause: about 2 ms."""

disable_created_metrics()  # type: ignore[no-untyped-call]


class _Families:
    """Metrics that were read already, as `generate_latest` takes them."""

    def __init__(self, families: list[Metric]) -> None:
        self._families = families

    def collect(self) -> Iterable[Metric]:
        return self._families


async def exposition(registry: CollectorRegistry = REGISTRY) -> bytes:
    """The text. The event loop goes on between its parts; each collector is read at one moment, so what
    belongs together is consistent if one collector yields it."""
    NODES.prune()
    texts: list[bytes] = []
    families: list[Metric] = []
    samples = 0
    for family in registry.collect():
        families.append(family)
        samples += len(family.samples)
        if samples >= CHUNK_SAMPLES:
            texts.append(_text(families))
            families, samples = [], 0
            await asyncio.sleep(0)
    texts.append(_text(families))
    return b"".join(texts)


def _text(families: list[Metric]) -> bytes:
    return generate_latest(cast(CollectorRegistry, _Families(families)))
