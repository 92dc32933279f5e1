"""Labels of metrics whose values come from outside, such as names of models and nodes.

A value that callers can make up never becomes a label: what the cluster does not know is `other`. What it
knows is bounded as well, and always readable in one line of the exposition.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from prometheus_client import Counter

OTHER = "other"
"""The label of every value that is unknown, or beyond the limit."""
MAX_LABEL_LENGTH = 120
"""Maximum characters of a label."""
GONE_S = 600.0
"""How long a node that left keeps its labels, in seconds."""

_OVER_LIMIT = Counter(
    "orchestra_label_values_over_limit",
    "Times that a value became the label other, because telemetry.max_label_values was reached",
    ["label"],
)


def clean_label(value: str) -> str:
    """`value` as a label: one printable line of at most `MAX_LABEL_LENGTH` characters. Half surrogate pairs,
    which cannot be sent as UTF-8, newlines and the like become `_`."""
    if value.isprintable() and len(value) <= MAX_LABEL_LENGTH:
        return value
    return "".join(char if char.isprintable() else "_" for char in value[:MAX_LABEL_LENGTH])


class BoundedLabel:
    """The values of the label `name`: the first `limit` distinct ones; the others are `other`."""

    def __init__(self, name: str, limit: int = 500) -> None:
        self.limit = limit
        self._labels: dict[str, str] = {}
        self._over_limit = _OVER_LIMIT.labels(name)

    def of(self, value: str) -> str:
        """The label of `value`. Pass only values that the cluster knows, or use `known`."""
        label = self._labels.get(value)
        if label is None:
            if len(self._labels) >= self.limit:
                self._over_limit.inc()
                return OTHER
            label = self._labels[value] = clean_label(value)
        return label

    def known(self, value: str) -> str:
        """The label of a value that came from a caller: `other` unless `of` has seen it."""
        return self._labels.get(value, OTHER)

    def remove(self, value: str) -> None:
        self._labels.pop(value, None)


class NodeLabel(BoundedLabel):
    """The ids of nodes. A node that left is removed after `GONE_S`, unless it comes back; `on_removed` is
    called with its label then, to remove its series."""

    def __init__(self, name: str, limit: int = 500) -> None:
        super().__init__(name, limit)
        self.on_removed: list[Callable[[str], None]] = []
        self._left_at: dict[str, float] = {}

    def left(self, node: str) -> None:
        """The node has left the cluster."""
        if node in self._labels:
            self._left_at[node] = time.monotonic()

    def back(self, node: str) -> None:
        """The node is in the cluster after all."""
        self._left_at.pop(node, None)

    def prune(self, gone_s: float = GONE_S) -> None:
        """Remove the nodes that left more than `gone_s` seconds ago."""
        before = time.monotonic() - gone_s
        for node in [node for node, at in self._left_at.items() if at <= before]:
            del self._left_at[node]
            label = self._labels.pop(node, None)
            for removed in self.on_removed if label is not None else ():
                removed(str(label))


MODELS = BoundedLabel("model")
"""Models that a node served."""
NODES = NodeLabel("node")
"""Ids of nodes."""
PATTERNS = BoundedLabel("pattern")
"""Patterns of the catalogue."""
AGENTS = BoundedLabel("agent")
"""Roles of agents."""
TOOLS = BoundedLabel("tool")
"""Names of tools that agents have."""


def limit_labels(limit: int) -> None:
    """Set the maximum values of each label, before any is used."""
    for label in (MODELS, NODES, PATTERNS, AGENTS, TOOLS):
        label.limit = limit
