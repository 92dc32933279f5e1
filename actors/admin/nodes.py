"""Nodes, as operators see and change them."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import AfterValidator, Field
from pydantic_core import to_json

from actors.admin.audit import Changed
from actors.admin.requests import ChangeRequest, NotThere, PageRequest, Refused, page_of
from actors.bus.bus import Bus
from actors.bus.key_value import Bucket, Conflict
from actors.bus.subjects import NodeAddress
from actors.cluster.registry import BUCKET, Registry
from actors.gateway.operation import CallContext, Reply
from actors.models.errors import ModelStorage
from actors.runtime.envelope import Envelope
from actors.runtime.service import ERROR
from orchestration.errors import DeadlineExceeded, NoResponders, from_body
from orchestration.messages import ErrorBody, LabelNode, NodeInfo, NodeLabels, Wire
from orchestration.validation import TextForm

PING_S = 1.0
LabelName = Annotated[str, TextForm.name("_./-", 64)]


class NodeId(Wire):
    """The id of a node."""

    id: str = Field(min_length=1, max_length=128)
    """Id of the node."""


class NodeChange(ChangeRequest):
    """A change of one node."""

    id: str = Field(min_length=1, max_length=128)
    """Id of the node."""


class DrainNode(NodeChange):
    """A drain: the node takes no new work, finishes its own or moves it to other nodes, and leaves."""

    force: bool = False
    """Also drain the last node of a model, whose requests then wait."""


def _one_line(value: str) -> str:
    if not value.isprintable():
        raise ValueError("a label's value is one line, without control characters")
    return value


class ChangeLabels(NodeChange):
    """Labels to set and to remove, until the node ends."""

    labels: dict[LabelName, Annotated[str, Field(max_length=256), AfterValidator(_one_line)]] = Field(
        default_factory=dict, max_length=64
    )
    """Labels to set, with their values: one line of at most 256 characters."""
    remove: tuple[str, ...] = Field(default=(), max_length=64)
    """Names of labels to remove."""


class NodesAdmin:
    """The handlers of the operations on nodes."""

    def __init__(self, bus: Bus, registry: Registry) -> None:
        self.bus = bus
        self.registry = registry

    def nodes(self) -> dict[str, NodeInfo]:
        """The live nodes by id, those that drain included."""
        every = (*self.registry.nodes.values(), *self.registry.draining.values())
        return {node.id: node for node in every}

    def node(self, node_id: str, param: str = "id") -> NodeInfo:
        """Raises `NotThere` with the nodes that are there; `param` is the parameter that names the node."""
        nodes = self.nodes()
        if node_id not in nodes:
            raise NotThere.of("live node", node_id, nodes, param)
        return nodes[node_id]

    async def list_nodes(self, request: PageRequest, call: CallContext) -> Reply:
        nodes = sorted(self.nodes().values(), key=lambda node: node.id)
        return Reply(body=to_json(page_of(nodes, request, lambda node: node.id, node_summary)))

    async def inspect(self, request: NodeId, call: CallContext) -> Reply:
        return Reply(body=to_json(node_details(self.node(request.id))))

    async def drain(self, request: DrainNode, call: CallContext) -> Changed:
        """Raises `NotThere`, and `Refused` for the last node of a model without `force`."""
        node = self.node(request.id)
        alone = [card.name for card in node.models if self._is_last(node, card.name)]
        if alone and not request.force and not node.draining:
            raise Refused(
                f"node {node.id!r} is the last one that serves {', '.join(alone)}: "
                "start another one first, or drain it with force"
            )
        unfinished = node.running
        if not node.draining:
            try:
                unfinished = int((await self.bus.request(NodeAddress(node.id).drain)).data)
            except NoResponders:
                raise NotThere.of("live node", node.id, self.nodes().keys() - {node.id}, "id") from None
        return Changed(
            target=node.id,
            before={"state": "draining" if node.draining else "serving"},
            after={"state": "draining", "alone": alone},
            changed=not node.draining,
            body={"id": node.id, "state": "draining", "unfinished": unfinished},
            about={"node": node.id},
        )

    def _is_last(self, node: NodeInfo, model: str) -> bool:
        return not any(other.id != node.id for other in self.registry.serving(model))

    async def label(self, request: ChangeLabels, call: CallContext) -> Changed:
        """Set and remove labels. The node forgets the change when it ends."""
        node = self.node(request.id)
        wanted = LabelNode(labels=request.labels, remove=request.remove)
        answer = await ask_node(self.bus, node.id, NodeAddress(node.id).label, wanted, param="id")
        labels = NodeLabels.model_validate_json(answer)
        return Changed(
            target=node.id,
            before=labels.before,
            after=labels.after,
            changed=labels.before != labels.after,
            body={"id": node.id, "labels": labels.after},
            about={"node": node.id},
        )

    async def remove(self, request: NodeChange, call: CallContext) -> Changed:
        """Forget a node that has died, before its lease expires. Raises `NotThere`, and `Refused` for a node
        that answers or still has a connection."""
        bucket = Bucket(self.bus, BUCKET)
        entry = await bucket.latest(request.id, sure=True)
        if entry.value is None:
            raise NotThere.of("node", request.id, self.nodes(), "id")
        try:
            await self.bus.request(NodeAddress(request.id).ping, timeout=PING_S)
        except NoResponders:
            pass
        except DeadlineExceeded:
            raise Refused(
                f"node {request.id!r} has a connection to NATS, though it does not answer: stop its process"
            ) from None
        else:
            raise Refused(f"node {request.id!r} is alive: drain it instead")
        try:
            await bucket.delete_at(request.id, entry.revision)
        except Conflict:
            raise Refused(f"node {request.id!r} has just renewed its entry: it is alive") from None
        info = NodeInfo.model_validate_json(entry.value)
        return Changed(
            target=request.id,
            before={"models": [card.name for card in info.models], "backend": info.backend},
            after=None,
            body={"id": request.id, "state": "removed"},
            about={"node": request.id},
        )


async def ask_node(
    bus: Bus, node: str, subject: str, request: Wire, timeout_s: float = 10.0, *, param: str = "node"
) -> bytes:
    """The answer of a node. Raises its error, `DeadlineExceeded`, and `NotThere` if it is not alive; `param`
    is the parameter that names the node."""
    headers = Envelope.within(timeout_s).headers()
    try:
        body = request.model_dump_json().encode()
        answer = await bus.request(subject, body, headers=headers, timeout=timeout_s)
    except NoResponders:
        raise NotThere(f"node {node!r} has left the cluster", param=param) from None
    if answer.header(ERROR):
        error = ErrorBody.model_validate_json(answer.data)
        if error.code == ModelStorage.code:
            raise ModelStorage(error.message)
        raise from_body(error)
    return answer.data


def node_summary(node: NodeInfo) -> dict[str, Any]:
    """A node in a list."""
    return {
        "id": node.id,
        "state": "draining" if node.draining else "serving",
        "backend": node.backend,
        "models": [card.name for card in node.models],
        "loaded": [card.name for card in node.models if card.loaded],
        "labels": node.labels,
        "slots": node.slots,
        "running": node.running,
        "started_at": node.started_at,
    }


def node_details(node: NodeInfo) -> dict[str, Any]:
    """Everything that is known of a node."""
    state = "draining" if node.draining else "serving"
    return {"state": state} | node.model_dump(mode="json")
