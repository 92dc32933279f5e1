"""What only the gateway's faces raise.

OrchestraError             status  code
├── InvalidRequest
│   ├── UnknownCaller         401  invalid_api_key
│   ├── NoSuchPath            404  not_found
│   ├── WrongMethod           405  method_not_allowed
│   ├── SlowBody              408  slow_body
│   ├── SlowHead              408  slow_head
│   ├── SlowReader            408  slow_reader
│   ├── RequestLineTooLong    414  request_line_too_long
│   ├── UnknownEncoding       415  unknown_encoding
│   └── HeadTooLarge          431  head_too_large
├── Cancelled
│   └── ClientLeft            499  cancelled           nobody is there to be told
└── Unavailable
    ├── TooManyConnections    503  too_many_connections
    ├── NoRoomForBody         503  no_room_for_body
    └── HttpPortBusy          503  http_port_busy      waiting will not help
"""

from __future__ import annotations

from orchestration.errors import Cancelled, InvalidRequest, Unavailable


class UnknownCaller(InvalidRequest):
    """Callers are named in the settings, and the request shows the key of none of them."""

    status = 401
    code = "invalid_api_key"


class NoSuchPath(InvalidRequest):
    status = 404
    code = "not_found"


class WrongMethod(InvalidRequest):
    """`allowed` are the methods of the path, for the `Allow` header."""

    status = 405
    code = "method_not_allowed"

    def __init__(self, message: str, *, allowed: str) -> None:
        super().__init__(message)
        self.allowed = allowed


class SlowBody(InvalidRequest):
    """The client did not finish its body in time."""

    status = 408
    code = "slow_body"


class UnknownEncoding(InvalidRequest):
    """The body is compressed."""

    status = 415
    code = "unknown_encoding"


class SlowHead(InvalidRequest):
    """The client did not finish the head of its request in time."""

    status = 408
    code = "slow_head"


class SlowReader(InvalidRequest):
    """The client does not read its answer."""

    status = 408
    code = "slow_reader"


class RequestLineTooLong(InvalidRequest):
    status = 414
    code = "request_line_too_long"


class HeadTooLarge(InvalidRequest):
    """The headers are too many or too long."""

    status = 431
    code = "head_too_large"


class TooManyConnections(Unavailable):
    """Of one client, or in all."""

    code = "too_many_connections"


class NoRoomForBody(Unavailable):
    """The bodies of requests at work are too long together."""

    code = "no_room_for_body"


class ClientLeft(Cancelled):
    """The connection was closed before the answer was complete."""


class HttpPortBusy(Unavailable):
    """The address cannot be listened on: the text says why and the way out."""

    code = "http_port_busy"
    retryable = False
