"""Every error Orchestra raises on purpose, and how each travels.

    OrchestraError                 status  code                     retryable
    ├── InvalidRequest                400  invalid_request          no
    │   ├── ContextTooLong            400  context_length_exceeded  no
    │   ├── InvalidGuide              400  invalid_guide            no
    │   └── NotRecorded               400  not_recorded             no
    ├── UnknownModel                  404  unknown_model            no
    ├── PayloadTooLarge               413  payload_too_large        no
    ├── Overloaded                    429  overloaded               yes, after a while
    │   ├── QueueFull                 429  queue_full               yes
    │   ├── NodeBusy                  429  node_busy                yes, on another node
    │   ├── RateLimited               429  rate_limit_exceeded      yes, on another node or after a while
    │   └── MailboxFull               429  mailbox_full             yes
    ├── BudgetExceeded                402  budget_exceeded          no
    ├── Cancelled                     499  cancelled                no
    │   └── CancelledByOperator       499  cancelled_by_operator    no
    ├── BackendFailed                 502  backend_failed           yes, on another node
    │   ├── NoOutput                  502  no_output                yes, on another node
    │   └── ContentFiltered           400  content_filter           no
    ├── Unavailable                   503  unavailable              yes
    │   ├── NoNode                    503  no_node                  yes
    │   ├── NodeLost                  503  node_lost                yes, on another node
    │   ├── NoResponders              503  no_responders            yes
    │   ├── ServerBusy                503  server_busy              yes, on another node or after a while
    │   ├── CannotContinue            503  cannot_continue          yes, on another node
    │   ├── ShuttingDown              503  shutting_down            yes, elsewhere
    │   ├── StorageFull               507  storage_full             yes, once there is room
    │   └── BusUnavailable            503  bus_unavailable          yes
    ├── DeadlineExceeded              504  deadline_exceeded        no
    └── InternalError                 500  internal_error           no

`status` is the HTTP status, `code` the stable word for programs. An error crosses the bus as an
`ErrorBody` and is raised again as the same class on the other side.
"""

from __future__ import annotations

from typing import ClassVar

from orchestration.wire import ErrorBody

MAX_MESSAGE = 8_192
"""Characters of an error's message; what is beyond is cut off. It may quote what a server or plug-in said."""


class OrchestraError(Exception):
    """The root. Subclasses fix `status`, `code` and `retryable`."""

    status: ClassVar[int] = 500
    code: ClassVar[str] = "internal_error"
    retryable: ClassVar[bool] = False

    def __init__(self, message: str, *, param: str | None = None, retry_after_s: float | None = None) -> None:
        message = _sendable(message)
        super().__init__(message)
        self.message = message
        self.param = param
        self.retry_after_s = retry_after_s

    def body(self) -> ErrorBody:
        """What crosses the bus."""
        return ErrorBody(
            code=self.code,
            message=self.message,
            status=self.status,
            retryable=self.retryable,
            param=self.param,
            retry_after_s=self.retry_after_s,
        )


def _sendable(message: str) -> str:
    """The message as it fits into any answer; lone surrogates, which cannot be encoded, become `?`."""
    if len(message) > MAX_MESSAGE:
        message = f"{message[:MAX_MESSAGE]}… ({len(message) - MAX_MESSAGE} more characters)"
    return message if message.isascii() else message.encode(errors="replace").decode()


class InvalidRequest(OrchestraError):
    """The request is invalid and can never succeed as it is; `param` names the field."""

    status = 400
    code = "invalid_request"


class ContextTooLong(InvalidRequest):
    """The prompt and the asked-for tokens do not fit the model's context."""

    code = "context_length_exceeded"

    @classmethod
    def of(cls, model: str, tokens: int, limit: int) -> ContextTooLong:
        return cls(
            f"the prompt has {tokens} tokens, and model {model!r} has a context of {limit} tokens",
            param="messages",
        )


class InvalidGuide(InvalidRequest):
    """A JSON schema or regular expression that cannot guide a generation."""

    code = "invalid_guide"


class NotRecorded(InvalidRequest):
    """A node that replays recorded answers has none to the question."""

    code = "not_recorded"


class UnknownModel(OrchestraError):
    """No node has ever served the model."""

    status = 404
    code = "unknown_model"

    @classmethod
    def of(cls, model: str, known: list[str]) -> UnknownModel:
        names = ", ".join(sorted(known)) or "none"
        return cls(f"no model {model!r}; known models: {names}", param="model")


class PayloadTooLarge(OrchestraError):
    """The body of the request exceeds `gateway.max_body_bytes`, or the smaller limit of its operation."""

    status = 413
    code = "payload_too_large"

    @classmethod
    def of(cls, size: int, limit: int, name: str = "gateway.max_body_bytes") -> PayloadTooLarge:
        """The error for a body of `size` bytes above a limit that is called `name`."""
        return cls(f"the body of {size} bytes exceeds {name} {limit}")


class Overloaded(OrchestraError):
    """A limit was reached; the message names it. `Retry-After` says when to try again."""

    status = 429
    code = "overloaded"
    retryable = True


class QueueFull(Overloaded):
    """A queue or a bucket in NATS has reached its limit."""

    code = "queue_full"


class NodeBusy(Overloaded):
    """All slots of the node are taken, and its queue is full."""

    code = "node_busy"


class RateLimited(Overloaded):
    """The server behind a node has reached a rate limit of the model. `Retry-After` is the wait that it asked
    for, if any."""

    code = "rate_limit_exceeded"


class MailboxFull(Overloaded):
    """Too many messages wait for one part of a process."""

    code = "mailbox_full"


class BudgetExceeded(OrchestraError):
    """The budget of the run is used up: a step was not started, or was cut off. Patterns then end with the
    results that they have."""

    status = 402  # not 429, which clients try again
    code = "budget_exceeded"


class Cancelled(OrchestraError):
    """The client cancelled the request or closed its connection."""

    status = 499
    code = "cancelled"


class CancelledByOperator(Cancelled):
    """An operator cancelled the run, or purged its queue; the message has the reason."""

    code = "cancelled_by_operator"

    @classmethod
    def of(cls, what: str, by: str, reason: str) -> CancelledByOperator:
        return cls(f"{what} was cancelled by an operator ({by}){f': {reason}' if reason else ''}")


class BackendFailed(OrchestraError):
    """The backend answered with an error, or with something that is not an answer."""

    status = 502
    code = "backend_failed"
    retryable = True


class NoOutput(BackendFailed):
    """The backend accepted the generation, and then wrote nothing for too long."""

    code = "no_output"


class ContentFiltered(BackendFailed):
    """A content filter of the provider stopped the answer. The same request would be stopped again."""

    status = 400
    code = "content_filter"
    retryable = False


class Unavailable(OrchestraError):
    """A part that is needed for the request is not available now."""

    status = 503
    code = "unavailable"
    retryable = True


class NoNode(Unavailable):
    """No live node serves the model."""

    code = "no_node"


class NodeLost(Unavailable):
    """The node died during the generation."""

    code = "node_lost"


class NoResponders(Unavailable):
    """No process listens on the subject of a request within the cluster."""

    code = "no_responders"


class ServerBusy(Unavailable):
    """The server behind a node is overloaded. `Retry-After` is the wait that it asked for, if any."""

    code = "server_busy"


class CannotContinue(Unavailable):
    """The node cannot continue an answer that another node began."""

    code = "cannot_continue"


class ShuttingDown(Unavailable):
    """The process that worked on it was stopped before it finished."""

    code = "shutting_down"


class StorageFull(Unavailable):
    """The disk of queues, jobs and the registry is full; the message names it."""

    status = 507
    code = "storage_full"


class BusUnavailable(Unavailable):
    """NATS cannot be reached."""

    code = "bus_unavailable"


class DeadlineExceeded(OrchestraError):
    """The request was not answered before its deadline."""

    status = 504
    code = "deadline_exceeded"


class InternalError(OrchestraError):
    """An unexpected exception: a defect of Orchestra, not of the request. The log has its traceback."""


SERVER_LIMITS = (RateLimited, ServerBusy)
"""A server refuses work for a while: neither the request nor the node is at fault."""


def _classes(root: type[OrchestraError]) -> dict[str, type[OrchestraError]]:
    found = {root.code: root}
    for child in root.__subclasses__():
        found.update(_classes(child))
    return found


_BY_CODE = _classes(OrchestraError) | {InternalError.code: InternalError}
_BY_STATUS: dict[int, type[OrchestraError]] = {
    400: InvalidRequest,
    404: UnknownModel,
    409: InvalidRequest,
    413: PayloadTooLarge,
    429: Overloaded,
    502: BackendFailed,
    503: Unavailable,
    504: DeadlineExceeded,
}


def from_body(body: ErrorBody) -> OrchestraError:
    """The error that `OrchestraError.body` has described.

    A code that is not in the tree above (of another package, or of a later version) becomes the general error
    of its status, so it is still refused, retried and reported correctly.
    """
    kind = _BY_CODE.get(body.code) or _BY_STATUS.get(body.status, InternalError)
    return kind(body.message, param=body.param, retry_after_s=body.retry_after_s)
