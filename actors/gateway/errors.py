"""Errors that only the gateway raises.

OrchestraError                status  code
├── InvalidRequest
│   ├── InvalidApiKey         401     invalid_api_key
│   ├── Forbidden             403     forbidden
│   ├── PatternDisabled       403     pattern_disabled
│   ├── NotFound              404     not_found
│   ├── MethodNotAllowed      405     method_not_allowed
│   ├── RequestTimeout        408     request_timeout
│   ├── HeaderTimeout         408     header_timeout
│   ├── SlowReader            408     slow_reader
│   ├── RequestLineTooLong    414     request_line_too_long
│   ├── UnsupportedEncoding   415     unsupported_encoding
│   └── HeadTooLarge          431     head_too_large
├── Cancelled
│   └── ClientDisconnected    499     cancelled           never sent: the connection is closed
└── Unavailable
    ├── TooManyConnections    503     too_many_connections
    ├── BodyMemoryExhausted   503     body_memory_exhausted
    └── HttpPortBusy          503     http_port_busy      not retryable
"""

from __future__ import annotations

from orchestration.errors import Cancelled, InvalidRequest, Unavailable


class InvalidApiKey(InvalidRequest):
    """The settings name callers, and the request has the key of none of them."""

    status = 401
    code = "invalid_api_key"


class Forbidden(InvalidRequest):
    """The caller may not use the route: its key lacks the scope."""

    status = 403
    code = "forbidden"


class PatternDisabled(InvalidRequest):
    """An operator has disabled the pattern; the message has the reason."""

    status = 403
    code = "pattern_disabled"


class NotFound(InvalidRequest):
    """The path does not exist."""

    status = 404
    code = "not_found"


class MethodNotAllowed(InvalidRequest):
    """The path does not allow this method. The header `Allow` lists those that it allows."""

    status = 405
    code = "method_not_allowed"

    def __init__(self, message: str, *, allowed: str) -> None:
        super().__init__(message)
        self.allowed = allowed


class RequestTimeout(InvalidRequest):
    """The client did not finish its body in time."""

    status = 408
    code = "request_timeout"


class UnsupportedEncoding(InvalidRequest):
    """The body is compressed."""

    status = 415
    code = "unsupported_encoding"


class HeaderTimeout(InvalidRequest):
    """The client did not finish the headers of its request in time."""

    status = 408
    code = "header_timeout"


class SlowReader(InvalidRequest):
    """The client does not read its answer."""

    status = 408
    code = "slow_reader"


class RequestLineTooLong(InvalidRequest):
    """The path and query exceed `gateway.max_request_line_bytes`."""

    status = 414
    code = "request_line_too_long"


class HeadTooLarge(InvalidRequest):
    """The headers are too many or too long."""

    status = 431
    code = "head_too_large"


class TooManyConnections(Unavailable):
    """Too many open connections, from one address or in total."""

    code = "too_many_connections"


class BodyMemoryExhausted(Unavailable):
    """The bodies of the requests in flight exceed `max_bodies_bytes` together."""

    code = "body_memory_exhausted"


class ClientDisconnected(Cancelled):
    """The connection was closed before the answer was complete."""


class HttpPortBusy(Unavailable):
    """The HTTP address cannot be bound; the message has the cause and the remedy."""

    code = "http_port_busy"
    retryable = False
