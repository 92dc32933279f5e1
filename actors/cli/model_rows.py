"""The rows of `orchestra models list`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from actors.models.catalogue import CatalogueEntry
from actors.models.pull import Installed
from orchestration.messages import ModelCard, NodeInfo

UNKNOWN = "-"


@dataclass(slots=True, kw_only=True)
class ModelRow:
    """A model that is served, installed or can be pulled. Sizes in bytes, 0 for unknown."""

    name: str
    kind: str
    context_tokens: int = 0
    installed: bool = False
    bytes: int = 0
    download_bytes: int = 0
    weights: str = ""
    license: str = ""
    source: str = ""
    nodes: dict[str, bool] | None = None
    """The nodes that serve it, and whether it is in memory there; None without a cluster."""
    backends: set[str] = field(default_factory=set)

    def cells(self) -> tuple[str, ...]:
        """The cells of the row in a table."""
        return (
            self.name,
            self.kind,
            str(self.context_tokens or UNKNOWN),
            self._served(),
            self._size(),
            self.weights or UNKNOWN,
            self.license or UNKNOWN,
            self.source or UNKNOWN,
        )

    def as_json(self) -> dict[str, Any]:
        """The row as a JSON object."""
        return asdict(self) | {"backends": sorted(self.backends)}

    def _served(self) -> str:
        if not self.nodes:
            return UNKNOWN
        return ", ".join(node if loaded else f"{node} (not loaded)" for node, loaded in self.nodes.items())

    def _size(self) -> str:
        if self.installed:
            return _size(self.bytes)
        return f"{_size(self.download_bytes)} to pull" if self.download_bytes else UNKNOWN


def model_rows(
    models: Iterable[Installed],
    pullable: Mapping[str, CatalogueEntry],
    nodes: Iterable[NodeInfo] | None,
) -> list[ModelRow]:
    """Served models first, then installed ones, then those that can be pulled; each by name."""
    rows: dict[str, ModelRow] = {}
    for name, entry in pullable.items():
        source = entry.files["weights"].source
        rows[name] = ModelRow(
            name=name,
            kind=entry.kind,
            download_bytes=entry.download_bytes,
            license=entry.license,
            source=source,
        )
    for model in models:
        card = model.manifest
        rows[card.name] = ModelRow(
            name=card.name,
            kind=card.kind,
            context_tokens=card.context_tokens,
            installed=True,
            bytes=model.bytes,
            weights=card.weights,
            license=card.license,
            source=card.source,
        )
    for node in nodes or ():
        for served in node.models:
            _add_node(rows, node, served)
    if nodes is not None:
        for row in rows.values():
            row.nodes = row.nodes or {}
    return sorted(rows.values(), key=lambda row: (not row.nodes, not row.installed, row.name))


def _add_node(rows: dict[str, ModelRow], node: NodeInfo, served: ModelCard) -> None:
    row = rows.setdefault(served.name, ModelRow(name=served.name, kind=served.kind))
    row.nodes = (row.nodes or {}) | {node.id: served.loaded}
    row.backends.add(node.backend)
    row.context_tokens = served.context_tokens or row.context_tokens


def _size(count: float) -> str:
    return f"{count / 1e9:.2f} GB" if count >= 1e9 else f"{count / 1e6:.1f} MB"
