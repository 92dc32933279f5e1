"""Resolves the model of a request, and checks that a node can serve it.

The name of a real model means a generation, `orchestra/<pattern>` a run.
"""

from __future__ import annotations

from typing import Literal

from actors.cluster.registry import Registry
from actors.gateway.errors import PatternDisabled
from actors.gateway.fields import UPSTREAM, Upstreams
from orchestration.errors import DeadlineExceeded, InvalidRequest, NoNode, OrchestraError, UnknownModel
from orchestration.messages import ModelCard, NodeInfo, Work
from orchestration.patterns import BUILT_IN, Catalogue, Pattern
from orchestration.virtual_models import pattern_name

WAY_OUT = "start one with `orchestra node`, or everything with `orchestra up`"
ModelKind = Literal["chat", "embedding"]


class ModelResolver:
    """Reads the registry's local copy. Its views are immutable, so the cards are computed once per view."""

    def __init__(self, registry: Registry, wait_for_node_s: float, catalogue: Catalogue = BUILT_IN) -> None:
        self.registry = registry
        self.catalogue = catalogue
        self.wait_for_node_s = wait_for_node_s
        self._view: dict[str, NodeInfo] | None = None
        self._cards: dict[str, ModelCard] = {}

    @property
    def cards(self) -> dict[str, ModelCard]:
        """The real models that are served now, by name."""
        if self._view is not self.registry.nodes:
            self._view = self.registry.nodes
            self._cards = self.registry.cards
        return self._cards

    def pattern(self, model: str) -> Pattern | None:
        """Return the pattern that `model` names, or None for a real model's name. Raises `UnknownModel` and
        `PatternDisabled`."""
        name = pattern_name(model)
        if name is None:
            return None
        order = self.registry.orders.current.disabled_patterns.get(name)
        if order is not None:
            why = f": {order.reason}" if order.reason else ""
            raise PatternDisabled(f"an operator has disabled the pattern {name!r}{why}", param="model")
        return self.catalogue.find(name, self.cards)

    def need_node(self) -> None:
        """Raise `NoNode` if no node is alive, nor was in the last `wait_for_node_s`."""
        if not self.registry.served_within(self.wait_for_node_s):
            raise NoNode(f"no node that serves a model is alive; {WAY_OUT}", retry_after_s=2)

    def need_model(self, model: str, kind: ModelKind, *, param: str = "model") -> None:
        """Raise `UnknownModel`, `NoNode`, or `InvalidRequest` for a model of another kind.

        A model that was served in the last `wait_for_node_s` is accepted: its requests wait for a node.
        """
        card = self.registry.card(model)
        can_wait = self.registry.served_within(self.wait_for_node_s, model)
        if card is None and can_wait:
            card = self.registry.known.get(model)
        if card is not None and card.kind != kind:
            makes = "embeddings: use /v1/embeddings" if card.kind == "embedding" else "text, not embeddings"
            raise InvalidRequest(f"model {model!r} makes {makes}", param=param)
        if card is not None or can_wait:
            return
        if model in self.registry.known:
            raise NoNode(f"no node that is alive serves model {model!r}; {WAY_OUT}", retry_after_s=2)
        if not self.cards:
            raise NoNode(f"no node that serves a model is alive; {WAY_OUT}", retry_after_s=2)
        error = UnknownModel.of(model, self.known())
        error.param = param
        raise error

    def upstreams(self, model: str | None) -> Upstreams:
        """Return which of the nodes that may answer for `model` have an upstream; None is any chat model."""
        if model is None:
            chats = {card.name for card in self.cards.values() if card.kind == "chat"}
            nodes = [node for node in self.registry.nodes.values() if any(map(node.serves, chats))]
        else:
            card = self.registry.card(model)
            nodes = [] if card is None else self.registry.serving(card.name)
        having = [node for node in nodes if node.backend == UPSTREAM["backend"]]
        if nodes and len(having) == len(nodes):
            return Upstreams.ALL
        return Upstreams.SOME if model is not None and (having or not nodes) else Upstreams.NONE

    def missed_deadline(self, work: Work, error: DeadlineExceeded) -> OrchestraError:
        """Return the error of work without an event until its deadline: `NoNode` if no node serves it."""
        model = work.model
        if self.cards if model is None else self.registry.card(model):
            return error
        which = "a model" if model is None else f"model {model!r}"
        return NoNode(
            f"no node that serves {which} joined in time: {error.message}; {WAY_OUT}", retry_after_s=2
        )

    def known(self) -> list[str]:
        """All model names that can be used now."""
        return [*self.cards, *self.catalogue.virtual_models]
